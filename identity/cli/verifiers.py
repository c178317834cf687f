"""``identity verifiers``: who verifies tokens, and how far each has got."""

from __future__ import annotations

import json

import typer

from identity.cli.connection import CaFile, DataDir, Json, Target, connection


def list_verifiers(
    data_dir: DataDir = None, target: Target = None, ca_file: CaFile = None, as_json: Json = False
) -> None:
    """List the connected verifiers of all servers: name, version, lag, keys held.

    One whose connection broke is listed for half a minute more: it may still accept what was revoked since.
    """
    from google.protobuf.json_format import MessageToDict
    from rich.console import Console

    from grpc_identity.v1 import admin_service_pb2 as pb
    from grpc_identity.v1 import admin_service_pb2_grpc as pb_grpc
    from identity.cli.listing import Column, show

    with connection(data_dir, target, ca_file, admin=True) as reached:
        answer = pb_grpc.AdminServiceStub(reached.channel).ListVerifiers(
            pb.ListVerifiersRequest(), metadata=reached.metadata
        )
    if as_json:
        typer.echo(json.dumps([MessageToDict(verifier) for verifier in answer.verifiers], indent=2))
        return
    columns = [
        Column(name)
        for name in ("verifier", "client", "version", "state", "behind", "last heard", "keys held")
    ]
    rows = [
        (
            verifier.verifier_id,
            verifier.client_id,
            verifier.verifier_version,
            "connected" if verifier.connected else "lost",
            str(verifier.behind),
            f"{verifier.last_seen_at.ToDatetime():%Y-%m-%d %H:%M:%S}",
            " ".join(kid[:8] for kid in verifier.held_kids),
        )
        for verifier in answer.verifiers
    ]
    show(Console(), columns, rows)
