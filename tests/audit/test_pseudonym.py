"""Under a pseudonym, an event tells nobody whom it is about, and the same person is the same person in all of them."""

from __future__ import annotations

import base64
import hashlib
import hmac
from pathlib import Path

import pytest
from audit.sinks.samples import any_event, event
from hypothesis import given

from identity.audit.pseudonym import PseudonymKey, PseudonymKeyError, names_of, pseudonym
from identity.audit.recorded_event import RecordedEvent, canonical
from identity.tokens.family_id import FamilyId, erased_subject, subject_tag

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
def test_whatever_has_neither_subject_nor_session_stays_as_it_is(original: RecordedEvent) -> None:
    shaped = shape(original)
    if not original.subject:
        assert shaped == original
    else:
        assert shaped.subject_is_pseudonym
        assert canonical(shaped)


def test_a_session_id_tells_no_guess_from_another_and_stays_one_of_its_subject() -> None:
    ids = [str(FamilyId.generate(name)) for name in ("alice", "alice", "bob")]
    shown = [shape(event(subject="alice", session_id=session_id)).session_id for session_id in ids]
    assert len(set(shown)) == 3
    tags = [FamilyId(base64.urlsafe_b64decode(session_id)).subject_tag for session_id in shown]
    assert tags[0] == tags[1] != tags[2]
    guess = hashlib.sha256(b"alice").digest()[:10]
    assert guess not in base64.urlsafe_b64decode(shown[0])
    assert [KEY.pseudonym_of_session(session_id) for session_id in ids] == shown
    assert shape(event(subject="", session_id=ids[0])).session_id == shown[0]


def test_an_erasure_is_of_the_subject_whose_sessions_begin_alike() -> None:
    family = FamilyId.generate("alice")
    erasure = shape(event(subject=erased_subject(subject_tag("alice"))))
    session = shape(event(subject="alice", session_id=str(family))).session_id
    assert erasure.subject.removeprefix("erased:") == base64.urlsafe_b64decode(session)[:10].hex()
    assert subject_tag("alice").hex() not in erasure.subject
    assert erasure.subject in names_of("alice", KEY)
    assert erasure.subject not in names_of("bob", KEY) | names_of("alice", None)


def test_a_key_is_not_shown_and_not_too_short(tmp_path: Path) -> None:
    assert "\\x" not in repr(KEY)
    (tmp_path / "key").write_bytes(b"short")
    with pytest.raises(PseudonymKeyError, match="32 bytes"):
        PseudonymKey.from_file(tmp_path / "key")
    with pytest.raises(PseudonymKeyError, match="cannot read"):
        PseudonymKey.from_file(tmp_path / "none")
