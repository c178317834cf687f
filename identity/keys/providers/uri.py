"""URIs that name a key provider: ``scheme:target?option=value&option=value``.

No option holds a secret: what proves who the service is comes from a file that an option names, or from where the
provider's own library looks for it. So a URI can be shown, and is.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from grpc_identity.jwks_http import is_loopback
from identity.keys.ports import ProviderError

DEFAULT_PREFIX = "grpc-identity"


@dataclass(frozen=True, slots=True)
class ProviderUri:
    """``target`` is what is between the scheme and the question mark."""

    scheme: str
    target: str
    options: Mapping[str, str]

    @classmethod
    def parse(cls, text: str, known: Collection[str]) -> ProviderUri:
        """Raises ``ProviderError`` for an option that is not ``known``, or given twice."""
        scheme, _, rest = text.partition(":")
        target, _, query = rest.partition("?")
        try:
            pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
        except ValueError:
            raise ProviderError(f"the options of {scheme}: are not name=value, joined by &") from None
        for name, _ in pairs:
            if name not in known:
                raise ProviderError(f"{scheme}: has no option {name[:32]!r}; there are {', '.join(known)}")
        if len(dict(pairs)) < len(pairs):
            raise ProviderError(f"{scheme}: has an option twice")
        return cls(scheme, target, dict(pairs))

    @property
    def prefix(self) -> str:
        """What the names of keys start with; up to 40 letters, digits and hyphens."""
        prefix = self.options.get("prefix", DEFAULT_PREFIX)
        if not (0 < len(prefix) <= 40 and prefix.isascii() and prefix.replace("-", "").isalnum()):
            raise ProviderError(f"{self.scheme}: the prefix is up to 40 letters, digits and hyphens")
        return prefix

    def option(self, name: str) -> str:
        """An option that must be there."""
        if not self.options.get(name):
            raise ProviderError(f"{self.scheme}: needs the option {name}")
        return self.options[name]

    def new_name(self) -> str:
        """A name for a new key that no other process thinks of."""
        return f"{self.prefix}-{os.urandom(12).hex()}"


def require_private_way(scheme: str, url: str) -> str:
    """The URL, if it is https, or http to this machine. Raises ``ProviderError``."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        parts, host = urlsplit(""), ""
    if parts.username or parts.password:
        raise ProviderError(f"{scheme}: credentials do not belong into its URL")
    if host and (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host))):
        return url
    raise ProviderError(f"{scheme}: needs an https URL; http is for loopback only")


def read_secret(scheme: str, path: str) -> str:
    """The content of a file, without the white space around it. Raises ``ProviderError``."""
    try:
        return Path(path).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not text"
        raise ProviderError(f"{scheme}: cannot read {path}: {reason}") from None


def tls_context(uri: ProviderUri) -> ssl.SSLContext:
    """Trusts the certificates of ``ca-file``, or the system's. Raises ``ProviderError``."""
    try:
        return ssl.create_default_context(cafile=uri.options.get("ca-file"))
    except OSError as error:
        raise ProviderError(
            f"{uri.scheme}: cannot read ca-file: {error.strerror or type(error).__name__}"
        ) from None
