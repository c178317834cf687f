"""A real Phoenix on this machine, and what its API gives back of the spans that it took."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

PROJECT = "shop"
START_SECONDS = 120.0
END_SECONDS = 10.0
ANSWER_SECONDS = 30.0
PAGE_SPANS = 50
_TRACE = """
query ($trace: String!) {
  getTraceByOtelId(traceId: $trace) { project { id } spans(first: 1000) { edges { node { id spanId } } } }
}
"""


@dataclass(frozen=True, slots=True)
class KeptSpan:
    """A span as the backend keeps it. ``status`` is OTLP's number: 0 unset, 2 error."""

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    start_ms: int
    end_ms: int
    status: int
    status_message: str
    attributes: Mapping[str, Any]

    @property
    def is_audit(self) -> bool:
        """Whether it tells of an event."""
        return "identity.event.id" in self.attributes


@dataclass(frozen=True, slots=True)
class Phoenix:
    """What a running server's API says. Spans by OTLP go to ``url`` (HTTP) or ``grpc_url``."""

    url: str
    grpc_url: str

    def is_ready(self) -> bool:
        """Whether it takes spans."""
        try:
            return httpx.get(f"{self.url}/readyz", timeout=ANSWER_SECONDS).is_success
        except httpx.TransportError:
            return False

    def documents(self, project: str = PROJECT, **filters: str) -> Iterator[dict[str, Any]]:
        """What ``GET /v1/projects/…/spans/otlpv1`` says, page for page."""
        cursor: str | None = ""
        while cursor is not None:
            query = {"limit": PAGE_SPANS, **filters} | ({"cursor": cursor} if cursor else {})
            answer = httpx.get(
                f"{self.url}/v1/projects/{project}/spans/otlpv1", params=query, timeout=ANSWER_SECONDS
            )
            if answer.status_code == httpx.codes.NOT_FOUND:
                return
            document = answer.raise_for_status().json()
            yield document
            cursor = document["next_cursor"]

    def spans(self, project: str = PROJECT, **filters: str) -> list[KeptSpan]:
        """In the order in which they began; an audit span is after what caused it, and before the next one of its bucket."""
        kept = [_kept(span) for document in self.documents(project, **filters) for span in document["data"]]
        return sorted(
            kept, key=lambda span: (span.start_ms, span.attributes.get("identity.event.sequence", 0))
        )

    def page_of(self, trace_id: str, span_id: str) -> str:
        """The URL under which a person sees a trace, with one of its spans selected."""
        body = {"query": _TRACE, "variables": {"trace": trace_id}}
        told = httpx.post(f"{self.url}/graphql", json=body, timeout=ANSWER_SECONDS).raise_for_status().json()
        assert "errors" not in told, told
        trace = told["data"]["getTraceByOtelId"]
        nodes = {edge["node"]["spanId"]: edge["node"]["id"] for edge in trace["spans"]["edges"]}
        selected = f"selectedSpanNodeId={nodes[span_id]}"
        return f"{self.url}/projects/{trace['project']['id']}/traces/{trace_id}?{selected}"


@contextmanager
def started(program: str, folder: Path) -> Iterator[Phoenix]:
    """A server of its own, with all it keeps in ``folder``; it calls nobody.

    Its HTTP side is on loopback. The port for OTLP over gRPC is a free one, which Phoenix opens on every address.
    """
    port, grpc_port = _free_port(), _free_port()
    # Nothing of the environment gets through: neither keys of other services nor where else to send to.
    environ = {
        "HOME": str(folder),
        "PATH": os.defpath,
        "PHOENIX_WORKING_DIR": str(folder),
        "PHOENIX_HOST": "127.0.0.1",
        "PHOENIX_PORT": str(port),
        "PHOENIX_GRPC_PORT": str(grpc_port),
        "PHOENIX_TELEMETRY_ENABLED": "false",
        "PHOENIX_ALLOW_EXTERNAL_RESOURCES": "false",
        "PHOENIX_DISABLE_AGENT_ASSISTANT": "true",
    }
    log = folder / "phoenix.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [program, "serve"], env=environ, cwd=folder, stdout=out, stderr=subprocess.STDOUT
        )
    try:
        phoenix = Phoenix(f"http://127.0.0.1:{port}", f"http://127.0.0.1:{grpc_port}")
        deadline = time.monotonic() + START_SECONDS
        while not phoenix.is_ready():
            assert process.poll() is None, log.read_text()[-4000:]
            assert time.monotonic() < deadline, log.read_text()[-4000:]
            time.sleep(0.1)
        yield phoenix
    finally:
        process.terminate()
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _kept(span: Mapping[str, Any]) -> KeptSpan:
    status = span.get("status") or {}
    return KeptSpan(
        trace_id=span["trace_id"],
        span_id=span["span_id"],
        parent_id=span.get("parent_span_id") or "",
        name=span["name"],
        start_ms=_milliseconds(span["start_time_unix_nano"]),
        end_ms=_milliseconds(span["end_time_unix_nano"]),
        status=status.get("code") or 0,
        status_message=status.get("message") or "",
        attributes={item["key"]: _value(item["value"]) for item in span["attributes"]},
    )


def _value(value: Mapping[str, Any]) -> Any:
    return next((told for told in value.values() if told is not None), None)


def _milliseconds(nanoseconds: int | str) -> int:
    """Phoenix gives times out through a floating-point number of seconds."""
    return round(int(nanoseconds) / 1_000_000)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
