"""Under a pseudonym, an event tells nobody whom it is about, and the same person is the same person in all of them."""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

import pytest
from audit.sinks.samples import any_event, event
from hypothesis import given

from identity.audit.pseudonym import PseudonymKey, PseudonymKeyError, pseudonym
from identity.audit.recorded_event import RecordedEvent, canonical

KEY = PseudonymKey(bytes(range(32)))
shape = pseudonym(KEY)


def test_it_is_a_keyed_hash_of_the_subject() -> None:
    shaped = shape(event(subject="alice"))
    assert shaped.subject == hmac.new(bytes(range(32)), b"alice", hashlib.sha256).hexdigest()
    assert shaped.subject == KEY.pseudonym_of("alice")
    assert shaped.subject_is_pseudonym


def test_the_same_subject_has_the_same_one_under_the_same_key_only() -> None:
    other = pseudonym(PseudonymKey(bytes(32)))
    assert shape(event(1)).subject == shape(event(2)).subject
    assert shape(event(1)).subject != other(event(1)).subject
    assert shape(event(1)).subject != shape(event(1, subject="alice2")).subject


@pytest.mark.parametrize("detail", ["for alice", "alice: peer", "of Alice@example.org", "subject=alice,"])
def test_texts_do_not_name_the_subject(detail: str) -> None:
    shaped = shape(event(subject="alice", detail=detail, device_label="Alice's phone"))
    assert "alice" not in repr(shaped).lower()


def test_a_text_that_only_has_its_letters_stays_as_it_is() -> None:
    assert shape(event(subject="a", detail="client orders, malice")).detail == "client orders, malice"


@given(any_event)
def test_whatever_has_no_subject_or_a_pseudonym_already_stays_as_it_is(original: RecordedEvent) -> None:
    shaped = shape(original)
    assert shape(shaped) == shaped
    if not original.subject:
        assert shaped is original
    else:
        assert shaped.subject_is_pseudonym
        assert canonical(shaped)


def test_a_key_is_not_shown_and_not_too_short(tmp_path: Path) -> None:
    assert "\\x" not in repr(KEY)
    (tmp_path / "key").write_bytes(b"short")
    with pytest.raises(PseudonymKeyError, match="32 bytes"):
        PseudonymKey.from_file(tmp_path / "key")
    with pytest.raises(PseudonymKeyError, match="cannot read"):
        PseudonymKey.from_file(tmp_path / "none")
