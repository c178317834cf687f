"""The command ``identity`` as a whole: its groups, and how every error ends."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from grpc_identity._version import __version__
from identity.cli import audit, clients, config, demo, dev, doctor, kek, keys, serve, sessions, top, verifiers
from identity.cli.failure import report_failures

app = typer.Typer(
    name="identity",
    help=(
        "Issues short-lived JWTs and rotating refresh tokens over gRPC, and catches stolen ones.\n\n"
        "Start with: identity dev --data-dir .data --play"
    ),
    epilog="Exit codes: 0 done, 1 failed (one line on standard error says why and what to do), 2 wrong usage.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
app.command("serve")(serve.serve)
app.command("dev")(dev.dev)
app.command("demo")(demo.demo)
app.command("doctor")(doctor.doctor)
app.add_typer(clients.app, name="clients")
app.add_typer(sessions.app, name="sessions")
app.add_typer(keys.app, name="keys")
app.add_typer(audit.app, name="audit")
app.add_typer(kek.app, name="kek")
app.command("top")(top.top)
app.command("verifiers")(verifiers.list_verifiers)
app.add_typer(config.app, name="config")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"identity {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    del version


def main() -> None:
    """Runs the command line."""
    with report_failures():
        app()
    sys.exit(0)
