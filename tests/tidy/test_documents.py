"""What the documents show runs."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "interceptors/README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCKS = [
    pytest.param(block, id=f"{path.relative_to(ROOT)}-{number}")
    for path in DOCUMENTS
    for number, block in enumerate(
        re.findall(r"^```python\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL)
    )
]


@pytest.mark.parametrize("block", BLOCKS)
def test_a_python_example_runs(block: str) -> None:
    exec(compile(block, "example", "exec"), {"__name__": "example"})


def test_every_pitfall_of_grpc_has_tests_that_are_there() -> None:
    rows = re.findall(r"^\| (\d+) \|.*\|(.*)\|$", (ROOT / "docs/grpc-pitfalls.md").read_text(), re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, 22))
    tests = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^(?:async )?def (test_\w+)", path.read_text(), re.MULTILINE)
    }
    for number, named in rows:
        names = re.findall(r"`(\w+)`", named)
        assert names, f"nothing holds us to pitfall {number}"
        assert not set(names) - tests, number


def readme_examples() -> dict[str, Any]:
    """What the examples of the README define, as they are written."""
    names: dict[str, Any] = {"__name__": "example"}
    text = (ROOT / "README.md").read_text()
    for block in re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        exec(compile(block, "example", "exec"), names)
    return names


async def test_the_readmes_client_calls_the_readmes_server(
    service: Any, new_session: Any, tmp_path: Path, wait_until: Any
) -> None:
    import grpc

    from grpc_identity import current_principal
    from grpc_identity.v1 import clients_pb2
    from grpc_identity.v1 import identity_service_pb2 as pb

    await service.new_client("orders", clients_pb2.ClientPolicy(grants=["GRANT_VERIFY"]))
    own_tokens = clients_pb2.ClientPolicy(
        grants=["GRANT_CLIENT_CREDENTIALS"], audiences=["orders"], scopes=["orders.refund"]
    )
    await service.new_client("billing", own_tokens)
    identity, address = service.addresses.grpc_target, f"unix:{tmp_path}/orders.sock"

    async def refund(request: bytes, context: object) -> bytes:
        return current_principal().subject.encode() + b" refunded " + request

    servers: list[grpc.aio.Server] = []

    def add_orders(server: grpc.aio.Server) -> None:
        servers.append(server)
        methods = {"Refund": grpc.unary_unary_rpc_method_handler(refund)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("shop.v1.Orders", methods),))

    examples = readme_examples()
    serving = asyncio.create_task(examples["serve"](identity, service.secrets["orders"], address, add_orders))
    await wait_until((tmp_path / "orders.sock").exists)
    assert await examples["refund"](identity, service.secrets["billing"], address) == b"billing refunded 1001"

    session = await new_session(scopes=["orders.refund"])
    async with grpc.aio.insecure_channel(address) as channel:
        method = channel.unary_unary("/shop.v1.Orders/Refund")
        metadata = (("authorization", f"Bearer {session.tokens.access_token}"),)
        assert await method(b"1002", metadata=metadata) == b"alice refunded 1002"
        revoke = pb.RevokeRequest(session_id=session.tokens.session_id)
        revoke.wait_until_applied.FromSeconds(10)
        assert (await service.identity.Revoke(revoke, metadata=service.login)).applied == 1
        for refused in (metadata, ()):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await method(b"1003", metadata=refused)
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    await servers[0].stop(None)
    await serving


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+?)\)", path.read_text()):
        if not link.startswith("http"):
            assert (path.parent / link).exists(), link


@pytest.mark.parametrize("name", ["Tokens", "Key sets", "Metadata"])
def test_the_table_of_what_is_refused_equals_the_vectors(name: str) -> None:
    file = {"Tokens": "tokens", "Key sets": "key_sets", "Metadata": "metadata"}[name]
    vectors = json.loads((ROOT / f"tests/vectors/{file}.json").read_text())["vectors"]
    section = (ROOT / "docs/security.md").read_text().split(f"\n## {name}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| .* \| (`.*`) \| .* \| (`.*`) \|$", section, re.MULTILINE)
    assert rows
    covered: set[str] = set()
    for reasons, prefixes in rows:
        starts = tuple(prefixes.strip("`").split("`, `"))
        group = [vector for vector in vectors if vector["id"].startswith(starts)]
        refused = {vector["reason"] for vector in group} - {None}
        assert refused == set(reasons.strip("`").split("`, `")), prefixes
        covered |= {vector["id"] for vector in group}
    assert {vector["id"] for vector in vectors if vector["reason"]} <= covered
