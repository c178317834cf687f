"""Dead letters once more: what a sink would not take is offered to it again, and forgotten if it takes it now."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from identity.audit.ports import DeadLetterBox, KeptLetter
from identity.audit.sinks.ports import AuditSink, Undelivered


@dataclass(frozen=True, slots=True)
class Redelivery:
    """What became of the letters of one sink. ``problem``: why it was not asked, or did not answer."""

    sink: str
    delivered: int
    still_refused: int
    problem: str = ""


async def redeliver(
    box: DeadLetterBox, letters: Sequence[KeptLetter], sinks: Sequence[AuditSink]
) -> Sequence[Redelivery]:
    """Offers each sink its letters, with the place in the chain that they had. Raises ``STORE_UNAVAILABLE``."""
    by_sink: dict[str, list[KeptLetter]] = defaultdict(list)
    for letter in letters:
        by_sink[letter.sink].append(letter)
    chosen = {sink.name: sink for sink in sinks}
    return [await _redeliver(box, name, of_sink, chosen.get(name)) for name, of_sink in by_sink.items()]


async def _redeliver(
    box: DeadLetterBox, name: str, letters: Sequence[KeptLetter], sink: AuditSink | None
) -> Redelivery:
    if sink is None:
        return Redelivery(name, 0, 0, "audit.sinks does not name it")
    answer = await sink.deliver([letter.letter.item for letter in letters])
    if isinstance(answer, Undelivered):
        return Redelivery(name, 0, 0, answer.problem)
    taken = [letter for letter in letters if letter.letter.item.event.event_id not in answer.refused]
    await box.remove(taken)
    return Redelivery(name, len(taken), len(letters) - len(taken))
