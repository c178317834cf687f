"""Verified callers for Python gRPC services.

>>> from grpc_identity import Verifier, Issuer, Policy, scope, current_principal
>>> from grpc_identity.aio import AuthInterceptor      # or grpc_identity.sync

Importing this package imports neither gRPC nor anything that does I/O; ``Verifier`` and ``Issuer`` are loaded when
they are first named.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from grpc_identity._version import __version__
from grpc_identity.errors import GrpcIdentityError, PolicyError, Reason, TokenError
from grpc_identity.jwk import Algorithm, KeySet
from grpc_identity.policy import Policy, claim, role, scope
from grpc_identity.principal import Principal, current_principal, current_principal_or_none
from grpc_identity.revocations import StaleRevocations

if TYPE_CHECKING:
    from grpc_identity.verifier import Issuer, TokenVerifier, Verifier

__all__ = [
    "Algorithm",
    "GrpcIdentityError",
    "Issuer",
    "KeySet",
    "Policy",
    "PolicyError",
    "Principal",
    "Reason",
    "StaleRevocations",
    "TokenError",
    "TokenVerifier",
    "Verifier",
    "__version__",
    "claim",
    "current_principal",
    "current_principal_or_none",
    "role",
    "scope",
]

_LAZY = frozenset({"Issuer", "TokenVerifier", "Verifier"})


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        from grpc_identity import verifier

        return getattr(verifier, name)
    raise AttributeError(f"module 'grpc_identity' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
