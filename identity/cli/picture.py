"""What runs where, and what to try next: the last thing ``identity dev`` says at its start."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text


def print_picture(console: Console, known: Mapping[str, str], data_dir: Path) -> None:
    """Prints the picture."""
    folder = os.path.relpath(data_dir)
    spans = known["spans_url"] or os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "see OTEL_EXPORTER_OTLP_*")
    places = Table.grid(padding=(0, 2))
    for name, place, what in (
        ("gRPC", known["grpc_target"], "IdentityService, AdminService, health, reflection"),
        ("HTTP", known["http_url"], "public keys, /readyz, /metrics"),
        ("Valkey", known["redis_url"], "sessions, clients, audit outbox"),
        ("audit", spans, "spans, as they arrived"),
        ("files", folder, "keys, log, dev.json with the credentials"),
    ):
        places.add_row(Text(name, style="bold"), Text(place, style="cyan"), Text(what, style="dim"))
    console.print()
    console.print(Panel(places, title="grpc-identity is ready", title_align="left", expand=False))
    console.print("\nTry next, in a second terminal:")
    where = "" if folder == ".data" else f" --data-dir {folder}"
    for command, what in (
        ("make demo" if not where else f"identity demo{where}", "plays the main job again"),
        (f"curl {known['jwks_url']}", "the public keys"),
        (f".venv/bin/identity clients list{where}", "who may call"),
        (f".venv/bin/identity doctor --data-dir {folder}", "checks everything, and says how to mend it"),
    ):
        console.print(f"  [green]{command}[/]\n      {what}", highlight=False, soft_wrap=True)
    console.print("\nCtrl-C stops it; the data stays.")
