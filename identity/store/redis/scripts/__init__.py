"""The decisions, as Lua that runs inside the store. Each script states its KEYS, ARGV and result."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha1
from importlib.resources import files


@dataclass(frozen=True, slots=True)
class Script:
    """A script and the hash it is called by (SHA-1, as EVALSHA has it)."""

    name: str
    source: bytes = field(repr=False)
    sha: str


def _load(name: str, *before: str) -> Script:
    """A script with what it is built on: text of the same folder, placed before it."""
    folder = files(__name__)
    source = b"".join((folder / f"{part}.lua").read_bytes() for part in ("prelude", *before, name))
    return Script(name, source, sha1(source, usedforsecurity=False).hexdigest())


START_FAMILY = _load("start_family", "family")
GRANT_SERVICE_TOKEN = _load("grant_service_token")
EXCHANGE_TOKEN = _load("exchange_token", "family")
SPEND = _load("spend", "family")
REVOKE_FAMILY = _load("revoke_family", "family")
REVOKE_ACCESS_TOKEN = _load("revoke_access_token")
CUT_OFF = _load("cut_off")
NOTE_CLAIMS = _load("note_claims", "family")
REVOKE_OTHERS = _load("revoke_others", "family")
ERASE_SUBJECT = _load("erase_subject", "family")
RECORD = _load("record")
RECORD_USAGE = _load("record_usage")
PUT_CLIENT = _load("put_client")
PUT_KEYRING = _load("put_keyring")
RELAY_READ = _load("relay_read", "relay_trim")
RELAY_ADVANCE = _load("relay_advance", "relay_trim")
RELAY_RELEASE = _load("relay_release")
RELAY_ALIVE = _load("relay_alive")
BACKLOG = _load("backlog")
TAKE_TURN = _load("take_turn")
