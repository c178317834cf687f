"""Tokens as call credentials, gRPC's own retries, and sending on the caller's token."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from types import ModuleType
from typing import Any

import grpc
import pytest
import pytest_asyncio

from grpc_identity import (
    ClientCredentials,
    ForwardedToken,
    Issuer,
    KeyringStorage,
    Reason,
    StoredSession,
    Verifier,
    current_principal,
    retry_options,
)
from grpc_identity.aio import AuthInterceptor, client_interceptors
from grpc_identity.errors import NoPrincipalError
from grpc_identity.principal import CURRENT_CALLER, Caller
from grpc_identity.sync import client_interceptors as sync_client_interceptors
from grpc_identity.testing import InMemoryIssuer
from grpc_identity.v1 import identity_service_pb2

KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")


@pytest_asyncio.fixture
async def tokens(service: Any, proxy: Any) -> AsyncIterator[ClientCredentials]:
    source = ClientCredentials(
        proxy.target, client_id="login", client_secret=service.secrets["login"], audience="orders"
    )
    async with source:
        yield source


def channel_credentials(tokens: ClientCredentials) -> grpc.ChannelCredentials:
    return grpc.composite_channel_credentials(grpc.local_channel_credentials(), tokens.call_credentials())


@pytest.mark.parametrize("kind", KINDS)
async def test_call_credentials_work_over_a_local_channel_in_every_kind_of_call(
    stack: Any, tokens: ClientCredentials, echo: Any, kind: str, expected: Any
) -> None:
    answers = await stack.call(echo.tls_target, kind, [], credentials=channel_credentials(tokens))
    assert answers == expected(kind, "login")


async def test_a_plugin_without_a_token_calls_back_with_an_error_and_never_hangs(
    stack: Any, tokens: ClientCredentials, echo: Any, proxy: Any
) -> None:
    proxy.always = "away"
    for _ in range(2):  # while asking fails, and with the circuit open
        with pytest.raises(grpc.RpcError) as failed:
            await stack.call(echo.tls_target, "unary_unary", [], credentials=channel_credentials(tokens))
        assert failed.value.code() is grpc.StatusCode.UNAVAILABLE  # type: ignore[attr-defined]


async def test_a_plugin_whose_source_is_closed_meanwhile_calls_back(
    tokens: ClientCredentials, echo: Any, proxy: Any, stack: Any, wait_until: Any
) -> None:
    proxy.behaviours.append("late")
    call = asyncio.ensure_future(
        stack.call(echo.tls_target, "unary_unary", [], credentials=channel_credentials(tokens))
    )
    await wait_until(lambda: proxy.answered == 1)
    await asyncio.to_thread(tokens.close)
    with pytest.raises(grpc.RpcError) as failed:
        await call
    assert failed.value.code() is grpc.StatusCode.UNAVAILABLE  # type: ignore[attr-defined]


async def test_a_plugin_does_not_block_the_thread_of_grpc_while_a_token_is_fetched(
    tokens: ClientCredentials, proxy: Any, wait_until: Any
) -> None:
    proxy.behaviours.append("late")
    got: list[tuple[str | None, Exception | None]] = []
    tokens.when_ready(lambda token, error: got.append((token, error)))
    await wait_until(lambda: proxy.answered == 1)
    assert got == []
    proxy.release.set()
    await wait_until(lambda: len(got) == 1)
    assert got == [(await tokens.token_async(), None)]


def service_config(kinds: tuple[str, ...]) -> list[tuple[str, Any]]:
    """Options as ``retry_options`` writes them, for the echo, which has no descriptor."""
    template = dict(retry_options(identity_service_pb2.DESCRIPTOR))
    config = json.loads(template["grpc.service_config"])
    config["methodConfig"][0]["name"] = [{"service": "t.S", "method": kind} for kind in kinds]
    return [("grpc.enable_retries", 1), ("grpc.service_config", json.dumps(config))]


@pytest.mark.parametrize("kind", KINDS[:2])
async def test_grpcs_own_retry_asks_for_the_token_of_each_attempt(
    stack: Any, tokens: ClientCredentials, echo: Any, kind: str, expected: Any
) -> None:
    echo.refusals.append(Reason.TOKEN_EXPIRED)
    answers = await stack.call(
        echo.tls_target,
        kind,
        [],
        credentials=channel_credentials(tokens),
        options=service_config(KINDS[:2]),
    )
    assert answers == expected(kind, "login")
    assert len(echo.authorizations) == 2
    assert all(echo.authorizations)


def test_retries_are_emitted_a_method_and_for_single_requests_only_because_streams_of_requests_lose_messages() -> (
    None
):
    service = identity_service_pb2.DESCRIPTOR.services_by_name["IdentityService"]
    for options in (retry_options(identity_service_pb2.DESCRIPTOR), retry_options(service)):
        (config,) = json.loads(dict(options)["grpc.service_config"])["methodConfig"]
        named = {(name["service"], name["method"]) for name in config["name"]}
        assert named == {
            (service.full_name, method.name) for method in service.methods if not method.client_streaming
        }
        assert (service.full_name, "WatchVerifierState") not in named
        assert config["retryPolicy"]["retryableStatusCodes"] == ["UNAUTHENTICATED"]
        assert config["retryPolicy"]["maxAttempts"] == 2
    assert json.loads(dict(retry_options())["grpc.service_config"]) == {"methodConfig": []}


@pytest.mark.parametrize("forwarding", ["aio", "sync"])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_handler_sends_on_the_token_of_its_caller(
    service: Any, new_session: Any, echo: Any, expected: Any, kind: str, forwarding: str, stack: Any
) -> None:
    async def requests() -> AsyncIterator[bytes]:
        yield b"1"
        yield b"2"

    async def forward(request: bytes, context: Any) -> bytes:
        assert current_principal().subject == "alice"
        if forwarding == "sync":
            interceptors = sync_client_interceptors(ForwardedToken(), target=echo.target)

            def ask() -> list[bytes]:
                with grpc.insecure_channel(echo.target) as plain:
                    multi = getattr(grpc.intercept_channel(plain, *interceptors), kind)(f"/t.S/{kind}")
                    answer = multi(b"1" if kind.startswith("unary") else iter((b"1", b"2")))
                    return [answer] if kind.endswith("unary") else list(answer)

            return b"|".join(await asyncio.to_thread(ask))
        async with grpc.aio.insecure_channel(
            echo.target, interceptors=client_interceptors(ForwardedToken(), target=echo.target)
        ) as channel:
            call = getattr(channel, kind)(f"/t.S/{kind}")(b"1" if kind.startswith("unary") else requests())
            return b"|".join([await call] if kind.endswith("unary") else [item async for item in call])

    session = await new_session("alice")
    async with Verifier(
        Issuer("https://id.example", target=service.addresses.grpc_target, audience="orders")
    ) as verifier:
        server = grpc.aio.server(
            interceptors=[AuthInterceptor(verifier)], options=(("grpc.so_reuseport", 0),)
        )
        methods = {"Forward": grpc.unary_unary_rpc_method_handler(forward)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t.F", methods),))
        target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        await server.start()
        async with grpc.aio.insecure_channel(target) as channel:
            metadata = (("authorization", f"Bearer {session.tokens.access_token}"),)
            answer = await channel.unary_unary("/t.F/Forward")(b"", metadata=metadata)
        await server.stop(None)
    assert answer == b"|".join(expected(kind, "alice"))
    assert echo.authorizations == [f"Bearer {session.tokens.access_token}"]


async def test_outside_of_a_handler_there_is_no_token_to_send_on(stack: Any, echo: Any) -> None:
    make = {"aio": client_interceptors, "sync": sync_client_interceptors}[stack.name]
    with pytest.raises(grpc.RpcError) as failed:
        await stack.call(echo.target, "unary_unary", make(ForwardedToken(), target=echo.target))
    assert failed.value.code() is grpc.StatusCode.UNAUTHENTICATED  # type: ignore[attr-defined]
    assert isinstance(failed.value.__cause__, NoPrincipalError)
    assert echo.authorizations == []


def test_the_token_that_is_sent_on_shows_itself_nowhere() -> None:
    import contextvars
    import pickle

    issuer = InMemoryIssuer(audience="test")
    principal = Verifier(issuer.trusted()).verify(issuer.mint())
    CURRENT_CALLER.set(Caller(principal, "eyJsecret"))
    context = contextvars.copy_context()
    assert "eyJsecret" not in f"{CURRENT_CALLER.get()!r} {CURRENT_CALLER.get()} {dict(context)!r}"
    with pytest.raises(TypeError):
        pickle.dumps(CURRENT_CALLER.get())
    CURRENT_CALLER.set(None)


def test_a_session_is_kept_in_the_keyring_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    entries: dict[tuple[str, str], str] = {}
    backend = ModuleType("keyring")
    backend.get_password = lambda *key: entries.get(key)  # type: ignore[attr-defined]
    backend.set_password = lambda service, user, text: entries.update({(service, user): text})  # type: ignore[attr-defined]
    backend.delete_password = lambda *key: entries.pop(key)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "keyring", backend)
    storage = KeyringStorage("orders-cli", "alice")
    assert storage.load() is None
    session = StoredSession("gidr_" + "x" * 94, b"s" * 32)
    storage.save(session)
    assert KeyringStorage("orders-cli", "alice").load() == session
    assert len(entries["orders-cli", "alice"]) < 1280
    storage.clear()
    storage.clear()
    assert entries == {}
    entries["orders-cli", "alice"] = "written by somebody else"
    assert storage.load() is None


def test_without_the_package_the_keyring_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "keyring", None)
    with pytest.raises(ImportError, match=r"grpc-identity\[keyring\]"):
        KeyringStorage("orders-cli", "alice")
