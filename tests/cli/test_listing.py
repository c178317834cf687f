"""Lists at any width: ids in one piece, and nothing left out."""

from __future__ import annotations

import pytest
from rich.console import Console
from rich.text import Text

from identity.cli.listing import Column, show

KID, OTHER = "LpDW-k3x_" + 34 * "A", 43 * "b"
COLUMNS = (
    Column("kid"),
    Column("state"),
    Column("signs until"),
    Column("session"),
    Column("held by", folds=True),
)
ROWS = [
    (
        KID,
        Text("active", style="green"),
        "2026-05-29 14:00",
        32 * "s",
        "orders/a, orders/b, orders/c and 41 more",
    ),
    (OTHER, Text("removed"), "2026-05-29 14:00", 32 * "t", ""),
]
WHOLE = (KID, OTHER, "active", "removed", "2026-05-29 14:00", 32 * "s", 32 * "t")


def shown(width: int, rows: list[tuple[str | Text, ...]]) -> str:
    console = Console(width=width, force_terminal=False)
    with console.capture() as capture:
        show(console, COLUMNS, rows)
    return capture.get()


@pytest.mark.parametrize("width", [20, 40, 43, 60, 80, 100, 120, 140, 150, 160, 200, 300])
def test_what_is_copied_stays_in_one_piece(width: int) -> None:
    text = shown(width, ROWS)
    for value in WHOLE:
        assert value in text
    words = text.replace("│", " ").split()
    assert {"orders/a,", "orders/c", "41", "more"} <= set(words)


def test_where_there_is_room_it_is_a_table_and_else_no_line_is_wider_than_it_must_be() -> None:
    assert shown(200, ROWS).count("│") > 0
    narrow = shown(80, ROWS)
    assert "│" not in narrow
    assert max(len(line) for line in narrow.splitlines()) <= 80
    assert narrow.splitlines()[0] == KID
    # What is empty has no name either.
    assert narrow.count("held by") == 1


def test_what_strangers_have_chosen_is_shown_as_it_is_and_moves_nothing() -> None:
    for width in (80, 300):
        text = shown(width, [("[red]id[/red]", "\x1b[2J", "a\nb", "", "")])
        assert "[red]id[/red]" in text
        assert "\x1b" not in text
        assert "a�b" in text


def test_without_rows_there_are_the_names_of_the_columns() -> None:
    assert "signs until" in shown(80, [])
