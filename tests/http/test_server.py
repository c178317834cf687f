"""The listener: ports, limits, and an end that waits for who is being served."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from identity.http.collector import DevelopmentCollector
from identity.http.server import KEEP_ALIVE_SECONDS, MAX_HEADER_BYTES, HttpServer

Serve = Callable[..., Awaitable[httpx.AsyncClient]]


async def connected(http: httpx.AsyncClient) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(http.base_url.host, http.base_url.port)


async def at_the_end(reader: asyncio.StreamReader) -> bytes:
    """What was sent until the server closed; a reset ends it too."""
    received = b""
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(KEEP_ALIVE_SECONDS / 2):
            while chunk := await reader.read(65536):
                received += chunk
    return received


async def test_a_connection_that_sends_no_whole_request_is_closed(serve: Serve) -> None:
    http = await serve(request_seconds=0.2)
    for start in (b"", b"GET /hea", b"GET /healthz HTTP/1.1\r\nHost: x\r\n"):
        reader, writer = await connected(http)
        writer.write(start)
        assert b"200 OK" not in await at_the_end(reader)
        writer.close()


async def test_a_body_that_does_not_arrive_ends_the_connection_and_is_no_fault(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    http = await serve(routes=DevelopmentCollector().routes(), request_seconds=0.2)
    reader, writer = await connected(http)
    writer.write(b"POST /v1/traces HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n12345")
    assert b"200 OK" not in await at_the_end(reader)
    writer.close()
    assert (await http.get("/dev/spans")).json() == {"spans": []}
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == []


async def test_who_drips_bytes_wins_no_time(serve: Serve) -> None:
    http = await serve(request_seconds=0.3)
    reader, writer = await connected(http)

    async def drip() -> None:
        while True:
            writer.write(b"x")
            await asyncio.sleep(0.05)

    dripping = asyncio.create_task(drip())
    assert await at_the_end(reader) == b""
    dripping.cancel()
    writer.close()


async def test_the_pause_between_two_requests_is_longer_than_the_time_for_one(serve: Serve) -> None:
    http = await serve(request_seconds=0.2)
    reader, writer = await connected(http)
    request = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    writer.write(request)
    assert await reader.readuntil(b'{"status":"alive"}')
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), 0.5)
    writer.write(request)
    assert await reader.readuntil(b'{"status":"alive"}')
    writer.close()


async def test_an_answer_may_take_longer_than_the_request_did(serve: Serve) -> None:
    async def slow(request: Request) -> Response:
        await asyncio.sleep(0.5)
        return JSONResponse({})

    http = await serve(routes=[Route("/slow", slow)], request_seconds=0.2)
    assert (await http.get("/slow")).status_code == 200


async def test_headers_without_end_are_refused(serve: Serve) -> None:
    http = await serve()
    reader, writer = await connected(http)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nX: " + bytes(2 * MAX_HEADER_BYTES).replace(b"\0", b"x"))
    assert (await at_the_end(reader)).startswith(b"HTTP/1.1 400")
    writer.close()


async def test_a_port_in_use_is_an_error(serve: Serve) -> None:
    http = await serve()
    with pytest.raises(OSError, match="in use"):
        await HttpServer(lambda *_: None, "127.0.0.1", http.base_url.port or 0).start()  # type: ignore[arg-type,return-value]


@pytest.mark.skipif(not socket.has_ipv6, reason="this machine has no IPv6")
async def test_it_listens_on_ipv6_too(serve: Serve) -> None:
    try:
        http = await serve(host="[::1]")
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    assert (await http.get("/healthz")).status_code == 200


async def test_the_end_waits_for_a_request_under_way_and_then_refuses(wait_until: Any) -> None:
    arrived, may_go = asyncio.Event(), asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        arrived.set()
        await may_go.wait()
        await JSONResponse({"done": True})(scope, receive, send)

    server = HttpServer(app, "127.0.0.1", 0)
    port = await server.start()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
        under_way = asyncio.create_task(http.get("/"))
        await arrived.wait()
        stopping = asyncio.create_task(server.stop())

        async def refuses() -> bool:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionError:  # Refused, or reset where the listener closed meanwhile.
                return True
            writer.close()
            return False

        await wait_until(refuses)
        assert not stopping.done()
        may_go.set()
        assert (await under_way).json() == {"done": True}
        await stopping


async def test_a_server_that_never_started_stops() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        del scope, receive, send

    server = HttpServer(app, "127.0.0.1", 0)
    async with asyncio.timeout(1):
        await server.stop()
