"""``identity sessions``: a subject's sessions, what became of them, and ending them."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from identity.cli.connection import CaFile, DataDir, Json, Target, connection
from identity.cli.failure import fail
from identity.cli.ids import TakesId

app = typer.Typer(
    help="List a subject's sessions, explain what became of one, or end them.", no_args_is_help=True
)


@app.command("list", cls=TakesId)
def list_sessions(
    subject: Annotated[str, typer.Argument(help="The subject, such as `alice`.")],
    data_dir: DataDir = None,
    target: Target = None,
    ca_file: CaFile = None,
    as_json: Json = False,
) -> None:
    """List the live sessions of a subject, newest first."""
    from google.protobuf.json_format import MessageToDict
    from rich.console import Console

    from grpc_identity.v1 import identity_service_pb2 as pb
    from grpc_identity.v1 import identity_service_pb2_grpc as pb_grpc
    from identity.cli.listing import Column, show

    found = []
    with connection(data_dir, target, ca_file, admin=True) as reached:
        stub, page_token = pb_grpc.IdentityServiceStub(reached.channel), ""
        while True:
            page = stub.ListSessions(
                pb.ListSessionsRequest(subject=subject, page_token=page_token), metadata=reached.metadata
            )
            found += page.sessions
            page_token = page.next_page_token
            if not page_token:
                break
    if as_json:
        typer.echo(json.dumps([MessageToDict(session) for session in found], indent=2))
        return
    columns = (
        Column("session"),
        Column("client"),
        Column("device", folds=True),
        Column("address"),
        Column("started"),
        Column("last used"),
    )
    rows = [
        (
            session.session_id,
            session.client_id,
            session.client_context.device_label,
            session.client_context.ip_address,
            f"{session.created_at.ToDatetime():%Y-%m-%d %H:%M:%S}",
            f"{session.last_used_at.ToDatetime():%Y-%m-%d %H:%M:%S}",
        )
        for session in found
    ]
    show(Console(), columns, rows)


@app.command()
def revoke(
    session_id: Annotated[str | None, typer.Option("--session", help="End this session.")] = None,
    subject: Annotated[
        str | None, typer.Option("--subject", help="End every session of this subject.")
    ] = None,
    all_but: Annotated[
        str | None,
        typer.Option("--all-but", help="End every session of this session's subject, but this session."),
    ] = None,
    client_id: Annotated[
        str | None, typer.Option("--client", help="End every session of this client.")
    ] = None,
    access_tokens_only: Annotated[
        bool,
        typer.Option(
            "--access-tokens-only", help="With --subject: end the access tokens, and keep the sessions."
        ),
    ] = False,
    roles: Annotated[
        list[str] | None,
        typer.Option(
            "--role", help="With --access-tokens-only: the subject's roles from now on; repeat for each."
        ),
    ] = None,
    no_roles: Annotated[
        bool, typer.Option("--no-roles", help="With --access-tokens-only: from now on, no roles at all.")
    ] = False,
    wait_seconds: Annotated[
        int,
        typer.Option(
            "--wait",
            min=0,
            max=60,
            help="Wait until every connected verifier has applied it, at most so long.",
        ),
    ] = 0,
    data_dir: DataDir = None,
    target: Target = None,
    ca_file: CaFile = None,
) -> None:
    """End one session, all of a subject, or all of a client; or only the access tokens of a subject.

    Ends with 1 if --wait was given and a verifier has not applied it in that time.
    """
    from google.protobuf.duration_pb2 import Duration

    from grpc_identity.v1 import identity_service_pb2 as pb
    from grpc_identity.v1 import identity_service_pb2_grpc as pb_grpc

    if sum(item is not None for item in (session_id, all_but, subject, client_id)) != 1:
        fail("name one of --session, --all-but, --subject and --client")
    request = pb.RevokeRequest(
        session_id=session_id,
        all_but_session_id=all_but,
        subject=subject,
        client_id=client_id,
        reason="REVOCATION_REASON_ADMINISTRATIVE",
        access_tokens_only=access_tokens_only,
        new_roles=pb.Roles(roles=roles or ()) if roles or no_roles else None,
        wait_until_applied=Duration(seconds=wait_seconds) if wait_seconds else None,
    )
    with connection(data_dir, target, ca_file, admin=True) as reached:
        answer = pb_grpc.IdentityServiceStub(reached.channel).Revoke(request, metadata=reached.metadata)
    typer.echo(
        "ended; the sessions go on with their next refresh"
        if access_tokens_only
        else "ended; none of them refreshes any more"
    )
    if wait_seconds:
        typer.echo(f"applied by {answer.applied} of {answer.connected} connected verifiers")
        if answer.pending_verifiers:
            fail(f"not yet applied by {', '.join(answer.pending_verifiers)}")


@app.command(cls=TakesId)
def explain(
    session_id: Annotated[str, typer.Argument(help="The session's id: the claim `sid`.")],
    data_dir: DataDir = None,
    target: Target = None,
    ca_file: CaFile = None,
    as_json: Json = False,
) -> None:
    """Tell why a session is over, and how it lived: for "why was I logged out?"."""
    from google.protobuf.json_format import MessageToDict
    from rich.console import Console

    from grpc_identity.v1 import admin_service_pb2 as admin_pb
    from grpc_identity.v1 import admin_service_pb2_grpc as admin_pb_grpc
    from identity.cli.session_story import story

    with connection(data_dir, target, ca_file, admin=True) as reached:
        explained = admin_pb_grpc.AdminServiceStub(reached.channel).ExplainSession(
            admin_pb.ExplainSessionRequest(session_id=session_id), metadata=reached.metadata
        )
    if as_json:
        typer.echo(json.dumps(MessageToDict(explained), indent=2))
        return
    if not explained.HasField("session"):
        fail(
            "nothing is stored of such a session; what is kept goes a day after its absolute end, or when it is erased"
        )
    console = Console(soft_wrap=True)
    for line in story(explained):
        console.print(line)


@app.command(cls=TakesId)
def erase(
    subject: Annotated[str, typer.Argument(help="The subject, such as `alice`.")],
    sure: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    data_dir: DataDir = None,
    target: Target = None,
    ca_file: CaFile = None,
) -> None:
    """Revoke everything of a subject and remove what is stored of it. The audit trail stays."""
    from grpc_identity.v1 import identity_service_pb2 as pb
    from grpc_identity.v1 import identity_service_pb2_grpc as pb_grpc

    if not sure:
        typer.confirm(f"Erase {subject}? This cannot be undone.", abort=True)
    with connection(data_dir, target, ca_file, admin=True) as reached:
        answer = pb_grpc.IdentityServiceStub(reached.channel).EraseSubject(
            pb.EraseSubjectRequest(subject=subject), metadata=reached.metadata
        )
    typer.echo(f"erased: {answer.sessions_removed} sessions, {answer.entries_removed} other entries")
