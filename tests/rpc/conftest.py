"""Short forms of the calls that most tests make."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from grpc_identity.v1 import identity_service_pb2 as pb
from grpc_identity.v1 import tokens_pb2


@dataclass
class Session:
    """Issues and refreshes as a login service does; ``tokens`` are the latest."""

    service: Any
    tokens: tokens_pb2.TokenSet

    async def refresh(
        self,
        token: str | None = None,
        *,
        key: str = "",
        caller: Any = None,
        address: str = "",
        **fields: Any,
    ) -> tokens_pb2.TokenSet:
        request = pb.RefreshRequest(
            refresh_token=token or self.tokens.refresh_token, idempotency_key=key, **fields
        )
        if address:
            request.client_context.ip_address = address
        response = await self.service.identity.Refresh(request, metadata=caller or self.service.login)
        self.tokens = response.tokens
        return self.tokens


@pytest.fixture
def new_session(service: Any) -> Callable[..., Any]:
    """Starts a session."""

    async def start(subject: str = "alice", *, caller: Any = None, **fields: Any) -> Session:
        fields = {"audience": ["orders"], "scopes": ["orders.read", "orders.write"]} | fields
        response = await service.identity.IssueTokens(
            pb.IssueTokensRequest(subject=subject, **fields), metadata=caller or service.login
        )
        return Session(service, response.tokens)

    return start
