"""``identity audit``: what was recorded, and where it goes."""

from __future__ import annotations

import typer

from identity.cli.audit_dead_letters import dead_letters
from identity.cli.audit_relay import relay

app = typer.Typer(help="Relay what was recorded to the backends.", no_args_is_help=True)
app.command("relay")(relay)
app.command("dead-letters")(dead_letters)
