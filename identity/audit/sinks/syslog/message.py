"""Events as syslog messages (RFC 5424).

The message is the line that the file sink writes, in JSON, so that what a collector keeps can be verified. It is not structured data: an
SD-ID of one's own needs an enterprise number, and collectors cut SD-PARAMs. It has no BOM, which most collectors would take for content.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from identity.audit.chain import ChainedEvent
from identity.audit.event_types import Severity
from identity.audit.line import line_of
from identity.audit.recorded_event import timestamp

NAME = "syslog"
APP_NAME = "grpc-identity"
_LOG_AUDIT = 13  # the facility, RFC 5424, table 1
_SEVERITIES = {Severity.INFO: 6, Severity.WARNING: 4, Severity.ERROR: 3}
_MSGID = re.compile(r"[!-~]{1,32}")


@dataclass(frozen=True, slots=True)
class Sender:
    """What a message says of who sends it."""

    hostname: str
    process_id: int

    def message_of(self, item: ChainedEvent) -> bytes:
        """The message of an event, without framing."""
        event = item.event
        priority = _LOG_AUDIT * 8 + _SEVERITIES[Severity(event.severity)]
        message_id = event.type if _MSGID.fullmatch(event.type) else "-"
        header = (
            f"<{priority}>1 {timestamp(event.happened_at_ms)} {self._host()} {APP_NAME} {self.process_id} "
            f"{message_id} - "
        )
        return header.encode() + line_of(item, NAME)

    def _host(self) -> str:
        return re.sub(r"[^!-~]", "", self.hostname)[:255] or "-"


def framed(message: bytes) -> bytes:
    """Octet counting (RFC 6587, section 3.4.1; RFC 5425, section 4.3)."""
    return b"%d %s" % (len(message), message)
