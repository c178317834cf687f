"""Verified callers for Python gRPC services.

>>> from grpc_identity import Verifier, Issuer, Policy, scope, current_principal
>>> from grpc_identity.aio import AuthInterceptor      # or grpc_identity.sync

Importing this package imports neither gRPC nor anything that does I/O; ``Verifier``, ``Issuer`` and what a client needs
are loaded when they are first named.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from grpc_identity._version import __version__
from grpc_identity.errors import (
    GrpcIdentityError,
    PlaintextError,
    PolicyError,
    Reason,
    SessionEnd,
    SessionEndedError,
    TokenError,
    TokenRefusedError,
    TokenSourceError,
    TokenUnavailableError,
    UsageSpoolError,
)
from grpc_identity.forwarding import ForwardedToken
from grpc_identity.jwk import Algorithm, KeySet
from grpc_identity.policy import Policy, UsageAudit, claim, role, scope
from grpc_identity.principal import Principal, current_principal, current_principal_or_none
from grpc_identity.revocations import StaleRevocations
from grpc_identity.token_storage import MemoryStorage, RefreshTokenStorage, StoredSession

if TYPE_CHECKING:
    from grpc_identity.client_calls import retry_options
    from grpc_identity.client_credentials import ClientCredentials
    from grpc_identity.exchange import ExchangedToken
    from grpc_identity.keyring_storage import KeyringStorage
    from grpc_identity.session_tokens import SessionTokens
    from grpc_identity.token_grants import ClientAuthentication, ClientSecret
    from grpc_identity.token_source import TokenSource
    from grpc_identity.token_verifier import TokenVerifier
    from grpc_identity.usage.ports import UsageSink
    from grpc_identity.usage.recorder import UsageRecorder
    from grpc_identity.verifier import Issuer, Verifier

__all__ = [
    "Algorithm",
    "ClientAuthentication",
    "ClientCredentials",
    "ClientSecret",
    "ExchangedToken",
    "ForwardedToken",
    "GrpcIdentityError",
    "Issuer",
    "KeySet",
    "KeyringStorage",
    "MemoryStorage",
    "PlaintextError",
    "Policy",
    "PolicyError",
    "Principal",
    "Reason",
    "RefreshTokenStorage",
    "SessionEnd",
    "SessionEndedError",
    "SessionTokens",
    "StaleRevocations",
    "StoredSession",
    "TokenError",
    "TokenRefusedError",
    "TokenSource",
    "TokenSourceError",
    "TokenUnavailableError",
    "TokenVerifier",
    "UsageAudit",
    "UsageRecorder",
    "UsageSink",
    "UsageSpoolError",
    "Verifier",
    "__version__",
    "claim",
    "current_principal",
    "current_principal_or_none",
    "retry_options",
    "role",
    "scope",
]

_LAZY = {
    "ClientAuthentication": "token_grants",
    "ClientCredentials": "client_credentials",
    "ClientSecret": "token_grants",
    "ExchangedToken": "exchange",
    "Issuer": "verifier",
    "KeyringStorage": "keyring_storage",
    "SessionTokens": "session_tokens",
    "TokenSource": "token_source",
    "TokenVerifier": "token_verifier",
    "UsageRecorder": "usage.recorder",
    "UsageSink": "usage.ports",
    "Verifier": "verifier",
    "retry_options": "client_calls",
}


def __getattr__(name: str) -> Any:
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module 'grpc_identity' has no attribute {name!r}")
    return getattr(import_module(f"grpc_identity.{module}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
