"""PKCS #11 URIs (RFC 7512), as far as they name a module, a token and a key in it.

Understood: ``token``, ``serial``, ``slot-id``, ``manufacturer``, ``model``, ``object`` and ``id`` in the path, ``module-path``
and ``pin-source`` in the query. Anything else is refused, because an attribute that is left out of account may name
another token than was meant. A PIN in the URI (``pin-value``) is refused: settings are shown, files are not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote_from_bytes, unquote_to_bytes

from identity.keys.ports import ProviderError

SCHEME = "pkcs11:"
_TEXTS = frozenset({"token", "serial", "slot-id", "manufacturer", "model", "object"})
_BYTES = frozenset({"id"})
_QUERY = frozenset({"module-path", "pin-source"})


@dataclass(frozen=True, slots=True)
class Pkcs11Uri:
    """``path`` and ``query`` hold the attributes that were given, decoded."""

    path: Mapping[str, str]
    query: Mapping[str, str]
    key_id: bytes = b""

    @classmethod
    def parse(cls, text: str) -> Pkcs11Uri:
        """Raises ``ProviderError`` for what is not such a URI."""
        if not text.startswith(SCHEME):
            raise ProviderError("a PKCS #11 URI starts with pkcs11: (RFC 7512)")
        path, _, query = text.removeprefix(SCHEME).partition("?")
        attributes = _attributes(path.split(";"), _TEXTS | _BYTES)
        key_id = attributes.pop("id", b"")
        return cls(
            {name: _text(name, value) for name, value in attributes.items()},
            {name: _text(name, value) for name, value in _attributes(query.split("&"), _QUERY).items()},
            key_id,
        )

    @property
    def module_path(self) -> Path:
        """The vendor's library."""
        if "module-path" not in self.query:
            raise ProviderError("the PKCS #11 URI needs ?module-path=, the library of the HSM's vendor")
        return Path(self.query["module-path"])

    def pin(self) -> bytes:
        """The PIN, read anew. Raises ``ProviderError``."""
        source = self.query.get("pin-source", "")
        if not source or source.startswith("|"):
            raise ProviderError("the PKCS #11 URI needs pin-source=, a file that holds the PIN of the token")
        path = Path(source.removeprefix("file:"))
        try:
            return path.read_bytes().strip()
        except OSError as error:
            raise ProviderError(f"cannot read pin-source {path}: {error.strerror}") from None

    def __str__(self) -> str:
        """What messages call the token by."""
        named = ", ".join(f"{name} {value}" for name, value in self.path.items() if name != "object")
        return f"the PKCS #11 token ({named or self.module_path})"


def key_uri(key_id: bytes) -> str:
    """The URI of a private key in whichever token the settings name."""
    return f"{SCHEME}id={quote_from_bytes(key_id, safe='')};type=private"


def key_id_of(uri: bytes) -> bytes:
    """The ``CKA_ID`` that ``key_uri`` has put there."""
    return Pkcs11Uri.parse(uri.decode().removesuffix(";type=private")).key_id


def _attributes(parts: Iterable[str], known: frozenset[str]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for part in filter(None, parts):
        name, equals, value = part.partition("=")
        if name == "pin-value":
            raise ProviderError("the PKCS #11 URI must not hold the PIN; use pin-source=, a file that does")
        if name not in known or not equals:
            raise ProviderError(
                f"the PKCS #11 URI has {name[:32]!r}, which is not one of {', '.join(sorted(known))}"
            )
        if name in found:
            raise ProviderError(f"the PKCS #11 URI has {name!r} twice")
        found[name] = unquote_to_bytes(value)
    return found


def _text(name: str, value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise ProviderError(f"the PKCS #11 URI has {name!r} that is not UTF-8") from None
