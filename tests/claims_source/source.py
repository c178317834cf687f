"""A claims source on a real socket that answers, hangs or fails as it is told to."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import grpc

from grpc_identity.claims import AccessTokenClaims, parse_claims
from grpc_identity.encoding import decode_base64url
from grpc_identity.v1 import claims_source_pb2 as source_pb2
from grpc_identity.v1 import claims_source_pb2_grpc as source_pb2_grpc

ACTIVE, DISABLED = source_pb2.SUBJECT_STATE_ACTIVE, source_pb2.SUBJECT_STATE_DISABLED


def active(*roles: str, **claims: Any) -> source_pb2.GetClaimsResponse:
    """The answer for a subject that may have tokens, with these roles (none are none) and claims."""
    answer = source_pb2.GetClaimsResponse(state=ACTIVE, roles={"roles": roles})
    answer.claims.update(claims)
    return answer


def disabled() -> source_pb2.GetClaimsResponse:
    """The answer for one that may not."""
    return source_pb2.GetClaimsResponse(state=DISABLED)


@dataclass
class Source(source_pb2_grpc.ClaimsSourceServiceServicer):
    """``answer`` is given to all, unless ``answers`` has one for the subject or ``next_answers`` one for the next question."""

    answer: Any = field(default_factory=lambda: active("clerk"))
    answers: dict[str, Any] = field(default_factory=dict)
    next_answers: list[Any] = field(default_factory=list)
    asked: list[source_pb2.GetClaimsRequest] = field(default_factory=list)
    metadata: list[dict[str, Any]] = field(default_factory=list)
    failing: grpc.StatusCode | None = None
    details: str = "told to"
    is_away: bool = False
    hanging: bool = False
    before_answering: Any = None
    target: str = ""

    def __post_init__(self) -> None:
        self._server: grpc.aio.Server | None = None

    async def GetClaims(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
        self.asked.append(request)
        self.metadata.append(dict(context.invocation_metadata()))
        if self.hanging:
            await asyncio.Event().wait()
        if self.is_away or self.failing is not None:
            await context.abort(self.failing or grpc.StatusCode.UNAVAILABLE, self.details)
        answer = (
            self.next_answers.pop(0) if self.next_answers else self.answers.get(request.subject, self.answer)
        )
        if self.before_answering is not None:
            hook, self.before_answering = self.before_answering, None
            await hook()
        return answer

    async def start(self, credentials: grpc.ServerCredentials | None = None) -> None:
        """Listens where it listened before, if it did."""
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        source_pb2_grpc.add_ClaimsSourceServiceServicer_to_server(self, self._server)  # type: ignore[no-untyped-call]
        address = self.target or "127.0.0.1:0"
        if credentials is None:
            port = self._server.add_insecure_port(address)
        else:
            port = self._server.add_secure_port(address, credentials)
        await self._server.start()
        self.target = f"127.0.0.1:{port}"

    async def stop(self) -> None:
        """Refuses connections from now on."""
        if self._server is not None:
            await self._server.stop(None)
            self._server = None


def claims_of(tokens: Any) -> AccessTokenClaims:
    """What the access token says."""
    return parse_claims(decode_base64url(tokens.access_token.split(".")[1].encode()))
