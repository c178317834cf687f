"""``identity audit``: what was recorded, and where it goes."""

from __future__ import annotations

import typer

from identity.cli.audit_dead_letters import dead_letters
from identity.cli.audit_query import query
from identity.cli.audit_relay import relay
from identity.cli.audit_tail import tail
from identity.cli.audit_verify import verify

app = typer.Typer(
    help="Relay what was recorded to the backends, look at it, and prove that it is complete and unaltered.",
    no_args_is_help=True,
)
app.command("relay")(relay)
app.command("verify")(verify)
app.command("query")(query)
app.command("tail")(tail)
app.command("dead-letters")(dead_letters)
