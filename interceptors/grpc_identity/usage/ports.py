"""Where records of uses go."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

__all__ = ["UsageSink"]


@runtime_checkable
class UsageSink(Protocol):
    """Takes records: messages ``grpc_identity.v1.UsageRecord``, serialised, without their ``sequence``."""

    def put(self, record: bytes, *, keep_bytes: int = 0, kept_bytes: int = 0) -> bool:
        """Whether the record is kept. Does not wait, raise, or lock for longer than a copy takes.

        ``keep_bytes``: room that is set aside for the record that will follow this one, which is then put with that as
        ``kept_bytes``. Such a call is refused where the answer is no; any other goes on, and its record is lost.
        """
        ...
