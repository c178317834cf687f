"""Who chooses the algorithm and the key: the verifier, never the token."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

from batch import CLAIMS, LEFT_OUT, Batch, header, token
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from keys import (
    EC,
    EC_JWK,
    ED,
    ED_JWK,
    JWKS,
    MALLORY_JWK,
    RSA,
    RSA_JWK,
    compact,
    coordinates,
    decode,
    encode,
)

NOT_ALLOWED = "alg is not allowed"
CONFUSION = "CVE-2015-9235; RFC 8725, sections 2.1 and 3.1"


def none(batch: Batch) -> None:
    """Unsigned, in every spelling of unsigned."""
    spellings: dict[str, Any] = {
        "none": "none", "None": "None", "NONE": "NONE", "nOnE": "nOnE", "NoNe": "NoNe", "empty": "",
        "null": None,
        "space": "none ", "nul": "none\0", "cyrillic": "n\u043ene", "fullwidth": "\uff4e\uff4f\uff4e\uff45",
        "missing": LEFT_OUT, "list": ["none"], "object": {"none": 1}, "zero": 0, "false": False, "true": True,
    }  # fmt: skip
    for name, alg in spellings.items():
        head, payload, _ = token(header(alg=alg)).split(".")
        good = token(header(alg=alg))
        source = "CVE-2015-9235; RFC 8725, section 3.2; RFC 7518, section 3.6"
        batch.refuse(f"alg-{name}-unsigned", source, f"{head}.{payload}.", NOT_ALLOWED)
        batch.refuse(f"alg-{name}-with-a-good-signature", source, good, NOT_ALLOWED)
        batch.refuse(f"alg-{name}-with-zeros", source, f"{head}.{payload}.{'A' * 86}", NOT_ALLOWED)


def others(batch: Batch) -> None:
    """Names of other algorithms over a good signature."""
    for alg in (
        "ES384", "ES512", "ES256K", "ESP256", "Ed25519", "Ed448", "EdDSA ", "es256", "ES256 ", " ES256",
        "ES256\n",
        "ES256\0", "Es256", "RS1", "RS384", "RS512", "PS256", "PS384", "HS256", "HS384", "HS512", "hs256",
        "dir",
        "A128KW", "RSA-OAEP", "RSA1_5", "ECDH-ES", "ML-DSA-44", "sha256", "ES256,none",
    ):  # fmt: skip
        name = alg.replace("\n", "+line-feed").replace("\0", "+nul").replace(" ", "+space")
        batch.refuse(f"alg-is-{name}", "RFC 8725, section 3.1", token(header(alg=alg)), NOT_ALLOWED)
    for number, alg in enumerate((["ES256"], {"ES256": 1}, 256, [["ES256"]])):
        batch.refuse(
            f"alg-is-no-string-{number}", "RFC 7515, section 4.1.1", token(header(alg=alg)), NOT_ALLOWED
        )


def hmac_with_public_keys(batch: Batch) -> None:
    """The public key, in every form in which a library might hold it, as the secret of an HMAC."""
    x, y = coordinates(EC)
    spki = PublicFormat.SubjectPublicKeyInfo
    secrets: dict[str, bytes] = {
        "point": b"\4" + x + y,
        "x-and-y": x + y,
        "x-as-text": EC_JWK["x"].encode(),
        "compressed-point": EC.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint),
        "rsa-pkcs1-pem": RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.PKCS1),
        "rsa-pkcs1-der": RSA.public_key().public_bytes(Encoding.DER, PublicFormat.PKCS1),
        "rsa-modulus": decode(RSA_JWK["n"]),
        "ed25519-raw": ED.public_key().public_bytes_raw(),
        "key-set": compact(JWKS),
        "empty": b"",
        "kid": b"es",
        "secret": b"secret",
    }
    for name, key, jwk in (("ec", EC, EC_JWK), ("rsa", RSA, RSA_JWK), ("ed25519", ED, ED_JWK)):
        public = key.public_key()
        pem = public.public_bytes(Encoding.PEM, spki)
        secrets |= {
            f"{name}-pem": pem,
            f"{name}-pem-without-the-last-line-feed": pem.rstrip(b"\n"),
            f"{name}-pem-with-returns": pem.replace(b"\n", b"\r\n"),
            f"{name}-der": public.public_bytes(Encoding.DER, spki),
            f"{name}-jwk": compact(jwk),
            f"{name}-jwk-sorted": compact(dict(sorted(jwk.items()))),
        }
    for form, secret in secrets.items():
        kid = "rs" if form.startswith("rsa") else "ed" if form.startswith("ed") else "es"
        for alg, function in (
            ("HS256", hashlib.sha256),
            ("HS384", hashlib.sha384),
            ("HS512", hashlib.sha512),
        ):
            if alg != "HS256" and not form.endswith("-pem"):
                continue
            batch.refuse(f"hmac-{alg}-{form}", CONFUSION, mac(secret, alg, kid, function), NOT_ALLOWED)
        # The name of a good algorithm over the HMAC, for readers that look at the key to choose.
        good = {"es": "ES256", "rs": "RS256", "ed": "EdDSA"}[kid]
        value = mac(secret, good, kid, hashlib.sha256)
        batch.refuse(f"hmac-as-{good}-{form}", CONFUSION, value, "does not verify")


def mac(secret: bytes, alg: str, kid: str, function: Any) -> str:
    """A token that says ``alg`` and carries an HMAC."""
    signing_input = f"{encode(compact(header(alg=alg, kid=kid)))}.{encode(compact(CLAIMS))}"
    return f"{signing_input}.{encode(hmac.digest(secret, signing_input.encode(), function))}"


def other_keys(batch: Batch) -> None:
    """A good signature, and an ``alg`` that is for another key than the one named."""
    source = "RFC 8725, section 3.1"
    kinds = {"ES256": "es", "RS256": "rs", "EdDSA": "ed"}
    for alg, kid in kinds.items():
        batch.accept(f"key-{alg}", "RFC 7515, section 5.2", token(by=alg))
        batch.accept(
            f"key-{alg}-without-kid", "RFC 7515, section 4.1.4", token(header(alg, kid=LEFT_OUT), by=alg)
        )
        for other_alg, other_kid in kinds.items():
            if other_alg != alg:
                text = token(header(alg, kid=other_kid), by=alg)
                batch.refuse(f"key-{alg}-with-the-kid-of-{other_alg}", source, text, "with a key for")
                text = token(header(alg, alg=other_alg, kid=kid), by=alg)
                batch.refuse(f"key-{alg}-called-{other_alg}", source, text, "with a key for")
                text = token(header(alg, alg=other_alg, kid=LEFT_OUT), by=alg)
                batch.refuse(f"key-{alg}-called-{other_alg}-no-kid", source, text, "does not verify")
    for name, signature in {
        "pss": lambda m: RSA.sign(m, padding.PSS(padding.MGF1(hashes.SHA256()), 0), hashes.SHA256()),
        "sha1": lambda m: RSA.sign(m, padding.PKCS1v15(), hashes.SHA1()),
        "sha512": lambda m: RSA.sign(m, padding.PKCS1v15(), hashes.SHA512()),
    }.items():
        head, payload, _ = token(header("RS256")).split(".")
        text = f"{head}.{payload}.{encode(signature(f'{head}.{payload}'.encode()))}"
        batch.refuse(f"rs256-over-{name}", "RFC 7518, section 3.3", text, "does not verify")


def kids(batch: Batch) -> None:
    """A ``kid`` is looked up and nothing else."""
    source = "RFC 7515, section 4.1.4"
    for name, kid in {
        "unknown": "nobody", "case": "ES", "space": "es ", "path": "../../../dev/null",
        "path-to-the-key": "./es",
        "url": "https://attacker.example/jwks.json#es", "sql": "x' UNION SELECT 'secret",
        "command": "es|touch /x",
        "nul": "es\0", "format": "%s%n{0}", "lone-surrogate": "\ud800", "line-feed": "es\nrefused",
        "homoglyph": "\u0435s",
        "attribute": "__class__", "as-long-as-allowed": "k" * 256,
    }.items():  # fmt: skip
        text = token(header(kid=kid))
        batch.refuse(f"kid-{name}", source, text, "no key with the kid", "KEY_UNKNOWN")
    for name, kid in {
        "empty": "", "null": None, "number": 1, "list": ["es"], "object": {"es": 1}, "true": True,
        "too-long": "k" * 257,
    }.items():  # fmt: skip
        batch.refuse(f"kid-{name}", source, token(header(kid=kid)), "kid is not a string")


def embedded_keys(batch: Batch) -> None:
    """A token brings its key along, or says where to fetch it. The signature is good under that key."""
    x5c = encode(b"0\x82 a certificate")
    for name, value in {
        "jwk": MALLORY_JWK, "jwk-null": None, "jwk-published": EC_JWK,
        "jku": "https://attacker.example/jwks.json",
        "jku-loopback": "http://127.0.0.1:1/", "jku-metadata": "http://169.254.169.254/latest/meta-data/",
        "jku-file": "file:///etc/passwd", "x5u": "https://attacker.example/cert.pem", "x5c": [x5c],
        "x5c-empty": [],
    }.items():  # fmt: skip
        member = name.split("-")[0]
        source = (
            "CVE-2018-0114; RFC 8725, sections 2.9 and 3.10" if member != "x5c" else "RFC 7515, section 4.1.6"
        )
        by = "ES256" if name == "jwk-published" else "mallory"
        head = header(by, **{member: value})
        batch.refuse(f"embedded-{name}", source, token(head, by=by), f"the header has {member}")
        without = {key: item for key, item in head.items() if key != "kid"}
        batch.refuse(f"embedded-{name}-no-kid", source, token(without, by=by), f"the header has {member}")
    for member in ("x5t", "x5t#S256"):
        batch.accept(
            f"hint-{member}-is-not-followed",
            "RFC 7515, sections 4.1.7 and 4.1.8",
            token(header(**{member: "AAAA"})),
        )
        text = token(header("mallory", **{member: "AAAA"}), by="mallory")
        batch.refuse(f"hint-{member}-of-another-key", "RFC 7515, section 4.1.7", text, "does not verify")


def extensions(batch: Batch) -> None:
    """What would change the meaning of the rest."""
    for name, members in {
        "crit-empty": {"crit": []}, "crit-known-name": {"crit": ["exp"], "exp": 1},
        "crit-of-alg": {"crit": ["alg"]},
        "crit-unknown": {"crit": ["https://example.com/UNDEFINED"], "https://example.com/UNDEFINED": True},
        "crit-absent-member": {"crit": ["x"]}, "crit-null": {"crit": None}, "crit-string": {"crit": "b64"},
        "crit-twice": {"crit": ["b64", "b64"], "b64": True}, "crit-crit": {"crit": ["crit"]},
    }.items():  # fmt: skip
        batch.refuse(name, "RFC 7515, section 4.1.11", token(header(**members)), "the header has")
    for name, members in {
        "false": {"b64": False}, "true": {"b64": True}, "false-crit": {"b64": False, "crit": ["b64"]},
        "null": {"b64": None},
    }.items():  # fmt: skip
        batch.refuse(f"b64-{name}", "RFC 7797; RFC 8725", token(header(**members)), "the header has")
    for name, members in {"zip": {"zip": "DEF"}, "enc": {"enc": "A256GCM"}}.items():
        batch.refuse(
            f"jwe-member-{name}", "RFC 7516, section 4.1", token(header(**members)), "the header has"
        )
    inner = token()
    for cty in ("JWT", "jwt", "application/jwt", "JOSE", None):
        source = "RFC 7519, sections 5.2 and 7.2; RFC 8725, section 3.3"
        batch.refuse(
            f"nested-cty-{cty}", source, token(header(cty=cty), inner.encode()), "the header has cty"
        )
        batch.refuse(f"nested-cty-{cty}-over-claims", source, token(header(cty=cty)), "the header has cty")
    batch.refuse(
        "nested-without-cty", "RFC 7519, section 5.2", token(payload=inner.encode()), "is not strict JSON"
    )
    batch.refuse("nested-as-a-string", "RFC 7519, section 7.2", token(payload=inner), "is not strict JSON")


def types(batch: Batch) -> None:
    """Tokens of another kind by the same issuer."""
    for typ in (
        LEFT_OUT, None, "", "JWT", "jwt", "id_token", "rt+jwt", "logout+jwt", "secevent+jwt", "dpop+jwt",
        "JOSE",
        "client-authentication+jwt", "oauth-authz-req+jwt", "token-introspection+jwt", "at+jwt ",
        "at+jwt;v=1", "at jwt",
        "application/application/at+jwt", "application/", "text/at+jwt", ["at+jwt"], 1, "\uff41t+jwt",
        "at+jwt\0",
    ):  # fmt: skip
        name = "missing" if typ is LEFT_OUT else compact(typ).decode()
        source = "RFC 8725, sections 2.8 and 3.11; RFC 9068, section 4"
        batch.refuse(f"typ-{name}", source, token(header(typ=typ)), "typ is not at+jwt")
    for typ in ("AT+JWT", "application/at+jwt", "Application/At+Jwt"):
        batch.accept(f"typ-{typ}", "RFC 7515, section 4.1.9; RFC 9068, section 2.1", token(header(typ=typ)))
