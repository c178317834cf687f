"""How ``identity top`` looks at servers, over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from identity.cli import top_servers
from identity.cli.top_servers import Watched, base_url, url_of_listener

Answer = Callable[[str], bytes]


def page(body: str, *, status: str = "200 OK", headers: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nConnection: close\r\n{headers}\r\n{body}".encode()


@pytest_asyncio.fixture
async def listener() -> AsyncIterator[Callable[[Answer], Awaitable[str]]]:
    """A server that answers each path as it is told; gives its URL."""
    servers: list[asyncio.Server] = []

    async def start(answer: Answer) -> str:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            path = (await reader.readuntil(b"\r\n\r\n")).split()[1].decode()
            writer.write(answer(path))
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        servers.append(server)
        return f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    yield start
    for server in servers:
        server.close()


async def test_a_running_service_is_looked_at(service: Any, new_session: Any) -> None:
    watched = Watched([service.addresses.http_url])
    async with aiohttp.ClientSession() as http:
        (first,) = await watched.look(http)
        assert (first.problem, first.interval, first.ready) == ("", None, True)
        await (await new_session()).refresh()
        (second,) = await watched.look(http)
    assert second.interval is not None
    assert second.look is second.interval.later
    grown = {
        labels["identity_refresh_verdict"]: value
        for labels, value in second.interval.increases("identity_refreshes_total")
    }
    assert grown["ROTATED"] == 1


async def test_what_does_not_answer_is_named_and_found_again(listener: Any) -> None:
    up = True

    def answer(path: str) -> bytes:
        if not up:
            return page("", status="502 Bad Gateway")
        if path == "/readyz":
            return page(
                '{"status":"not ready","problems":[{"name":"store_unreachable"}]}', status="503 Unavailable"
            )
        return page("a_total 1\n")

    here, nowhere = await listener(answer), "http://127.0.0.1:1"
    watched = Watched([here, nowhere, here])
    async with aiohttp.ClientSession() as http:
        state, other = await watched.look(http)
        assert (state.ready, list(state.impairments)) == (False, ["store_unreachable"])
        assert other.problem == "connection refused"
        assert other.look is None
        up = False
        state, _ = await watched.look(http)
        assert state.problem == "HTTP 502 at /metrics"
        up = True
        state, _ = await watched.look(http)
    assert state.problem == ""
    assert state.interval is not None
    assert state.interval.seconds > 0


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (page("<html>hello</html>"), "no metrics at /metrics"),
        (page("", status="302 Found", headers="Location: http://127.0.0.1:1/\r\n"), "HTTP 302 at /metrics"),
        (page("# " + "x" * 10_000 + "\n"), "its page of metrics is too large"),
        (b"", "Server disconnected"),
        (b"220 mail.example ESMTP\r\n", "no HTTP"),
    ],
    ids=["html", "redirect", "large", "closed", "mail"],
)
async def test_other_pages_are_told_from_a_servers(
    listener: Any, answer: bytes, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(top_servers, "MAX_PAGE_BYTES", 5000)
    watched = Watched([await listener(lambda _: answer)])
    async with aiohttp.ClientSession() as http:
        (state,) = await watched.look(http)
    assert state.problem.startswith(problem)
    assert state.look is None


async def test_a_server_without_readiness_is_looked_at_all_the_same(listener: Any) -> None:
    url = await listener(lambda path: page("a_total 1\n" if path == "/metrics" else "[]"))
    async with aiohttp.ClientSession() as http:
        (state,) = await Watched([url]).look(http)
    assert (state.problem, state.ready, state.impairments) == ("", None, ())


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("id.example:8080", "http://id.example:8080"),
        ("https://id.example/", "https://id.example"),
        ("http://[::1]:8080/metrics", "http://[::1]:8080"),
        ("http://id.example/behind/", "http://id.example/behind"),
    ],
)
def test_an_address_may_be_written_in_several_ways(text: str, url: str) -> None:
    assert base_url(text) == url


@pytest.mark.parametrize(
    "text", ["", "ftp://id.example", "http://", "http://u:p@id.example", "http://a:b", "a:0"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        base_url(text)


def test_a_listener_on_every_address_is_reached_on_this_machine() -> None:
    assert url_of_listener("0.0.0.0:8080") == "http://127.0.0.1:8080"
    assert url_of_listener("[::]:8080") == "http://[::1]:8080"
    assert url_of_listener("10.0.0.7:8080") == "http://10.0.0.7:8080"
