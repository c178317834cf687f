"""The keyring as text: what stores keep, and what a backup holds. Everything private in it is sealed."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any

from identity.keys.keyring import KeyRecord, Keyring, KeyState, SealedSecret, SecretPurpose

FORMAT = 1
"""``activates_by`` and ``request`` came later: a keyring without them is read as one whose keys do not wait."""


class DamagedKeyringError(ValueError):
    """The text is no keyring. Says nothing of what is in it."""


def to_text(keyring: Keyring) -> str:
    """A JSON object."""
    return json.dumps(_document(keyring), indent=1)


def from_text(text: str | bytes) -> Keyring:
    """The keyring of ``to_text``. Raises ``DamagedKeyringError``."""
    try:
        return _keyring(json.loads(text))
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise DamagedKeyringError from error


def _document(keyring: Keyring) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "revision": keyring.revision,
        "keys": [
            {
                "kid": key.kid,
                "algorithm": key.algorithm,
                "state": key.state.value,
                "created_at": key.created_at.isoformat(),
                "activates_at": key.activates_at.isoformat(),
                "activates_by": key.activates_by.isoformat(),
                "retires_at": key.retires_at.isoformat(),
                "removes_at": key.removes_at.isoformat(),
                "public_jwk": dict(key.public_jwk),
                "provider": key.provider,
                "request": key.request,
                "sealed_private_key": base64.b64encode(key.sealed_private_key).decode(),
            }
            for key in keyring.keys
        ],
        "secrets": [
            {
                "purpose": secret.purpose.value,
                "number": secret.number,
                "created_at": secret.created_at.isoformat(),
                "sealed": base64.b64encode(secret.sealed).decode(),
            }
            for secret in keyring.secrets
        ],
    }


def _keyring(document: dict[str, Any]) -> Keyring:
    if document["format"] != FORMAT:
        raise ValueError(f"format {document['format']} is not {FORMAT}")
    if type(document["revision"]) is not int or document["revision"] < 1:
        raise ValueError("the revision is not a positive number")
    return Keyring(
        revision=document["revision"],
        keys=tuple(
            KeyRecord(
                kid=item["kid"],
                algorithm=item["algorithm"],
                state=KeyState(item["state"]),
                created_at=_moment(item["created_at"]),
                activates_at=_moment(item["activates_at"]),
                activates_by=_moment(item.get("activates_by", item["activates_at"])),
                retires_at=_moment(item["retires_at"]),
                removes_at=_moment(item["removes_at"]),
                public_jwk=item["public_jwk"],
                sealed_private_key=base64.b64decode(item["sealed_private_key"], validate=True),
                provider=item["provider"],
                request=item.get("request", ""),
            )
            for item in document["keys"]
        ),
        secrets=tuple(
            SealedSecret(
                purpose=SecretPurpose(item["purpose"]),
                number=item["number"],
                created_at=_moment(item["created_at"]),
                sealed=base64.b64decode(item["sealed"], validate=True),
            )
            for item in document["secrets"]
        ),
    )


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("a time without its zone")
    return moment.astimezone(UTC)
