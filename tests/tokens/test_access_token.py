"""The access token as RFC 9068 has it."""

import json
from base64 import urlsafe_b64decode
from collections import Counter
from random import Random

import pytest

from identity.tokens.access_token import (
    MAX_TOKEN_BYTES,
    AccessTokenAssembler,
    SessionClaims,
    TokenId,
    TokenTooLargeError,
)
from identity.tokens.lifetimes import refresh_after_ms, refresh_expires_at_ms

TOKEN_ID = str(TokenId(3, 12345, bytes(10)))


def signing_input(claims: SessionClaims, **changes: object) -> bytes:
    arguments: dict[str, object] = {
        "algorithm": "ES256",
        "kid": "k" * 43,
        "session_claims": claims.serialised(),
        "audience": ["orders"],
        "scope": "orders.read orders.write",
        "issued_at_seconds": 1_800_000_000,
        "ttl_seconds": 600,
        "token_id": TOKEN_ID,
    }
    return AccessTokenAssembler("https://id.example").signing_input(**(arguments | changes))  # type: ignore[arg-type]


def part(raw: bytes, place: int) -> dict[str, object]:
    text = raw.split(b".")[place]
    members: dict[str, object] = json.loads(urlsafe_b64decode(text + b"=" * (-len(text) % 4)))
    return members


def test_it_says_what_rfc_9068_asks_for() -> None:
    raw = signing_input(
        SessionClaims(
            "alice",
            "web",
            "S" * 32,
            roles=("admin",),
            auth_time_seconds=1_799_999_000,
            acr="2",
            amr=("otp", "pwd"),
        )
    )
    assert part(raw, 0) == {"alg": "ES256", "kid": "k" * 43, "typ": "at+jwt"}
    assert part(raw, 1) == {
        "iss": "https://id.example",
        "sub": "alice",
        "client_id": "web",
        "sid": "S" * 32,
        "roles": ["admin"],
        "auth_time": 1_799_999_000,
        "acr": "2",
        "amr": ["otp", "pwd"],
        "aud": "orders",
        "scope": "orders.read orders.write",
        "iat": 1_800_000_000,
        "exp": 1_800_000_600,
        "jti": TOKEN_ID,
    }


def test_what_is_not_known_is_left_out() -> None:
    assert set(part(signing_input(SessionClaims("billing", "billing")), 1)) == {
        "iss", "sub", "client_id", "aud", "scope", "iat", "exp", "jti",
    }  # fmt: skip


def test_names_with_quotes_and_beyond_ascii_stay_what_they_are() -> None:
    subject = 'Zoë "Z" \\ Ω'
    assert part(signing_input(SessionClaims(subject, "web")), 1)["sub"] == subject


def test_it_is_refused_beyond_one_kibibyte_with_the_signature_counted() -> None:
    roles = tuple(f"role-{number:03}" for number in range(36))
    fits = signing_input(SessionClaims("alice", "web", roles=roles))
    assert len(fits) + 1 + 86 <= MAX_TOKEN_BYTES
    with pytest.raises(TokenTooLargeError):
        signing_input(SessionClaims("alice", "web", roles=roles), algorithm="RS256")
    with pytest.raises(TokenTooLargeError, match="at most 1024"):
        signing_input(SessionClaims("alice", "web", roles=roles * 2))


def test_a_token_id_is_of_one_length_and_can_be_read_back() -> None:
    token_id = TokenId(4095, 2**48 - 1, bytes(range(10)))
    assert len(str(token_id)) == len(TOKEN_ID)
    assert TokenId.parse(str(token_id)) == token_id
    assert TokenId.parse("another-service's-jti") is None
    assert TokenId.parse("é") is None


def test_refreshing_is_due_before_the_end_and_spread() -> None:
    assert refresh_after_ms(0, 600, 0.0) == 420_000
    assert refresh_after_ms(0, 600, 0.999) < 540_000


def test_rotation_never_extends_the_absolute_lifetime() -> None:
    assert refresh_expires_at_ms(1_000, 5_000, 10_000) == 5_000
    assert refresh_expires_at_ms(1_000, 50_000, 10_000) == 11_000


def test_ten_thousand_clients_that_started_together_do_not_come_back_together() -> None:
    random = Random(7)
    seconds = Counter(refresh_after_ms(0, 600, random.random()) // 1000 for _ in range(10_000))
    mean = 10_000 / (max(seconds) - min(seconds) + 1)
    assert max(seconds.values()) <= 3 * mean
    assert max(seconds) < 600
