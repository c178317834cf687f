"""Ids that begin with a dash, wherever a command takes one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import typer

from identity.cli.main import app

DASHED = ["-LpDWk3x" + 35 * "A", "-abc" + 28 * "-", "--json" + 26 * "x", "--" + 41 * "b"]
NO_ID = {"file", "files"}
# Of a client, which begins with a letter or a digit.
NEVER_DASHED = {"client_id"}


def commands(group: Any, *before: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in group.commands.items():
        path = (*before, name)
        yield from commands(command, *path) if hasattr(command, "commands") else [(path, command)]


ALL = dict(commands(typer.main.get_command(app)))


def arguments_of(command: Any) -> set[str]:
    return {item.name for item in command.params if item.param_type_name == "argument"}


WITH_ID = {
    path: name for path, command in ALL.items() for name in arguments_of(command) - NO_ID - NEVER_DASHED
}


def parsed(path: tuple[str, ...], *given: str) -> dict[str, Any]:
    context: Any = ALL[path].make_context(path[-1], list(given))
    found: dict[str, Any] = context.params
    return found


def test_commands_with_ids_are_found() -> None:
    assert {("keys", "revoke"), ("sessions", "explain"), ("sessions", "erase")} <= set(WITH_ID)
    assert all(
        len(spelling) < 32 for command in ALL.values() for item in command.params for spelling in item.opts
    )


@pytest.mark.parametrize("given", DASHED)
@pytest.mark.parametrize("path", WITH_ID, ids=" ".join)
def test_an_id_that_begins_with_a_dash_is_an_id(path: tuple[str, ...], given: str) -> None:
    for arguments in ((given, "--target", "x:1"), ("--target", "x:1", given), ("--target=x:1", "--", given)):
        found = parsed(path, *arguments)
        assert (found[WITH_ID[path]], found["target"]) == (given, "x:1")


@pytest.mark.parametrize("path", WITH_ID, ids=" ".join)
def test_a_misspelt_option_is_no_id(path: tuple[str, ...]) -> None:
    for arguments in (("alice", "--traget", "x:1"), ("--jsn",), ("-y",), (DASHED[0], "--jsn")):
        with pytest.raises(Exception, match=r"No such option|unexpected extra argument"):
            parsed(path, *arguments)


@pytest.mark.parametrize("given", DASHED)
def test_an_id_that_begins_with_a_dash_is_the_value_of_an_option(given: str) -> None:
    assert parsed(("sessions", "revoke"), "--session", given)["session_id"] == given
    assert parsed(("audit", "dead-letters"), "--discard", given)["discard"] == [given]
