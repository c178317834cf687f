"""How a client gets an access token from the identity service: by refreshing its session, or in its own name.

One attempt at a time, by the one thread of ``token_source``. What goes wrong is sorted here:

- ``SessionEndedError``: the service says that the session is over;
- ``TokenUnavailableError``: no answer, or "not now"; whether the service may have acted is ``answer_lost``;
- ``TokenRefusedError``: anything else, which a repetition would not change.

A refresh spends a token, so it carries an idempotency key, the same on every repetition until it is answered.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
import os
import secrets
import threading
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, Protocol

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from grpc_identity.channels import ChannelFactory, describe
from grpc_identity.clock import Clock
from grpc_identity.encoding import decode_base64url, encode_base64url
from grpc_identity.errors import (
    SessionEnd,
    SessionEndedError,
    TokenRefusedError,
    TokenSourceError,
    TokenUnavailableError,
)
from grpc_identity.token_state import HeldToken
from grpc_identity.token_storage import RefreshTokenStorage, StoredSession
from grpc_identity.v1.identity_service_pb2 import IssueTokensRequest, RefreshRequest
from grpc_identity.v1.identity_service_pb2_grpc import IdentityServiceStub
from grpc_identity.v1.tokens_pb2 import TokenSet

__all__ = [
    "AttemptFailedError",
    "ClientAuthentication",
    "ClientSecret",
    "Connection",
    "Grant",
    "ServiceGrant",
    "SessionGrant",
    "authentication_of",
    "error_reason",
    "failure_of",
    "held_token",
    "retry_after_seconds",
]

ERROR_DOMAIN = "grpc-identity"
_SEED_BYTES = 32
_OPTIONS = (("grpc.enable_retries", 0),)
_SESSION_ENDS = frozenset(SessionEnd)
_NO_ANSWER = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.ABORTED,
    }
)

_logger = logging.getLogger("grpc_identity.tokens")


class ClientAuthentication(Protocol):
    """How a client proves to the identity service who it is."""

    def metadata(self) -> Collection[tuple[str, str]]:
        """The metadata of one call; asked for anew for each, so that it may be signed and short-lived."""


@dataclass(frozen=True, slots=True)
class ClientSecret:
    """``authorization: Basic`` (RFC 7617).

    >>> ClientSecret("billing", "s3cret")
    ClientSecret(client_id='billing')
    """

    client_id: str
    client_secret: str = field(repr=False)

    def metadata(self) -> Collection[tuple[str, str]]:
        """See ``ClientAuthentication``."""
        pair = f"{self.client_id}:{self.client_secret}".encode()
        return (("authorization", f"Basic {base64.b64encode(pair).decode('ascii')}"),)


class AttemptFailedError(Exception):
    """An attempt has brought no token; ``answer_lost``: the service may have acted on it."""

    def __init__(self, error: TokenSourceError, *, answer_lost: bool = False) -> None:
        super().__init__(str(error))
        self.error = error
        self.answer_lost = answer_lost


class Grant(Protocol):
    """One way to get an access token."""

    def obtain(self) -> HeldToken:
        """Asks the identity service once; blocks, with a time limit. Raises ``AttemptFailedError``."""


@dataclass(frozen=True, slots=True)
class Connection:
    """Where the identity service is, and who asks it."""

    channel: ChannelFactory
    authentication: ClientAuthentication
    timeout_seconds: float = 5.0

    def ask(self, method: str, request: Any) -> TokenSet:
        """The tokens of the answer. Raises ``AttemptFailedError``."""
        with self.channel.open(_OPTIONS) as channel:
            stub: Any = IdentityServiceStub(channel)
            try:
                answer = getattr(stub, method)(
                    request, metadata=tuple(self.authentication.metadata()), timeout=self.timeout_seconds
                )
            except grpc.RpcError as error:
                raise failure_of(error, self.channel.target) from None
        tokens: TokenSet = answer.tokens
        return tokens


class ServiceGrant:
    """A token of the client's own: no subject, no session, no refresh token."""

    def __init__(
        self, connection: Connection, *, audience: Collection[str], scopes: Collection[str], wall: Clock
    ) -> None:
        self._connection = connection
        self._request = IssueTokensRequest(audience=audience, scopes=scopes)
        self._wall = wall

    def obtain(self) -> HeldToken:
        """See ``Grant``."""
        return held_token(self._connection.ask("IssueTokens", self._request), now=self._wall())


class SessionGrant:
    """The tokens of a session, by refreshing.

    A session belongs to one process: two that refresh it are taken for a thief and the robbed. So a forked child does
    not refresh, until it is told that it is the one that goes on (``adopt``). Where the storage holds another token
    than this process has seen last, that one is the newest.
    """

    def __init__(self, connection: Connection, storage: RefreshTokenStorage, *, wall: Clock) -> None:
        self._connection = connection
        self._storage = storage
        self._wall = wall
        self._session: StoredSession | None = None
        self._unsaved = False
        self._session_id = ""
        self.adopt()

    def adopt(self) -> None:
        """This process goes on with the session."""
        self._process_id = os.getpid()
        self._lock = threading.Lock()

    def begin(self, refresh_token: str, *, session_id: str = "") -> None:
        """A session has been started."""
        with self._lock:
            self._process_id = os.getpid()
            self._session_id = session_id
            self._session = StoredSession(refresh_token, secrets.token_bytes(_SEED_BYTES))
            self._save()

    def resume(self) -> bool:
        """Goes on with the stored session; says whether there is one."""
        with self._lock:
            self._session = self._storage.load()
            return self._session is not None

    def obtain(self) -> HeldToken:
        """See ``Grant``."""
        session = self._newest()
        key = hmac.digest(session.key_seed, session.refresh_token.encode(), hashlib.sha256)
        request = RefreshRequest(refresh_token=session.refresh_token, idempotency_key=encode_base64url(key))
        try:
            tokens = self._connection.ask("Refresh", request)
        except AttemptFailedError as failure:
            if isinstance(failure.error, SessionEndedError):
                with self._lock:
                    self._check_still(session)
                    self._end()
                ended = SessionEndedError(failure.error.reason, session_id=self._session_id)
                raise AttemptFailedError(ended) from None
            raise
        with self._lock:
            self._check_still(session)
            self._session = StoredSession(tokens.refresh_token, session.key_seed)
            self._session_id = tokens.session_id
            self._save()
        return held_token(tokens, now=self._wall())

    def _check_still(self, session: StoredSession) -> None:
        if self._session is not session:
            # Another session was begun meanwhile; what this answer says is of the one before.
            raise AttemptFailedError(TokenUnavailableError("another session was begun meanwhile"))

    def _newest(self) -> StoredSession:
        if self._process_id != os.getpid():
            raise AttemptFailedError(
                TokenRefusedError(
                    "",
                    f"this session was started in process {self._process_id}, before a fork; start one in each "
                    "process, or call adopt() in the one that goes on with it",
                )
            )
        with self._lock:
            if self._session is None:
                ended = SessionEndedError(SessionEnd.REFRESH_TOKEN_INVALID, session_id=self._session_id)
                raise AttemptFailedError(ended)
            if not self._unsaved:
                try:
                    self._session = self._storage.load() or self._session
                except Exception as error:
                    _logger.warning("reading the stored session failed with %s", type(error).__name__)
            return self._session

    def _save(self) -> None:
        assert self._session is not None  # noqa: S101 - set by both callers
        try:
            self._storage.save(self._session)
        except Exception as error:
            # The text of the error is not ours and may hold what was to be saved.
            _logger.error("saving the session failed with %s; it goes on from memory", type(error).__name__)  # noqa: TRY400
            self._unsaved = True
        else:
            self._unsaved = False

    def _end(self) -> None:
        self._session = None
        try:
            self._storage.clear()
        except Exception as error:
            _logger.warning("clearing the stored session failed with %s", type(error).__name__)


def held_token(tokens: TokenSet, *, now: float, given: bool = False) -> HeldToken:
    """An answer as it is held. ``given``: it is not from just now, so its age is found by comparing clocks.

    Times count from the token's own ``iat``, so that the two clocks need not agree.
    """
    expires_at = tokens.access_token_expires_at.ToNanoseconds() / 1e9
    issued_at = _issued_at(tokens.access_token)
    if issued_at is None:
        issued_at = now
    renew_after = (
        tokens.refresh_after.ToNanoseconds() / 1e9 - issued_at if tokens.HasField("refresh_after") else None
    )
    lifetime = expires_at - issued_at
    if lifetime <= 0 or not tokens.access_token:
        raise AttemptFailedError(
            TokenUnavailableError("the identity service answered without a token that lasts")
        )
    age = max(0.0, now - issued_at) if given else 0.0
    return HeldToken(tokens.access_token, lifetime, renew_after, age)


def failure_of(error: Any, target: str) -> AttemptFailedError:
    """What a failed call to the identity service means for those who wait for a token."""
    code, reason = error.code(), error_reason(error)
    text = f"{target}: {describe(error)}"
    if reason in _SESSION_ENDS:
        return AttemptFailedError(SessionEndedError(SessionEnd(reason)))
    if code in _NO_ANSWER:
        return AttemptFailedError(TokenUnavailableError(text), answer_lost=True)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        wait = retry_after_seconds(error)
        return AttemptFailedError(TokenUnavailableError(text, retry_after_seconds=wait))
    return AttemptFailedError(TokenRefusedError(reason, text))


def error_reason(error: Any) -> str:
    """The ``ErrorInfo`` reason of a failed call, if it is of this domain; else empty."""
    info = error_details_pb2.ErrorInfo()
    return info.reason if _detail(error, info) and info.domain == ERROR_DOMAIN else ""


def retry_after_seconds(error: Any) -> float | None:
    """The ``RetryInfo`` of a failed call, if it has one."""
    retry = error_details_pb2.RetryInfo()
    return retry.retry_delay.ToMilliseconds() / 1000 if _detail(error, retry) else None


def _detail(error: Any, into: Any) -> bool:
    try:
        status = rpc_status.from_call(error)
        return status is not None and any(detail.Unpack(into) for detail in status.details)
    except (ValueError, DecodeError):
        # Details that contradict the status, or are none: of some proxy, not of the service.
        return False


def _issued_at(access_token: str) -> float | None:
    try:
        payload = json.loads(decode_base64url(access_token.split(".")[1].encode("ascii")))
        return float(payload["iat"])
    except (IndexError, KeyError, TypeError, ValueError):
        return None


def authentication_of(
    client_id: str | None, client_secret: str | None, authentication: ClientAuthentication | None
) -> ClientAuthentication:
    """How a client says who it is, from what its user has said."""
    if authentication is not None:
        if client_secret is not None:
            raise ValueError("give client_secret or authentication, not both")
        return authentication
    if not client_id or not client_secret:
        raise ValueError("say who asks: client_id and client_secret, or authentication")
    return ClientSecret(client_id, client_secret)
