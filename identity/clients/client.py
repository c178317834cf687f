"""A registered client, and the JSON document it is stored as."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from re import compile as compile_pattern
from typing import Any

from identity.clients.policy import ClientPolicy, Grant, Patterns, ReusePolicy
from identity.errors import field_invalid

MAX_SECRETS = 2
MAX_DISPLAY_NAME_BYTES = 128
_CLIENT_ID = compile_pattern(r"[a-z0-9][a-z0-9._-]{0,63}")
_PATTERN_FIELDS = frozenset({"subjects", "audiences", "scopes", "roles"})


@dataclass(frozen=True, slots=True)
class StoredSecret:
    """A secret as it is kept: its name, its keyed hash, its age."""

    secret_id: str
    digest: bytes = field(repr=False)
    created_at_seconds: int


@dataclass(frozen=True, slots=True)
class Client:
    """A service that may call. ``secrets`` newest first, at most two."""

    client_id: str
    display_name: str
    policy: ClientPolicy
    secrets: tuple[StoredSecret, ...]
    created_at_seconds: int
    disabled: bool = False

    def document(self) -> str:
        """The JSON text to store."""
        policy: dict[str, Any] = {}
        for item in fields(self.policy):
            value = getattr(self.policy, item.name)
            if isinstance(value, Patterns):
                policy[item.name] = list(value.patterns)
            elif isinstance(value, frozenset):
                policy[item.name] = sorted(value)
            else:
                policy[item.name] = value
        return json.dumps(
            {
                "client_id": self.client_id,
                "display_name": self.display_name,
                "disabled": self.disabled,
                "created_at": self.created_at_seconds,
                "policy": policy,
                "secrets": [
                    {"id": kept.secret_id, "digest": kept.digest.hex(), "created_at": kept.created_at_seconds}
                    for kept in self.secrets
                ],
            },
            sort_keys=True,
        )


def parse_document(document: str) -> Client:
    """The client of a stored document. Members a newer version has added are left aside."""
    members = json.loads(document)
    known = {item.name for item in fields(ClientPolicy)}
    policy: dict[str, Any] = {
        name: Patterns(tuple(value)) if name in _PATTERN_FIELDS else value
        for name, value in members["policy"].items()
        if name in known
    }
    policy["grants"] = frozenset(
        Grant(name) for name in policy.get("grants", ()) if name in Grant.__members__
    )
    policy["reuse_policy"] = ReusePolicy(policy.get("reuse_policy", ReusePolicy.ENFORCE))
    return Client(
        client_id=members["client_id"],
        display_name=members["display_name"],
        policy=ClientPolicy(**policy),
        secrets=tuple(
            StoredSecret(kept["id"], bytes.fromhex(kept["digest"]), kept["created_at"])
            for kept in members["secrets"]
        ),
        created_at_seconds=members["created_at"],
        disabled=members["disabled"],
    )


def checked_client_id(client_id: str) -> str:
    """The id, or ``FIELD_INVALID``."""
    if not _CLIENT_ID.fullmatch(client_id):
        raise field_invalid(
            "client_id", "1 to 64 of a-z, 0-9, '.', '_' and '-', starting with a letter or a digit"
        )
    return client_id


def checked_display_name(display_name: str) -> str:
    """The name, or ``FIELD_INVALID``."""
    if len(display_name.encode()) > MAX_DISPLAY_NAME_BYTES or not display_name.isprintable():
        raise field_invalid("display_name", f"at most {MAX_DISPLAY_NAME_BYTES} printable bytes")
    return display_name
