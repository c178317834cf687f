"""What a verifier holds in memory, as the growth of a fresh process's resident set."""

from __future__ import annotations

import gc
import multiprocessing
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection

import psutil

from benchmarks.lifetime import end_with_parent
from grpc_identity import Verifier
from grpc_identity.revocations import RevocationView, Revoked
from grpc_identity.testing import InMemoryIssuer
from grpc_identity.token_verifier import MAX_REMEMBERED_TOKENS

REVOCATIONS = 100_000
_LIFETIME_SECONDS = 900
_WARM_UP = 100


@dataclass(frozen=True)
class Figure:
    """``measure`` answers in bytes, from a process of its own."""

    name: str
    label: str
    things: int
    measure: Callable[[Connection], None]


def _grown(fill: Callable[[int], object], things: int) -> int:
    fill(_WARM_UP)
    gc.collect()
    before = psutil.Process().memory_info().rss
    kept = fill(things)
    gc.collect()
    grown: int = psutil.Process().memory_info().rss - before
    del kept
    return grown


def remembered_tokens(answer: Connection) -> None:
    """Tokens of as many sessions and subjects, of one audience and a few roles."""
    end_with_parent()
    issuer = InMemoryIssuer(audience="orders")

    def fill(tokens: int) -> Verifier:
        # Twice what is due: half of the memory is given up when it is full.
        verifier = Verifier(issuer.trusted(), max_remembered=2 * tokens)
        for number in range(tokens):
            session = secrets.token_urlsafe(16)
            verifier.verify(
                issuer.mint(
                    subject=f"subject-{number}",
                    session_id=session,
                    scopes=["orders.read", "orders.write"],
                    roles=[f"role-{number % 8}"],
                )
            )
        return verifier

    answer.send(_grown(fill, MAX_REMEMBERED_TOKENS))


def revocations(answer: Connection) -> None:
    """Revoked sessions."""
    end_with_parent()

    def fill(sessions: int) -> RevocationView:
        view = RevocationView()
        view.apply(
            Revoked(
                session_id=secrets.token_urlsafe(16),
                forget_at_seconds=_LIFETIME_SECONDS * number / sessions,
            )
            for number in range(sessions)
        )
        return view

    answer.send(_grown(fill, REVOCATIONS))


FIGURES = (
    Figure("memory-tokens", "tokens remembered", MAX_REMEMBERED_TOKENS, remembered_tokens),
    Figure("memory-revocations", "sessions revoked", REVOCATIONS, revocations),
)


def measure_memory(figures: Sequence[Figure]) -> dict[str, dict[str, float | str]]:
    """The figures, by their names."""
    measured: dict[str, dict[str, float | str]] = {}
    context = multiprocessing.get_context("spawn")
    for figure in figures:
        answers, answer = context.Pipe(duplex=False)
        process = context.Process(target=figure.measure, args=(answer,), daemon=True)
        process.start()
        answer.close()
        grown: int = answers.recv()  # EOFError if the process dies first
        process.join()
        measured[figure.name] = {
            "label": f"{figure.things} {figure.label}",
            "mebibytes": round(grown / 2**20, 1),
            "bytes_each": round(grown / figure.things),
        }
    return measured
