"""Compact JWS, strict (RFC 7515, RFC 8725): token, keys and algorithms in, header and payload bytes out.

Knows nothing of gRPC, of claims, or of where keys come from. In this order, and before any key is touched:

1. at most 8 KiB of ASCII;
2. exactly three parts, so that a JWE (five) is refused, each canonical base64url and none empty but the payload;
3. the header is a JSON object without duplicate members;
4. ``alg`` is one of those the caller allows, and of ES256, RS256, EdDSA; never ``none``, never HMAC;
5. ``typ`` is the one the caller expects (RFC 8725, section 3.11), with or without ``application/``;
6. no member that would change what is verified or point to keys: ``crit``, ``b64``, ``zip``, ``enc``, ``cty`` (which
   announces a nested token: RFC 7519, section 5.2), ``jwk``, ``jku``, ``x5u``, ``x5c``.

Then the key: the one that ``kid`` names, else the only one of the algorithm. Its own type must be that of ``alg``
(RFC 8725, section 3.1). Then the signature.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import lru_cache
from typing import Any, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from grpc_identity.encoding import decode_base64url, parse_json_object
from grpc_identity.errors import Reason, TokenError
from grpc_identity.jwk import MAX_KID_CHARS, Algorithm, KeySet, VerifyingKey

__all__ = [
    "ALL_ALGORITHMS",
    "MAX_TOKEN_BYTES",
    "UnverifiedJws",
    "VerifiedJws",
    "parse_compact",
    "verify_compact",
    "verify_signature",
]

MAX_TOKEN_BYTES = 8 * 1024
MAX_KNOWN_HEADERS = 128
ALL_ALGORITHMS = frozenset(Algorithm)

_ALGORITHMS = {algorithm.value: algorithm for algorithm in Algorithm}
_REFUSED_MEMBERS = frozenset({"crit", "b64", "zip", "enc", "cty", "jwk", "jku", "x5u", "x5c"})
_NOT_BASE64URL = "a part is not canonical base64url"
_ALG_NOT_ALLOWED = "the header's alg is not allowed"
_ES256_SIGNATURE_BYTES = 64


class VerifiedJws(NamedTuple):
    """The content of a token whose signature is good, as the signer wrote it."""

    header: bytes
    payload: bytes


class UnverifiedJws(NamedTuple):
    """A well-formed token, **not verified**: nothing in it may be believed yet."""

    algorithm: Algorithm
    kid: str | None
    header: bytes
    payload: bytes
    signing_input: bytes
    signature: bytes

    def __repr__(self) -> str:
        return f"UnverifiedJws(algorithm={self.algorithm!r}, kid={self.kid!r})"


class _Header(NamedTuple):
    text: bytes
    algorithm: Algorithm
    kid: str | None
    typ: str | None


def verify_compact(
    token: str | bytes,
    keys: KeySet,
    *,
    algorithms: Collection[Algorithm] = ALL_ALGORITHMS,
    typ: str | None = None,
) -> VerifiedJws:
    """The header and payload of a token that one of ``keys`` has signed with one of ``algorithms``.

    ``typ`` is what the header must say; ``None`` leaves it unchecked, for callers that know the kind of token
    otherwise. Raises ``TokenError`` with ``TOKEN_INVALID`` or ``KEY_UNKNOWN``, and nothing else.
    """
    jws = parse_compact(token, algorithms=algorithms, typ=typ)
    verify_signature(jws, keys)
    return VerifiedJws(jws.header, jws.payload)


def parse_compact(
    token: str | bytes,
    *,
    algorithms: Collection[Algorithm] = ALL_ALGORITHMS,
    typ: str | None = None,
) -> UnverifiedJws:
    """The parts of a token after steps 1 to 6, for callers that choose the keys by what the token says."""
    raw = _ascii(token)
    parts = raw.split(b".", 5)
    if len(parts) != 3:
        raise _invalid(f"{len(parts)} parts; a compact JWS has 3")
    header_text, payload_text, signature_text = parts
    header = _read_header(header_text)
    try:
        payload = decode_base64url(payload_text)
        signature = decode_base64url(signature_text)
    except ValueError:
        raise _invalid(_NOT_BASE64URL) from None
    if algorithms is not ALL_ALGORITHMS and header.algorithm not in algorithms:
        raise _invalid(_ALG_NOT_ALLOWED)
    if typ is not None and header.typ != typ:
        raise _invalid(f"the header's typ is not {typ}")
    if not signature:
        raise _invalid("the signature is empty")
    signing_input = raw[: len(header_text) + 1 + len(payload_text)]
    return UnverifiedJws(header.algorithm, header.kid, header.text, payload, signing_input, signature)


def verify_signature(jws: UnverifiedJws, keys: KeySet) -> None:
    """Finds the key in ``keys`` and checks the signature with it. Raises ``TokenError``, or the token is verified."""
    key = _find_key(jws, keys)
    if key.algorithm is not jws.algorithm:
        raise _invalid(f"alg {jws.algorithm} with a key for {key.algorithm}")
    try:
        _CHECKS[key.algorithm](key.public_key, jws.signing_input, jws.signature)
    except InvalidSignature:
        raise _invalid("the signature does not verify") from None


def _ascii(token: str | bytes) -> bytes:
    # The length first: encoding a megabyte only to refuse it is work done for a stranger.
    if len(token) > MAX_TOKEN_BYTES:
        raise _invalid(f"longer than {MAX_TOKEN_BYTES} bytes")
    if isinstance(token, bytes):
        raw = token
    else:
        try:
            raw = token.encode("ascii")
        except UnicodeEncodeError:
            raise _invalid("not ASCII") from None
    return raw


_SHA256 = SHA256()
_ECDSA = ECDSA(_SHA256)
_PKCS1_V1_5 = PKCS1v15()


def _check_es256(key: EllipticCurvePublicKey, signing_input: bytes, signature: bytes) -> None:
    # RFC 7518, section 3.4: R and S, 32 bytes each, where the library wants DER.
    if len(signature) != _ES256_SIGNATURE_BYTES:
        raise InvalidSignature
    der = encode_dss_signature(int.from_bytes(signature[:32]), int.from_bytes(signature[32:]))
    key.verify(der, signing_input, _ECDSA)


def _check_rs256(key: RSAPublicKey, signing_input: bytes, signature: bytes) -> None:
    key.verify(signature, signing_input, _PKCS1_V1_5, _SHA256)


def _check_eddsa(key: Ed25519PublicKey, signing_input: bytes, signature: bytes) -> None:
    key.verify(signature, signing_input)


# By algorithm and not by the type of the key: the types are abstract, and asking for one costs as much as parsing.
# A key's algorithm is decided by its type when it is loaded.
_CHECKS: dict[Algorithm, Callable[[Any, bytes, bytes], None]] = {
    Algorithm.ES256: _check_es256,
    Algorithm.RS256: _check_rs256,
    Algorithm.EDDSA: _check_eddsa,
}


@lru_cache(MAX_KNOWN_HEADERS)
def _read_header(header_text: bytes) -> _Header:
    """Steps 2 to 6 for the header, but for what the caller expects of it.

    The tokens of one key have one header, letter by letter, so it need not be read with each of them. What is
    remembered is what these very bytes say, whoever sent them; a refusal is not remembered.
    """
    try:
        text = decode_base64url(header_text)
    except ValueError:
        raise _invalid(_NOT_BASE64URL) from None
    try:
        members = parse_json_object(text)
    except ValueError as error:
        raise _invalid(f"the header is not strict JSON: {error}") from None
    if refused := _REFUSED_MEMBERS.intersection(members):
        raise _invalid(f"the header has {', '.join(sorted(refused))}")
    alg = members.get("alg")
    algorithm = _ALGORITHMS.get(alg) if isinstance(alg, str) else None
    if algorithm is None:
        raise _invalid(_ALG_NOT_ALLOWED)
    kid = members.get("kid")
    if "kid" in members and not (isinstance(kid, str) and 0 < len(kid) <= MAX_KID_CHARS):
        raise _invalid(f"the header's kid is not a string of 1 to {MAX_KID_CHARS} characters")
    return _Header(text, algorithm, kid, _media_type(members.get("typ")))


def _media_type(typ: object) -> str | None:
    # RFC 7515, section 4.1.9: media types compare without regard to case, and `application/` may be left out.
    return typ.lower().removeprefix("application/") if isinstance(typ, str) else None


def _find_key(jws: UnverifiedJws, keys: KeySet) -> VerifyingKey:
    if jws.kid is not None:
        key = keys.get(jws.kid)
        if key is None:
            raise TokenError(Reason.KEY_UNKNOWN, f"no key with the kid {jws.kid!r} is held")
        return key
    fitting = [key for key in keys if key.algorithm is jws.algorithm]
    if len(fitting) != 1:
        raise TokenError(Reason.KEY_UNKNOWN, f"no kid, and {len(fitting)} keys for {jws.algorithm} are held")
    return fitting[0]


def _invalid(detail: str) -> TokenError:
    return TokenError(Reason.TOKEN_INVALID, detail)
