"""What docs/clients.md shows does what it says, against a real identity service."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio

from grpc_identity import Issuer, Policy, Verifier, current_principal, scope
from grpc_identity.aio import AuthInterceptor
from grpc_identity.principal import CURRENT_CALLER, Caller
from grpc_identity.v1 import clients_pb2
from grpc_identity.v1 import identity_service_pb2 as pb

PAGE = Path(__file__).parents[3] / "docs/clients.md"
BILLING = clients_pb2.ClientPolicy(
    grants=["GRANT_CLIENT_CREDENTIALS"], audiences=["orders"], scopes=["orders.refund"]
)
BFF = clients_pb2.ClientPolicy(
    grants=["GRANT_ISSUE", "GRANT_REFRESH"], subjects=["*"], audiences=["orders"], scopes=["*"]
)
SHOP_LOGIN = clients_pb2.ClientPolicy(
    grants=["GRANT_ISSUE"], subjects=["*"], audiences=["orders", "stock"], scopes=["*"]
)
EXCHANGER = clients_pb2.ClientPolicy(
    grants=["GRANT_EXCHANGE"], subjects=["*"], audiences=["stock"], scopes=["stock.read"]
)


@pytest.fixture(scope="module")
def names() -> dict[str, Any]:
    """What the examples define."""
    defined: dict[str, Any] = {"__name__": "example"}
    for block in re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL):
        exec(compile(block, "example", "exec"), defined)
    return defined


@pytest_asyncio.fixture
async def orders(service: Any, names: dict[str, Any]) -> Any:
    async def refund(request: bytes, context: Any) -> bytes:
        return request + b" refunded by " + current_principal().subject.encode()

    async def listing(request: bytes, context: Any) -> bytes:
        return b"orders of " + current_principal().subject.encode()

    async def whole(request: bytes, context: Any) -> bytes:
        caller = current_principal()
        return f"{caller.subject} by {caller.actors[0]} for {' '.join(caller.audience)}".encode()

    async def forward(request: bytes, context: Any) -> bytes:
        async with names["channel_to_stock"](request.decode()) as channel:
            answer: bytes = await channel.unary_unary("/shop.v1.Orders/List")(b"")
            return answer

    policy = Policy().require("/shop.v1.Orders/Refund", scope("orders.refund"))
    issuer = Issuer("https://id.example", target=service.addresses.grpc_target, audience=["orders", "stock"])
    async with Verifier(issuer) as verifier:
        server = grpc.aio.server(
            interceptors=[AuthInterceptor(verifier, policy)], options=(("grpc.so_reuseport", 0),)
        )
        methods = {"Refund": refund, "List": listing, "Forward": forward, "Whole": whole}
        handlers = {name: grpc.unary_unary_rpc_method_handler(method) for name, method in methods.items()}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("shop.v1.Orders", handlers),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        yield f"127.0.0.1:{port}"
        await server.stop(None)


async def test_a_service_calls_in_its_own_name(service: Any, orders: str, names: dict[str, Any]) -> None:
    await service.new_client("billing", BILLING)
    answer = await names["refund"](service.addresses.grpc_target, orders, service.secrets["billing"])
    assert answer == b"1001 refunded by billing"


async def test_a_backend_calls_for_a_person(service: Any, orders: str, names: dict[str, Any]) -> None:
    caller = await service.new_client("bff", BFF)
    request = pb.IssueTokensRequest(subject="alice", audience=["orders"])
    issued = await service.identity.IssueTokens(request, metadata=caller)
    answer = await names["list_orders"](
        service.addresses.grpc_target, orders, service.secrets["bff"], issued.tokens
    )
    assert answer == b"orders of alice"


async def test_a_handler_sends_on_its_callers_token(service: Any, orders: str, new_session: Any) -> None:
    session = await new_session("alice")
    async with grpc.aio.insecure_channel(orders) as channel:
        answer = await channel.unary_unary("/shop.v1.Orders/Forward")(
            orders.encode(), metadata=(("authorization", f"Bearer {session.tokens.access_token}"),)
        )
    assert answer == b"orders of alice"


async def test_a_handler_calls_on_with_a_narrower_token(
    service: Any, orders: str, names: dict[str, Any]
) -> None:
    await service.new_client("orders", EXCHANGER)
    login = await service.new_client("shop-login", SHOP_LOGIN)
    request = pb.IssueTokensRequest(
        subject="alice", audience=["orders", "stock"], scopes=["orders.read", "stock.read"]
    )
    token = (await service.identity.IssueTokens(request, metadata=login)).tokens.access_token
    issuer = Issuer("https://id.example", target=service.addresses.grpc_target, audience="orders")
    async with Verifier(issuer) as verifier:
        CURRENT_CALLER.set(Caller(verifier.verify(token), token))
    secret, identity = service.secrets["orders"], service.addresses.grpc_target
    async with names["narrower_channel_to_stock"](identity, secret, orders) as channel:
        assert await channel.unary_unary("/shop.v1.Orders/Whole")(b"") == b"alice by orders for stock"


async def test_a_channel_opens_with_call_credentials_and_retries(names: dict[str, Any]) -> None:
    from grpc_identity import ClientCredentials

    tokens = ClientCredentials("id.example:443", client_id="a", client_secret="b", audience="orders")
    async with names["secure_channel"]("127.0.0.1:1", tokens, pb.DESCRIPTOR) as channel:
        assert channel.get_state() is grpc.ChannelConnectivity.IDLE
