"""How a command fails: one line a problem on standard error, with what to do, and exit code 1."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer


def fail(message: str) -> NoReturn:
    """Ends the command."""
    for line in message.splitlines():
        typer.secho(f"identity: {line}", fg=typer.colors.RED, err=True)
    sys.exit(1)


@contextmanager
def report_failures() -> Iterator[None]:
    """Turns the errors a user can do something about into one line each; others keep their traceback."""
    import grpc

    from identity.config import ConfigurationError
    from identity.errors import IdentityError
    from identity.keys.ports import KeyStoreError, ProviderError
    from identity.keys.sealing import SealError
    from identity.rpc.server import ListenError
    from identity.valkey import EmbeddedStoreError

    try:
        yield
    except (
        ConfigurationError,
        EmbeddedStoreError,
        KeyStoreError,
        ListenError,
        ProviderError,
        SealError,
    ) as error:
        fail(str(error))
    except IdentityError as error:
        fail(f"{error.reason}: {error.message}")
    except grpc.RpcError as error:
        fail(_describe(error))


def _describe(error: Exception) -> str:
    import grpc

    from grpc_identity.token_grants import error_reason

    if not isinstance(error, grpc.Call | grpc.aio.AioRpcError):
        return str(error)
    if reason := error_reason(error):
        return f"{reason}: {error.details()}"
    if error.code() is grpc.StatusCode.UNAVAILABLE:
        return f"the service does not answer: {error.details()}; is it running, and is --target right?"
    return f"{error.code().name}: {error.details()}"
