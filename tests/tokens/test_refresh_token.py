"""The format of refresh tokens: what is authentic, and what follows from what."""

import re
import secrets

import pytest
from hypothesis import given
from hypothesis import strategies as st

from identity.tokens.family_id import FamilyId, bucket_of, subject_tag
from identity.tokens.refresh_token import (
    RefreshToken,
    RefreshTokenCodec,
    RefreshTokenInvalidError,
    new_family_secret,
)

SECRET = bytes(range(32))


@pytest.fixture
def codec() -> RefreshTokenCodec:
    return RefreshTokenCodec({1: SECRET}, 1)


@pytest.fixture
def token() -> RefreshToken:
    return RefreshToken(FamilyId.generate("alice"), 7, new_family_secret())


def test_a_token_is_read_back_as_it_was_written(codec: RefreshTokenCodec, token: RefreshToken) -> None:
    text = codec.encode(token)
    assert re.fullmatch(r"gidr_[A-Za-z0-9_-]{94}", text)
    assert codec.decode(text) == token


def test_the_same_generation_is_always_the_same_text(codec: RefreshTokenCodec, token: RefreshToken) -> None:
    assert codec.encode(token.successor()) == codec.encode(token.successor())
    assert codec.encode(token.successor()) != codec.encode(token)


def test_no_single_character_can_be_changed(codec: RefreshTokenCodec, token: RefreshToken) -> None:
    text = codec.encode(token)
    for place in range(len(text)):
        other = "A" if text[place] != "A" else "B"
        with pytest.raises(RefreshTokenInvalidError):
            codec.decode(text[:place] + other + text[place + 1 :])


@given(st.text(max_size=200))
def test_no_other_text_is_a_token(text: str) -> None:
    with pytest.raises(RefreshTokenInvalidError):
        RefreshTokenCodec({1: SECRET}, 1).decode(text)


def test_a_token_under_another_server_secret_is_forged(codec: RefreshTokenCodec, token: RefreshToken) -> None:
    forged = RefreshTokenCodec({1: secrets.token_bytes(32)}, 1).encode(token)
    with pytest.raises(RefreshTokenInvalidError):
        codec.decode(forged)


def test_a_rotated_server_secret_still_reads_what_the_old_one_wrote(token: RefreshToken) -> None:
    old = RefreshTokenCodec({1: SECRET}, 1).encode(token)
    both = RefreshTokenCodec({1: SECRET, 2: secrets.token_bytes(32)}, 2)
    assert both.decode(old) == token
    with pytest.raises(RefreshTokenInvalidError):
        RefreshTokenCodec({2: secrets.token_bytes(32)}, 2).decode(old)


def test_a_short_or_missing_server_secret_is_refused() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        RefreshTokenCodec({1: b"short"}, 1)
    with pytest.raises(ValueError, match="id 2"):
        RefreshTokenCodec({1: SECRET}, 2)


def test_the_secret_shows_in_no_repr(token: RefreshToken) -> None:
    assert repr(token.family_secret) not in repr(token)
    assert token.family_secret.hex() not in repr(token)


def test_a_family_is_found_in_the_bucket_of_its_subject() -> None:
    family = FamilyId.generate("alice")
    assert family.subject_tag == subject_tag("alice")
    assert FamilyId.parse(str(family)) == family
    assert 0 <= bucket_of(family.subject_tag, 64) < 64
    assert FamilyId.generate("alice") != family


@pytest.mark.parametrize("text", ["", "x" * 31, "x" * 33, "x" * 31 + "=", "é" * 32, " " * 32])
def test_what_is_no_session_id_names_no_family(text: str) -> None:
    assert FamilyId.parse(text) is None
