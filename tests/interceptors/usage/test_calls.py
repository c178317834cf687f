"""What is recorded of a call: both stacks, all kinds and shapes, every way to end."""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from typing import Any

import grpc
import pytest

from grpc_identity import Policy, PolicyError, UsageAudit, Verifier, scope
from grpc_identity.aio import AuthInterceptor as AioAuthInterceptor
from grpc_identity.clock import wall_clock
from grpc_identity.sync import AuthInterceptor
from grpc_identity.testing import InMemoryIssuer, InMemoryUsage

CONSTRUCTORS = {
    "unary_unary": grpc.unary_unary_rpc_method_handler,
    "unary_stream": grpc.unary_stream_rpc_method_handler,
    "stream_unary": grpc.stream_unary_rpc_method_handler,
    "stream_stream": grpc.stream_stream_rpc_method_handler,
}
KINDS = list(CONSTRUCTORS)
TRACE = f"00-{'ab' * 16}-{'cd' * 8}-01"


def plain(kind: str, fails: str) -> Any:
    """A plain function of this kind that ends like that; it works on both stacks."""

    def end(context: Any) -> None:
        if fails == "abort":
            context.abort(grpc.StatusCode.NOT_FOUND, "no such order")
        elif fails == "set_code":
            context.set_code(grpc.StatusCode.FAILED_PRECONDITION)
        elif fails == "raise":
            raise ValueError("a defect")

    def unary(request: Any, context: Any) -> bytes:
        end(context)
        return b"answer"

    def streaming(request: Any, context: Any) -> Iterator[bytes]:
        yield b"answer"
        end(context)

    return streaming if kind.endswith("stream") else unary


def coroutine(kind: str, fails: str) -> Any:
    """The same as coroutines and generators."""

    async def end(context: Any) -> None:
        if fails == "abort":
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such order")
        elif fails == "set_code":
            context.set_code(grpc.StatusCode.FAILED_PRECONDITION)
        elif fails == "raise":
            raise ValueError("a defect")

    async def unary(request: Any, context: Any) -> bytes:
        await end(context)
        return b"answer"

    async def streaming(request: Any, context: Any) -> AsyncIterator[bytes]:
        yield b"answer"
        await end(context)

    return streaming if kind.endswith("stream") else unary


def writing(kind: str, fails: str) -> Any:
    """A coroutine that writes its responses."""
    unary = coroutine("unary_unary", fails)

    async def wrote(request: Any, context: Any) -> None:
        await context.write(b"answer")
        await unary(request, context)

    return wrote


SHAPES = [
    *(("sync", plain, kind) for kind in KINDS),
    *(("aio", plain, kind) for kind in KINDS),
    *(("aio", coroutine, kind) for kind in KINDS),
    *(("aio", writing, kind) for kind in KINDS if kind.endswith("stream")),
]
# On grpc.aio an abort in a plain function that streams leaves the call hanging now and then, whoever wraps it.
HANGING = {("aio", plain, "unary_stream", "abort"), ("aio", plain, "stream_stream", "abort")}
ENDINGS = {"": "OK", "abort": "NOT_FOUND", "set_code": "FAILED_PRECONDITION", "raise": "UNKNOWN"}


def policy_of(audit: UsageAudit, *requirements: Any) -> Policy:
    policy = Policy()
    for kind in KINDS:
        policy.require(f"/t.S/{kind}", *requirements, audit=audit)
    return policy


@pytest.mark.parametrize("audit", [UsageAudit.USE, UsageAudit.MUST], ids=["use", "must"])
@pytest.mark.parametrize(
    ("stack", "shape", "kind", "fails", "status"),
    [
        pytest.param(*shape, fails, status, id=f"{shape[0]}-{shape[1].__name__}-{shape[2]}-{fails or 'ok'}")
        for shape in SHAPES
        for fails, status in ENDINGS.items()
        if (*shape, fails) not in HANGING
    ],
)
async def test_how_a_call_ends_is_recorded(
    issuer: InMemoryIssuer,
    serve: Any,
    call: Any,
    wait_until: Any,
    stack: str,
    shape: Any,
    kind: str,
    fails: str,
    status: str,
    audit: UsageAudit,
) -> None:
    usage = InMemoryUsage()
    handlers = {kind: CONSTRUCTORS[kind](shape(kind, fails))}
    target = await serve(stack, handlers, Verifier(issuer.trusted()), policy_of(audit), usage=usage)
    token = issuer.mint(subject="alice")
    if fails:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(target, kind, token, is_silent=True)
        assert caught.value.code().name == status
    else:
        # No handler reads; whoever sends to one that has ended may be told INTERNAL.
        assert await call(target, kind, token, is_silent=True) == [b"answer"]
    await wait_until(lambda: len(usage.used) == 1)
    assert usage.used[0].status_code == status
    assert len(usage.begun) == (1 if audit is UsageAudit.MUST or kind != "unary_unary" else 0)


@pytest.mark.parametrize("stack", ["sync", "aio"])
async def test_who_used_which_token_where_and_from_where(
    issuer: InMemoryIssuer, serve: Any, stack: str
) -> None:
    usage, verifier = InMemoryUsage(), Verifier(issuer.trusted())
    handlers = {"unary_unary": CONSTRUCTORS["unary_unary"](plain("unary_unary", ""))}
    target = await serve(stack, handlers, verifier, policy_of(UsageAudit.MUST), usage=usage)
    token = issuer.mint(subject="alice", client_id="web", session_id="s1")
    principal = verifier.verify(token)
    before = datetime.fromtimestamp(wall_clock(), UTC)
    async with grpc.aio.insecure_channel(target) as channel:
        await channel.unary_unary("/t.S/unary_unary")(
            b"", metadata=(("authorization", f"Bearer {token}"), ("traceparent", TRACE))
        )
    begun, used = usage.records
    assert begun.is_begun
    assert not used.is_begun
    for record in (begun, used):
        assert record.method == "/t.S/unary_unary"
        assert (record.subject, record.session_id, record.client_id) == ("alice", "s1", "web")
        assert (record.token_id, record.issuer) == (principal.token_id, principal.issuer)
        assert record.ip_address == "127.0.0.1"
        assert "grpc-python" in record.user_agent
        assert record.traceparent == TRACE
        assert abs((record.occurred_at - before).total_seconds()) < 30
    assert (begun.status_code, used.status_code) == ("", "OK")


@pytest.mark.parametrize("stack", ["sync", "aio"])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_call_that_the_rule_refuses_is_recorded_too(
    issuer: InMemoryIssuer, serve: Any, call: Any, stack: str, kind: str
) -> None:
    usage = InMemoryUsage()
    handlers = {kind: CONSTRUCTORS[kind](plain(kind, ""))}
    policy = policy_of(UsageAudit.MUST, scope("orders.write"))
    target = await serve(stack, handlers, Verifier(issuer.trusted()), policy, usage=usage)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(target, kind, issuer.mint(subject="mallory"), is_silent=True)
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    (record,) = usage.records
    assert (record.subject, record.status_code, record.reason) == (
        "mallory",
        "PERMISSION_DENIED",
        "SCOPE_MISSING",
    )


@pytest.mark.parametrize("stack", ["sync", "aio"])
async def test_where_no_token_was_verified_nothing_is_recorded(
    issuer: InMemoryIssuer, serve: Any, call: Any, stack: str
) -> None:
    usage = InMemoryUsage()
    handlers = {
        kind: CONSTRUCTORS[kind](plain(kind, "")) for kind in ("unary_unary", "unary_stream", "stream_unary")
    }
    policy = (
        Policy().public("/t.S/unary_unary").require("/t.S/unary_stream", scope("a"), audit=UsageAudit.MUST)
    )
    target = await serve(stack, handlers, Verifier(issuer.trusted()), policy, usage=usage)
    await call(target, "unary_unary", None)
    await call(target, "stream_unary", issuer.mint())
    for token in (None, "forged"):
        with pytest.raises(grpc.aio.AioRpcError):
            await call(target, "unary_stream", token)
    assert usage.records == []


@pytest.mark.parametrize(
    ("stack", "shape", "kind"),
    SHAPES,
    ids=[f"{stack}-{shape.__name__}-{kind}" for stack, shape, kind in SHAPES],
)
async def test_must_refuses_what_cannot_be_recorded_before_the_handler_runs(
    issuer: InMemoryIssuer, serve: Any, call: Any, refused: Any, stack: str, shape: Any, kind: str
) -> None:
    usage = InMemoryUsage()
    usage.is_full = True
    ran: list[str] = []
    inner = shape(kind, "")

    def noting(behaviour: Any) -> Any:
        if inspect.isasyncgenfunction(behaviour):

            @functools.wraps(behaviour)
            async def generator(request: Any, context: Any) -> AsyncIterator[bytes]:
                ran.append(kind)
                async for response in behaviour(request, context):
                    yield response

            return generator
        if inspect.iscoroutinefunction(behaviour):

            async def awaited(request: Any, context: Any) -> Any:
                ran.append(kind)
                return await behaviour(request, context)

            return awaited

        def called(request: Any, context: Any) -> Any:
            ran.append(kind)
            return behaviour(request, context)

        return called

    handlers = {kind: CONSTRUCTORS[kind](noting(inner))}
    verifier = Verifier(issuer.trusted())
    target = await serve(stack, handlers, verifier, policy_of(UsageAudit.MUST), usage=usage)
    refusal = await refused(call(target, kind, issuer.mint(), is_silent=True))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "AUDIT_UNAVAILABLE")
    assert ran == []
    assert verifier.tally.refused["AUDIT_UNAVAILABLE"] == 1
    usage.is_full = False
    assert await call(target, kind, issuer.mint(), is_silent=True) == [b"answer"]
    assert ran == [kind]


@pytest.mark.parametrize("stack", ["sync", "aio"])
@pytest.mark.parametrize("kind", KINDS)
async def test_use_goes_on_whatever_becomes_of_the_record(
    issuer: InMemoryIssuer, serve: Any, call: Any, stack: str, kind: str
) -> None:
    usage = InMemoryUsage()
    usage.is_full = True
    handlers = {kind: CONSTRUCTORS[kind](plain(kind, ""))}
    target = await serve(stack, handlers, Verifier(issuer.trusted()), policy_of(UsageAudit.USE), usage=usage)
    assert await call(target, kind, issuer.mint()) == [b"answer"]
    assert usage.records == []


@pytest.mark.parametrize("given_up_by", ["cancel", "deadline"])
@pytest.mark.parametrize(
    ("stack", "kind"), [("aio", kind) for kind in KINDS] + [("sync", "unary_stream"), ("sync", "unary_unary")]
)
async def test_a_call_that_its_caller_gives_up_is_recorded_as_that(
    issuer: InMemoryIssuer, serve: Any, wait_until: Any, stack: str, kind: str, given_up_by: str
) -> None:
    usage = InMemoryUsage()
    running = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def unary(request: Any, context: Any) -> bytes:
        running.set()
        await asyncio.Event().wait()
        return b""

    async def streaming(request: Any, context: Any) -> AsyncIterator[bytes]:
        running.set()
        while True:
            yield b"answer"

    def plain_unary(request: Any, context: Any) -> bytes:
        given_up = threading.Event()
        context.add_callback(given_up.set)
        loop.call_soon_threadsafe(running.set)
        given_up.wait(20)
        return b""

    def plain_streaming(request: Any, context: Any) -> Iterator[bytes]:
        loop.call_soon_threadsafe(running.set)
        while True:
            yield b"answer"

    of_stack: Any = {"aio": (unary, streaming), "sync": (plain_unary, plain_streaming)}[stack]
    handlers = {kind: CONSTRUCTORS[kind](of_stack[kind.endswith("stream")])}
    target = await serve(stack, handlers, Verifier(issuer.trusted()), policy_of(UsageAudit.USE), usage=usage)
    metadata = (("authorization", f"Bearer {issuer.mint()}"),)

    async def requests() -> AsyncIterator[bytes]:
        yield b"1"

    async with grpc.aio.insecure_channel(target) as channel:
        started = getattr(channel, kind)(f"/t.S/{kind}")(
            b"1" if kind.startswith("unary") else requests(),
            metadata=metadata,
            timeout=1.0 if given_up_by == "deadline" else None,
        )
        await running.wait()
        if given_up_by == "cancel":
            started.cancel()
        else:
            assert await started.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await wait_until(lambda: len(usage.used) == 1)
    expected = {"cancel": {"CANCELLED"}, "deadline": {"DEADLINE_EXCEEDED", "CANCELLED"}}[given_up_by]
    assert usage.used[0].status_code in expected


@pytest.mark.parametrize("stack", ["sync", "aio"])
async def test_a_stream_that_ends_with_its_token_is_recorded_as_refused(
    issuer: InMemoryIssuer, revocable: Any, serve: Any, call: Any, wait_until: Any, stack: str
) -> None:
    usage, verifier = InMemoryUsage(), revocable(issuer)

    def streaming(request: Any, context: Any) -> Iterator[bytes]:
        yield b"first"
        verifier.revoke("s1")
        while True:
            yield b"more"

    handlers = {"unary_stream": CONSTRUCTORS["unary_stream"](streaming)}
    target = await serve(stack, handlers, verifier, policy_of(UsageAudit.MUST), usage=usage)
    with pytest.raises(grpc.aio.AioRpcError):
        await call(target, "unary_stream", issuer.mint(session_id="s1"))
    await wait_until(lambda: len(usage.used) == 1)
    assert usage.used[0].status_code == "UNAUTHENTICATED"


@pytest.mark.parametrize("interceptor", [AuthInterceptor, AioAuthInterceptor])
@pytest.mark.parametrize("audit", [UsageAudit.USE, UsageAudit.MUST])
def test_a_policy_that_asks_for_records_needs_something_to_record_with(
    issuer: InMemoryIssuer, interceptor: Any, audit: UsageAudit
) -> None:
    with pytest.raises(PolicyError, match="give the interceptor a UsageRecorder"):
        interceptor(Verifier(issuer.trusted()), Policy().require("/t.S/M", audit=audit))
    with pytest.raises(TypeError, match="UsageRecorder is due"):
        interceptor(Verifier(issuer.trusted()), Policy(), usage=object())
