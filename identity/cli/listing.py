"""Rows for people: a table where there is room, else a paragraph a row. An id is never cut, since it is copied for a command."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from rich.console import Console
from rich.table import Table
from rich.text import Text

from identity.cli.audit_shown import printable

__all__ = ["Column", "show"]

MIN_FOLDED = 16
_BESIDE_A_CELL = 3
_INDENT = "  "
_GAP = "   "

Cell: TypeAlias = str | Text


@dataclass(frozen=True, slots=True)
class Column:
    """``folds``: what is in it may go over several lines."""

    name: str
    folds: bool = False


def show(console: Console, columns: Sequence[Column], rows: Sequence[Sequence[Cell]]) -> None:
    """Prints them. What is given as ``str`` may be of strangers."""
    cells = [[_text(cell) for cell in row] for row in rows]
    if _width(columns, cells) <= console.width:
        table = Table()
        for column in columns:
            table.add_column(column.name, overflow="fold", no_wrap=not column.folds)
        for row in cells:
            table.add_row(*row)
        console.print(table)
        return
    for row in cells:
        for line in _paragraph(columns, row, console.width):
            # The terminal breaks what is too long: what is copied has no line feed in it.
            console.print(line, soft_wrap=True)


def _width(columns: Sequence[Column], rows: Sequence[Sequence[Text]]) -> int:
    widths = []
    for place, column in enumerate(columns):
        name, widest = len(column.name), max((row[place].cell_len for row in rows), default=0)
        widths.append(max(name, min(widest, MIN_FOLDED) if column.folds else widest))
    return sum(width + _BESIDE_A_CELL for width in widths) + 1


def _paragraph(columns: Sequence[Column], row: Sequence[Text], width: int) -> Iterator[Text]:
    first, *others = row
    yield Text.assemble(first, style="bold")
    line = Text()
    for column, cell in zip(columns[1:], others, strict=True):
        if not cell.plain.strip():
            continue
        piece = Text.assemble((f"{column.name} ", "dim"), cell)
        if line and len(_INDENT) + line.cell_len + len(_GAP) + piece.cell_len > width:
            yield Text.assemble(_INDENT, line)
            line = Text()
        line = Text.assemble(line, _GAP if line else "", piece)
    if line:
        yield Text.assemble(_INDENT, line)


def _text(cell: Cell) -> Text:
    return cell if isinstance(cell, Text) else Text(printable(cell))
