"""What crosses the wire: paths compared exactly, refusals small enough, tokens of a bounded length, one server a port."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer as AioHealthServicer
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc

from grpc_identity import Policy, Reason, TokenError, Verifier
from grpc_identity.aio import AuthInterceptor as AioAuthInterceptor
from grpc_identity.jws import MAX_TOKEN_BYTES
from grpc_identity.sync import AuthInterceptor
from grpc_identity.testing import InMemoryIssuer
from grpc_identity.transport import to_status

STACKS = ["sync", "aio"]
MAX_DETAILS_BYTES = 1024
SOFT_METADATA_LIMIT_BYTES = 8 * 1024


def handlers(stack: str, seen: list[bytes] | None = None) -> dict[str, Any]:
    def plain(request: bytes, context: Any) -> bytes:
        return b"served"

    async def coroutine(request: bytes, context: Any) -> bytes:
        return b"served"

    behaviour = plain if stack == "sync" else coroutine
    method = grpc.unary_unary_rpc_method_handler(behaviour)
    return {"Public": method, "Other": method}


@pytest.mark.parametrize(
    "path",
    [
        "//t.S/Public",
        "/t.S//Public",
        "/t.S/Public/",
        "/t.S/%50ublic",
        "/t.S/Publi%63",
        "/t%2ES/Public",
        "/T.S/Public",
        "/t.s/Public",
        "/t.S/public",
        "/t.S/PUBLIC",
        "/t.S/Public?x=1",
        "/t.S/Public#x",
        "/t.S/./Public",
        "/t.S/../t.S/Public",
        "/t.S/Other",
        "/t.S/",
        "/",
    ],
)
@pytest.mark.parametrize("stack", STACKS)
async def test_only_the_exact_path_of_a_public_method_is_public(
    serve: Any, call: Any, refused: Any, issuer: InMemoryIssuer, stack: str, path: str
) -> None:
    target = await serve(stack, handlers(stack), Verifier(issuer.trusted()), Policy().public("/t.S/Public"))
    assert await call(target, "unary_unary", None, path="/t.S/Public") == [b"served"]
    assert (await refused(call(target, "unary_unary", None, path=path))).reason == "TOKEN_MISSING"


@pytest.mark.parametrize("stack", STACKS)
async def test_a_service_with_a_public_name_gives_nothing_to_paths_that_only_look_like_it(
    serve: Any, call: Any, refused: Any, issuer: InMemoryIssuer, stack: str
) -> None:
    target = await serve(stack, handlers(stack), Verifier(issuer.trusted()), Policy().public("t.S"))
    assert await call(target, "unary_unary", None, path="/t.S/Other") == [b"served"]
    for path in ("//t.S/Other", "/t.S/Other/", "/t.S", "/t.S/", "/t.S2/Other", "/t/S/Other", "/%74.S/Other"):
        assert (await refused(call(target, "unary_unary", None, path=path))).reason == "TOKEN_MISSING", path


async def start_with_health_and_reflection(stack: str, verifier: Verifier, policy: Policy) -> Any:
    """A server of that stack, its address, and what stops it."""
    options = [("grpc.so_reuseport", 0)]
    server: Any
    if stack == "sync":
        from concurrent.futures import ThreadPoolExecutor

        server = grpc.server(
            ThreadPoolExecutor(4), interceptors=[AuthInterceptor(verifier, policy)], options=options
        )
        servicer: Any = health.HealthServicer()
        servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    else:
        server = grpc.aio.server(interceptors=[AioAuthInterceptor(verifier, policy)], options=options)
        servicer = AioHealthServicer()
        await servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    reflection.enable_server_reflection([reflection.SERVICE_NAME], server)
    port = server.add_insecure_port("127.0.0.1:0")
    started = server.start()
    if stack == "aio":
        await started
    return server, f"127.0.0.1:{port}"


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("is_listed", [True, False], ids=["listed", "not-listed"])
async def test_health_is_public_only_where_it_is_listed_and_reflection_is_not_health(
    refused: Any, issuer: InMemoryIssuer, stack: str, is_listed: bool
) -> None:
    policy = Policy().public(Policy.HEALTH) if is_listed else Policy()
    server, target = await start_with_health_and_reflection(stack, Verifier(issuer.trusted()), policy)
    metadata = (("authorization", f"Bearer {issuer.mint()}"),)
    async with grpc.aio.insecure_channel(target) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)  # type: ignore[no-untyped-call]
        question = health_pb2.HealthCheckRequest()

        async def check(metadata: Any = ()) -> Any:
            return (await stub.Check(question, metadata=metadata, timeout=10)).status

        async def watch(metadata: Any = ()) -> Any:
            watching = stub.Watch(question, metadata=metadata, timeout=10)
            status = (await watching.read()).status
            watching.cancel()
            return status

        async def listing() -> Any:
            return await stub.List(health_pb2.HealthListRequest(), timeout=10)

        for ask in (check, watch):
            if is_listed:
                assert await ask() == health_pb2.HealthCheckResponse.SERVING
            else:
                assert (await refused(ask())).reason == "TOKEN_MISSING"
            assert await ask(metadata) == health_pb2.HealthCheckResponse.SERVING
        if not is_listed:
            assert (await refused(listing())).reason == "TOKEN_MISSING"

        async def reflect(metadata: Any = ()) -> Any:
            mirror: Any = reflection_pb2_grpc.ServerReflectionStub(channel)  # type: ignore[no-untyped-call]
            asking = mirror.ServerReflectionInfo(metadata=metadata, timeout=10)
            if metadata:
                await asking.write(reflection_pb2.ServerReflectionRequest(list_services=""))
            answer = await asking.read()
            asking.cancel()
            return answer

        assert (await refused(reflect())).reason == "TOKEN_MISSING"
        assert (await reflect(metadata)).list_services_response.service
    stopped = server.stop(None)
    if stack == "aio":
        await stopped
    else:
        stopped.wait()


def test_every_method_of_health_is_in_the_list_of_health() -> None:
    service = health_pb2.DESCRIPTOR.services_by_name["Health"]
    assert {f"/{service.full_name}/{method.name}" for method in service.methods} == set(Policy.HEALTH)


@pytest.mark.parametrize("reason", Reason)
def test_the_details_of_every_refusal_stay_below_a_kilobyte(reason: Reason) -> None:
    for retry_after_seconds in (None, 1.0, 86_400.123):
        error = TokenError(reason, "x" * 10_000, retry_after_seconds=retry_after_seconds)
        status: Any = to_status(error)
        trailer = sum(len(key) + len(value) for key, value in status.trailing_metadata)
        assert trailer + len(status.details.encode()) < MAX_DETAILS_BYTES
        assert "xxx" not in status.details


@pytest.mark.parametrize("stack", STACKS)
async def test_a_token_above_the_cap_is_refused_and_one_of_four_kilobytes_is_not(
    serve: Any, call: Any, refused: Any, issuer: InMemoryIssuer, stack: str
) -> None:
    target = await serve(stack, handlers(stack), Verifier(issuer.trusted()))
    long = issuer.mint(claims={"note": "n" * 3000})
    assert 4000 < len(long) < SOFT_METADATA_LIMIT_BYTES
    assert await call(target, "unary_unary", long, path="/t.S/Other") == [b"served"]
    assert MAX_TOKEN_BYTES <= SOFT_METADATA_LIMIT_BYTES
    with pytest.raises(TokenError, match="longer than"):
        Verifier(issuer.trusted()).verify("a" * (MAX_TOKEN_BYTES + 1))
    # gRPC refuses so much metadata itself, at random from 8 KiB on and always from 16; we do what is left.
    refusal = await refused(call(target, "unary_unary", "a" * (MAX_TOKEN_BYTES + 100), path="/t.S/Other"))
    assert refusal.reason == "TOKEN_INVALID" or refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("stack", STACKS)
async def test_a_second_bind_of_the_port_fails_in_place_of_sharing_its_calls(
    serve: Any, issuer: InMemoryIssuer, stack: str
) -> None:
    verifier = Verifier(issuer.trusted())
    port = int((await serve(stack, handlers(stack), verifier)).rpartition(":")[2])
    with pytest.raises(RuntimeError, match="bind"):
        await serve(stack, handlers(stack), verifier, port=port)
