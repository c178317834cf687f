"""``identity clients``: the services that may call, and what each may do."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from identity.cli.connection import CaFile, DataDir, Json, Target, connection
from identity.cli.files import members_of
from identity.cli.settings import ConfigFile, Overrides, settings_of

if TYPE_CHECKING:
    from grpc_identity.v1 import clients_pb2

app = typer.Typer(
    help="Register clients, change what they may do, rotate their secrets.\n\nNeeds a client with the grant ADMIN.",
    no_args_is_help=True,
)

ClientId: TypeAlias = Annotated[str, typer.Argument(help="Id of the client, such as `web-login`.")]
DisplayName: TypeAlias = Annotated[str, typer.Option("--name", help="Name for people.")]
Grants: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--grant", help="What it may do: ISSUE, CLIENT_CREDENTIALS, REFRESH, REVOKE, INTROSPECT, …"),
]
Patterns: TypeAlias = Annotated[list[str] | None, typer.Option(help="Pattern; `*` is any run of characters.")]
PolicyFile: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--policy", help="JSON file with the whole policy, as `clients show` prints it.", exists=True
    ),
]
Forwards: TypeAlias = Annotated[
    bool, typer.Option("--may-forward-client-context", help="Believe the end user's address it names.")
]


@app.command("list")
def list_clients(
    data_dir: DataDir = None, target: Target = None, ca_file: CaFile = None, as_json: Json = False
) -> None:
    """List every client."""
    from google.protobuf.json_format import MessageToDict

    from grpc_identity.v1 import admin_service_pb2 as pb
    from grpc_identity.v1 import admin_service_pb2_grpc as pb_grpc

    found: list[clients_pb2.Client] = []
    with connection(data_dir, target, ca_file, admin=True) as reached:
        stub, page_token = pb_grpc.AdminServiceStub(reached.channel), ""
        while True:
            page = stub.ListClients(pb.ListClientsRequest(page_token=page_token), metadata=reached.metadata)
            found += page.clients
            page_token = page.next_page_token
            if not page_token:
                break
    if as_json:
        typer.echo(json.dumps([MessageToDict(client) for client in found], indent=2))
        return
    from rich.console import Console

    from grpc_identity.v1 import clients_pb2
    from identity.cli.listing import Column, show

    columns = (Column("client"), Column("name", folds=True), Column("grants", folds=True), Column("state"))
    rows = [
        (
            client.client_id,
            client.display_name,
            ", ".join(clients_pb2.Grant.Name(grant).removeprefix("GRANT_") for grant in client.policy.grants),
            "disabled" if client.disabled else "enabled",
        )
        for client in found
    ]
    show(Console(), columns, rows)


@app.command()
def show(
    client_id: ClientId, data_dir: DataDir = None, target: Target = None, ca_file: CaFile = None
) -> None:
    """Print one client as JSON."""
    from grpc_identity.v1 import admin_service_pb2 as pb
    from grpc_identity.v1 import admin_service_pb2_grpc as pb_grpc

    with connection(data_dir, target, ca_file, admin=True) as reached:
        answer = pb_grpc.AdminServiceStub(reached.channel).GetClient(
            pb.GetClientRequest(client_id=client_id), metadata=reached.metadata
        )
    _print_client(answer.client)


@app.command()
def create(
    client_id: ClientId,
    name: DisplayName = "",
    grant: Grants = None,
    subject: Patterns = None,
    audience: Patterns = None,
    scope: Patterns = None,
    role: Patterns = None,
    may_forward_client_context: Forwards = False,
    policy_file: PolicyFile = None,
    data_dir: DataDir = None,
    target: Target = None,
    ca_file: CaFile = None,
) -> None:
    """Register a client and print its secret, this once.

    identity clients create web-login --grant ISSUE --grant REFRESH --subject '*' --audience orders --scope '*'
    """
    from grpc_identity.v1 import admin_service_pb2 as pb
    from grpc_identity.v1 import admin_service_pb2_grpc as pb_grpc

    policy = _policy(grant, subject, audience, scope, role, may_forward_client_context, policy_file)
    with connection(data_dir, target, ca_file, admin=True) as reached:
        created = pb_grpc.AdminServiceStub(reached.channel).CreateClient(
            pb.CreateClientRequest(client_id=client_id, display_name=name or client_id, policy=policy),
            metadata=reached.metadata,
        )
    _print_secret(created.client_secret)


@app.command()
def update(
    client_id: ClientId,
    policy_file: Annotated[
        Path, typer.Option("--policy", help="JSON file with the whole new policy.", exists=True)
    ],
    name: DisplayName = "",
    data_dir: DataDir = None,
    target: Target = None,
    ca_file: CaFile = None,
) -> None:
    """Replace what a client may do."""
    from grpc_identity.v1 import admin_service_pb2 as pb
    from grpc_identity.v1 import admin_service_pb2_grpc as pb_grpc

    policy = _policy(None, None, None, None, None, False, policy_file)
    with connection(data_dir, target, ca_file, admin=True) as reached:
        stub = pb_grpc.AdminServiceStub(reached.channel)
        known = stub.GetClient(pb.GetClientRequest(client_id=client_id), metadata=reached.metadata).client
        updated = stub.UpdateClient(
            pb.UpdateClientRequest(
                client_id=client_id, display_name=name or known.display_name, policy=policy
            ),
            metadata=reached.metadata,
        )
    _print_client(updated.client)


@app.command()
def disable(
    client_id: ClientId, data_dir: DataDir = None, target: Target = None, ca_file: CaFile = None
) -> None:
    """Refuse a client from now on, and end its sessions."""
    _set_disabled(client_id, True, data_dir, target, ca_file)


@app.command()
def enable(
    client_id: ClientId, data_dir: DataDir = None, target: Target = None, ca_file: CaFile = None
) -> None:
    """Let a disabled client call again; sessions it had stay ended."""
    _set_disabled(client_id, False, data_dir, target, ca_file)


@app.command("rotate-secret")
def rotate_secret(
    client_id: ClientId,
    revoke_previous: Annotated[
        bool, typer.Option("--revoke-previous", help="End the secret before at once.")
    ] = False,
    data_dir: DataDir = None,
    target: Target = None,
    ca_file: CaFile = None,
) -> None:
    """Make a new secret and print it, this once. The one before stays good until the next rotation."""
    from grpc_identity.v1 import admin_service_pb2 as pb
    from grpc_identity.v1 import admin_service_pb2_grpc as pb_grpc

    with connection(data_dir, target, ca_file, admin=True) as reached:
        rotated = pb_grpc.AdminServiceStub(reached.channel).RotateClientSecret(
            pb.RotateClientSecretRequest(client_id=client_id, revoke_previous=revoke_previous),
            metadata=reached.metadata,
        )
    _print_secret(rotated.client_secret)


@app.command()
def bootstrap(client_id: ClientId = "admin", config: ConfigFile = None, overrides: Overrides = None) -> None:
    """Register the first administrator straight in the store, with the settings of the service.

    For a new installation, when there is no client yet that could call AdminService.
    """
    import asyncio

    from grpc_identity.v1 import clients_pb2
    from identity.bootstrap import bootstrap_client

    settings = settings_of(config, overrides)
    policy = clients_pb2.ClientPolicy(grants=["GRANT_ADMIN"])
    secret = asyncio.run(
        bootstrap_client(settings, client_id=client_id, display_name="Administrator", policy=policy)
    )
    _print_secret(secret)


def _set_disabled(
    client_id: str, disabled: bool, data_dir: Path | None, target: str | None, ca_file: Path | None
) -> None:
    from grpc_identity.v1 import admin_service_pb2 as pb
    from grpc_identity.v1 import admin_service_pb2_grpc as pb_grpc

    with connection(data_dir, target, ca_file, admin=True) as reached:
        pb_grpc.AdminServiceStub(reached.channel).SetClientDisabled(
            pb.SetClientDisabledRequest(client_id=client_id, disabled=disabled), metadata=reached.metadata
        )
    typer.echo(f"{client_id} is {'disabled; its sessions have ended' if disabled else 'enabled'}")


def _policy(
    grants: Sequence[str] | None,
    subjects: Sequence[str] | None,
    audiences: Sequence[str] | None,
    scopes: Sequence[str] | None,
    roles: Sequence[str] | None,
    may_forward_client_context: bool,
    file: Path | None,
) -> clients_pb2.ClientPolicy:
    from google.protobuf import json_format

    from grpc_identity.v1 import clients_pb2

    policy = clients_pb2.ClientPolicy()
    if file is not None:
        members = members_of(file, "--policy")
        try:
            json_format.ParseDict(members.get("policy", members), policy)
        except json_format.ParseError as error:
            raise typer.BadParameter(str(error), param_hint="--policy") from None
    known = [name.removeprefix("GRANT_") for name, number in clients_pb2.Grant.items() if number]
    for grant in grants or ():
        if grant not in known:
            raise typer.BadParameter(f"{grant!r} is not one of {', '.join(known)}", param_hint="--grant")
    policy.MergeFrom(clients_pb2.ClientPolicy(grants=[f"GRANT_{grant}" for grant in grants or ()]))
    policy.subjects.extend(subjects or ())
    policy.audiences.extend(audiences or ())
    policy.scopes.extend(scopes or ())
    policy.roles.extend(roles or ())
    policy.may_forward_client_context |= may_forward_client_context
    return policy


def _print_client(client: clients_pb2.Client) -> None:
    from google.protobuf.json_format import MessageToJson

    typer.echo(MessageToJson(client))


def _print_secret(secret: str) -> None:
    typer.echo("Keep this secret now; it is shown this once:", err=True)
    typer.echo(secret)
