"""What the documents show runs."""

from __future__ import annotations

import json
import re
from pathlib import Path

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


async def test_the_readmes_server_serves_and_refuses_strangers(monkeypatch: pytest.MonkeyPatch) -> None:
    import grpc

    import grpc_identity
    from grpc_identity.testing import InMemoryIssuer

    issuer = InMemoryIssuer("https://id.example", audience="orders")
    monkeypatch.setattr(grpc_identity, "Issuer", lambda name, **_: issuer.trusted(), raising=False)
    text = (ROOT / "README.md").read_text()
    block = next(part for part in re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    names: dict[str, object] = {"__name__": "example"}
    exec(compile(block, "example", "exec"), names)
    started: list[grpc.aio.Server] = []

    async def refund(request: bytes, context: object) -> bytes:
        return grpc_identity.current_principal().subject.encode()

    def add_orders_servicer(server: grpc.aio.Server) -> None:
        methods = {"Refund": grpc.unary_unary_rpc_method_handler(refund)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("shop.v1.Orders", methods),))
        started.append(server)

    await names["serve"](add_orders_servicer)  # type: ignore[operator]
    (server,) = started
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        method = channel.unary_unary("/shop.v1.Orders/Refund")
        token = issuer.mint(subject="alice", scopes=["orders.refund"])
        assert await method(b"", metadata=(("authorization", f"Bearer {token}"),)) == b"alice"
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await method(b"")
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
    await server.stop(None)


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
