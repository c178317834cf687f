"""The access token: a JWT as RFC 9068 profiles it, put together without parsing anything twice.

What a session fixes are ``sub``, ``client_id``, ``sid``, ``roles``, ``auth_time``, ``acr`` and ``amr``; a claims source may add private
claims. Each token adds ``aud``, ``scope``, ``iat``, ``exp`` and ``jti``. ``aud`` and ``scope`` stay apart because a refresh may narrow them.

Rules it keeps:

- header ``alg``, ``kid``, ``typ: at+jwt`` and nothing else (RFC 9068, section 2.1);
- at most 15 minutes of life and at most 1 KiB of text;
- ``roles`` and private claims (RFC 7519, section 4.3) stay apart from the rest, because a session may be given others
  while it lives; a private claim has no name that means something already;
- ``jti`` is of fixed length and carries the bucket and the store's sequence number at which the token was
  recorded. A cut-off ("everything of this subject up to here") compares sequence numbers and no clocks, so
  what was issued just after it, in the same second, lives.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from identity.tokens.names import is_name
from identity.tokens.session_terms import SessionTerms

MAX_TTL_SECONDS = 15 * 60
MAX_TOKEN_BYTES = 1024
EVENT_ID_BYTES = 10

_SIGNATURE_BYTES = {"ES256": 64, "EdDSA": 64, "RS256": 256}
_TOKEN_ID_CHARS = 24
_NO_ROLES = "[]"
_SESSION_CLAIMS = frozenset({"sub", "client_id", "sid", "auth_time", "acr", "amr", "act"})
RESERVED_CLAIMS = _SESSION_CLAIMS | {
    # RFC 7519, section 4.1; RFC 9068, section 2.2; RFC 7800; RFC 8693, section 4; RFC 9396; OpenID Connect Core, section 2.
    "iss", "aud", "exp", "nbf", "iat", "jti", "scope", "roles", "groups", "entitlements", "cnf", "may_act",
    "authorization_details", "azp", "nonce", "at_hash", "c_hash",
}  # fmt: skip
"""Names that no private claim may have."""
MAX_PRIVATE_CLAIMS = 16


class TokenTooLargeError(Exception):
    """The claims do not fit into 1 KiB."""

    def __init__(self, size_bytes: int) -> None:
        super().__init__(
            f"the access token would have {size_bytes} bytes; at most {MAX_TOKEN_BYTES} are allowed"
        )


@dataclass(frozen=True, slots=True)
class SessionClaims:
    """What every access token of a session says alike."""

    subject: str
    client_id: str
    session_id: str | None = None
    roles: tuple[str, ...] = ()
    auth_time_seconds: int | None = None
    acr: str = ""
    amr: tuple[str, ...] = ()
    actors: tuple[str, ...] = ()
    """Who acts for the subject (``act``, RFC 8693, section 4.1), the present one first."""
    private: str = ""
    """As ``serialised_private`` gives them."""

    def serialised(self) -> str:
        """The members of a JSON object, without its braces."""
        return with_roles(self.lasting() + self.private, serialised_roles(self.roles))

    def lasting(self) -> str:
        """As ``serialised``, without what may change: roles and private claims."""
        members: dict[str, object] = {"sub": self.subject, "client_id": self.client_id}
        if self.session_id is not None:
            members["sid"] = self.session_id
        if self.auth_time_seconds is not None:
            members["auth_time"] = self.auth_time_seconds
        if self.acr:
            members["acr"] = self.acr
        if self.amr:
            members["amr"] = list(self.amr)
        if self.actors:
            members["act"] = _act(self.actors)
        return _dumps(members)[1:-1]


def claims_of_session(
    subject: str,
    session_id: str,
    terms: SessionTerms,
    auth_time_seconds: int | None,
    roles: str,
    private: str = "",
) -> str:
    """What every access token of a session says, serialised; ``roles`` is a JSON array, ``private`` as
    ``serialised_private`` gives it."""
    claims = SessionClaims(
        subject,
        terms.client_id,
        session_id,
        auth_time_seconds=auth_time_seconds,
        acr=terms.acr,
        amr=terms.amr,
    )
    return with_roles(claims.lasting() + private, roles)


def _act(actors: Sequence[str]) -> dict[str, object]:
    present, *before = actors
    return {"sub": present, "act": _act(before)} if before else {"sub": present}


def serialised_roles(roles: Sequence[str]) -> str:
    """A JSON array."""
    return _dumps(list(roles))


def with_roles(claims: str, roles: str) -> str:
    """Serialised claims with serialised roles; none at all leave the claim out."""
    return claims if roles == _NO_ROLES else f'{claims},"roles":{roles}'


def is_claim_name(name: str) -> bool:
    """Whether a private claim may have it."""
    return name not in RESERVED_CLAIMS and is_name(name)


def serialised_private(claims: Mapping[str, object]) -> str:
    """The members of a JSON object, each after a comma, in the order of their names; empty for none."""
    return "".join(f",{_dumps(name)}:{_dumps(claims[name])}" for name in sorted(claims))


@dataclass(frozen=True, slots=True)
class TokenId:
    """The claim ``jti``: 18 bytes as 24 characters of base64url.

    ``sequence`` is the place of the event that recorded the token in its bucket; ``event_id`` is that event.
    """

    bucket: int
    sequence: int
    event_id: bytes

    def __str__(self) -> str:
        raw = self.bucket.to_bytes(2) + self.sequence.to_bytes(6) + self.event_id
        return urlsafe_b64encode(raw).decode()

    @classmethod
    def parse(cls, text: str) -> TokenId | None:
        """The parts of a ``jti`` of this service, or ``None`` for any other."""
        try:
            raw = urlsafe_b64decode(text)
        except ValueError:
            return None
        if len(text) != _TOKEN_ID_CHARS or len(raw) != 8 + EVENT_ID_BYTES:
            return None
        return cls(int.from_bytes(raw[:2]), int.from_bytes(raw[2:8]), raw[8:])


class AccessTokenAssembler:
    """Makes the signing input of access tokens of one issuer (RFC 7515, section 5.1)."""

    __slots__ = ("_headers", "_prefix")

    def __init__(self, issuer: str) -> None:
        self._prefix = f'{{"iss":{_dumps(issuer)},'
        self._headers: dict[tuple[str, str], bytes] = {}

    def signing_input(
        self,
        *,
        algorithm: str,
        kid: str,
        session_claims: str,
        audience: Sequence[str],
        scope: str,
        issued_at_seconds: int,
        ttl_seconds: int,
        token_id: str,
    ) -> bytes:
        """``BASE64URL(header).BASE64URL(payload)``; ``session_claims`` as ``SessionClaims.serialised()`` gave it.

        Raises ``TokenTooLargeError`` if the signed token would pass 1 KiB.
        """
        aud = _dumps(audience[0] if len(audience) == 1 else list(audience))
        payload = (
            f'{self._prefix}{session_claims},"aud":{aud},"scope":{_dumps(scope)},"iat":{issued_at_seconds},'
            f'"exp":{issued_at_seconds + ttl_seconds},"jti":"{token_id}"}}'
        )
        header = self._headers.get((algorithm, kid))
        if header is None:
            header = _unpadded(_dumps({"alg": algorithm, "kid": kid, "typ": "at+jwt"}).encode()) + b"."
            self._headers = {(algorithm, kid): header}
        signing_input = header + _unpadded(payload.encode())
        size = len(signing_input) + 1 + (_SIGNATURE_BYTES[algorithm] * 4 + 2) // 3
        if size > MAX_TOKEN_BYTES:
            raise TokenTooLargeError(size)
        return signing_input


def compact(signing_input: bytes, signature: bytes) -> str:
    """The token: signing input and signature, joined (RFC 7515, section 7.1)."""
    return (signing_input + b"." + _unpadded(signature)).decode()


def _unpadded(raw: bytes) -> bytes:
    return urlsafe_b64encode(raw).rstrip(b"=")


_encoder = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False)
_dumps = _encoder.encode
