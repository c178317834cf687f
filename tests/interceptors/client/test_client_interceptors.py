"""The client interceptors over real sockets: both stacks, all four kinds of RPC, a real identity service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import grpc
import pytest
import pytest_asyncio

from grpc_identity import ClientCredentials, PlaintextError, Reason, SessionTokens, TokenUnavailableError

KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")
UNARY_REQUEST = KINDS[:2]
STREAM_REQUEST = KINDS[2:]

Expected = Callable[[str, str], list[bytes]]


@pytest_asyncio.fixture
async def tokens(service: Any, proxy: Any) -> AsyncIterator[ClientCredentials]:
    source = ClientCredentials(
        proxy.target,
        client_id="login",
        client_secret=service.secrets["login"],
        audience="orders",
        scopes=["orders.read"],
    )
    async with source:
        yield source


@pytest.mark.parametrize("kind", KINDS)
async def test_every_kind_of_call_carries_the_token_of_a_service(
    stack: Any, tokens: ClientCredentials, echo: Any, kind: str, expected: Expected
) -> None:
    interceptors = stack.interceptors(tokens, target=echo.target)
    assert await stack.call(echo.target, kind, interceptors) == expected(kind, "login")


@pytest.mark.parametrize("kind", KINDS)
async def test_every_kind_of_call_carries_the_token_of_a_session(
    stack: Any, service: Any, new_session: Any, echo: Any, kind: str, expected: Expected
) -> None:
    session = await new_session("alice")
    async with SessionTokens(
        service.addresses.grpc_target,
        client_id="login",
        client_secret=service.secrets["login"],
        tokens=session.tokens,
    ) as tokens:
        interceptors = stack.interceptors(tokens, allow_plaintext=True)
        assert await stack.call(echo.target, kind, interceptors) == expected(kind, "alice")


@pytest.mark.parametrize("kind", KINDS)
async def test_without_a_target_the_token_goes_over_a_secure_channel(
    stack: Any, tokens: ClientCredentials, echo: Any, kind: str, expected: Expected
) -> None:
    answers = await stack.call(
        echo.tls_target, kind, stack.interceptors(tokens), credentials=grpc.local_channel_credentials()
    )
    assert answers == expected(kind, "login")


@pytest.mark.parametrize("target", [None, "orders.example:443"])
async def test_a_token_is_not_sent_over_an_insecure_channel(
    stack: Any, tokens: ClientCredentials, echo: Any, target: str | None
) -> None:
    for kind in KINDS:
        with pytest.raises(grpc.RpcError) as refused:
            await stack.call(echo.target, kind, stack.interceptors(tokens, target=target))
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED  # type: ignore[attr-defined]
        if (stack.name, kind) != ("sync", "stream_stream"):
            assert "allow_plaintext" in refused.value.details()  # type: ignore[attr-defined]
    assert not any(echo.authorizations)


def everything(channel: Any, kind: str) -> Any:
    return getattr(channel, kind)(f"/t.S/{kind}")(b"1" if kind.startswith("unary") else iter((b"1", b"2")))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("secure", [False, True])
async def test_a_channel_that_is_opened_by_the_source_carries_the_token(
    tokens: ClientCredentials, echo: Any, kind: str, secure: bool, expected: Expected
) -> None:
    target = echo.tls_target if secure else echo.target
    credentials = grpc.local_channel_credentials() if secure else None
    async with tokens.aio_channel(target, credentials=credentials) as channel:
        call = everything(channel, kind)
        answers = [await call] if kind.endswith("unary") else [answer async for answer in call]
    assert answers == expected(kind, "login")

    def ask() -> list[bytes]:
        with tokens.sync_channel(target, credentials=credentials) as channel:
            call = everything(channel, kind)
            return [call] if kind.endswith("unary") else list(call)

    assert await asyncio.to_thread(ask) == expected(kind, "login")


async def test_a_channel_that_is_opened_by_the_source_is_encrypted_unless_it_stays_here(
    tokens: ClientCredentials, echo: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from grpc.experimental import insecure_channel_credentials

    with pytest.raises(PlaintextError):
        tokens.aio_channel(echo.target, credentials=insecure_channel_credentials())
    with pytest.raises(PlaintextError):
        tokens.sync_channel(echo.target, credentials=insecure_channel_credentials())
    opened: list[str] = []
    for module, stack in ((grpc.aio, "aio"), (grpc, "sync")):
        for name in ("insecure_channel", "secure_channel"):
            real = getattr(module, name)

            def note(*args: Any, _real: Any = real, _what: str = f"{stack} {name}", **kwargs: Any) -> Any:
                opened.append(_what)
                return _real(*args, **kwargs)

            monkeypatch.setattr(module, name, note)
    async with (
        tokens.aio_channel("orders.example:443"),
        tokens.aio_channel("127.0.0.1:1"),
        tokens.aio_channel("orders.example:80", allow_plaintext=True),
    ):
        pass
    with (
        tokens.sync_channel("orders.example:443"),
        tokens.sync_channel("127.0.0.1:1"),
        tokens.sync_channel("orders.example:80", allow_plaintext=True),
    ):
        pass
    kinds = ["secure_channel", "insecure_channel", "insecure_channel"]
    assert opened == [f"{stack} {kind}" for stack in ("aio", "sync") for kind in kinds]


async def test_plaintext_refused_names_its_cause(tokens: ClientCredentials, echo: Any) -> None:
    async with grpc.aio.insecure_channel(echo.target, interceptors=tokens.aio_interceptors()) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await channel.unary_unary("/t.S/unary_unary")(b"1")
    cause: BaseException | None = refused.value
    while cause is not None and not isinstance(cause, PlaintextError):
        cause = cause.__cause__
    assert isinstance(cause, PlaintextError)


@pytest.mark.parametrize("kind", UNARY_REQUEST)
@pytest.mark.parametrize("secure", [False, True])
async def test_a_refused_call_with_one_request_is_made_again_with_another_token(
    stack: Any, tokens: ClientCredentials, echo: Any, kind: str, expected: Expected, secure: bool
) -> None:
    target = echo.tls_target if secure else echo.target
    options = {"credentials": grpc.local_channel_credentials()} if secure else {}
    interceptors = stack.interceptors(tokens, target=None if secure else target)
    for reason in (Reason.TOKEN_EXPIRED, Reason.TOKEN_REVOKED, Reason.KEY_UNKNOWN):
        echo.refusals.append(reason)
        echo.authorizations.clear()
        assert await stack.call(target, kind, interceptors, **options) == expected(kind, "login")
        assert len(set(echo.authorizations)) == len(echo.authorizations) == 2


@pytest.mark.parametrize("kind", UNARY_REQUEST)
async def test_a_call_is_made_again_only_once(
    stack: Any, tokens: ClientCredentials, echo: Any, kind: str
) -> None:
    echo.refusals += [Reason.TOKEN_EXPIRED] * 5
    with pytest.raises(grpc.RpcError) as refused:
        await stack.call(echo.target, kind, stack.interceptors(tokens, target=echo.target))
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED  # type: ignore[attr-defined]
    assert len(echo.authorizations) == 2


@pytest.mark.parametrize("kind", UNARY_REQUEST)
async def test_a_refusal_that_another_token_would_not_change_is_final(
    stack: Any, tokens: ClientCredentials, echo: Any, proxy: Any, kind: str
) -> None:
    interceptors = stack.interceptors(tokens, target=echo.target)
    reasons = [Reason.AUDIENCE_MISMATCH, Reason.TOKEN_INVALID, Reason.SCOPE_MISSING]
    for reason in reasons:
        echo.refusals.append(reason)
        with pytest.raises(grpc.RpcError):
            await stack.call(echo.target, kind, interceptors)
    assert len(echo.authorizations) == len(reasons)
    assert len(proxy.requests) == 1


@pytest.mark.parametrize("kind", STREAM_REQUEST)
async def test_an_exhausted_iterator_of_requests_is_never_sent_again(
    stack: Any, tokens: ClientCredentials, echo: Any, kind: str
) -> None:
    echo.refusals.append(Reason.TOKEN_EXPIRED)
    with pytest.raises(grpc.RpcError):
        await stack.call(echo.target, kind, stack.interceptors(tokens, target=echo.target))
    assert len(echo.authorizations) == 1


async def test_after_a_refused_stream_of_requests_the_next_call_has_another_token(
    stack: Any, tokens: ClientCredentials, echo: Any, expected: Expected, wait_until: Any
) -> None:
    interceptors = stack.interceptors(tokens, target=echo.target)
    refused = await tokens.token_async()
    echo.refusals.append(Reason.TOKEN_REVOKED)
    with pytest.raises(grpc.RpcError):
        await stack.call(echo.target, "stream_unary", interceptors)

    async def replaced() -> bool:
        return await tokens.token_async() != refused

    await wait_until(replaced)
    assert await stack.call(echo.target, "stream_unary", interceptors) == expected("stream_unary", "login")


async def test_aio_interceptors_are_four_objects_so_that_streams_do_not_go_out_without_a_token(
    tokens: ClientCredentials,
) -> None:
    kinds = [
        grpc.aio.UnaryUnaryClientInterceptor,
        grpc.aio.UnaryStreamClientInterceptor,
        grpc.aio.StreamUnaryClientInterceptor,
        grpc.aio.StreamStreamClientInterceptor,
    ]
    interceptors = tokens.aio_interceptors(allow_plaintext=True)
    assert [[isinstance(one, kind) for kind in kinds] for one in interceptors] == [
        [row == column for column in range(4)] for row in range(4)
    ]


async def test_writing_to_an_aio_stream_works_through_the_interceptor(
    tokens: ClientCredentials, echo: Any
) -> None:
    interceptors = tokens.aio_interceptors(target=echo.target)
    async with grpc.aio.insecure_channel(echo.target, interceptors=interceptors) as channel:
        both = channel.stream_stream("/t.S/stream_stream")()
        for number in (b"1", b"2", b"3"):
            await both.write(number)
            assert await both.read() == b"login:" + number
        await both.done_writing()
        assert await both.read() is grpc.aio.EOF
        consuming = channel.stream_unary("/t.S/stream_unary")()
        await consuming.write(b"1")
        await consuming.done_writing()
        assert await consuming == b"login:1"


@pytest.mark.parametrize("kind", STREAM_REQUEST)
async def test_the_code_of_a_refused_aio_call_with_eager_messages_is_not_relied_on(
    tokens: ClientCredentials, echo: Any, wait_until: Any, kind: str
) -> None:
    async def eager() -> AsyncIterator[bytes]:
        for _ in range(50):
            yield b"x"

    refused = await tokens.token_async()
    echo.refusals.append(Reason.TOKEN_EXPIRED)
    interceptors = tokens.aio_interceptors(target=echo.target)
    async with grpc.aio.insecure_channel(echo.target, interceptors=interceptors) as channel:
        call = getattr(channel, kind)(f"/t.S/{kind}")(eager())
        # INTERNAL is what grpc.aio may report for a refusal that comes while messages are written.
        assert await call.code() in {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.INTERNAL}
    assert len(echo.authorizations) == 1

    async def replaced() -> bool:
        return await tokens.token_async() != refused

    await wait_until(replaced)


async def test_a_sync_stream_of_answers_is_there_before_the_server_has_said_a_word(
    tokens: ClientCredentials,
) -> None:
    silent = asyncio.Event()

    async def wait(_: Any, context: Any) -> AsyncIterator[bytes]:
        await silent.wait()
        yield b"late"

    server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
    methods = {"Watch": grpc.unary_stream_rpc_method_handler(wait)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t.S", methods),))
    target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    loop = asyncio.get_running_loop()

    def watch() -> list[bytes]:
        with grpc.insecure_channel(target) as plain:
            channel = grpc.intercept_channel(plain, *tokens.sync_interceptors(target=target))
            answers: Iterator[bytes] = channel.unary_stream("/t.S/Watch")(b"", timeout=10)
            # Were the code or the metadata looked at in the interceptor, this would never be reached in time.
            loop.call_soon_threadsafe(silent.set)
            return list(answers)

    try:
        assert await asyncio.to_thread(watch) == [b"late"]
    finally:
        await server.stop(None)


@pytest.mark.parametrize("kind", UNARY_REQUEST)
async def test_cancelling_an_aio_call_cancels_it_at_the_server(tokens: ClientCredentials, kind: str) -> None:
    reached, cancelled = asyncio.Event(), asyncio.Event()

    async def hang(_: Any, context: Any) -> bytes:
        reached.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return b""

    server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
    handler = getattr(grpc, f"{kind}_rpc_method_handler")(hang)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t.S", {"Hang": handler}),))
    target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        interceptors = tokens.aio_interceptors(target=target)
        async with grpc.aio.insecure_channel(target, interceptors=interceptors) as channel:
            call = getattr(channel, kind)("/t.S/Hang")(b"")
            await asyncio.wait_for(reached.wait(), 10)
            call.cancel()
            await asyncio.wait_for(cancelled.wait(), 10)
            assert await call.code() is grpc.StatusCode.CANCELLED
    finally:
        await server.stop(None)


async def test_a_sync_future_is_not_waited_for(tokens: ClientCredentials, echo: Any) -> None:
    def call() -> Any:
        with grpc.insecure_channel(echo.target) as plain:
            channel = grpc.intercept_channel(plain, *tokens.sync_interceptors(target=echo.target))
            return channel.unary_unary("/t.S/unary_unary").future(b"1", timeout=10).result(10)

    assert await asyncio.to_thread(call) == b"login:1"


@pytest.mark.parametrize("kind", KINDS)
async def test_a_call_with_an_authorization_of_its_own_is_left_alone(
    tokens: ClientCredentials, echo: Any, kind: str
) -> None:
    async with grpc.aio.insecure_channel(
        echo.target, interceptors=tokens.aio_interceptors(target=echo.target)
    ) as channel:

        async def requests() -> AsyncIterator[bytes]:
            yield b"1"

        call = getattr(channel, kind)(f"/t.S/{kind}")(
            b"1" if kind.startswith("unary") else requests(), metadata=(("authorization", "Bearer other"),)
        )
        refusals = {grpc.StatusCode.UNAUTHENTICATED}
        if kind.startswith("stream"):
            # What grpc.aio may say itself of a call that ends while its requests are still being written.
            refusals.add(grpc.StatusCode.INTERNAL)
        assert await call.code() in refusals
    assert echo.authorizations == ["Bearer other"]


@pytest.mark.parametrize("kind", KINDS)
async def test_without_a_token_the_call_fails_as_unavailable_and_says_why(
    stack: Any, tokens: ClientCredentials, echo: Any, proxy: Any, kind: str
) -> None:
    proxy.always = "away"
    with pytest.raises(grpc.RpcError) as failed:
        await stack.call(echo.target, kind, stack.interceptors(tokens, target=echo.target))
    assert failed.value.code() is grpc.StatusCode.UNAVAILABLE  # type: ignore[attr-defined]
    assert "no access token" in failed.value.details()  # type: ignore[attr-defined]
    assert isinstance(failed.value.__cause__, TokenUnavailableError)
    assert echo.authorizations == []


@pytest.mark.parametrize("kind", KINDS)
async def test_waiting_for_a_token_counts_against_the_deadline_of_the_call(
    tokens: ClientCredentials, echo: Any, proxy: Any, kind: str
) -> None:
    proxy.behaviours.append("late")
    interceptors = tokens.aio_interceptors(target=echo.target)

    async def requests() -> AsyncIterator[bytes]:
        yield b"1"

    async with grpc.aio.insecure_channel(echo.target, interceptors=interceptors) as channel:
        argument = b"1" if kind.startswith("unary") else requests()
        call = getattr(channel, kind)(f"/t.S/{kind}")(argument, timeout=0.2)
        assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        # The question goes on without the caller.
        proxy.release.set()
        assert await tokens.token_async()
    assert len(proxy.requests) == 1
