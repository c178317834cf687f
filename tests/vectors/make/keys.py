"""The test keys that the RFCs publish with their private parts, and signing with them, the same each time.

ES256: RFC 7515, appendix A.3.1. RS256: RFC 7515, appendix A.2.1. EdDSA: RFC 8037, appendix A.1. Whoever trusts a
token because one of these keys has signed it has lost already; here that is the point.
"""

from __future__ import annotations

import base64
import json
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
ED25519_ORDER = 2**252 + 27742317777372353535851937790883648493

RSA_N = (
    "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZ"
    "S-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2"
    "R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcD"
    "TW9gb54h4FRWyuXpoQ"
)
RSA_D = (
    "Eq5xpGnNCivDflJsRQBXHx1hdR1k6Ulwe2JZD50LpXyWPEAeP88vLNO97IjlA7_GQ5sLKMgvfTeXZx9SE-7YwVol2NXOoAJe46sui395IW_G"
    "O-pWJ1O0BkTGoVEn2bKVRUCgu-GjBVaYLU6f3l9kJfFNS3E0QbVdxzubSu3Mkqzjkn439X0M_V51gfpRLI9JYanrC4D4qAdGcopV_0ZHHzQl"
    "BjudU2QvXt4ehNYTCBr6XCLQUShb1juUO1ZdiYoFaFQT5Tw8bGUl_x_jTj3ccPDVZFD9pIuhLhBOneufuBiB4cS98l2SR_RQyGWSeWjnczT0"
    "QU91p1DhOVRuOopznQ"
)
EC_D = "jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI"
ED_D = "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"


def encode(raw: bytes) -> str:
    """Base64url without padding."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def decode(text: str) -> bytes:
    """What ``encode`` was given."""
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def number(text: str) -> int:
    """A number as a JWK writes it."""
    return int.from_bytes(decode(text))


def _rsa_private_key() -> rsa.RSAPrivateKey:
    n, d = number(RSA_N), number(RSA_D)
    p, q = rsa.rsa_recover_prime_factors(n, 65537, d)
    numbers = rsa.RSAPrivateNumbers(
        max(p, q),
        min(p, q),
        d,
        rsa.rsa_crt_dmp1(d, max(p, q)),
        rsa.rsa_crt_dmq1(d, min(p, q)),
        rsa.rsa_crt_iqmp(max(p, q), min(p, q)),
        rsa.RSAPublicNumbers(65537, n),
    )
    return numbers.private_key()


EC = ec.derive_private_key(number(EC_D), ec.SECP256R1())
RSA = _rsa_private_key()
ED = ed25519.Ed25519PrivateKey.from_private_bytes(decode(ED_D))
MALLORY = ec.derive_private_key(7, ec.SECP256R1())


def derived(scalar: int) -> ec.EllipticCurvePrivateKey:
    """The key with this private number."""
    return ec.derive_private_key(scalar, ec.SECP256R1())


def coordinates(key: ec.EllipticCurvePrivateKey) -> tuple[bytes, bytes]:
    """The public point."""
    point = key.public_key().public_numbers()
    return point.x.to_bytes(32), point.y.to_bytes(32)


EC_JWK = {"kty": "EC", "crv": "P-256", **dict(zip("xy", map(encode, coordinates(EC)), strict=True))}
RSA_JWK = {"kty": "RSA", "n": RSA_N, "e": "AQAB"}
ED_JWK = {"kty": "OKP", "crv": "Ed25519", "x": encode(ED.public_key().public_bytes_raw())}
MALLORY_JWK = {"kty": "EC", "crv": "P-256", **dict(zip("xy", map(encode, coordinates(MALLORY)), strict=True))}
JWKS = {
    "keys": [
        {**EC_JWK, "kid": "es", "alg": "ES256", "use": "sig"},
        {**RSA_JWK, "kid": "rs", "alg": "RS256", "use": "sig"},
        {**ED_JWK, "kid": "ed", "alg": "EdDSA", "use": "sig"},
    ]
}


def ecdsa(message: bytes, key: ec.EllipticCurvePrivateKey = EC) -> tuple[int, int]:
    """R and S."""
    return decode_dss_signature(key.sign(message, ec.ECDSA(SHA256(), deterministic_signing=True)))


def sign(by: str, message: bytes) -> bytes:
    """The signature of ``by``: ``ES256``, ``RS256``, ``EdDSA``, or ``mallory``, whose key is not trusted."""
    match by:
        case "RS256":
            return RSA.sign(message, padding.PKCS1v15(), SHA256())
        case "EdDSA":
            return ED.sign(message)
        case _:
            r, s = ecdsa(message, MALLORY if by == "mallory" else EC)
            return r.to_bytes(32) + s.to_bytes(32)


def compact(value: Any) -> bytes:
    """JSON without white space."""
    return json.dumps(value, separators=(",", ":")).encode()
