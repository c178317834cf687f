"""Breaks the rules of refreshing one by one, in the script and in the model, and asks whether the histories notice.

``make mutants``: not part of the tests, because it takes some minutes. A mutant that survives is a rule that nothing
tests, or one of those below, which change nothing that can be seen.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha1
from importlib.resources import files
from pathlib import Path
from types import ModuleType
from typing import Any

import hypothesis
import pytest
from hypothesis.stateful import run_state_machine_as_test
from model import histories

import identity.tokens.family as rules
from identity.store.redis import scripts

EXAMPLES = 300
STEPS = 50

SWAPS = (
    (r" == ", " ~= "),
    (r" ~= ", " == "),
    (r" >= ", " > "),
    (r" > ", " >= "),
    (r" <= ", " < "),
    (r" < ", " <= "),
    (r" and ", " or "),
    (r" or ", " and "),
    (r" \+ ", " - "),
    (r" - ", " + "),
    (r"\bnot ", ""),
)
_OWN_EVENT = "the cut-off is an event of its own, so no session has started with the same number"
_OF_A_SOURCE = "there is no claims source in these histories; tests/claims_source holds this"
_DECIDED_BEFORE = "the same generation was decided on before"
_NO_BYTES = "a number of no bytes is 0 to struct, too"
_WIDER = "more bytes than a number needs hold the same number"
_WIDTH = (
    "local width = step.seconds == 0 and 0 or step.seconds < 256 and 1 or step.seconds < 65536 and 2 or 4"
)
# Text that spending has no use for.
_UNUSED = ("names[#names + 1] = ",)
# What is mutated, and why nothing can be seen of that.
EQUIVALENT = {
    "if of_subject[2] and started <= tonumber(of_subject[3]) then -> "
    "if of_subject[2] and started < tonumber(of_subject[3]) then": _OWN_EVENT,
    "if revoked or (cut_off and started <= tonumber(cut_off)) or is_cut_off(client_key, started) then -> "
    "if revoked or (cut_off and started < tonumber(cut_off)) or is_cut_off(client_key, started) then": (
        _OWN_EVENT
    ),
    "if of_subject[4] and started <= tonumber(of_subject[5]) then -> "
    "if of_subject[4] and started < tonumber(of_subject[5]) then": _OF_A_SOURCE,
    "if of_subject[4] and started <= tonumber(of_subject[5]) then -> if false then": _OF_A_SOURCE,
    "if ARGV[25] == 'LOOK' then -> if false then": _OF_A_SOURCE,
    "return spent(tonumber(redis.call('GET', sequence_counter) or '0')) -> "
    "return spent(tonumber(redis.call('GET', sequence_counter) and '0'))": _OF_A_SOURCE,
    "elseif presented > current then -> elseif presented >= current then": _DECIDED_BEFORE,
    "ahead > 0 -> ahead >= 0": _DECIDED_BEFORE,
    f"{_WIDTH} -> {_WIDTH.replace('0 or', '0 and')}": _WIDER,
    f"{_WIDTH} -> {_WIDTH.replace('1 or', '1 and')}": _WIDER,
    "if width > 0 then -> if width >= 0 then": _NO_BYTES,
    "if width > 0 then -> if true then": _NO_BYTES,
    "return string.char(flags) .. (width > 0 and struct.pack('>I' .. width, step.seconds) or '') -> "
    "return string.char(flags) .. (width >= 0 and struct.pack('>I' .. width, step.seconds) or '')": _NO_BYTES,
}


@dataclass(frozen=True)
class Mutant:
    """A changed text; ``change`` says what was changed."""

    of: str
    change: str
    source: str


def _lua_mutants() -> Iterator[Mutant]:
    prelude, family, spend = (
        files(scripts).joinpath(f"{part}.lua").read_text() for part in ("prelude", "family", "spend")
    )
    decides_from = prelude.index("-- Whether a cut-off")
    whole = prelude + family + spend
    lines = whole.splitlines(keepends=True)
    position = 0
    for number, line in enumerate(lines):
        position += len(line)
        if position <= decides_from or line.lstrip().startswith(("--", *_UNUSED)):
            continue
        for change in sorted({*_swapped(line), *_decided(line)}):
            mutated = "".join((*lines[:number], change, *lines[number + 1 :]))
            yield Mutant("spend.lua", f"{line.strip()} -> {change.strip()}", mutated)


def _swapped(line: str) -> Iterator[str]:
    for pattern, replacement in SWAPS:
        for found in re.finditer(pattern, line):
            yield line[: found.start()] + replacement + line[found.end() :]


def _decided(line: str) -> Iterator[str]:
    condition = re.search(r"\b(?:else)?if (.*) then\n", line)
    if condition:
        for decided in ("true", "false"):
            yield line[: condition.start(1)] + decided + line[condition.end(1) :]


class _Mutator(ast.NodeTransformer):
    """Changes the node of this number, of those that can be changed."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.seen = 0
        self.change = ""

    def _is_it(self) -> bool:
        self.seen += 1
        return self.seen - 1 == self.target

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        self.generic_visit(node)
        other: dict[type[ast.cmpop], type[ast.cmpop]] = {
            ast.Eq: ast.NotEq,
            ast.NotEq: ast.Eq,
            ast.Lt: ast.LtE,
            ast.LtE: ast.Lt,
            ast.Gt: ast.GtE,
            ast.GtE: ast.Gt,
        }
        replacement = other.get(type(node.ops[0]))
        if replacement is not None and self._is_it():
            before = ast.unparse(node)
            node.ops[0] = replacement()
            self.change = f"{before} -> {ast.unparse(node)}"
        return node

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.AST:
        self.generic_visit(node)
        if self._is_it():
            before = ast.unparse(node)
            node.op = ast.And() if isinstance(node.op, ast.Or) else ast.Or()
            self.change = f"{before} -> {ast.unparse(node)}"
        return node

    def visit_If(self, node: ast.If) -> ast.AST:
        self.generic_visit(node)
        if self._is_it():
            self.change = f"if {ast.unparse(node.test)} -> if False"
            node.test = ast.Constant(value=False)
        return node


def _python_mutants() -> Iterator[Mutant]:
    text = Path(rules.__file__).read_text()
    for target in range(1000):
        mutator = _Mutator(target)
        tree = ast.fix_missing_locations(mutator.visit(ast.parse(text)))
        if not mutator.change:
            if mutator.seen <= target:
                return
            continue
        yield Mutant("family.py", mutator.change, ast.unparse(tree))


MUTANTS = [*_lua_mutants(), *_python_mutants()]


def _walk(stepwise: Any) -> None:
    machine = type("Histories", (histories.Histories,), {"service": stepwise, "seen": set[str]()})
    run_state_machine_as_test(
        machine,
        settings=hypothesis.settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            phases=[hypothesis.Phase.generate],
            suppress_health_check=list(hypothesis.HealthCheck),
        ),
    )


@pytest.mark.timeout(600)
@pytest.mark.parametrize("mutant", MUTANTS, ids=[f"{item.of}: {item.change}" for item in MUTANTS])
def test_a_mutant_is_noticed(stepwise: Any, monkeypatch: pytest.MonkeyPatch, mutant: Mutant) -> None:
    if mutant.of == "spend.lua":
        source = mutant.source.encode()
        digest = sha1(source, usedforsecurity=False).hexdigest()
        monkeypatch.setattr(scripts, "SPEND", scripts.Script("spend", source, digest))
    else:
        changed = ModuleType("changed_rules")
        sys.modules["changed_rules"] = changed
        exec(compile(mutant.source, "family.py", "exec"), changed.__dict__)
        for name in ("decide", "Family", "Presentation", "Budget"):
            monkeypatch.setattr(histories, name, getattr(changed, name))
    if mutant.change in EQUIVALENT:
        pytest.skip(EQUIVALENT[mutant.change])
    try:
        _walk(stepwise)
    except Exception:
        return
    pytest.fail(f"nothing notices: {mutant.change}")
