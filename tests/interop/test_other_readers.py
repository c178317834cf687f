"""Readers that are none of ours: jose on Node.js, and curl."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import jwt
import pytest

from grpc_identity.v1 import identity_service_pb2 as pb

HERE = Path(__file__).parent


async def run(*command: str, cwd: Path | None = None) -> tuple[int, str]:
    """Exit code and output; ended after a minute."""
    process = await asyncio.create_subprocess_exec(
        *command, cwd=cwd, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    async with asyncio.timeout(50):
        output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()


@pytest.fixture
def node() -> str:
    """Node.js, which comes as a wheel with the test requirements."""
    return str(Path(sys.executable).with_name("node"))


@pytest.fixture
async def jose(node: str, tmp_path: Path) -> Path:
    """A folder with jose as locked in package-lock.json."""
    for name in ("package.json", "package-lock.json", "verify.mjs", ".npmrc"):
        shutil.copy(HERE / name, tmp_path / name)
    code, output = await run(str(Path(node).with_name("npm")), "ci", "--silent", cwd=tmp_path)
    assert code == 0, output
    return tmp_path


async def access_token(service: Any) -> str:
    issued = await service.identity.IssueTokens(
        pb.IssueTokensRequest(subject="alice", audience=["orders"], scopes=["orders.read"]),
        metadata=service.login,
    )
    token: str = issued.tokens.access_token
    return token


async def test_jose_verifies_an_access_token_with_the_published_keys(
    service: Any, node: str, jose: Path
) -> None:
    jwks_url = f"{service.addresses.http_url}/.well-known/jwks.json"
    token = await access_token(service)

    async def verify(audience: str, text: str) -> Any:
        _, output = await run(
            node, str(jose / "verify.mjs"), jwks_url, "https://id.example", audience, text, cwd=jose
        )
        return json.loads(output)

    good = await verify("orders", token)
    assert (good["payload"]["sub"], good["payload"]["scope"]) == ("alice", "orders.read")
    assert good["protectedHeader"]["typ"] == "at+jwt"
    assert await verify("billing", token) == {"error": "ERR_JWT_CLAIM_VALIDATION_FAILED"}
    header, payload, signature = token.split(".")
    other = ("A" if signature[0] != "A" else "B") + signature[1:]
    forged = await verify("orders", f"{header}.{payload}.{other}")
    assert forged == {"error": "ERR_JWS_SIGNATURE_VERIFICATION_FAILED"}


async def test_curl_reads_the_keys_and_they_verify_a_token(service: Any) -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("curl is not installed; the same document is read by jose in this module")
    code, output = await run(
        curl, "--silent", "--fail", f"{service.addresses.http_url}/.well-known/jwks.json"
    )
    assert code == 0, output
    (key,) = json.loads(output)["keys"]
    claims = jwt.decode(
        await access_token(service), jwt.PyJWK(key).key, algorithms=["ES256"], audience="orders"
    )
    assert claims["sub"] == "alice"
