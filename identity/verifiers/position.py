"""How far a verifier has got, as an opaque text that any server understands.

``instance.number.epoch.places``: the server that wrote it knows the number of the entry in its own log; every other
one goes by the places in the feeds of the buckets, if the store is still in the same ``epoch``. After a failover a
place may mean another entry than before, so a verifier that comes with a place of another epoch gets everything.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass

from identity.verifiers.revocations import FeedPlace

_PARTS = 4


@dataclass(frozen=True, slots=True)
class Position:
    """A place in the feed of one server, and in those of all buckets."""

    instance_id: str
    number: int
    epoch: str
    places: Mapping[int, FeedPlace]

    def __str__(self) -> str:
        raw = bytearray()
        for bucket, place in sorted(self.places.items()):
            for number in (bucket, place.sequence, place.count + 1):
                _append_varint(raw, number)
        return f"{self.instance_id}.{self.number}.{self.epoch}.{urlsafe_b64encode(raw).rstrip(b'=').decode()}"

    @classmethod
    def parse(cls, text: str) -> Position | None:
        """``None`` for anything that no server has written."""
        parts = text.split(".")
        if len(parts) != _PARTS or not (parts[1].isascii() and parts[1].isdigit() and len(parts[1]) < 20):
            return None
        try:
            numbers = _varints(urlsafe_b64decode(parts[3] + "=" * (-len(parts[3]) % 4)))
        except ValueError:
            return None
        triples = zip(numbers[::3], numbers[1::3], numbers[2::3], strict=len(numbers) % 3 == 0)
        places = {bucket: FeedPlace(sequence, count - 1) for bucket, sequence, count in triples}
        return cls(parts[0], int(parts[1]), parts[2], places)


def _append_varint(raw: bytearray, number: int) -> None:
    while number > 0x7F:
        raw.append(number & 0x7F | 0x80)
        number >>= 7
    raw.append(number)


def _varints(raw: bytes) -> list[int]:
    numbers, number, shift = [], 0, 0
    for byte in raw:
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte <= 0x7F:
            numbers.append(number)
            number, shift = 0, 0
    return numbers
