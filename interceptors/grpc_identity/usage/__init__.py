"""Uses of tokens, recorded for audit: what a policy asks for with ``audit=UsageAudit.USE`` or ``MUST``.

``uses`` makes a record of a call, ``spool`` keeps it on disk in ``frames``, ``spool_directory`` finds the spools of processes that
died, ``delivery`` brings records to the identity service, and ``recorder`` is what a service puts together with its interceptor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from grpc_identity.usage.ports import UsageSink
    from grpc_identity.usage.recorder import UsageRecorder

__all__ = ["UsageRecorder", "UsageSink"]

_LAZY = {"UsageRecorder": "recorder", "UsageSink": "ports"}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name in _LAZY:
        return getattr(import_module(f"grpc_identity.usage.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'grpc_identity.usage' has no attribute {name!r}")
