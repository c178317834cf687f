"""Finding out which events a backend refuses.

It says that a request was bad, or that so and so many of its spans were rejected, and never which. So the request is sent again
in halves, down to the single events that are refused. OTLP forbids to send a partly taken request again as it is; these are other,
smaller requests, and what was taken already has the same ids in them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import assert_never

from identity.audit.sinks.otlp.answers import Answer, NotNow, Rejected, Taken, TooMuch

Record = tuple[str, bytes]
"""Id of an event, and its message."""
Send = Callable[[Sequence[Record]], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of records: ``refused`` (id to problem) are refused for good, and all others are taken, if ``not_now`` is none.

    ``takes``: so many at once are not too many, where more were; otherwise 0.
    """

    refused: dict[str, str] = field(default_factory=dict)
    not_now: NotNow | None = None
    takes: int = 0


async def settle(send: Send, records: Sequence[Record]) -> Settled:
    """Sends records in their order, in halves where need be, until all are settled or the backend is away."""
    settled = Settled()
    takes_anything = False
    parts = [records]
    while parts:
        part = parts.pop()
        if 0 < settled.takes < len(part):
            parts += _halves(part)
            continue
        answer = await send(part)
        if isinstance(answer, Rejected) and answer.wholly and not takes_anything:
            answer = await _confirmed(send, answer)
        match answer:
            case Taken():
                takes_anything = True
                continue
            case NotNow():
                return replace(settled, not_now=answer)
            case TooMuch(problem, by_size=False) if len(part) == 1:
                # Nothing is learnt about sizes from a quota.
                return replace(settled, not_now=NotNow(problem), takes=0)
            case TooMuch():
                settled = replace(settled, takes=max(len(part) // 2, 1))
            case Rejected():
                takes_anything = True
            case _:
                assert_never(answer)
        if len(part) == 1:
            settled.refused[part[0][0]] = answer.problem
        else:
            parts += _halves(part)
    return settled


def _halves(part: Sequence[Record]) -> tuple[Sequence[Record], Sequence[Record]]:
    """The first one last, because that is taken next."""
    middle = len(part) // 2
    return part[middle:], part[:middle]


async def _confirmed(send: Send, answer: Rejected) -> Rejected | NotNow:
    """Asks with an empty request, which every backend of OTLP takes: where even that is refused, it is not because of the data."""
    if isinstance(await send(()), Taken):
        return answer
    return NotNow(
        f"even an empty request is refused, {answer.problem}; "
        "check OTEL_EXPORTER_OTLP_ENDPOINT and OTEL_EXPORTER_OTLP_PROTOCOL"
    )
