"""A list of vectors with an id each, and the tokens they start from."""

from __future__ import annotations

from typing import Any

from keys import compact, encode, sign

NOW_SECONDS = 1_800_000_300
ISSUER = "https://id.example"
AUDIENCE = "orders"
LEFT_OUT = object()
# `>>>???` and the like give both characters in which the two alphabets of base64 differ.
CLAIMS: dict[str, Any] = {
    "iss": ISSUER,
    "sub": "alice",
    "aud": AUDIENCE,
    "client_id": "web",
    "iat": 1_800_000_000,
    "exp": 1_800_000_600,
    "jti": "j-1",
    "note": ">>>???~~~ >>>???~~~",
}
KID = {"ES256": "es", "RS256": "rs", "EdDSA": "ed", "mallory": "es"}


def header(by: str = "ES256", **changes: Any) -> dict[str, Any]:
    """The header of a good token, changed; ``LEFT_OUT`` removes a member."""
    members = {"alg": "ES256" if by == "mallory" else by, "kid": KID[by], "typ": "at+jwt"} | changes
    return {name: value for name, value in members.items() if value is not LEFT_OUT}


def claims(**changes: Any) -> dict[str, Any]:
    """The claims of a good token, changed."""
    return {name: value for name, value in (CLAIMS | changes).items() if value is not LEFT_OUT}


def token(head: Any = None, payload: Any = None, by: str = "ES256") -> str:
    """A token signed by ``by`` over just this header and payload; bytes are taken as they are."""
    head = header(by) if head is None else head
    payload = CLAIMS if payload is None else payload
    parts = [encode(part if isinstance(part, bytes) else compact(part)) for part in (head, payload)]
    return signed_text(*parts, by=by)


def signed_text(head: str, payload: str, by: str = "ES256") -> str:
    """A token whose parts are these texts, so that the signature is good, whatever they are."""
    signing_input = f"{head}.{payload}"
    return f"{signing_input}.{encode(sign(by, signing_input.encode()))}"


class Batch:
    """Vectors in the order in which they were added."""

    def __init__(self) -> None:
        self.vectors: list[dict[str, Any]] = []

    def refuse(
        self, name: str, source: str, value: Any, detail: str, reason: str | None = "TOKEN_INVALID"
    ) -> None:
        """``detail`` is a part of what the log says: a vector has to be refused for what it is, not by luck."""
        assert name not in {vector["id"] for vector in self.vectors}, name
        self.vectors.append(
            {"id": name, "source": source, "input": value, "reason": reason, "detail": detail}
        )

    def accept(self, name: str, source: str, value: Any) -> None:
        """Strict is not narrow: what the RFC allows and nobody misreads is taken."""
        self.refuse(name, source, value, "", None)
