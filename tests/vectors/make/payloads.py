"""Well-signed tokens whose claims are not what an access token says (RFC 7519, RFC 9068)."""

from __future__ import annotations

from typing import Any

from batch import CLAIMS, ISSUER, LEFT_OUT, NOW_SECONDS, Batch, claims, token
from keys import compact

STRICT = "is not strict JSON"


def payload_json(batch: Batch) -> None:
    """The payload is JSON that has one meaning only."""
    plain = compact(CLAIMS).decode()[:-1] + "%s}"
    source = "RFC 8725, sections 2.6 and 3.7; RFC 7519, section 4; RFC 8259"
    for name, text in {
        "sub-twice": plain % ',"sub":"mallory"',
        "sub-twice-in-front": '{"sub":"mallory",' + (plain % "")[1:],
        "sub-twice-by-an-escape": plain % ',"s\\u0075b":"mallory"',
        "exp-twice": plain % ',"exp":9999999999',
        "aud-twice": plain % ',"aud":["orders"]',
        "unknown-twice": plain % ',"x":1,"x":1',
        "twice-in-act": plain % ',"act":{"sub":"a","sub":"b"}',
        "twice-deep-in-an-unknown-claim": plain % ',"x":[[{"y":[{"z":0,"z":0}]}]]',
        "nan": plain % ',"x":NaN',
        "infinity-as-exp": plain.replace("1800000600", "Infinity") % "",
        "minus-infinity-as-iat": plain.replace("1800000000", "-Infinity") % "",
        "1e400-as-exp": plain.replace("1800000600", "1e400") % "",
        "1e400-in-an-unknown-claim": plain % ',"x":[{"y":1e400}]',
        "five-thousand-digits-as-exp": plain.replace("1800000600", "9" * 5000) % "",
        "five-thousand-digits-in-an-unknown-claim": plain % (',"x":' + "9" * 5000),
        "leading-zero-in-exp": plain.replace("1800000600", "01800000600") % "",
        "nested-arrays": plain % (',"x":' + "[" * 2500 + "]" * 2500),
        "nested-objects": plain % (',"x":' + '{"":' * 1000 + "0" + "}" * 1000),
        "nested-one-too-deep": plain % (',"x":' + "[" * 256 + "]" * 256),
        "nested-act": plain % (',"act":' + '{"sub":"a","act":' * 300 + "{}" + "}" * 300),
        "trailing-comma": plain % ",",
        "text-after": plain % "" + " {}",
        "control-character": plain.replace("alice", "ali\nce") % "",
        "byte-order-mark": "\ufeff" + plain % "",
        "array": f"[{plain % ''}]",
        "string": '"alice"',
        "number": "1800000600",
        "null": "null",
        "no-text": "",
    }.items():
        batch.refuse(f"payload-json-{name}", source, token(payload=text.encode()), STRICT)
    for name, raw in {
        "lone-byte": (plain % "").encode().replace(b"alice", b"ali\xffce"),
        "overlong": (plain % "").encode().replace(b"alice", b"\xc1\xa1lice"),
        "encoded-surrogate": (plain % "").encode().replace(b"alice", b"\xed\xb0\x80"),
        "utf-16": (plain % "").encode("utf-16-le"),
        "zeros": bytes(64),
        "rubbish": bytes(range(256)),
    }.items():
        batch.refuse(f"payload-text-{name}", "RFC 8259, section 8.1", token(payload=raw), STRICT)
    for name, more in {
        "four-thousand-digits-in-an-unknown-claim": ',"x":' + "9" * 4000,
        "minus-zero-as-nbf": ',"nbf":-0',
        "largest-double": ',"x":1.7976931348623157e308',
        "smallest-double": ',"x":1e-400',
        "nested-as-deep-as-allowed": ',"x":' + "[" * 255 + "]" * 255,
        "unknown-claims-of-all-kinds": ',"x":null,"y":true,"z":{"sub":"mallory"},"":[]',
    }.items():
        batch.accept(f"payload-json-{name}", "RFC 7519, section 4", token(payload=(plain % more).encode()))
    batch.accept(
        "payload-text-not-ascii", "RFC 8259, section 8.1", token(payload=claims(sub="\u00e4lice \U0001f600"))
    )


def claim_forms(batch: Batch) -> None:
    """Each claim has its type and its bounds."""
    wrong: dict[str, list[Any]] = {
        "iss": [LEFT_OUT, None, "", 1, [ISSUER], {"iss": ISSUER}, "i" * 1025, "\ud800"],
        "sub": [LEFT_OUT, None, "", 0, ["alice"], {}, True, "s" * 1025, "\ud800", "a\udfff"],
        "aud": [LEFT_OUT, None, "", [], 1, [1], [None], [["orders"]], {"orders": 1}, ["orders", 1], ["orders", ""],
                ["a"] * 129, ["orders", "\ud800"]],
        "client_id": [LEFT_OUT, None, "", 7, ["web"]],
        "jti": [LEFT_OUT, None, "", 7, []],
        "exp": [LEFT_OUT, None, "1800000600", 1800000600.0, 1800000600.5, 1.8e9, True, [1800000600], {}, -1, -1800000600,
                10**18, 10**400, 253402300800, 1800000000, 0],
        "iat": [LEFT_OUT, None, "1800000000", 1800000000.0, False, -1, 10**400, []],
        "nbf": [None, "1800000000", 1800000000.0, True, -1, 10**400],
        "scope": [None, 1, ["a"], "a  b", " a", "a ", {"a": 1}, " ".join(["s"] * 129), "s" * 1025],
        "roles": [None, "admin", [1], [None], {"admin": 1}, [""], ["r"] * 129],
        "sid": [None, "", 1, []],
        "act": [None, "web", [], {}, {"sub": None}, {"sub": "a", "act": {}}, {"sub": "a", "act": "b"}],
        "cnf": [None, "x", [], 1],
        "amr": [None, "pwd", [1]],
        "acr": [None, 1, ""],
        "auth_time": [None, "1", 1.5, -1, True],
    }  # fmt: skip
    for name, values in wrong.items():
        for number, value in enumerate(values):
            text = token(payload=claims(**{name: value}))
            batch.refuse(f"claim-{name}-{number}", "RFC 7519, section 4.1; RFC 9068, section 2.2", text, "")
    bound = token(payload=claims(cnf={"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}))
    batch.refuse("claim-bound-to-a-key", "RFC 7800, section 3; RFC 9449", bound, "bound to a key")
    act: Any = {"sub": "first"}
    for _ in range(8):
        act = {"sub": "next", "act": act}
    batch.refuse(
        "claim-act-nine-actors", "RFC 8693, section 4.1", token(payload=claims(act=act)), "act is not a chain"
    )


def claim_contents(batch: Batch) -> None:
    """For us, from our issuer, for now."""
    for name, issuer in {
        "slash": f"{ISSUER}/", "capitals": "https://ID.example", "suffix": f"{ISSUER}.attacker.example",
        "plain": "http://id.example",
        "user": "https://id.example@attacker.example", "port": f"{ISSUER}:443", "space": f"{ISSUER} ",
        "nul": f"{ISSUER}\0",
        "escape": "https://id%2Eexample", "homoglyph": "https://\u0456d.example", "path": f"{ISSUER}/../..",
        "prefix": "https://id.exampl",
    }.items():  # fmt: skip
        source = "RFC 7519, section 4.1.1; RFC 8725, section 3.8"
        batch.refuse(f"iss-{name}", source, token(payload=claims(iss=issuer)), "", "ISSUER_MISMATCH")
    for name, audience in {
        "other": "stock", "prefix": "order", "suffix": "orders2", "capitals": "Orders", "space": "orders ",
        "nul": "orders\0",
        "list": ["stock", "Orders"], "separated": "stock orders", "wildcard": "*", "issuer": ISSUER,
        "homoglyph": "\u043erders",
    }.items():  # fmt: skip
        source = "RFC 7519, section 4.1.3; RFC 8725, section 3.9"
        batch.refuse(f"aud-{name}", source, token(payload=claims(aud=audience)), "", "AUDIENCE_MISMATCH")
    batch.accept(
        "aud-one-of-several", "RFC 7519, section 4.1.3", token(payload=claims(aud=["stock", "orders"]))
    )
    at, long_ago = NOW_SECONDS, 1_000_000_000
    expired = "RFC 7519, section 4.1.4"
    batch.accept("exp-in-the-leeway", expired, token(payload=claims(exp=at - 29)))
    batch.refuse("exp-leeway-is-over", expired, token(payload=claims(exp=at - 30)), "", "TOKEN_EXPIRED")
    batch.refuse("exp-long-ago", expired, token(payload=claims(iat=1, exp=long_ago)), "", "TOKEN_EXPIRED")
    early = "RFC 7519, sections 4.1.5 and 4.1.6"
    batch.accept("nbf-in-the-leeway", early, token(payload=claims(nbf=at + 30)))
    batch.refuse("nbf-later", early, token(payload=claims(nbf=at + 31)), "", "TOKEN_NOT_YET_VALID")
    batch.refuse("nbf-after-exp", early, token(payload=claims(nbf=at + 9999)), "", "TOKEN_NOT_YET_VALID")
    batch.refuse("iat-later", early, token(payload=claims(iat=at + 31)), "", "TOKEN_NOT_YET_VALID")
