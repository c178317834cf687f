"""A JWK becomes a checked public key, or is refused (RFC 7517, RFC 7518 section 6, RFC 8037, RFC 7638).

Rules for one key:

- public only: a private member (``d``, ``p``, ``q``, ``dp``, ``dq``, ``qi``, ``oth``) or a symmetric key (``oct``)
  is refused, because what was published is no secret any more;
- EC P-256 for ES256, the point on the curve; RSA of 2048 to 8192 bits with an odd exponent of at least 65537, for
  RS256; OKP Ed25519 for EdDSA, the point on the curve and not of small order. The type of a key decides its
  algorithm; an ``alg`` member must agree;
- numbers in the one encoding the RFC allows: canonical base64url, full length on curves, no leading zero in RSA;
- ``use``, where given, is ``sig``; ``key_ops``, where given, has ``verify``, does not have ``sign``, and has
  nothing twice (RFC 7517, section 4.3).

Rules for a set: at most 64 keys, each ``kid`` once, at least one key that can be used. A key that is sound but for
another purpose (``use: enc``, another curve, RS512) is left out, as RFC 7517 section 5 asks, and named in
``KeySet.ignored``; any other fault refuses the whole set.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePublicKey,
    EllipticCurvePublicNumbers,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey, RSAPublicNumbers
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from grpc_identity.edwards import is_sound_point
from grpc_identity.encoding import decode_base64url, encode_base64url, parse_json_object
from grpc_identity.errors import KeyRefusedError, KeyUnsuitableError

__all__ = [
    "MAX_JWKS_BYTES",
    "MAX_KEYS",
    "Algorithm",
    "KeySet",
    "PublicKey",
    "VerifyingKey",
    "parse_jwk",
    "thumbprint",
    "to_jwk",
]

MAX_KEYS = 64
MAX_KID_CHARS = 256
MAX_KEY_OPS = 16
MAX_JWKS_BYTES = 256 * 1024
MIN_RSA_BITS = 2048
MAX_RSA_BITS = 8192
MIN_RSA_EXPONENT = 65537
MAX_RSA_EXPONENT_BYTES = 8
_COORDINATE_BYTES = 32

PublicKey = EllipticCurvePublicKey | RSAPublicKey | Ed25519PublicKey


class Algorithm(StrEnum):
    """The signature algorithms that are accepted (RFC 7518, section 3.1; RFC 8037, section 3.1)."""

    ES256 = "ES256"
    RS256 = "RS256"
    EDDSA = "EdDSA"

    # Equal to the string's, as members are; that of `Enum` is written in Python, and asked for with each token.
    __hash__ = str.__hash__


_KEY_TYPES = {"EC": Algorithm.ES256, "RSA": Algorithm.RS256, "OKP": Algorithm.EDDSA}
_CURVES = {"EC": "P-256", "OKP": "Ed25519"}
_PRIVATE_MEMBERS = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})


@dataclass(frozen=True, slots=True)
class VerifyingKey:
    """A public key that has passed every check, and the one algorithm it is for."""

    kid: str | None
    algorithm: Algorithm
    public_key: PublicKey = field(repr=False, compare=False)
    thumbprint: str


@dataclass(frozen=True, slots=True)
class KeySet:
    """The keys of one issuer. Two sets are equal when they hold the same keys under the same ids.

    >>> KeySet.from_json(b'{"keys": []}')
    Traceback (most recent call last):
    ...
    grpc_identity.errors.KeyRefusedError: the set has no usable key
    """

    keys: tuple[VerifyingKey, ...]
    ignored: tuple[str, ...] = field(default=(), compare=False)
    _by_kid: dict[str, VerifyingKey] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.keys:
            ignored = f" (left out: {'; '.join(self.ignored)})" if self.ignored else ""
            raise KeyRefusedError(f"the set has no usable key{ignored}")
        if len(self.keys) > MAX_KEYS:
            raise KeyRefusedError(f"the set has {len(self.keys)} keys; at most {MAX_KEYS} are allowed")
        by_kid: dict[str, VerifyingKey] = {}
        for key in self.keys:
            if key.kid is not None and by_kid.setdefault(key.kid, key) is not key:
                raise KeyRefusedError(f"the set has the kid {key.kid!r} twice")
        object.__setattr__(self, "_by_kid", by_kid)

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def kids(self) -> tuple[str, ...]:
        """The ids of the keys that have one."""
        return tuple(key.kid for key in self.keys if key.kid)

    def __iter__(self) -> Iterator[VerifyingKey]:
        return iter(self.keys)

    def get(self, kid: str) -> VerifyingKey | None:
        """The key with this id; ``None`` means that the issuer has not published it, or not yet."""
        return self._by_kid.get(kid)

    @classmethod
    def from_json(cls, document: bytes | str) -> KeySet:
        """The keys of a JWK set as it was published (RFC 7517, section 5)."""
        try:
            raw = document.encode() if isinstance(document, str) else document
        except UnicodeEncodeError:
            raise KeyRefusedError("the set is not strict JSON: it has a lone surrogate") from None
        if len(raw) > MAX_JWKS_BYTES:
            raise KeyRefusedError(f"the set has {len(raw)} bytes; at most {MAX_JWKS_BYTES} are allowed")
        try:
            members = parse_json_object(raw)
        except ValueError as error:
            raise KeyRefusedError(f"the set is not strict JSON: {error}") from None
        return cls.from_dict(members)

    @classmethod
    def from_dict(cls, members: Mapping[str, Any]) -> KeySet:
        """The keys of a JWK set whose JSON has been read already."""
        jwks = members.get("keys")
        if not isinstance(jwks, list | tuple):
            raise KeyRefusedError("the set has no list `keys`")
        return cls.from_jwks(jwks)

    @classmethod
    def from_jwks(cls, jwks: Iterable[Any]) -> KeySet:
        """A set of these JWKs."""
        jwks = list(jwks)
        if len(jwks) > MAX_KEYS:
            raise KeyRefusedError(f"the set has {len(jwks)} keys; at most {MAX_KEYS} are allowed")
        keys: list[VerifyingKey] = []
        ignored: list[str] = []
        kids: set[str] = set()
        for jwk in jwks:
            # Also among keys that are left out: two keys of one name are a fault of the whole set.
            kid = jwk.get("kid") if isinstance(jwk, Mapping) else None
            if isinstance(kid, str):
                if kid in kids:
                    raise KeyRefusedError(f"the set has the kid {kid[:MAX_KID_CHARS]!r} twice")
                kids.add(kid)
            try:
                keys.append(parse_jwk(jwk))
            except KeyUnsuitableError as error:
                ignored.append(str(error))
        return cls(tuple(keys), tuple(ignored))


def parse_jwk(jwk: Mapping[str, Any]) -> VerifyingKey:
    """One JWK, checked. Raises ``KeyRefusedError``, or ``KeyUnsuitableError`` if it is for another purpose."""
    if not isinstance(jwk, Mapping):
        raise KeyRefusedError("a key is not a JSON object")
    kid = jwk.get("kid")
    if kid is not None and not (isinstance(kid, str) and 0 < len(kid) <= MAX_KID_CHARS):
        raise KeyRefusedError(f"a key's kid is not a string of 1 to {MAX_KID_CHARS} characters")
    name = "a key without kid" if kid is None else f"key {kid!r}"
    kty = jwk.get("kty")
    if not isinstance(kty, str):
        raise KeyRefusedError(f"{name} has no kty")
    if kty == "oct":
        raise KeyRefusedError(f"{name} is symmetric; verifiers take public keys only")
    if private := sorted(_PRIVATE_MEMBERS.intersection(jwk)):
        raise KeyRefusedError(
            f"{name} has private members ({', '.join(private)}); replace the key, it is no secret"
        )
    algorithm = _algorithm(jwk, kty, name)
    try:
        match algorithm:
            case Algorithm.ES256:
                public_key: PublicKey = _ec_key(jwk)
            case Algorithm.RS256:
                public_key = _rsa_key(jwk)
            case Algorithm.EDDSA:
                public_key = _okp_key(jwk)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise KeyRefusedError(f"{name}: {error}") from None
    return VerifyingKey(kid, algorithm, public_key, thumbprint(public_key))


def thumbprint(public_key: PublicKey) -> str:
    """The SHA-256 thumbprint of a key (RFC 7638)."""
    required = json.dumps(_required_members(public_key), sort_keys=True, separators=(",", ":"))
    return encode_base64url(hashlib.sha256(required.encode()).digest())


def to_jwk(public_key: PublicKey, *, kid: str | None = None) -> dict[str, str]:
    """The JWK of a public key, as ``parse_jwk`` accepts it; ``kid`` is the thumbprint unless given."""
    match public_key:
        case EllipticCurvePublicKey():
            algorithm = Algorithm.ES256
        case RSAPublicKey():
            algorithm = Algorithm.RS256
        case _:
            algorithm = Algorithm.EDDSA
    members = _required_members(public_key)
    jwk = {"use": "sig", "alg": algorithm.value, "kid": kid or thumbprint(public_key), **members}
    parse_jwk(jwk)
    return jwk


def _algorithm(jwk: Mapping[str, Any], kty: str, name: str) -> Algorithm:
    use, key_ops, alg, curve = (jwk.get(member) for member in ("use", "key_ops", "alg", "crv"))
    if use is not None and use != "sig":
        raise KeyUnsuitableError(f"{name} is not for signatures (use {str(use)[:40]!r})")
    if key_ops is not None:
        if not _may_be_operations(key_ops):
            raise KeyRefusedError(f"{name} has key_ops that a public key cannot have")
        if "verify" not in key_ops:
            raise KeyUnsuitableError(f"{name} is not for verifying (key_ops)")
    algorithm = _KEY_TYPES.get(kty)
    if algorithm is None:
        raise KeyUnsuitableError(f"{name} has the kty {kty[:40]!r}; EC, RSA and OKP are known")
    if kty in _CURVES and curve != _CURVES[kty]:
        raise KeyUnsuitableError(f"{name} is on the curve {str(curve)[:40]!r}; {_CURVES[kty]} is known")
    if alg is None or alg == algorithm:
        return algorithm
    if not isinstance(alg, str) or alg in tuple(Algorithm) or alg.startswith("HS") or alg.lower() == "none":
        raise KeyRefusedError(
            f"{name} has the alg {str(alg)[:40]!r}, which does not fit its type; {algorithm} does"
        )
    raise KeyUnsuitableError(f"{name} is for {alg[:40]!r}; of its type {algorithm} is known")


def _may_be_operations(key_ops: object) -> bool:
    return (
        isinstance(key_ops, list)
        and len(key_ops) <= MAX_KEY_OPS
        and all(isinstance(operation, str) for operation in key_ops)
        and len(set(key_ops)) == len(key_ops)
        and "sign" not in key_ops
    )


def _ec_key(jwk: Mapping[str, Any]) -> EllipticCurvePublicKey:
    x = int.from_bytes(_octets(jwk, "x", _COORDINATE_BYTES))
    y = int.from_bytes(_octets(jwk, "y", _COORDINATE_BYTES))
    # Raises ValueError unless the point is on the curve.
    return EllipticCurvePublicNumbers(x, y, SECP256R1()).public_key()


def _okp_key(jwk: Mapping[str, Any]) -> Ed25519PublicKey:
    point = _octets(jwk, "x", _COORDINATE_BYTES)
    if not is_sound_point(point):
        raise ValueError("`x` is no point of edwards25519, or one of small order")
    return Ed25519PublicKey.from_public_bytes(point)


def _rsa_key(jwk: Mapping[str, Any]) -> RSAPublicKey:
    n = _unsigned(jwk, "n", MAX_RSA_BITS // 8)
    e = _unsigned(jwk, "e", MAX_RSA_EXPONENT_BYTES)
    if not MIN_RSA_BITS <= n.bit_length() <= MAX_RSA_BITS:
        raise ValueError(f"RSA with {n.bit_length()} bits; {MIN_RSA_BITS} to {MAX_RSA_BITS} are allowed")
    if e < MIN_RSA_EXPONENT or e % 2 == 0 or n % 2 == 0:
        raise ValueError(f"not a sound RSA key; the exponent is odd and at least {MIN_RSA_EXPONENT}")
    return RSAPublicNumbers(e, n).public_key()


def _octets(jwk: Mapping[str, Any], member: str, length: int) -> bytes:
    raw = _decode_member(jwk, member)
    if len(raw) != length:
        raise ValueError(f"`{member}` has {len(raw)} bytes; {length} are due")
    return raw


def _unsigned(jwk: Mapping[str, Any], member: str, max_bytes: int) -> int:
    raw = _decode_member(jwk, member)
    if not raw or raw[0] == 0 or len(raw) > max_bytes:
        raise ValueError(f"`{member}` is empty, has a leading zero, or more than {max_bytes} bytes")
    return int.from_bytes(raw)


def _decode_member(jwk: Mapping[str, Any], member: str) -> bytes:
    value = jwk.get(member)
    if not isinstance(value, str) or not value.isascii():
        raise ValueError(f"`{member}` is missing or not base64url")
    try:
        return decode_base64url(value.encode("ascii"))
    except ValueError:
        raise ValueError(f"`{member}` is not canonical base64url") from None


def _required_members(public_key: PublicKey) -> dict[str, str]:
    match public_key:
        case EllipticCurvePublicKey():
            point = public_key.public_numbers()
            x, y = (encode_base64url(value.to_bytes(_COORDINATE_BYTES)) for value in (point.x, point.y))
            return {"crv": "P-256", "kty": "EC", "x": x, "y": y}
        case RSAPublicKey():
            numbers = public_key.public_numbers()
            e, n = (encode_base64url(v.to_bytes((v.bit_length() + 7) // 8)) for v in (numbers.e, numbers.n))
            return {"e": e, "kty": "RSA", "n": n}
        case _:
            raw = public_key.public_bytes(Encoding.Raw, PublicFormat.Raw)
            return {"crv": "Ed25519", "kty": "OKP", "x": encode_base64url(raw)}
