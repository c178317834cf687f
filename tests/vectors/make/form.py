"""Tokens that are no compact JWS, or that are one in a second spelling."""

from __future__ import annotations

from batch import CLAIMS, Batch, header, signed_text, token
from keys import compact, encode

BASE64 = "is not canonical base64url"
STRICT = "is not strict JSON"
RFC_FORM = "RFC 7515, section 7.1"
RFC_BASE64 = "RFC 4648, sections 3.3 and 3.5; RFC 7515, section 2"
RFC_JSON = "RFC 8725, sections 2.6 and 3.7; RFC 8259"
MAX_TOKEN_BYTES = 8192


def parts(batch: Batch) -> None:
    """Too few, too many, empty."""
    good = token()
    head, payload, signature = good.split(".")
    for name, text in {
        "empty": "",
        "one-part": head,
        "two-parts": f"{head}.{payload}",
        "four-parts": f"{good}.{signature}",
        "four-parts-last-empty": f"{good}.",
        "four-parts-first-empty": f".{good}",
        "six-parts": f"{good}.{good}",
        "a-thousand-dots": "." * 1000,
        "one-dot": ".",
        "three-dots": "...",
    }.items():
        batch.refuse(f"form-{name}", RFC_FORM, text, "a compact JWS has 3")
    batch.refuse("form-only-two-dots", RFC_FORM, "..", STRICT)
    batch.refuse("form-empty-header", RFC_FORM, f".{payload}.{signature}", STRICT)
    batch.refuse("form-empty-payload-signed", RFC_FORM, signed_text(head, ""), STRICT)
    batch.refuse("form-empty-signature", RFC_FORM, f"{head}.{payload}.", "signature is empty")
    batch.refuse(
        "form-json-flattened",
        "RFC 7515, section 7.2.2",
        compact({"protected": head, "payload": payload, "signature": signature}).decode(),
        "a compact JWS has 3",
    )
    batch.refuse(
        "form-json-general",
        "RFC 7515, section 7.2.1",
        compact({"payload": payload, "signatures": [{"protected": head, "signature": signature}]}).decode(),
        "a compact JWS has 3",
    )
    pad = (MAX_TOKEN_BYTES - len(token(payload=CLAIMS | {"pad": ""}))) * 3 // 4
    largest = next(
        text
        for fill in range(3)
        for size in range(pad - 16, pad)
        if len(text := token(header(x="x" * fill), CLAIMS | {"pad": "p" * (size - fill)})) == MAX_TOKEN_BYTES
    )
    batch.accept("form-as-long-as-allowed", RFC_FORM, largest)
    batch.refuse("form-one-character-too-long", "CWE-400", largest + "A", "longer than 8192 bytes")


def jwe(batch: Batch) -> None:
    """Encrypted: never."""
    for name, head in {
        "dir": {"alg": "dir", "enc": "A256GCM"},
        "password": {"alg": "PBES2-HS256+A128KW", "enc": "A128GCM", "p2c": 2**31 - 1, "p2s": "AAAA"},
        "zip-bomb": {"alg": "dir", "enc": "A256GCM", "zip": "DEF"},
        "signed-inside": {"alg": "RSA-OAEP", "enc": "A256GCM", "cty": "JWT"},
    }.items():
        text = ".".join([encode(compact(head)), "", "AAAAAAAAAAAAAAAA", encode(b"secret"), "A" * 22])
        batch.refuse(f"jwe-{name}", "RFC 7516, section 7.1", text, "5 parts")
        batch.refuse(f"jwe-header-on-a-jws-{name}", "RFC 7516, section 9", token(head), "the header has")


def spelling(batch: Batch) -> None:
    """One content, several texts: only one of them is a token. The signature is good over the odd spelling."""
    good = token()
    head, payload, signature = good.split(".")
    # Of texts whose length leaves 2 or 3 over 4, the last character has bits that mean nothing.
    loose_head = next(h for space in range(3) if len(h := encode(compact(header()) + b" " * space)) % 4)
    loose_payload = next(p for space in range(3) if len(p := encode(compact(CLAIMS) + b" " * space)) % 4)
    batch.accept("spelling-space-after-the-json", RFC_JSON, signed_text(loose_head, loose_payload))
    batch.refuse(
        "spelling-stray-bits-in-the-header",
        RFC_BASE64,
        signed_text(_next_character(loose_head), payload),
        BASE64,
    )
    batch.refuse(
        "spelling-stray-bits-in-the-payload",
        RFC_BASE64,
        signed_text(head, _next_character(loose_payload)),
        BASE64,
    )
    batch.refuse(
        "spelling-stray-bits-in-the-signature",
        RFC_BASE64,
        f"{head}.{payload}.{_next_character(signature)}",
        BASE64,
    )
    for name, extra in {
        "padding": "=", "two-pads": "==", "space": " ", "tab": "\t", "line-feed": "\n", "return": "\r\n",
        "nul": "\0",
        "percent-encoded-padding": "%3D",
    }.items():  # fmt: skip
        for place, text in {
            "in-the-header": signed_text(head + extra, payload),
            "in-the-payload": signed_text(head, payload + extra),
            "after-the-signature": good + extra,
            "before-the-token": signed_text(extra + head, payload),
        }.items():
            batch.refuse(f"spelling-{name}-{place}", RFC_BASE64, text, BASE64)
    odd = head + "A" * ((1 - len(head)) % 4)
    batch.refuse("spelling-of-a-length-no-encoder-writes", RFC_BASE64, signed_text(odd, payload), BASE64)
    standard = payload.replace("-", "+").replace("_", "/")
    assert "+" in standard
    assert "/" in standard
    batch.refuse("spelling-standard-alphabet", RFC_BASE64, signed_text(head, standard), BASE64)
    batch.refuse(
        "spelling-standard-alphabet-in-the-signature",
        RFC_BASE64,
        f"{head}.{payload}.{_with_both(signature)}",
        BASE64,
    )
    batch.refuse("spelling-bearer-twice", "RFC 6750, section 2.1", f"Bearer {good}", BASE64)
    batch.refuse("spelling-quoted", "RFC 6750, section 2.1", f'"{good}"', BASE64)
    for name, text in {
        "accent": f"{good}\u00e9",
        "zero-width-space": f"{head}\u200b.{payload}.{signature}",
        "byte-order-mark": f"\ufeff{good}",
        "fullwidth-dots": good.replace(".", "\uff0e"),
        "fullwidth-letters": chr(0xFEE0 + ord(good[0])) + good[1:],
        "lone-surrogate": f"{good}\udc80",
        "astral": f"{head}.{payload}.{signature[:-1]}\U0001d400",
    }.items():
        batch.refuse(f"characters-{name}", "RFC 7515, section 2", text, "not ASCII")


def header_json(batch: Batch) -> None:
    """The header is JSON that has one meaning only. All of them carry a good signature."""
    plain = '{"alg":"ES256","kid":"es","typ":"at+jwt"%s}'
    for name, text in {
        "alg-twice-good-last": '{"alg":"none","alg":"ES256","kid":"es","typ":"at+jwt"}',
        "alg-twice-good-first": plain % ',"alg":"none"',
        "alg-twice-by-an-escape": plain % ',"\\u0061lg":"ES256"',
        "kid-twice": plain % ',"kid":"rs"',
        "typ-twice": plain % ',"typ":"JWT"',
        "unknown-twice": plain % ',"x":1,"x":1',
        "nested-twice": plain % ',"x":[{"y":{"z":1,"z":2}}]',
        "empty-names-twice": plain % ',"":1,"":2',
        "nan": plain % ',"x":NaN',
        "infinity": plain % ',"x":Infinity',
        "minus-infinity": plain % ',"x":-Infinity',
        "1e400": plain % ',"x":1e400',
        "minus-1e400": plain % ',"x":[-1e400]',
        "five-thousand-digits": plain % (',"x":1' + "0" * 5000),
        "leading-zero": plain % ',"x":01',
        "plus-sign": plain % ',"x":+1',
        "hexadecimal": plain % ',"x":0x1',
        "trailing-comma": plain % ",",
        "comment": plain % "/**/,",
        "single-quotes": "{'alg':'ES256','kid':'es','typ':'at+jwt'}",
        "unquoted-names": '{alg:"ES256",kid:"es",typ:"at+jwt"}',
        "control-character-in-a-string": plain % ',"x":"\n"',
        "bad-escape": plain % ',"x":"\\x41"',
        "two-objects": plain % "" + plain % "",
        "text-after": plain % "" + "x",
        "nul-after": plain % "" + "\0",
        "cut-off": (plain % "")[:-1],
        "byte-order-mark": "\ufeff" + plain % "",
        "array": '["ES256"]',
        "string": '"ES256"',
        "number": "1",
        "null": "null",
        "true": "true",
        "no-text": " ",
        "nested-arrays": plain % (',"x":' + "[" * 2000 + "]" * 2000),
        "nested-objects": plain % (',"x":' + '{"a":' * 800 + "1" + "}" * 800),
        "nested-without-end": "[" * 3000,
        "nested-objects-without-end": '{"":' * 900,
    }.items():
        batch.refuse(f"header-json-{name}", RFC_JSON, token(text.encode()), STRICT)
    good = plain % ""
    for name, raw in {
        "overlong": good.encode().replace(b"es", b"\xc0\xe5s"),
        "lone-byte": (plain % ',"x":"?"').encode().replace(b"?", b"\xff"),
        "cut-sequence": (plain % ',"x":"?"').encode().replace(b"?", b"\xe2\x82"),
        "encoded-surrogate": (plain % ',"x":"?"').encode().replace(b"?", b"\xed\xa0\x80"),
        "beyond-unicode": (plain % ',"x":"?"').encode().replace(b"?", b"\xf4\x90\x80\x80"),
        "latin-1": (plain % ',"x":"?"').encode().replace(b"?", b"\xe9"),
        "utf-16": good.encode("utf-16"),
        "utf-16-be": good.encode("utf-16-be"),
        "utf-32": good.encode("utf-32-le"),
    }.items():
        batch.refuse(f"header-text-{name}", "RFC 8259, section 8.1", token(raw), STRICT)
    batch.accept(
        "header-json-white-space",
        "RFC 7515, appendix A.1",
        token(b'{"typ":"at+jwt",\r\n "alg":"ES256",\r\n "kid":"es"}'),
    )
    batch.accept("header-json-unknown-member", "RFC 7515, section 4", token(header(x={"y": [1.5e300, -0]})))
    batch.accept(
        "header-json-escapes", "RFC 8259, section 7", token(good.replace("alg", "\\u0061lg").encode())
    )


def _next_character(text: str) -> str:
    # The last character of two decodes to the same bytes with its lowest bit flipped, of three too.
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return text[:-1] + alphabet[alphabet.index(text[-1]) ^ 1]


def _with_both(signature: str) -> str:
    return (
        signature.replace("-", "+").replace("_", "/") if set("-_") & set(signature) else f"+/{signature[2:]}"
    )
