"""One line of the log for each call that was refused because of who calls, or what it asks for; folded in a flood.

It is for those who watch the service; the record is the audit. A line has what docs/telemetry.md lists, and never a token or a secret:
what looks like one in a text that the caller has chosen is taken out.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any, TypeAlias

import grpc

from grpc_identity.usage.uses import address_of
from identity.audit.event import NOBODY, EndUser
from identity.audit.folding import BEYOND, FOLD_WINDOW_SECONDS, Folding
from identity.audit.pseudonym import Naming
from identity.clients.registry import ClientRegistry
from identity.errors import IdentityError, Reason
from identity.rpc.authentication import claimed_client_id
from identity.rpc.validation import end_user
from identity.sessions.caller import Caller
from identity.telemetry.redaction import redacted

_LOGGED = frozenset(
    {
        Reason.CLIENT_UNAUTHENTICATED,
        Reason.CLIENT_DISABLED,
        Reason.GRANT_MISSING,
        Reason.SUBJECT_NOT_ALLOWED,
        Reason.AUDIENCE_NOT_ALLOWED,
        Reason.SCOPE_NOT_ALLOWED,
        Reason.ROLE_NOT_ALLOWED,
        Reason.REVOCATION_NOT_ALLOWED,
        Reason.SUBJECT_DISABLED,
        Reason.SUBJECT_TOKEN_INVALID,
        Reason.REFRESH_TOKEN_INVALID,
        Reason.REFRESH_TOKEN_EXPIRED,
        Reason.REFRESH_TOKEN_REUSED,
        Reason.FAMILY_REVOKED,
        Reason.IDEMPOTENCY_KEY_REUSED,
        Reason.RATE_LIMITED,
    }
)
_Cause: TypeAlias = tuple[str, str, str]
_OTHER: _Cause = ("_other", "OTHER", "")
_MESSAGE = "authentication failure"
MAX_CHARS = 256
"""Of a text that the caller has chosen."""

_log = logging.getLogger("identity.auth")


class FailureLog:
    """``registry`` knows whether there is a client of a name that a caller has claimed."""

    def __init__(
        self,
        registry: ClientRegistry,
        naming: Naming,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registry = registry
        self._naming = naming
        self._folding = Folding(_OTHER, _tell, monotonic)

    def note(
        self,
        method: str,
        error: IdentityError,
        caller: Caller | None,
        request: Any,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> None:
        """Writes the line, if the refusal is one of those."""
        if error.reason not in _LOGGED:
            return
        metadata, peer = context.invocation_metadata() or (), context.peer()
        client_id = caller.client_id if caller else claimed_client_id(metadata, self._registry)
        if self._folding.folds((method, error.reason, client_id)):
            return
        person = _end_user(caller, request)
        fields = {
            "rpc.method": method.removeprefix("/"),
            "error.type": str(error.reason),
            "identity.client.id": client_id,
            "identity.client.authenticated": caller is not None,
            "network.peer.address": address_of(peer) or peer.partition(":")[0],
            "client.address": person.ip_address,
            "user_agent.original": person.user_agent or _user_agent(metadata),
            "session.id": self._naming.session(error.session_id),
        }
        subject = getattr(request, "subject", "")
        if isinstance(subject, str) and subject:
            name, value = self._naming.subject(subject)
            fields[name] = value
        known = {
            name: redacted(value)[:MAX_CHARS] if isinstance(value, str) else value
            for name, value in fields.items()
            if value != ""
        }
        _log.warning(_MESSAGE, extra={"fields": known})

    async def run(self) -> None:
        """Tells of what was folded, when its window is over, until cancelled."""
        while True:
            await asyncio.sleep(FOLD_WINDOW_SECONDS)
            self._folding.unfold()

    def close(self) -> None:
        """Tells of all that was folded."""
        self._folding.unfold(everything=True)


def _tell(cause: _Cause, count: int) -> None:
    method, reason, client_id = cause
    fields: dict[str, str | int] = {"rpc.method": method.removeprefix("/"), "error.type": reason}
    if client_id:
        fields["identity.client.id"] = client_id
    _log.warning("%s, %s", _MESSAGE, BEYOND, extra={"fields": fields | {"count": count}})


def _end_user(caller: Caller | None, request: Any) -> EndUser:
    """As far as the client is believed, and has put it as it has to be."""
    if caller is None or not caller.policy.may_forward_client_context:
        return NOBODY
    try:
        return end_user(request.client_context)
    except (AttributeError, IdentityError):
        return NOBODY


def _user_agent(metadata: Any) -> str:
    return next((value for name, value in metadata if name == "user-agent" and isinstance(value, str)), "")
