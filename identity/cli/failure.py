"""How a command fails: one line a problem on standard error, with what to do, and exit code 1."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

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

    if not isinstance(error, grpc.Call | grpc.aio.AioRpcError):
        return str(error)
    if reason := _reason_of(error):
        return f"{reason}: {error.details()}"
    if error.code() is grpc.StatusCode.UNAVAILABLE:
        return f"the service does not answer: {error.details()}; is it running, and is --target right?"
    return f"{error.code().name}: {error.details()}"


def _reason_of(error: Any) -> str:
    """What the service has said of a refusal, as docs/errors.md lists it; nothing where it did not answer itself."""
    from google.protobuf.message import DecodeError
    from google.rpc import error_details_pb2
    from grpc_status import rpc_status

    info = error_details_pb2.ErrorInfo()
    try:
        status = rpc_status.from_call(error)
        for detail in status.details if status is not None else ():
            if detail.Unpack(info):
                return str(info.reason)
    except (ValueError, DecodeError):
        # Who stands between may send details that are none, or that belong to another status.
        pass
    return ""
