"""Mints access tokens, good ones and deliberately broken ones. For tests only: its keys live in memory."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Collection, Mapping
from enum import Enum
from secrets import token_bytes
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    EllipticCurvePrivateKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as generate_rsa_key
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from grpc_identity.claims import ACCESS_TOKEN_TYPE
from grpc_identity.clock import Clock, wall_clock
from grpc_identity.encoding import decode_base64url, encode_base64url
from grpc_identity.issuer import Issuer
from grpc_identity.jwk import Algorithm, to_jwk
from grpc_identity.revocations import RevocationView, Revoked

__all__ = ["Flaw", "InMemoryIssuer"]

DEFAULT_TTL_SECONDS = 600
_LONG_AGO_SECONDS = 86_400
_REVOKED_FOR_SECONDS = 86_400
_BUCKET = 0
_TOKEN_ID_RANDOM_BYTES = 10

_PrivateKey = EllipticCurvePrivateKey | RSAPrivateKey | Ed25519PrivateKey


class Flaw(Enum):
    """What is wrong with a token, and the ``Reason`` a verifier gives for refusing it."""

    EXPIRED = ("expired", "TOKEN_EXPIRED")
    NOT_YET_VALID = ("issued in the future", "TOKEN_NOT_YET_VALID")
    WRONG_AUDIENCE = ("for another audience", "AUDIENCE_MISMATCH")
    WRONG_ISSUER = ("by another issuer", "ISSUER_MISMATCH")
    UNKNOWN_KEY = ("signed with a key nobody published", "KEY_UNKNOWN")
    BAD_SIGNATURE = ("one bit of the signature changed", "TOKEN_INVALID")
    OTHER_PAYLOAD = ("the signature of another payload", "TOKEN_INVALID")
    ALGORITHM_NONE = ("unsigned, `alg: none`", "TOKEN_INVALID")
    PUBLIC_KEY_AS_SECRET = ("HMAC with the public key as the secret", "TOKEN_INVALID")
    WRONG_TYPE = ("`typ` of an id token", "TOKEN_INVALID")
    WITHOUT_SUBJECT = ("no `sub`", "TOKEN_INVALID")
    DUPLICATE_CLAIM = ("`sub` twice", "TOKEN_INVALID")
    PADDED = ("base64 padding", "TOKEN_INVALID")
    EMBEDDED_KEY = ("brings its own key along", "TOKEN_INVALID")

    def __init__(self, description: str, reason: str) -> None:
        self.description = description
        self.reason = reason


class InMemoryIssuer:
    """An issuer with one key, made anew each time.

    >>> issuer = InMemoryIssuer(audience="orders")
    >>> token = issuer.mint(subject="alice", roles=["admin"], ttl_seconds=60)
    >>> expired = issuer.mint_broken(Flaw.EXPIRED)
    """

    def __init__(
        self,
        issuer: str = "https://issuer.test",
        *,
        audience: str | Collection[str] = "test",
        algorithm: Algorithm | str = Algorithm.ES256,
        clock: Clock = wall_clock,
    ) -> None:
        self.issuer = issuer
        self.audience = (audience,) if isinstance(audience, str) else tuple(audience)
        self.algorithm = Algorithm(algorithm)
        self._clock = clock
        self._keys: list[tuple[str, _PrivateKey]] = []
        self._minted = 0
        self._revocations = RevocationView()
        self.rotate()

    def __repr__(self) -> str:
        return f"InMemoryIssuer({self.issuer!r}, audience={self.audience!r}, algorithm={self.algorithm})"

    @property
    def kid(self) -> str:
        """The id of the key that signs."""
        return self._keys[-1][0]

    def rotate(self, *, keep_old: bool = True) -> None:
        """Makes a new key, which signs from now on; the old ones stay published unless told otherwise."""
        key = _make_key(self.algorithm)
        if not keep_old:
            self._keys.clear()
        self._keys.append((to_jwk(key.public_key())["kid"], key))

    def jwks(self) -> dict[str, Any]:
        """The public keys, as a JWK set."""
        return {"keys": [to_jwk(key.public_key()) for _, key in self._keys]}

    def trusted(self) -> Issuer:
        """This issuer, for a ``Verifier``, with the keys it has now."""
        return Issuer(self.issuer, keys=self.jwks(), audience=self.audience, revocations=self._revocations)

    def revoke(
        self,
        *,
        session_id: str = "",
        token_id: str = "",
        subject: str = "",
        client_id: str = "",
        kid: str = "",
    ) -> None:
        """Ends what is named, at once and in every verifier that trusts this issuer, streams included.

        Of a subject or client, what was minted up to now; what is minted later is good.
        """
        self._revocations.apply(
            [
                Revoked(
                    self._clock() + _REVOKED_FOR_SECONDS,
                    session_id=session_id,
                    token_id=token_id,
                    subject=subject,
                    client_id=client_id,
                    kid=kid,
                    up_to={_BUCKET: self._minted},
                )
            ]
        )

    def mint(
        self,
        *,
        subject: str = "alice",
        client_id: str = "test-client",
        scopes: Collection[str] = (),
        roles: Collection[str] = (),
        audience: str | Collection[str] | None = None,
        session_id: str | None = "test-session",
        ttl_seconds: int = DEFAULT_TTL_SECONDS,
        issued_at_seconds: int | None = None,
        claims: Mapping[str, Any] | None = None,
        header: Mapping[str, Any] | None = None,
    ) -> str:
        """A signed token. ``claims`` and ``header`` replace or add members; ``None`` leaves one out."""
        issued_at = int(self._clock()) if issued_at_seconds is None else issued_at_seconds
        audiences = (
            self.audience if audience is None else (audience,) if isinstance(audience, str) else audience
        )
        members: dict[str, Any] = {
            "iss": self.issuer,
            "sub": subject,
            "aud": list(audiences),
            "client_id": client_id,
            "iat": issued_at,
            "exp": issued_at + ttl_seconds,
            "jti": self._next_token_id(),
            "scope": " ".join(scopes),
            "sid": session_id,
            "roles": list(roles) or None,
            **(claims or {}),
        }
        return self.sign(_json(members), header=header)

    def _next_token_id(self) -> str:
        # As the identity server makes them: where in its count a token stands, so that cut-offs can be compared.
        self._minted += 1
        return encode_base64url(
            _BUCKET.to_bytes(2) + self._minted.to_bytes(6) + token_bytes(_TOKEN_ID_RANDOM_BYTES)
        )

    def sign(self, payload: bytes, *, header: Mapping[str, Any] | None = None) -> str:
        """A token with this payload, whatever it says."""
        kid, key = self._keys[-1]
        members = {"alg": self.algorithm.value, "kid": kid, "typ": ACCESS_TOKEN_TYPE, **(header or {})}
        signing_input = f"{encode_base64url(_json(members))}.{encode_base64url(payload)}"
        return f"{signing_input}.{encode_base64url(_sign(key, signing_input.encode()))}"

    def mint_broken(self, flaw: Flaw, *, subject: str = "alice", scopes: Collection[str] = ()) -> str:
        """A token that a verifier must refuse, for one reason only."""
        now = int(self._clock())
        said: dict[Flaw, dict[str, Any]] = {
            Flaw.EXPIRED: {"issued_at_seconds": now - _LONG_AGO_SECONDS},
            Flaw.NOT_YET_VALID: {"issued_at_seconds": now + _LONG_AGO_SECONDS},
            Flaw.WRONG_AUDIENCE: {"audience": "somebody-else"},
            Flaw.WRONG_ISSUER: {"claims": {"iss": "https://other.invalid"}},
            Flaw.WITHOUT_SUBJECT: {"claims": {"sub": None}},
            Flaw.WRONG_TYPE: {"header": {"typ": "JWT"}},
            Flaw.EMBEDDED_KEY: {"header": {"jwk": self.jwks()["keys"][-1]}},
        }
        token = self.mint(subject=subject, scopes=scopes, **said.get(flaw, {}))
        return token if flaw in said else self._forge(flaw, token)

    def _forge(self, flaw: Flaw, token: str) -> str:
        head, payload, signature = token.split(".")
        kid, key = self._keys[-1]
        header = {"kid": kid, "typ": ACCESS_TOKEN_TYPE}
        match flaw:
            case Flaw.UNKNOWN_KEY:
                other = InMemoryIssuer(algorithm=self.algorithm)
                return other.sign(_decoded(payload))
            case Flaw.BAD_SIGNATURE:
                other_character = "A" if signature[9] != "A" else "B"
                return f"{head}.{payload}.{signature[:9]}{other_character}{signature[10:]}"
            case Flaw.OTHER_PAYLOAD:
                return f"{head}.{self.mint(subject='mallory').split('.')[1]}.{signature}"
            case Flaw.ALGORITHM_NONE:
                return f"{_part({'alg': 'none', **header})}.{payload}."
            case Flaw.PUBLIC_KEY_AS_SECRET:
                pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
                signing_input = f"{_part({'alg': 'HS256', **header})}.{payload}"
                mac = hmac.digest(pem, signing_input.encode(), hashlib.sha256)
                return f"{signing_input}.{encode_base64url(mac)}"
            case Flaw.DUPLICATE_CLAIM:
                return self.sign(b'{"sub":"mallory",' + _decoded(payload)[1:])
            case Flaw.PADDED:
                return token + "=="
            case _:
                raise ValueError(f"{flaw} is made from claims")


def _make_key(algorithm: Algorithm) -> _PrivateKey:
    match algorithm:
        case Algorithm.ES256:
            return generate_private_key(SECP256R1())
        case Algorithm.RS256:
            return generate_rsa_key(65537, 2048)
        case Algorithm.EDDSA:
            return Ed25519PrivateKey.generate()


def _sign(key: _PrivateKey, signing_input: bytes) -> bytes:
    match key:
        case EllipticCurvePrivateKey():
            r, s = decode_dss_signature(key.sign(signing_input, ECDSA(SHA256())))
            return r.to_bytes(32) + s.to_bytes(32)
        case RSAPrivateKey():
            return key.sign(signing_input, PKCS1v15(), SHA256())
        case _:
            return key.sign(signing_input)


def _json(members: Mapping[str, Any]) -> bytes:
    present = {name: value for name, value in members.items() if value is not None}
    return json.dumps(present, separators=(",", ":")).encode()


def _part(members: Mapping[str, Any]) -> str:
    return encode_base64url(_json(members))


def _decoded(part: str) -> bytes:
    return decode_base64url(part.encode())
