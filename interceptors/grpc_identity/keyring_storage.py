"""Keeps a session in the keyring of the operating system. Needs the extra: ``pip install grpc-identity[keyring]``.

The entry is short (a refresh token and a seed), because some keyrings hold no more than 1280 characters.
"""

from __future__ import annotations

import json
from types import ModuleType
from typing import Any

from grpc_identity.encoding import decode_base64url, encode_base64url
from grpc_identity.token_storage import StoredSession

__all__ = ["KeyringStorage"]


class KeyringStorage:
    """One entry of the keyring, named by a service (your program) and a user name (whose session it is)."""

    __slots__ = ("_keyring", "_service", "_username")

    def __init__(self, service: str, username: str) -> None:
        try:
            import keyring
        except ImportError:
            raise ImportError(
                "KeyringStorage needs the package keyring: pip install grpc-identity[keyring]"
            ) from None
        self._keyring: ModuleType = keyring
        self._service = service
        self._username = username

    def __repr__(self) -> str:
        return f"KeyringStorage({self._service!r}, {self._username!r})"

    def load(self) -> StoredSession | None:
        """See ``RefreshTokenStorage``. An entry that is not ours is taken for none."""
        text = self._keyring.get_password(self._service, self._username)
        if text is None:
            return None
        try:
            entry: dict[str, Any] = json.loads(text)
            return StoredSession(entry["refresh_token"], decode_base64url(entry["key_seed"].encode("ascii")))
        except (ValueError, KeyError, TypeError, AttributeError):
            return None

    def save(self, session: StoredSession) -> None:
        """See ``RefreshTokenStorage``."""
        entry = {"refresh_token": session.refresh_token, "key_seed": encode_base64url(session.key_seed)}
        self._keyring.set_password(self._service, self._username, json.dumps(entry))

    def clear(self) -> None:
        """See ``RefreshTokenStorage``."""
        # Deleting what is not there is an error of another type in every keyring.
        if self._keyring.get_password(self._service, self._username) is not None:
            self._keyring.delete_password(self._service, self._username)
