"""An issuer in memory, so that the tests of a service need no identity server.

>>> from grpc_identity import Verifier
>>> issuer = InMemoryIssuer(audience="orders")
>>> verifier = Verifier(issuer.trusted())
>>> verifier.verify(issuer.mint(subject="alice", scopes=["orders.read"])).scopes
frozenset({'orders.read'})
"""

from __future__ import annotations

from grpc_identity.testing.issuer import Flaw, InMemoryIssuer

__all__ = ["Flaw", "InMemoryIssuer"]
