"""``python fuzz SECONDS``: writes the seeds from the test vectors, runs each target that long, says what came of it.

What a run has learnt stays in ``.fuzz/`` and is where the next one starts. A finding is an input in
``.fuzz/findings/``; ``python fuzz/tokens.py FILE`` runs it again, and mended it becomes a vector.
"""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
from base64 import urlsafe_b64decode
from pathlib import Path

ROOT = Path(__file__).parents[1]
WORK = ROOT / ".fuzz"
TARGETS = {"tokens": 9_000, "signed": 6_000, "key_sets": 16_000}
"""Each target, and how long its inputs may get: a little over what is refused for its length, or holds every check."""
EVERY_CLAIM = {
    "iss": "https://id.example", "sub": "alice", "aud": ["orders"], "client_id": "web", "jti": "j",
    "sid": "s",
    "iat": 1_800_000_000, "exp": 1_800_000_600, "nbf": 1_800_000_000, "scope": "a b", "roles": ["admin"],
    "auth_time": 1, "acr": "1", "amr": ["mfa"], "act": {"sub": "b", "act": {"sub": "c"}},
}  # fmt: skip
SECONDS_PER_INPUT = 5
MEMORY_MB = 1024


def main(seconds: int) -> int:
    """The exit code: 1 where something was found."""
    (WORK / "findings").mkdir(parents=True, exist_ok=True)
    _write_seeds()
    return max(_run(target, max_bytes, seconds) for target, max_bytes in TARGETS.items())


def _write_seeds() -> None:
    for target in TARGETS:
        (WORK / target / "seeds").mkdir(parents=True, exist_ok=True)
        (WORK / target / "learnt").mkdir(exist_ok=True)
    for target in ("tokens", "key_sets"):
        for vector in _vectors(target):
            _seed(target, vector["id"], vector["input"].encode("utf-8", "surrogatepass"))
    for vector in _vectors("tokens"):
        parts: list[bytes] = []
        with contextlib.suppress(ValueError):  # what no reader of base64 decodes
            parts = [urlsafe_b64decode(part + "===") for part in vector["input"].split(".")]
        if len(parts) == 3:
            # Signed anew by the target, with the one key that it has.
            header = parts[0].replace(b'"es"', b'"ed"').replace(b'"ES256"', b'"EdDSA"')
            _seed("signed", vector["id"], header + b"\n" + parts[1])
    head = b'{"alg":"EdDSA","kid":"ed","typ":"at+jwt"}\n'
    _seed("signed", "every-claim", head + json.dumps(EVERY_CLAIM).encode())


def _vectors(target: str) -> list[dict[str, str]]:
    vectors: list[dict[str, str]] = json.loads((ROOT / f"tests/vectors/{target}.json").read_text())["vectors"]
    return vectors


def _seed(target: str, name: str, content: bytes) -> None:
    (WORK / target / "seeds" / re.sub(r"[^\w.+-]", "_", name)[:100]).write_bytes(content)


def _run(target: str, max_bytes: int, seconds: int) -> int:
    command = [
        sys.executable,
        str(ROOT / "fuzz" / f"{target}.py"),
        str(WORK / target / "learnt"),
        str(WORK / target / "seeds"),
        f"-max_total_time={seconds}",
        f"-max_len={max_bytes}",
        f"-timeout={SECONDS_PER_INPUT}",
        f"-rss_limit_mb={MEMORY_MB}",
        f"-dict={ROOT / 'fuzz/words.dict'}",
        f"-artifact_prefix={WORK / 'findings'}/",
        "-print_final_stats=1",
    ]
    log = WORK / f"{target}.log"
    with log.open("w") as output:
        code = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, check=False).returncode
    text = log.read_text(errors="replace")
    if code:
        print(text[-4000:])
        print(f"{target}: found something; the input is in {WORK / 'findings'}, the rest in {log}")
        return 1
    runs = re.findall(r"number_of_executed_units: (\d+)", text)
    reached = re.findall(r"cov: (\d+) ft: (\d+) corp: (\d+)", text)
    if not runs or not reached:
        print(text[-4000:])
        print(f"{target}: did not run; see {log}")
        return 1
    edges, features, corpus = reached[-1]
    print(
        f"{target}: {int(runs[-1]):,} inputs in {seconds} s, {edges} edges, {features} features, {corpus} kept, nothing found"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 60))
