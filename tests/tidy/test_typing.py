"""What a user's type checker sees of the installed package: mypy and pyright, both strict."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "typing_tests/consumer.py"
PYRIGHT = {"typeCheckingMode": "strict", "include": ["consumer.py"], "pythonVersion": "3.11"}


@pytest.fixture
def consumer(tmp_path: Path) -> Path:
    """The sample in a folder of its own, so that the package is found where it is installed and nowhere else."""
    shutil.copy(SAMPLE, tmp_path / "consumer.py")
    return tmp_path


def test_mypy_finds_no_fault_with_a_consumer(consumer: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--cache-dir",
        str(consumer / ".mypy"),
        "consumer.py",
    ]
    ran = subprocess.run(command, cwd=consumer, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout


def test_pyright_finds_no_fault_with_a_consumer(consumer: Path) -> None:
    for name in ("package.json", "package-lock.json", ".npmrc"):
        shutil.copy(SAMPLE.parent / name, consumer / name)
    node = Path(sys.executable).with_name("node")
    npm = [str(node.with_name("npm")), "ci", "--silent"]
    subprocess.run(npm, cwd=consumer, check=True, capture_output=True, timeout=50)
    (consumer / "pyrightconfig.json").write_text(json.dumps(PYRIGHT))
    command = [node, "node_modules/pyright/index.js", "--pythonpath", sys.executable, "--outputjson"]
    ran = subprocess.run(command, cwd=consumer, capture_output=True, text=True, check=False, timeout=55)
    found = json.loads(ran.stdout)
    faults = [
        f"{item['range']['start']['line'] + 1}: {item['message']}" for item in found["generalDiagnostics"]
    ]
    assert not faults
    assert found["summary"]["filesAnalyzed"] == 1
