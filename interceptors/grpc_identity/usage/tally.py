"""What became of records, in plain numbers; ``telemetry`` reads them."""

from __future__ import annotations

__all__ = ["UsageTally"]


class UsageTally:
    """``recorded``: kept in spools that are closed again; ``lost``: had no room there, though their calls went on, or could not be
    read any more; ``delivered``: acknowledged by the identity service; ``refused``: records that it will never take. A record
    that tells of losses counts like any other. Of the life of this process."""

    __slots__ = ("delivered", "lost", "recorded", "refused")

    def __init__(self) -> None:
        self.recorded = 0
        self.lost = 0
        self.delivered = 0
        self.refused = 0
