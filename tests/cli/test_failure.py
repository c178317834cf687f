"""Whether a service refused or did not answer: what the commands say of each."""

from __future__ import annotations

import socket
import sys
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2

from identity.cli.main import main
from identity.errors import IdentityError, Reason
from identity.rpc.errors import STATUS_CODES, status_of

ANSWER = "The key is elsewhere."


class Refuses(grpc.GenericRpcHandler):
    """Answers every call with this status."""

    def __init__(self, status: grpc.Status) -> None:
        self._status = status

    def service(self, handler_call_details: Any) -> Any:
        del handler_call_details

        def refuse(request: bytes, context: grpc.ServicerContext) -> bytes:
            del request
            context.abort_with_status(self._status)
            raise AssertionError

        return grpc.unary_unary_rpc_method_handler(refuse)


def told_by(target: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    monkeypatch.setenv("IDENTITY_CLIENT_ID", "admin")
    monkeypatch.setenv("IDENTITY_CLIENT_SECRET", "x")
    monkeypatch.setattr(sys, "argv", ["identity", "keys", "list", "--target", target])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    return capsys.readouterr().err


def test_one_that_does_not_answer(monkeypatch: Any, capsys: Any) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        told = told_by(f"127.0.0.1:{taken.getsockname()[1]}", monkeypatch, capsys)
    assert told.startswith("identity: the service does not answer: ")
    assert told.endswith("; is it running, and is --target right?\n")


UNAVAILABLE = [reason for reason in Reason if STATUS_CODES[reason] is grpc.StatusCode.UNAVAILABLE]


@pytest.mark.parametrize("reason", [*UNAVAILABLE, Reason.KEY_NOT_FOUND])
def test_one_that_refuses_did_answer(reason: Reason, monkeypatch: Any, capsys: Any) -> None:
    # More than one detail, as the service sends them.
    told = answered(status_of(IdentityError(reason, ANSWER, retry_after_seconds=5.0)), monkeypatch, capsys)
    assert told == f"identity: {reason}: {ANSWER}\n"


class Plain:
    """A status without details, or with some that cannot be read."""

    def __init__(self, code: grpc.StatusCode, details: bytes | None = None) -> None:
        self.code = code
        self.details = ANSWER
        self.trailing_metadata = (("grpc-status-details-bin", details),) if details is not None else ()


@pytest.mark.parametrize(
    "details", [None, b"", b"\xff\xff", error_details_pb2.ErrorInfo().SerializeToString()]
)
def test_what_stands_between_answers_without_a_reason(details: Any, monkeypatch: Any, capsys: Any) -> None:
    told = answered(Plain(grpc.StatusCode.UNAVAILABLE, details), monkeypatch, capsys)
    assert told.startswith("identity: the service does not answer: ")
    told = answered(Plain(grpc.StatusCode.INTERNAL, details), monkeypatch, capsys)
    assert told == f"identity: INTERNAL: {ANSWER}\n"


def answered(status: Any, monkeypatch: Any, capsys: Any) -> str:
    from concurrent.futures import ThreadPoolExecutor

    server = grpc.server(ThreadPoolExecutor(1), handlers=[Refuses(status)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        return told_by(f"127.0.0.1:{port}", monkeypatch, capsys)
    finally:
        server.stop(None)
