"""Files of exported events, as a sink leaves them."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def exported_file(tmp_path: Path) -> Callable[..., str]:
    def write(lines: list[bytes], name: str = "audit.jsonl") -> str:
        path = tmp_path / name
        text = b"".join(line + b"\n" for line in lines)
        path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
        return str(path)

    return write
