"""Key sets that must not be used, and those that must (RFC 7517, RFC 7518 section 6, RFC 8037)."""

from __future__ import annotations

import json
from typing import Any

from batch import LEFT_OUT, Batch
from keys import (
    EC_D,
    EC_JWK,
    ED_D,
    ED_JWK,
    MALLORY_JWK,
    RSA_D,
    RSA_JWK,
    compact,
    coordinates,
    decode,
    derived,
    encode,
    number,
)

EC, RSA, ED = EC_JWK | {"kid": "es"}, RSA_JWK | {"kid": "rs"}, ED_JWK | {"kid": "ed"}
P256_P = 2**256 - 2**224 + 2**192 + 2**96 - 1
P25519 = 2**255 - 19
REFUSED, LEFT = "KEY_REFUSED", "NO_USABLE_KEY"


def key_set(*keys: Any) -> str:
    """A JWK set; ``LEFT_OUT`` removes a member."""
    return compact(
        {
            "keys": [
                {k: v for k, v in key.items() if v is not LEFT_OUT} if isinstance(key, dict) else key
                for key in keys
            ]
        }
    ).decode()


def documents(batch: Batch) -> None:
    """The set itself."""
    good = key_set(EC)
    source = "RFC 7517, section 5; RFC 8725, sections 2.6 and 3.7"
    for name, text in {
        "empty": "", "space": " ", "array": "[]", "no-keys": "{}", "keys-null": '{"keys":null}',
        "keys-object": '{"keys":{"es":{}}}',
        "keys-string": '{"keys":"es"}', "keys-number": '{"keys":1}', "keys-twice": '{"keys":[],' + good[1:],
        "html": "<html></html>",
        "keys-twice-by-an-escape": good[:-1] + ',"k\\u0065ys":[]}', "byte-order-mark": "\ufeff" + good,
        "text-after": good + "]",
        "nan": good[:-1] + ',"x":NaN}', "1e400": good[:-1] + ',"x":1e400}',
        "nested-arrays": good[:-1] + ',"x":' + "[" * 2000 + "]" * 2000 + "}",
        "nested-objects": good[:-1] + ',"x":' + '{"":' * 900 + "0" + "}" * 900 + "}",
        "digits": good[:-1] + ',"x":' + "1" * 5000 + "}",
        "lone-surrogate-in-the-text": good[:-1] + ',"x":"\ud800"}',
        "kid-twice-in-a-key": good.replace('"kid"', '"kid":"x","kid"'),
        "kty-twice-in-a-key": good.replace('"kty"', '"kty":"oct","kty"'), "nul": good + "\0",
        "a-single-key": compact(EC).decode(),
        "pem": "-----BEGIN PUBLIC KEY-----", "without-end": "[" * 100_000,
        "deep-use": key_set(EC)[:-2] + ',"use":' + "[" * 900 + "]" * 900 + "}]}",
    }.items():  # fmt: skip
        batch.refuse(f"set-{name}", source, text, "", REFUSED)
    batch.refuse("set-without-keys", source, '{"keys":[]}', "no usable key", LEFT)
    for number_, key in enumerate((None, 1, "es", [], [EC], True)):
        batch.refuse(
            f"set-key-is-no-object-{number_}", source, key_set(key, EC), "not a JSON object", REFUSED
        )
    batch.refuse(
        "set-65-keys", source, key_set(*(EC | {"kid": str(i)} for i in range(65))), "at most 64", REFUSED
    )
    batch.accept("set-64-keys", source, key_set(*(EC | {"kid": str(i)} for i in range(64))))
    batch.accept("set-unknown-members", source, key_set(EC | {"z": {"y": 1}, "x5t": "AAAA", "iat": 1}))
    batch.accept("set-white-space", source, json.dumps(json.loads(key_set(EC, RSA, ED)), indent=4))
    kids = "RFC 7517, section 4.5"
    batch.refuse("kid-twice", kids, key_set(EC, RSA | {"kid": "es"}), "twice", REFUSED)
    batch.refuse("kid-twice-same-key", kids, key_set(EC, EC), "twice", REFUSED)
    batch.refuse(
        "kid-twice-one-left-out", kids, key_set(EC, RSA | {"kid": "es", "use": "enc"}), "twice", REFUSED
    )
    for number_, kid in enumerate(("", 1, ["es"], {}, "k" * 257, True)):
        batch.refuse(f"kid-form-{number_}", kids, key_set(EC | {"kid": kid}), "kid is not a string", REFUSED)
    batch.accept("kid-missing", kids, key_set(EC | {"kid": LEFT_OUT}))


def secret_keys(batch: Batch) -> None:
    """What was published is no secret any more, and a symmetric key would make verifiers issuers."""
    source = "RFC 7517, section 9.2; RFC 7518, sections 6.2.2, 6.3.2 and 6.4; RFC 8037, section 2"
    for name, key in {
        "symmetric": {"kty": "oct", "k": "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"},
        "symmetric-empty": {"kty": "oct", "k": ""},
        "symmetric-for-encryption": {"kty": "oct", "k": "AAAA", "use": "enc"},
        "k-in-an-ec-key": EC | {"k": "AAAA"}, "k-in-an-rsa-key": RSA | {"k": encode(b"secret")},
        "ec-private": EC | {"d": EC_D},
        "rsa-private": RSA | {"d": RSA_D}, "okp-private": ED | {"d": ED_D}, "d-null": EC | {"d": None},
        "d-empty": EC | {"d": ""},
        **{f"rsa-{member}": RSA | {member: "AQ"} for member in ("p", "q", "dp", "dq", "qi")},
        "rsa-oth": RSA | {"oth": []},
        "private-for-encryption": RSA | {"d": RSA_D, "use": "enc"},
        "private-on-another-curve": {"kty": "EC", "crv": "P-521", "d": "AA"},
    }.items():  # fmt: skip
        batch.refuse(f"secret-{name}", source, key_set(key), "", REFUSED)
        batch.refuse(
            f"secret-{name}-beside-a-good-one", source, key_set(MALLORY_JWK | {"kid": "m"}, key), "", REFUSED
        )


def ec_points(batch: Batch) -> None:
    """On the curve, and not the neutral element; coordinates below p, of full length (RFC 7518, section 6.2.1)."""
    source = "RFC 7518, section 6.2.1; SEC 1, section 3.2.2; CVE-2017-16007 (invalid curve)"
    x, y = number(EC["x"]), number(EC["y"])
    for name, point in {
        "origin": (0, 0), "off-by-one": (x, y + 1), "swapped": (y, x), "of-the-twist": (1, 1),
        "x-is-p": (P256_P, y), "y-plus-nothing": (x, 0),
        "ones": (2**256 - 1, 2**256 - 1), "x-zero": (0, y), "y-is-p": (x, P256_P),
    }.items():  # fmt: skip
        key = EC | {"x": encode(point[0].to_bytes(32)), "y": encode(point[1].to_bytes(32))}
        batch.refuse(f"ec-{name}", source, key_set(key), "", REFUSED)
    batch.accept("ec-negated", source, key_set(EC | {"y": encode((P256_P - y).to_bytes(32))}))
    # A key whose x begins with a zero byte: writing it without says the same number, which is why length counts.
    short = next(key for scalar in range(1, 5000) if (key := coordinates(derived(scalar)))[0][0] == 0)
    batch.accept(
        "ec-x-with-a-leading-zero", source, key_set(EC | {"x": encode(short[0]), "y": encode(short[1])})
    )
    stripped = EC | {"x": encode(short[0][1:]), "y": encode(short[1])}
    batch.refuse("ec-x-without-its-leading-zero", source, key_set(stripped), "32 are due", REFUSED)
    raw = decode(EC["x"])
    for name, value in {
        "missing": LEFT_OUT, "null": None, "number": x, "list": [EC["x"]], "empty": "",
        "short": encode(raw[1:]), "long": encode(b"\0" + raw),
        "padded": EC["x"] + "=", "standard-alphabet": "+/" + EC["x"][2:], "space": EC["x"] + " ",
        "stray-bits": EC["x"][:-1] + "V", "hex": raw.hex(),
        "not-ascii": "\u00e9" + EC["x"][1:], "lone-surrogate": "\ud800" + EC["x"][1:],
        "compressed-point": encode(b"\2" + raw), "decimal": str(x),
    }.items():  # fmt: skip
        batch.refuse(f"ec-x-{name}", source, key_set(EC | {"x": value}), "", REFUSED)
        batch.refuse(f"ec-y-{name}", source, key_set(EC | {"y": value}), "", REFUSED)


def rsa_numbers(batch: Batch) -> None:
    """2048 to 8192 bits, an odd exponent of at least 65537 (RFC 7518, sections 3.3 and 6.3.1)."""
    source = "RFC 7518, sections 3.3 and 6.3.1; FIPS 186-5, section A.1.1"
    n = number(RSA["n"])
    for name, modulus in {
        "512-bits": 2**511 + 1, "1024-bits": 2**1023 + 1, "2047-bits": 2**2046 + 1,
        "8193-bits": 2**8192 + 1, "16384-bits": 2**16383 + 1,
        "even": n - 1, "power-of-two": 2**2047, "zero": 0, "one": 1,
    }.items():  # fmt: skip
        raw = modulus.to_bytes((modulus.bit_length() + 7) // 8)
        batch.refuse(f"rsa-n-{name}", source, key_set(RSA | {"n": encode(raw)}), "", REFUSED)
    for name, exponent in {
        "zero": 0, "one": 1, "two": 2, "three": 3, "seventeen": 17, "even": 65538, "below": 65535,
        "huge": 2**65 + 1,
        "very-huge": 2**4096 + 1, "modulus": n,
    }.items():  # fmt: skip
        raw = exponent.to_bytes((exponent.bit_length() + 7) // 8)
        batch.refuse(f"rsa-e-{name}", source, key_set(RSA | {"e": encode(raw)}), "", REFUSED)
    for name, value in {
        "missing": LEFT_OUT, "null": None, "number": 65537, "empty": "", "leading-zero": "AAEAAQ",
        "padded": "AQAB==", "space": "AQ AB",
        "text": "65537", "list": ["AQAB"], "object": {}, "not-ascii": "\u0410QAB",
    }.items():  # fmt: skip
        batch.refuse(f"rsa-e-form-{name}", source, key_set(RSA | {"e": value}), "", REFUSED)
    for name, value in {
        "missing": LEFT_OUT, "null": None, "number": n, "leading-zero": encode(b"\0" + decode(RSA["n"])),
        "padded": RSA["n"] + "==",
        "line-feeds": "\n".join((RSA["n"][:64], RSA["n"][64:])), "decimal": str(n), "x-of-an-ec-key": EC["x"],
    }.items():  # fmt: skip
        batch.refuse(f"rsa-n-form-{name}", source, key_set(RSA | {"n": value}), "", REFUSED)
    batch.accept("rsa-e-large-but-sound", source, key_set(RSA | {"e": encode((2**32 + 15).to_bytes(5))}))


def okp_points(batch: Batch) -> None:
    """On the curve, one encoding, not of small order (RFC 8032, section 5.1.3)."""
    source = "RFC 8037, section 2; RFC 8032, section 5.1.3"
    small = "RFC 8032, section 8.9; small subgroup"
    eight = int.from_bytes(
        bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little"
    )
    for name, y in {
        "neutral": 1, "of-order-two": P25519 - 1, "of-order-four": 0, "of-order-eight": eight,
        "of-order-eight-too": P25519 - eight,
        "neutral-not-canonical": P25519 + 1, "zero-not-canonical": P25519,
    }.items():  # fmt: skip
        for sign in (0, 1):
            raw = (y | sign << 255).to_bytes(32, "little")
            batch.refuse(
                f"okp-{name}-{sign}", small, key_set(ED | {"x": encode(raw)}), "small order", REFUSED
            )
    for name, y in {"off-the-curve": 2, "ones": 2**256 - 1, "above-p": P25519 + 2}.items():
        batch.refuse(
            f"okp-{name}", source, key_set(ED | {"x": encode(y.to_bytes(32, "little"))}), "no point", REFUSED
        )
    raw = decode(ED["x"])
    for name, value in {
        "missing": LEFT_OUT, "null": None, "short": encode(raw[1:]), "long": encode(raw + b"\0"),
        "padded": ED["x"] + "=", "ed448": encode(bytes(57)),
        "empty": "", "number": 1, "stray-bits": ED["x"][:-1] + "p",
    }.items():  # fmt: skip
        batch.refuse(f"okp-x-{name}", source, key_set(ED | {"x": value}), "", REFUSED)
    batch.accept("okp-negated", source, key_set(ED | {"x": encode(raw[:31] + bytes([raw[31] ^ 0x80]))}))


def purposes(batch: Batch) -> None:
    """``kty``, ``alg``, ``use`` and ``key_ops`` that do not fit; other purposes are left out, contradictions refused."""
    source = "RFC 7517, sections 4.2 to 4.4; RFC 8725, section 3.1"
    for name, key in {
        "kty-missing": EC | {"kty": LEFT_OUT}, "kty-null": EC | {"kty": None},
        "kty-number": EC | {"kty": 1}, "kty-list": EC | {"kty": ["EC"]},
        "alg-of-rsa-on-ec": EC | {"alg": "RS256"}, "alg-of-ec-on-rsa": RSA | {"alg": "ES256"},
        "alg-hs256-on-ec": EC | {"alg": "HS256"},
        "alg-hs512-on-rsa": RSA | {"alg": "HS512"}, "alg-none": EC | {"alg": "none"},
        "alg-None": RSA | {"alg": "None"}, "alg-list": EC | {"alg": ["ES256"]},
        "alg-eddsa-on-ec": EC | {"alg": "EdDSA"}, "alg-number": EC | {"alg": 256},
        "ops-sign": EC | {"key_ops": ["sign"]},
        "ops-sign-and-verify": EC | {"key_ops": ["sign", "verify"]},
        "ops-string": EC | {"key_ops": "verify"}, "ops-object": EC | {"key_ops": {"verify": 1}},
        "ops-twice": EC | {"key_ops": ["verify", "verify"]}, "ops-numbers": EC | {"key_ops": ["verify", 1]},
        "ops-many": EC | {"key_ops": [str(i) for i in range(17)]},
        "ops-nested": EC | {"key_ops": [["verify"]]}, "ops-verify-not-a-list": EC | {"key_ops": 1},
    }.items():  # fmt: skip
        batch.refuse(f"purpose-{name}", source, key_set(key), "", REFUSED)
    for name, key in {
        "use-enc": EC | {"use": "enc"}, "use-unknown": EC | {"use": "SIG"},
        "use-list": EC | {"use": ["sig"]}, "use-number": EC | {"use": 1},
        "ops-empty": EC | {"key_ops": []}, "ops-encrypt": RSA | {"key_ops": ["encrypt", "wrapKey"]},
        "curve-p384": EC | {"crv": "P-384"},
        "curve-secp256k1": EC | {"crv": "secp256k1"}, "curve-missing": EC | {"crv": LEFT_OUT},
        "curve-case": EC | {"crv": "p-256"}, "curve-list": EC | {"crv": ["P-256"]},
        "x25519": ED | {"crv": "X25519"}, "ed448": ED | {"crv": "Ed448"},
        "kty-unknown": {"kty": "AKP", "alg": "ML-DSA-44", "pub": "AA"}, "kty-case": EC | {"kty": "ec"},
        "alg-ps256": RSA | {"alg": "PS256"}, "alg-rs512": RSA | {"alg": "RS512"},
        "alg-rsa-oaep": RSA | {"alg": "RSA-OAEP"}, "alg-ecdh": EC | {"alg": "ECDH-ES"},
        "alg-rs256-capitals": RSA | {"alg": "rs256"},
    }.items():  # fmt: skip
        batch.refuse(f"left-out-{name}", source, key_set(key), "no usable key", LEFT)
        batch.accept(
            f"left-out-{name}-beside-a-good-one",
            source,
            key_set(key | {"kid": "x"}, MALLORY_JWK | {"kid": "m"}),
        )
    batch.accept(
        "purpose-ops-verify", source, key_set(EC | {"key_ops": ["verify"], "use": "sig", "alg": "ES256"})
    )


ALL = (documents, secret_keys, ec_points, rsa_numbers, okp_points, purposes)
