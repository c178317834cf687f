"""Methods of the contract that are still to come: authenticated as all others, then ``NOT_IMPLEMENTED``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from typing import Any

from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import Message

from identity.errors import IdentityError, Reason
from identity.rpc.calls import Calls, Context
from identity.sessions.caller import Caller


def answer_unimplemented(
    servicer: object, calls: Calls, service: ServiceDescriptor, implemented: Collection[str]
) -> None:
    """Gives ``servicer`` a behaviour for every method of the proto that it has none for."""
    unknown = set(implemented) - {method.name for method in service.methods}
    if unknown:
        raise ValueError(f"{service.full_name} has no method {', '.join(sorted(unknown))}")
    for method in service.methods:
        if method.name in implemented:
            continue
        guarded = calls.guard(f"/{service.full_name}/{method.name}", _unimplemented)
        behaviour: Any = _as_stream(guarded) if method.server_streaming else guarded
        setattr(servicer, method.name, behaviour)


async def _unimplemented(caller: Caller, request: object) -> Message:  # noqa: ARG001 - a behaviour's form
    raise IdentityError(Reason.NOT_IMPLEMENTED, "This method is part of the contract and not built yet.")


def _as_stream(guarded: Any) -> Any:
    async def stream(requests: AsyncIterator[Message], context: Context) -> AsyncIterator[Message]:
        yield await guarded(requests, context)

    return stream
