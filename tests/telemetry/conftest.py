"""Scrapes, collectors, and a log as it is written."""

from __future__ import annotations

import io
import json
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from typing import Any

import httpx
import pytest
import pytest_asyncio
from audit.sinks.receivers import Backend, HttpReceiver
from prometheus_client.parser import text_string_to_metric_families

from identity.cli.logs import configure_logging


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("OTEL_"):
            monkeypatch.delenv(name)


class Scrape:
    """What ``/metrics`` has said."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.names: set[str] = set()
        self.samples: dict[str, list[tuple[Mapping[str, str], float]]] = {}
        for family in text_string_to_metric_families(text):
            self.names.add(family.name + ("_total" if family.type == "counter" else ""))
            for sample in family.samples:
                self.samples.setdefault(sample.name, []).append((sample.labels, sample.value))

    def value(self, name: str, **labels: str) -> float:
        """The one sample that has these labels."""
        (found,) = [
            value for known, value in self.samples.get(name, []) if labels.items() <= known.items()
        ] or [0.0]
        return found

    def total(self, name: str, **labels: str) -> float:
        """The sum of those that have these labels."""
        return sum(value for known, value in self.samples.get(name, []) if labels.items() <= known.items())


async def scraped(url: str) -> Scrape:
    """What Prometheus gets there."""
    async with httpx.AsyncClient() as client:
        answer = await client.get(url + "/metrics")
    assert answer.status_code == 200
    return Scrape(answer.text)


@pytest.fixture(name="scrape")
def scrape_fixture() -> Callable[[str], Awaitable[Scrape]]:
    return scraped


@pytest_asyncio.fixture
async def backend() -> AsyncIterator[Backend]:
    """A real OTLP receiver; the environment does not point to it yet."""
    async with HttpReceiver(Backend()) as received:
        yield received


class WrittenLog:
    """The service's log in JSON, at DEBUG."""

    def __init__(self) -> None:
        self.stream = io.StringIO()

    @property
    def text(self) -> str:
        """All of it, but what the test's own HTTP client says."""
        lines = self.stream.getvalue().splitlines()
        return "\n".join(line for line in lines if not _is_clients(json.loads(line)["logger"]))

    def of(self, logger: str) -> list[dict[str, Any]]:
        """The lines of one logger."""
        lines = [json.loads(line) for line in self.text.splitlines()]
        return [line for line in lines if line["logger"] == logger]


def _is_clients(logger: str) -> bool:
    return logger.split(".", maxsplit=1)[0] in {"httpx", "httpcore"}


@pytest.fixture
def written_log() -> Iterator[WrittenLog]:
    written = WrittenLog()
    root = logging.getLogger()
    before = (list(root.handlers), root.level)
    handlers = root.handlers[:]
    configure_logging("DEBUG", "json", written.stream)
    mine = root.handlers[:]
    root.handlers = [*handlers, *mine]
    yield written
    root.handlers, level = before
    root.setLevel(level)
