"""An event as a line of text: its canonical form, with its place in the chain, and the sink whose chain that is.

``{…the members of AuditEvent…,"chain":{"link":"<hex>","previous":"<hex>"},"sink":"file"}``; UTF-8, without a line feed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from identity.audit.chain import ChainedEvent
from identity.audit.recorded_event import NotAnEventError, canonical, from_members


@dataclass(frozen=True, slots=True)
class Line:
    """An event that was read, and the sink that wrote it."""

    sink: str
    event: ChainedEvent


def line_of(item: ChainedEvent, sink: str) -> bytes:
    """The line of an event."""
    place = f',"chain":{{"link":"{item.link.hex()}","previous":"{item.previous.hex()}"}},"sink":"{sink}"}}'
    return item.canonical[:-1] + place.encode()


def from_line_members(members: Mapping[str, Any]) -> Line:
    """The event of a line whose members were read, as it was written or changed since. Raises ``NotAnEventError``."""
    try:
        rest = dict(members)
        chain, sink = rest.pop("chain"), rest.pop("sink")
        event = from_members(rest)
        return Line(
            str(sink),
            ChainedEvent(
                event, canonical(event), bytes.fromhex(chain["previous"]), bytes.fromhex(chain["link"])
            ),
        )
    except NotAnEventError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise NotAnEventError("not an audit event: a member is missing or of another type") from error
