"""A server in a process of its own, which may have to die at a given step."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from identity.app import IdentityServer
from identity.config import Settings
from identity.sessions.minting import AccessTokenMint
from identity.store.redis import scripts
from identity.store.redis.revocations import RedisRevocationStore
from identity.store.redis.sessions import RedisSessionStore

STEPS = ("before the script", "after the script", "before signing", "after signing")
_SCRIPTED = (
    (RedisSessionStore, "start_family"),
    (RedisSessionStore, "spend"),
    (RedisRevocationStore, "revoke_family"),
)


@dataclass(frozen=True)
class ServerProcess:
    """A running one."""

    process: BaseProcess
    target: str

    def kill(self) -> None:
        """As the kernel does when memory runs out."""
        self.process.kill()
        self.process.join()


def start(settings: dict[str, Any], *, dies: str | None = None, folds: bool = True) -> ServerProcess:
    """Starts a server and waits until it listens; ``dies`` names the step at which it kills itself. ``folds``: whether it
    counts the refusals of a flood, or tells of each."""
    context = get_context("spawn")
    answers, answer = context.Pipe(duplex=False)
    process = context.Process(target=_serve, args=(answer, json.dumps(settings), dies, folds), daemon=True)
    process.start()
    answer.close()
    return ServerProcess(process, answers.recv())


def _serve(answer: Connection, settings: str, dies: str | None, folds: bool) -> None:
    if not folds:
        _tell_each_refusal()
    if dies is not None:
        for owner, name in _SCRIPTED:
            _die_around(owner, name, before=dies == STEPS[0], after=dies == STEPS[1])
        _die_around(AccessTokenMint, "mint", before=dies == STEPS[2], after=dies == STEPS[3])
    asyncio.run(_serve_for_ever(answer, Settings(**json.loads(settings))))


async def _serve_for_ever(answer: Connection, settings: Settings) -> None:
    server = IdentityServer(settings)
    addresses = await server.start()
    answer.send(addresses.grpc_target)
    await asyncio.Event().wait()


def _tell_each_refusal() -> None:
    for name, script in vars(scripts).copy().items():
        if isinstance(script, scripts.Script):
            source = script.source.replace(b"fold_causes_max = 20,", b"fold_causes_max = 1e9,")
            assert source != script.source
            sha = hashlib.sha1(source, usedforsecurity=False).hexdigest()
            setattr(scripts, name, scripts.Script(script.name, source, sha))


def _die_around(owner: type, name: str, *, before: bool, after: bool) -> None:
    method: Callable[..., Awaitable[Any]] = getattr(owner, name)

    async def dying(*args: Any, **kwargs: Any) -> Any:
        if before:
            os.kill(os.getpid(), signal.SIGKILL)
        result = await method(*args, **kwargs)
        if after:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, dying)
