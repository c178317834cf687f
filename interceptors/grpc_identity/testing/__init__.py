"""An issuer in memory, so that the tests of a service need no identity server.

>>> from grpc_identity import Verifier
>>> issuer = InMemoryIssuer(audience="orders")
>>> verifier = Verifier(issuer.trusted())
>>> verifier.verify(issuer.mint(subject="alice", scopes=["orders.read"])).scopes
frozenset({'orders.read'})
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from grpc_identity.testing.issuer import Flaw, InMemoryIssuer
    from grpc_identity.testing.usage import InMemoryUsage, RecordedUse

__all__ = ["Flaw", "InMemoryIssuer", "InMemoryUsage", "RecordedUse"]


def __getattr__(name: str) -> Any:
    # Loaded when it is first named: pytest imports the plugin beside this wherever the package is installed.
    if name in __all__:
        from grpc_identity.testing import issuer, usage

        return getattr(usage if hasattr(usage, name) else issuer, name)
    raise AttributeError(f"module 'grpc_identity.testing' has no attribute {name!r}")
