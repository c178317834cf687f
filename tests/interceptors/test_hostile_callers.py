"""Callers that speak HTTP/2 byte by byte and obey nobody, against real servers of both stacks.

gRPC's own clients refuse to send most of this, so the frames are written here (RFC 9113, RFC 7541). The table of the
header compression is switched off and binary metadata switched on, so that an answer can be read without a decoder.
"""

from __future__ import annotations

import asyncio
import json
import logging
import struct
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio

from grpc_identity import Issuer, Verifier, current_principal
from grpc_identity.aio import AuthInterceptor as AioAuthInterceptor
from grpc_identity.errors import Reason
from grpc_identity.sync import AuthInterceptor

FOLDER = Path(__file__).parents[1] / "vectors"
TOKENS, METADATA = (
    json.loads(FOLDER.joinpath(name).read_text()) for name in ("tokens.json", "metadata.json")
)
GOOD = next(vector["input"] for vector in TOKENS["vectors"] if vector["id"] == "key-ES256")
MAX_METADATA_BYTES = 4 * 1024 * 1024
ADMITTED = b"admitted "

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, CONTINUATION = 0, 1, 3, 4, 6, 7, 9
END_STREAM = ACK = 0x1
END_HEADERS = 0x4
MAX_FRAME_BYTES = 16384


class Caller:
    """One connection; ``call`` returns all bytes that came back for one call, or nothing if it was cut off."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._stream = -1
        # No table (1: 0), and binary metadata without base64 (0xfe03: 1).
        settings = struct.pack(">HIHI", 1, 0, 0xFE03, 1)
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(SETTINGS, 0, 0, settings))

    async def call(self, metadata: list[tuple[bytes, bytes]], method: str = "/t.S/unary_unary") -> bytes:
        self._stream += 2
        head = [
            (b":method", b"POST"), (b":scheme", b"http"), (b":path", method.encode()),
            (b":authority", b"localhost"),
            (b"te", b"trailers"), (b"content-type", b"application/grpc"), *metadata,
        ]  # fmt: skip
        block = b"".join(b"\0" + _text(name) + _text(value) for name, value in head)
        pieces = [block[at : at + MAX_FRAME_BYTES] for at in range(0, len(block), MAX_FRAME_BYTES)]
        for number, piece in enumerate(pieces):
            flags = END_HEADERS if number == len(pieces) - 1 else 0
            self._writer.write(_frame(CONTINUATION if number else HEADERS, flags, self._stream, piece))
        self._writer.write(_frame(DATA, END_STREAM, self._stream, bytes(5)))
        answer = b""
        async with asyncio.timeout(10):
            while True:
                try:
                    head9 = await self._reader.readexactly(9)
                    body = await self._reader.readexactly(int.from_bytes(head9[:3]))
                except (asyncio.IncompleteReadError, ConnectionError):
                    return answer
                kind, flags, stream = head9[3], head9[4], int.from_bytes(head9[5:])
                if kind in {SETTINGS, PING} and not flags & ACK:
                    self._writer.write(_frame(kind, ACK, 0, body if kind == PING else b""))
                if stream == self._stream and kind in {HEADERS, CONTINUATION, DATA}:
                    answer += body
                if kind == GOAWAY or (stream == self._stream and (kind == RST_STREAM or _ends(kind, flags))):
                    return answer

    async def close(self) -> None:
        self._writer.close()


def _ends(kind: int, flags: int) -> bool:
    return kind in {HEADERS, DATA} and bool(flags & END_STREAM)


def _frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    return len(body).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + body


def _text(raw: bytes) -> bytes:
    # RFC 7541, sections 5.1 and 5.2: a length with a prefix of 7 bits, then the bytes without compression.
    if len(raw) < 127:
        return bytes([len(raw)]) + raw
    rest, length = len(raw) - 127, [127]
    while rest >= 128:
        length.append(rest % 128 + 128)
        rest //= 128
    return bytes([*length, rest]) + raw


def who() -> bytes:
    return ADMITTED + current_principal().subject.encode()


@pytest_asyncio.fixture(params=["sync", "aio"])
async def caller(request: Any) -> AsyncIterator[Any]:
    """Connects to a guarded server that takes larger metadata than gRPC would, so that ours has to decide."""
    verifier = Verifier(
        Issuer(TOKENS["issuer"], keys=TOKENS["jwks"], audience=TOKENS["audience"]),
        clock=lambda: TOKENS["now_seconds"],
    )
    options = [
        ("grpc.so_reuseport", 0),
        ("grpc.max_metadata_size", MAX_METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
    ]
    writers: list[Caller] = []

    async def connect() -> Caller:
        writers.append(Caller(*await asyncio.open_connection("127.0.0.1", port)))
        return writers[-1]

    if request.param == "sync":
        pool = ThreadPoolExecutor(2)
        server: Any = grpc.server(pool, interceptors=[AuthInterceptor(verifier)], options=options)

        def answer(message: bytes, context: Any) -> bytes:
            return who()
    else:
        server = grpc.aio.server(interceptors=[AioAuthInterceptor(verifier)], options=options)

        async def answer(message: bytes, context: Any) -> bytes:
            return who()

    methods = {"unary_unary": grpc.unary_unary_rpc_method_handler(answer)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t.S", methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    if request.param == "sync":
        server.start()
        yield connect
        await asyncio.to_thread(server.stop(None).wait)
        pool.shutdown()
    else:
        await server.start()
        yield connect
        await server.stop(None)
    for writer in writers:
        await writer.close()


def outcome(answer: bytes) -> str | None:
    """``None`` for an admitted call, else the reason, or ``TRANSPORT`` where gRPC itself has refused."""
    if ADMITTED in answer:
        return None
    named = [reason.value for reason in Reason if reason.value.encode() in answer]
    return named[0] if named else "TRANSPORT"


def metadata_of(vector: dict[str, Any]) -> list[tuple[bytes, bytes]]:
    def filled(text: str) -> bytes:
        half = len(GOOD) // 2
        return (
            text.replace("{token}", GOOD)
            .replace("{head}", GOOD[:half])
            .replace("{tail}", GOOD[half:])
            .encode("latin-1")
        )

    return [(name.encode("latin-1"), filled(value)) for name, value in vector["metadata"]]


async def test_metadata_of_every_form_gets_its_answer(caller: Any, caplog: pytest.LogCaptureFixture) -> None:
    wrong = {}
    for vector in METADATA["vectors"]:
        found = outcome(await (await caller()).call(metadata_of(vector)))
        if vector["reason"] == "REFUSED":
            if found not in {"TRANSPORT", "TOKEN_INVALID", "TOKEN_MISSING"}:
                wrong[vector["id"]] = found
        elif found != vector["reason"]:
            wrong[vector["id"]] = found
    assert not wrong
    assert not [
        record
        for record in caplog.records
        if record.name == "grpc_identity" and record.levelno > logging.INFO
    ]
    assert outcome(await (await caller()).call([(b"authorization", b"Bearer " + GOOD.encode())])) is None


async def test_every_token_of_the_vectors_gets_its_answer_on_the_wire(
    caller: Any, caplog: pytest.LogCaptureFixture
) -> None:
    connection, wrong = await caller(), {}
    for vector in TOKENS["vectors"]:
        value = f"Bearer {vector['input']}"
        found = outcome(await connection.call([(b"authorization", value.encode("utf-8", "surrogatepass"))]))
        if found == "TRANSPORT":
            # gRPC answers what HTTP/2 forbids itself, by the end of the stream or of the connection.
            if value.isprintable() and value.isascii() and value == value.strip():
                wrong[vector["id"]] = found
            connection = await caller()
        elif found != vector["reason"]:
            wrong[vector["id"]] = found
    assert not wrong
    assert not [
        record
        for record in caplog.records
        if record.name == "grpc_identity" and record.levelno > logging.INFO
    ]
    assert outcome(await (await caller()).call([(b"authorization", b"Bearer " + GOOD.encode())])) is None


async def test_a_token_with_an_odd_byte_is_in_no_log(caller: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    answer = await (await caller()).call([(b"authorization", b"Bearer " + GOOD.encode() + b"\xe9")])
    assert outcome(answer) == "TOKEN_INVALID"
    assert "metadata that is not UTF-8" in caplog.text
    assert GOOD[-40:] not in caplog.text


@pytest.mark.parametrize("size", [8 * 1024, 64 * 1024, 1024 * 1024])
async def test_a_token_of_any_length_is_refused_and_the_next_call_served(caller: Any, size: int) -> None:
    connection = await caller()
    for token in (GOOD + "A" * size, "." * size, GOOD.partition(".")[0] + "A" * size + ".." + "A" * 64):
        answer = await connection.call([(b"authorization", b"Bearer " + token.encode())])
        assert outcome(answer) == "TOKEN_INVALID"
    assert outcome(await connection.call([(b"authorization", b"Bearer " + GOOD.encode())])) is None
