"""Fixtures for the tests of services that verify callers; loaded by pytest by itself where this package is installed.

============================ ==========================================================================
``identity_issuer``          an ``InMemoryIssuer``, new for each test; its audience is ``identity_audience``
``identity_audience``        ``"test"``; override it with what your service expects
``identity_verifier``        a ``Verifier`` that trusts it
``identity_usage``           an ``InMemoryUsage``, for policies that record uses of tokens
``identity_metadata``        a function: what to say of the caller in, metadata for a call out
============================ ==========================================================================
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from grpc_identity.testing.issuer import Flaw, InMemoryIssuer
    from grpc_identity.testing.usage import InMemoryUsage
    from grpc_identity.verifier import Verifier

__all__ = ["identity_audience", "identity_issuer", "identity_metadata", "identity_usage", "identity_verifier"]


@pytest.fixture
def identity_audience() -> str:
    """The audience of the service under test."""
    return "test"


@pytest.fixture
def identity_issuer(identity_audience: str) -> InMemoryIssuer:
    """An issuer with keys of its own."""
    from grpc_identity.testing.issuer import InMemoryIssuer

    return InMemoryIssuer(audience=identity_audience)


@pytest.fixture
def identity_verifier(identity_issuer: InMemoryIssuer) -> Verifier:
    """A verifier that trusts the issuer; it needs no start."""
    from grpc_identity.verifier import Verifier

    return Verifier(identity_issuer.trusted())


@pytest.fixture
def identity_usage() -> InMemoryUsage:
    """Where uses of tokens are recorded; nothing leaves the test."""
    from grpc_identity.testing.usage import InMemoryUsage

    return InMemoryUsage()


@pytest.fixture
def identity_metadata(identity_issuer: InMemoryIssuer) -> Callable[..., tuple[tuple[str, str], ...]]:
    """``identity_metadata(subject="alice", scopes=["orders.read"])``; or ``identity_metadata(Flaw.EXPIRED)``.

    What ``InMemoryIssuer.mint`` takes, or ``mint_broken`` after a flaw.
    """

    def metadata(flaw: Flaw | None = None, **said: Any) -> tuple[tuple[str, str], ...]:
        token = identity_issuer.mint(**said) if flaw is None else identity_issuer.mint_broken(flaw, **said)
        return (("authorization", f"Bearer {token}"),)

    return metadata
