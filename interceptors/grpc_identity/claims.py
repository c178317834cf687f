"""The claims of an access token, as RFC 9068 profiles them: first their form, then what they say.

Form (``parse_claims``), independent of time and place:

- one JSON object, no member twice, at most 8 KiB;
- ``iss sub aud exp iat jti client_id`` are there; ``scope sid roles auth_time acr amr act cnf nbf`` may be;
- every claim has its type and its bounds: a bool is no number, a float is no time, an empty string is no subject;
- ``iat`` is before ``exp``.

Content (``check_claims``), at one moment and for one place:

- ``iss`` is the issuer, compared character by character; one of ``aud`` is one of ours;
- ``exp`` has not passed, ``nbf`` and ``iat`` have, give or take a leeway of at most 30 seconds.

Raises ``TokenError``. Claims that are not known here are kept as they are, and decide nothing (RFC 7519, sections 4 and 4.3).
"""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache
from typing import Any, NamedTuple

from grpc_identity.encoding import parse_json_object
from grpc_identity.errors import Reason, TokenError
from grpc_identity.private_claims import NO_PRIVATE_CLAIMS, PrivateClaims

__all__ = [
    "ACCESS_TOKEN_TYPE",
    "MAX_LEEWAY_SECONDS",
    "AccessTokenClaims",
    "check_claims",
    "parse_claims",
]

ACCESS_TOKEN_TYPE = "at+jwt"  # noqa: S105 - RFC 9068, section 2.1
MAX_LEEWAY_SECONDS = 30
MAX_PAYLOAD_BYTES = 8 * 1024
MAX_TEXT_CHARS = 1024
MAX_LIST_ITEMS = 128
MAX_ACTORS = 8
MAX_KNOWN_SETS = 256
_LAST_SECOND = 253_402_300_799  # the end of the year 9999
_NONE = frozenset[str]()
_KNOWN = frozenset(
    {
        "iss", "sub", "aud", "exp", "iat", "nbf", "jti", "client_id", "scope", "sid", "roles", "auth_time", "acr", "amr",
        "act", "cnf",
    }
)  # fmt: skip


class AccessTokenClaims(NamedTuple):
    """What an access token says; times in seconds since the epoch.

    ``session_id`` is ``None`` for a token that belongs to no session. ``actors`` are the subjects of the ``act``
    chain (RFC 8693, section 4.1), the one who acts now first. ``is_bound`` says that the token has a ``cnf`` and is
    good only together with a proof of the key named there (RFC 7800). ``private`` are the claims that are not known here.
    """

    issuer: str
    subject: str
    audience: frozenset[str]
    client_id: str
    token_id: str
    issued_at_seconds: int
    expires_at_seconds: int
    not_before_seconds: int | None = None
    scopes: frozenset[str] = frozenset()
    session_id: str | None = None
    roles: frozenset[str] = frozenset()
    auth_time_seconds: int | None = None
    acr: str | None = None
    amr: frozenset[str] = frozenset()
    actors: tuple[str, ...] = ()
    is_bound: bool = False
    private: PrivateClaims = NO_PRIVATE_CLAIMS


def parse_claims(payload: bytes) -> AccessTokenClaims:
    """The claims in the payload of a token, checked for their form only.

    Before the signature is verified they may choose whose keys to try, and nothing else.
    """
    claims = _members(payload)
    issued_at = _seconds(claims, "iat")
    expires_at = _seconds(claims, "exp")
    if issued_at >= expires_at:
        raise _invalid("exp is not after iat")
    # In the order of the fields: naming seventeen of them costs as much as making the tuple.
    return AccessTokenClaims(
        _text(claims, "iss"),
        _text(claims, "sub"),
        _audience(claims),
        _text(claims, "client_id"),
        _text(claims, "jti"),
        issued_at,
        expires_at,
        _seconds(claims, "nbf") if "nbf" in claims else None,
        _scopes(claims),
        _text(claims, "sid") if "sid" in claims else None,
        _texts(claims, "roles") if "roles" in claims else _NONE,
        _seconds(claims, "auth_time") if "auth_time" in claims else None,
        _text(claims, "acr") if "acr" in claims else None,
        _texts(claims, "amr") if "amr" in claims else _NONE,
        _actors(claims["act"]) if "act" in claims else (),
        _is_bound(claims) if "cnf" in claims else False,
        NO_PRIVATE_CLAIMS if claims.keys() <= _KNOWN else PrivateClaims.without(_KNOWN, claims),
    )


def check_claims(
    claims: AccessTokenClaims,
    *,
    now_seconds: float,
    issuer: str,
    audiences: Collection[str],
    leeway_seconds: float = MAX_LEEWAY_SECONDS,
) -> None:
    """Refuses claims that are not for us, not from this issuer, or not for this moment."""
    if not 0 <= leeway_seconds <= MAX_LEEWAY_SECONDS:
        raise ValueError(f"leeway_seconds is {leeway_seconds}; 0 to {MAX_LEEWAY_SECONDS} are allowed")
    if claims.issuer != issuer:
        raise TokenError(Reason.ISSUER_MISMATCH, "iss is another issuer")
    if claims.audience.isdisjoint(audiences):
        raise TokenError(Reason.AUDIENCE_MISMATCH, f"aud has none of {', '.join(sorted(audiences))}")
    if now_seconds >= claims.expires_at_seconds + leeway_seconds:
        late = now_seconds - claims.expires_at_seconds
        raise TokenError(Reason.TOKEN_EXPIRED, f"expired {late:.0f} seconds ago")
    starts = max(claims.issued_at_seconds, claims.not_before_seconds or 0)
    if now_seconds < starts - leeway_seconds:
        early = starts - now_seconds
        raise TokenError(Reason.TOKEN_NOT_YET_VALID, f"good in {early:.0f} seconds only; compare the clocks")


def _members(payload: bytes) -> dict[str, Any]:
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise _invalid(f"the payload is longer than {MAX_PAYLOAD_BYTES} bytes")
    try:
        return parse_json_object(payload)
    except ValueError as error:
        raise _invalid(f"the payload is not strict JSON: {error}") from None


def _text(claims: dict[str, Any], name: str) -> str:
    value = claims.get(name)
    if type(value) is str and 0 < len(value) <= MAX_TEXT_CHARS and value.isascii():
        return value
    if name not in claims:
        raise _invalid(f"no {name}")
    return _checked_text(value, name)


def _checked_text(value: object, name: str) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= MAX_TEXT_CHARS:
        raise _invalid(f"{name} is not a string of 1 to {MAX_TEXT_CHARS} characters")
    # JSON can spell half a surrogate pair, which no log, header or protobuf can carry.
    if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        raise _invalid(f"{name} has a lone surrogate")
    return value


def _texts(claims: dict[str, Any], name: str) -> frozenset[str]:
    values = claims[name]
    if not isinstance(values, list) or len(values) > MAX_LIST_ITEMS:
        raise _invalid(f"{name} is not a list of at most {MAX_LIST_ITEMS} strings")
    return _same_set(frozenset([_checked_text(value, name) for value in values]))


def _seconds(claims: dict[str, Any], name: str) -> int:
    value = claims.get(name)
    # `type`, not `isinstance`: a JSON true is an int to Python.
    if type(value) is not int or not 0 <= value <= _LAST_SECOND:
        raise _invalid(f"{name} is not a number of whole seconds")
    return value


def _audience(claims: dict[str, Any]) -> frozenset[str]:
    if isinstance(claims.get("aud"), list):
        audience = _texts(claims, "aud")
        if not audience:
            raise _invalid("aud is empty")
        return audience
    return _same_set(frozenset((_text(claims, "aud"),)))


def _scopes(claims: dict[str, Any]) -> frozenset[str]:
    # RFC 8693, section 4.2: one string, names separated by spaces. Empty means none.
    value = claims.get("scope", "")
    if value == "":
        return _NONE
    return _names(_checked_text(value, "scope"))


@lru_cache(MAX_KNOWN_SETS)
def _names(scope: str) -> frozenset[str]:
    names = scope.split(" ")
    if "" in names or len(names) > MAX_LIST_ITEMS:
        raise _invalid(f"scope is not at most {MAX_LIST_ITEMS} names with single spaces between")
    return frozenset(names)


@lru_cache(MAX_KNOWN_SETS)
def _same_set(texts: frozenset[str]) -> frozenset[str]:
    """The one of these sets that is kept: most tokens are for the same audience, with the same roles."""
    return texts


def _actors(act: object) -> tuple[str, ...]:
    actors: list[str] = []
    while act is not None:
        if not isinstance(act, dict) or len(actors) == MAX_ACTORS:
            raise _invalid(f"act is not a chain of at most {MAX_ACTORS} objects")
        actors.append(_text(act, "sub"))
        act = act.get("act")
    if not actors:
        raise _invalid("act is null")
    return tuple(actors)


def _is_bound(claims: dict[str, Any]) -> bool:
    if not isinstance(claims["cnf"], dict):
        raise _invalid("cnf is not an object")
    return True


def _invalid(detail: str) -> TokenError:
    return TokenError(Reason.TOKEN_INVALID, detail)
