"""The key providers by the scheme of their URI. Each is imported only when it is chosen, since each needs more packages
than the service itself: extras of the distribution."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from identity.keys.keyring import LOCAL
from identity.keys.ports import KeyProvider, ProviderError
from identity.keys.providers.local import LocalKeys
from identity.keys.providers.remote import RemoteLimits


@dataclass(frozen=True, slots=True)
class Packages:
    """The extra that a provider needs (empty: none), the loggers of what is in it, and the algorithms its place has no keys for."""

    extra: str
    loggers: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()


_AWS = Packages("aws", ("boto3", "botocore", "urllib3"))
_AZURE = ("azure", "msal", "aiohttp", "urllib3")
_GCP = Packages("gcp", ("google", "urllib3"))
PACKAGES: Mapping[str, Packages] = MappingProxyType(
    {
        "pkcs11": Packages("pkcs11"),
        "transit": Packages("", ("aiohttp",)),
        "awskms": _AWS,
        "awssm": _AWS,
        "azurekv": Packages("azure", _AZURE, lacks=("EdDSA",)),
        "azuresecrets": Packages("azure", _AZURE),
        "gcpkms": _GCP,
        "gcpsm": _GCP,
    }
)
"""By scheme, which is the name of the module as well."""


def scheme_of(uri: str) -> str:
    """What is before the first colon."""
    return uri.partition(":")[0]


def require_algorithm(uri: str, algorithm: str) -> None:
    """Raises ``ProviderError`` where the place of new keys will never have one for it: rather now than when one is due."""
    scheme = scheme_of(uri)
    if scheme in PACKAGES and algorithm in PACKAGES[scheme].lacks:
        raise ProviderError(
            f"{scheme}: has no keys for {algorithm}; choose another algorithm, or another place"
        )


def provider_by_uri(uri: str, limits: RemoteLimits) -> KeyProvider:
    """The provider that a URI names. Connects to nobody. Raises ``ProviderError``."""
    scheme = scheme_of(uri)
    if scheme == LOCAL:
        if uri != f"{LOCAL}:":
            raise ProviderError("local: takes nothing after the colon")
        return LocalKeys()
    made: KeyProvider = module_of(uri).provider(uri, limits)
    return made


def providers_by_scheme(uri: str, former: Iterable[str], limits: RemoteLimits) -> dict[str, KeyProvider]:
    """The provider of new keys, those that still hold others, and the local one. Raises ``ProviderError``."""
    uris = [uri, *former]
    schemes = [scheme_of(item) for item in uris]
    if len(set(schemes)) < len(schemes):
        raise ProviderError(
            "two providers of one scheme cannot be told apart; go by way of local: from one to the other"
        )
    made: dict[str, KeyProvider] = {LOCAL: LocalKeys()}
    return made | {scheme_of(item): provider_by_uri(item, limits) for item in uris}


def module_of(uri: str) -> Any:
    """The module for a scheme that is not the local one. Raises ``ProviderError``."""
    scheme = scheme_of(uri)
    if scheme not in PACKAGES:
        known = ", ".join(f"{name}:" for name in (LOCAL, *PACKAGES))
        raise ProviderError(f"{scheme[:32]!r} is not a key provider; there are {known}")
    packages = PACKAGES[scheme]
    # They log each request, and at DEBUG what is in it: an unwrapped key, too.
    for name in packages.loggers:
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        return importlib.import_module(f"identity.keys.providers.{scheme}")
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("identity"):
            raise
        raise ProviderError(
            f"{scheme}: needs the package {error.name}, which is not installed; install the extra: "
            f"pip install 'grpc-identity-server[{packages.extra}]'"
        ) from None
