"""Signatures that are none, and second spellings of some that are."""

from __future__ import annotations

import hashlib

from batch import CLAIMS, Batch, claims, header, token
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from keys import (
    EC,
    ED25519_ORDER,
    P256_ORDER,
    RSA_D,
    RSA_N,
    compact,
    coordinates,
    decode,
    ecdsa,
    encode,
    number,
    sign,
)

NO = "does not verify"
_SHA256_PREFIX = bytes.fromhex("3031300d060960864801650304020105000420")
_SHA256_PREFIX_WITHOUT_NULL = bytes.fromhex("302f300b0609608648016503040201" + "0420")


def ecdsa_values(batch: Batch) -> None:
    """R and S from 1 to n-1, 32 bytes each (RFC 7518, section 3.4)."""
    signing_input = token().rsplit(".", 1)[0]
    r, s = ecdsa(signing_input.encode())
    x = int.from_bytes(coordinates(EC)[0])

    def with_signature(raw: bytes) -> str:
        return f"{signing_input}.{encode(raw)}"

    psychic = "CVE-2022-21449; FIPS 186-5, section 6.4.2"
    largest = 2**256 - 1
    for name, values in {
        "both-zero": (0, 0), "r-zero": (0, s), "s-zero": (r, 0), "both-order": (P256_ORDER, P256_ORDER),
        "r-order": (P256_ORDER, s), "s-order": (r, P256_ORDER), "both-one": (1, 1), "r-one": (1, s),
        "s-one": (r, 1),
        "both-order-minus-one": (P256_ORDER - 1, P256_ORDER - 1),
        "both-order-plus-one": (P256_ORDER + 1, P256_ORDER + 1),
        "all-ones": (largest, largest), "swapped": (s, r), "r-negated": (P256_ORDER - r, s),
        "r-is-the-key": (x % P256_ORDER, s),
        "r-zero-s-one": (0, 1), "r-one-s-zero": (1, 0), "r-order-s-zero": (P256_ORDER, 0), "r-and-r": (r, r),
    }.items():  # fmt: skip
        batch.refuse(f"ecdsa-{name}", psychic, with_signature(b"".join(v.to_bytes(32) for v in values)), NO)
    # RFC 7518 does not ask for the smaller of S and n-S, and hardware writes either. So a token has two spellings;
    # what is remembered or revoked goes by what the token says, not by its text.
    batch.accept(
        "ecdsa-s-negated",
        "RFC 7518, section 3.4",
        with_signature(r.to_bytes(32) + (P256_ORDER - s).to_bytes(32)),
    )
    raw = r.to_bytes(32) + s.to_bytes(32)
    for name, value in {
        "der": encode_dss_signature(r, s), "der-without-a-tag": encode_dss_signature(r, s)[2:],
        "one-byte": b"\1",
        "r-only": raw[:32], "short-by-one": raw[:-1], "short-by-one-in-front": raw[1:],
        "long-by-a-zero": raw + b"\0",
        "long-by-a-zero-in-front": b"\0" + raw, "wide": r.to_bytes(48) + s.to_bytes(48),
        "very-wide": raw * 60,
        "twice": raw + raw, "recovery-byte": b"\x1b" + raw, "little-endian": raw[31::-1] + raw[:31:-1],
        "hex": raw.hex().encode(),
        "text": encode(raw).encode(), "zeros": bytes(64), "zeros-96": bytes(96), "zeros-132": bytes(132),
        "ones": b"\xff" * 64,
    }.items():  # fmt: skip
        batch.refuse(f"ecdsa-form-{name}", "RFC 7518, section 3.4", with_signature(value), NO)
    for bit in (0, 7, 255, 256, 511):
        flipped = (int.from_bytes(raw) ^ (1 << bit)).to_bytes(64)
        batch.refuse(f"ecdsa-bit-{bit}", "RFC 7515, section 5.2", with_signature(flipped), NO)


def rsa_values(batch: Batch) -> None:
    """As long as the modulus, smaller than it, and padded in one way (RFC 8017, section 8.2.2)."""
    n, d = number(RSA_N), number(RSA_D)
    signing_input = token(header("RS256"), by="RS256").rsplit(".", 1)[0]
    raw = sign("RS256", signing_input.encode())
    digest = hashlib.sha256(signing_input.encode()).digest()

    def with_signature(value: bytes) -> str:
        return f"{signing_input}.{encode(value)}"

    value = int.from_bytes(raw)
    for name, other in {
        "zero": bytes(256), "one": (1).to_bytes(256), "modulus": n.to_bytes(256),
        "modulus-minus-one": (n - 1).to_bytes(256),
        "negated": (n - value).to_bytes(256), "plus-modulus": (value + n).to_bytes(257),
        "zero-in-front": b"\0" + raw,
        "zero-behind": raw + b"\0", "short": raw[:-1], "short-in-front": raw[1:], "short-zero-cut": b"\1",
        "twice": raw + raw,
        "ones": b"\xff" * 256, "little-endian": raw[::-1], "very-long": raw * 12,
    }.items():  # fmt: skip
        batch.refuse(f"rsa-{name}", "RFC 8017, section 8.2.2", with_signature(other), NO)
    info = _SHA256_PREFIX + digest
    for name, block in {
        "no-padding": info,
        "short-padding-and-rubbish-behind": b"\0\1"
        + b"\xff" * 8
        + b"\0"
        + info
        + bytes(256 - 11 - len(info)),
        "rubbish-behind": b"\0\1" + b"\xff" * (253 - len(info) - 4) + b"\0" + info + b"\0\0\0\0",
        "zeros-for-padding": b"\0\1" + b"\0" * (254 - len(info)) + info,
        "type-two": b"\0\2" + b"\xff" * (253 - len(info)) + b"\0" + info,
        "type-zero": b"\0\0" + b"\xff" * (253 - len(info)) + b"\0" + info,
        "digest-only": b"\0\1" + b"\xff" * 221 + b"\0" + digest,
        "without-null": b"\0\1" + b"\xff" * 204 + b"\0" + _SHA256_PREFIX_WITHOUT_NULL + digest,
        "long-length": b"\0\1" + b"\xff" * (252 - len(info)) + b"\0" + b"\x30\x81" + info[1:],
        "other-hash-named": b"\0\1"
        + b"\xff" * 202
        + b"\0"
        + _SHA256_PREFIX.replace(b"\2\1", b"\2\2")
        + digest,
    }.items():
        forged = pow(int.from_bytes(block), d, n).to_bytes(256)
        batch.refuse(f"rsa-block-{name}", "CVE-2006-4339; RFC 8017, section 9.2", with_signature(forged), NO)


def eddsa_values(batch: Batch) -> None:
    """S below the order of the group, R in its one encoding (RFC 8032, sections 5.1.7 and 8.4)."""
    signing_input = token(header("EdDSA"), by="EdDSA").rsplit(".", 1)[0]
    raw = sign("EdDSA", signing_input.encode())
    r, s = raw[:32], int.from_bytes(raw[32:], "little")
    neutral, order = (1).to_bytes(32, "little"), ED25519_ORDER
    for name, value in {
        "s-plus-order": r + (s + order).to_bytes(32, "little"), "s-zero": r + bytes(32),
        "s-order": r + order.to_bytes(32, "little"),
        "s-negated": r + (order - s).to_bytes(32, "little"),
        "s-high-bits": r + (s | 7 << 253).to_bytes(32, "little"),
        "r-neutral-s-zero": neutral + bytes(32), "r-zero": bytes(32) + raw[32:],
        "r-not-canonical": b"\xee" + b"\xff" * 30 + b"\x7f" + bytes(32),
        "r-sign-flipped": r[:31] + bytes([r[31] ^ 0x80]) + raw[32:], "zeros": bytes(64),
        "ones": b"\xff" * 64, "short": raw[:-1],
        "long": raw + b"\0", "r-only": r, "ed448-length": raw + bytes(50), "swapped": raw[32:] + r,
        "big-endian": raw[31::-1] + raw[:31:-1],
    }.items():  # fmt: skip
        text = f"{signing_input}.{encode(value)}"
        batch.refuse(f"eddsa-{name}", "RFC 8032, sections 5.1.7 and 8.4", text, NO)


def other_content(batch: Batch) -> None:
    """A good signature, but of something else."""
    for by in ("ES256", "RS256", "EdDSA"):
        head, payload, signature = token(header(by), by=by).split(".")
        other = encode(compact(claims(sub="mallory")))
        spaced = encode(compact(CLAIMS) + b" ")
        reordered = encode(compact(dict(reversed(CLAIMS.items()))))
        for name, text in {
            "other-payload": f"{head}.{other}.{signature}",
            "same-claims-spaced": f"{head}.{spaced}.{signature}",
            "same-claims-reordered": f"{head}.{reordered}.{signature}",
            "header-with-a-member-more": f"{encode(compact(header(by, x=1)))}.{payload}.{signature}",
            "parts-swapped-before-signing": f"{head}.{payload}.{encode(sign(by, f'{payload}.{head}'.encode()))}",
            "of-the-payload-only": f"{head}.{payload}.{encode(sign(by, payload.encode()))}",
            "of-the-decoded-parts": f"{head}.{payload}.{encode(sign(by, decode(head) + b'.' + decode(payload)))}",
            "of-nothing": f"{head}.{payload}.{encode(sign(by, b''))}",
            "of-the-digest": f"{head}.{payload}."
            + encode(sign(by, hashlib.sha256(f"{head}.{payload}".encode()).digest())),
        }.items():
            batch.refuse(f"signed-{by}-{name}", "RFC 7515, section 5.2", text, NO)
    batch.refuse("signed-by-another-key-under-this-kid", "RFC 7515, section 5.2", token(by="mallory"), NO)
