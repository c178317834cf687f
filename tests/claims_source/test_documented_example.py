"""The source that docs/claims-source.md shows serves a service."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from claims_source.source import claims_of

from grpc_identity.v1 import identity_service_pb2 as pb

DOCUMENT = Path(__file__).parents[2] / "docs/claims-source.md"


async def test_the_documented_source_is_asked(
    make_settings: Any, start_service: Any, refused: Any, tmp_path: Path
) -> None:
    names: dict[str, Any] = {"__name__": "example"}
    (example,) = re.findall(r"^```python\n(.*?)^```", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
    exec(compile(example, "example", "exec"), names)
    accounts = {"alice": {"locked": False, "roles": ["clerk"], "tenant": "acme"}}
    target = f"unix:{tmp_path}/accounts.sock"
    server = await names["serve"](accounts, target)
    section = {"target": target, "timeout_ms": 10_000, "allowed_claims": ["tenant"]}
    service = await start_service(make_settings(claims_source=section))

    async def start(subject: str) -> Any:
        request = pb.IssueTokensRequest(subject=subject, audience=["orders"])
        return (await service.identity.IssueTokens(request, metadata=service.login)).tokens

    tokens = await start("alice")
    assert claims_of(tokens).roles == {"clerk"}
    assert claims_of(tokens).private["tenant"] == "acme"
    accounts["alice"] |= {"roles": []}
    refresh = pb.RefreshRequest(refresh_token=tokens.refresh_token)
    tokens = (await service.identity.Refresh(refresh, metadata=service.login)).tokens
    assert not claims_of(tokens).roles
    accounts["alice"] |= {"locked": True}
    assert (await refused(start("alice"))).reason == "SUBJECT_DISABLED"
    assert (await refused(start("mallory"))).reason == "SUBJECT_DISABLED"
    refresh = pb.RefreshRequest(refresh_token=tokens.refresh_token)
    refusal = await refused(service.identity.Refresh(refresh, metadata=service.login))
    assert refusal.reason == "SUBJECT_DISABLED"
    await server.stop(None)
