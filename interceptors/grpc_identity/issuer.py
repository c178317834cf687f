"""Whom to trust, and where that issuer's keys come from.

Exactly one source: a gRPC address that serves ``grpc_identity.v1.IdentityService/GetJWKS``, the URL of a JWK set, or
the keys themselves. Keys that come over the network come over TLS, except from loopback, or where plain text is
allowed in so many words. Nothing is ever fetched from an address in a token.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Collection, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any

from grpc_identity.jwk import Algorithm, KeySet
from grpc_identity.jws import ALL_ALGORITHMS
from grpc_identity.keysets import Fetch
from grpc_identity.revocations import RevocationView

if TYPE_CHECKING:
    import grpc

    from grpc_identity.channels import ChannelFactory

__all__ = ["Issuer"]

FETCH_TIMEOUT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Issuer:
    """An issuer and its keys.

    >>> Issuer("https://id.example", target="id.example:443", audience="orders").audiences
    frozenset({'orders'})

    ``issuer`` is compared with ``iss`` character by character. A token is accepted if one of its audiences is one of
    ``audience``. ``credentials`` are for ``target``; TLS with the system's roots unless given. With ``client_id`` and
    ``client_secret`` of a client that has ``GRANT_VERIFY`` there, keys and revocations are pushed; without them keys are
    polled, and a revoked token is good until it expires. With ``revocations`` it is for the program itself to say what
    is revoked, by ``RevocationView.apply``.
    """

    issuer: str
    _: KW_ONLY
    audience: str | Collection[str]
    target: str | None = None
    jwks: str | None = None
    keys: KeySet | Mapping[str, Any] | None = None
    algorithms: Collection[Algorithm | str] = ALL_ALGORITHMS
    credentials: grpc.ChannelCredentials | None = field(default=None, repr=False)
    revocations: RevocationView | None = None
    client_id: str | None = None
    client_secret: str | None = field(default=None, repr=False)
    allow_plaintext: bool = False
    fetch_timeout_seconds: float = FETCH_TIMEOUT_SECONDS

    def __post_init__(self) -> None:
        if not self.issuer:
            raise ValueError("an issuer needs its name, as in the claim iss")
        if not self.audiences or not all(self.audiences):
            raise ValueError(
                f"{self.issuer}: say which audience this service is; an empty one accepts nothing"
            )
        if sum(source is not None for source in (self.target, self.jwks, self.keys)) != 1:
            raise ValueError(f"{self.issuer}: give one of target, jwks and keys")
        if (self.client_id is None) != (self.client_secret is None):
            raise ValueError(f"{self.issuer}: client_id and client_secret go together")
        if self.client_id is not None and self.revocations is not None:
            raise ValueError(f"{self.issuer}: revocations are pushed (client_id), or given; not both")
        if self.client_id is not None and self.target is None:
            raise ValueError(f"{self.issuer}: client_id goes with target; keys by URL need no credentials")
        if not self.algorithms:
            raise ValueError(f"{self.issuer}: give at least one algorithm")
        if unknown := sorted(set(self.algorithms) - set(Algorithm)):
            raise ValueError(
                f"{self.issuer}: {', '.join(unknown)} not accepted; of {', '.join(Algorithm)} choose some"
            )
        self.fetch()

    @property
    def audiences(self) -> frozenset[str]:
        """The audiences, one of which a token must name."""
        return frozenset((self.audience,) if isinstance(self.audience, str) else self.audience)

    @property
    def accepted_algorithms(self) -> frozenset[Algorithm]:
        """The algorithms, one of which a token must be signed with."""
        return frozenset(Algorithm(name) for name in self.algorithms)

    @property
    def is_followed(self) -> bool:
        """Whether keys and revocations are pushed."""
        return self.client_id is not None

    def channel(self) -> ChannelFactory:
        """The way to ``target``."""
        from grpc_identity.channels import ChannelFactory

        assert self.target is not None  # noqa: S101 - who asks has looked
        return ChannelFactory(self.target, self.credentials, self.allow_plaintext)

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What says who this service is: ``authorization: Basic`` (RFC 7617)."""
        credentials = b64encode(f"{self.client_id}:{self.client_secret}".encode()).decode()
        return (("authorization", f"Basic {credentials}"),)

    def fetch(self) -> Fetch | KeySet:
        """What asks for the keys, or the keys, where they are given."""
        if self.target is not None:
            from grpc_identity.jwks_grpc import GrpcJwks

            return GrpcJwks(self.channel(), timeout_seconds=self.fetch_timeout_seconds)
        if self.jwks is not None:
            from grpc_identity.jwks_http import HttpJwks

            return HttpJwks(
                self.jwks, allow_plaintext=self.allow_plaintext, timeout_seconds=self.fetch_timeout_seconds
            )
        assert self.keys is not None  # noqa: S101 - __post_init__ has counted the sources
        return self.keys if isinstance(self.keys, KeySet) else KeySet.from_dict(self.keys)
