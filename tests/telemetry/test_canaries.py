"""Every path and every failure is driven with tokens and secrets that would be recognised; none is in any telemetry."""

from __future__ import annotations

import base64
import contextlib
from typing import Any

import grpc
import httpx
import pytest
from audit.sinks.receivers import Backend
from security.test_canaries import (
    CANARY_KEY,
    CANARY_SECRET,
    CANARY_TOKEN,
    call_every_method,
)

from grpc_identity.v1 import clients_pb2
from grpc_identity.v1 import identity_service_pb2 as pb
from identity.tokens.refresh_token import RefreshTokenCodec


def parts_of(tokens: Any) -> set[str]:
    """The tokens, and what would serve a thief nearly as well."""
    return {
        tokens.access_token,
        tokens.access_token.rsplit(".", 1)[0],
        tokens.access_token.rsplit(".", 1)[1],
        tokens.refresh_token,
        tokens.refresh_token[5:-6],
        tokens.refresh_token[-20:],
    }


async def every_use_of(tokens: list[Any], service: Any, metadata: Any) -> list[str]:
    """Shows each token to each method that takes one; the texts of the errors."""
    errors = []
    for item in tokens:
        for token in (item.access_token, item.refresh_token, item.access_token[:-9], item.refresh_token[:-9]):
            for call in (
                service.identity.Refresh(pb.RefreshRequest(refresh_token=token), metadata=metadata),
                service.identity.Introspect(pb.IntrospectRequest(token=token), metadata=metadata),
                service.identity.Revoke(pb.RevokeRequest(token=token), metadata=metadata),
                service.identity.ExchangeToken(
                    pb.ExchangeTokenRequest(subject_token=token, audience=["orders"]), metadata=metadata
                ),
                # In fields where they do not belong.
                service.identity.ListSessions(pb.ListSessionsRequest(subject=token[:100]), metadata=metadata),
                service.identity.IssueTokens(
                    pb.IssueTokensRequest(subject="alice", audience=[token[:100]]), metadata=metadata
                ),
            ):
                try:
                    await call
                except grpc.aio.AioRpcError as error:
                    errors.append(f"{error!r} {error.details()} {error.trailing_metadata()}")
    return errors


async def test_no_telemetry_has_a_token_or_a_secret(
    make_settings: Any,
    start_service: Any,
    new_valkey: Any,
    monkeypatch: pytest.MonkeyPatch,
    backend: Backend,
    written_log: Any,
    wait_until: Any,
) -> None:
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "otlp")
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", backend.url)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", f"api-key={CANARY_SECRET}-of-the-backend")
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "200")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    store = new_valkey({"maxmemory-policy": "noeviction", "save": ""})
    service = await start_service(make_settings(redis={"url": store.connection_url}))
    verifier = await service.new_client("orders", clients_pb2.ClientPolicy(grants=["GRANT_VERIFY"]))
    wrong = base64.b64encode(f"login:{CANARY_SECRET}".encode()).decode()
    ours = base64.b64encode(f"login:{service.secrets['login']}".encode()).decode()
    issued = [
        (
            await service.identity.IssueTokens(
                pb.IssueTokensRequest(
                    subject=subject, audience=["orders"], idempotency_key=CANARY_KEY + subject
                ),
                metadata=service.login,
            )
        ).tokens
        for subject in ("alice", "bob")
    ]
    for key in ("a", "a", "b"):
        with contextlib.suppress(grpc.aio.AioRpcError):
            refreshed = await service.identity.Refresh(
                pb.RefreshRequest(refresh_token=issued[0].refresh_token, idempotency_key=CANARY_KEY + key),
                metadata=service.login,
            )
            issued.append(refreshed.tokens)
    callers = (
        (("authorization", f"Basic {wrong}"),),
        (("authorization", f"Bearer {issued[0].access_token}"), ("x-token", issued[0].refresh_token)),
        (*service.login, ("traceparent", issued[0].access_token[:55]), ("tracestate", CANARY_TOKEN)),
        service.admin,
        verifier,
    )
    errors: list[str] = []
    for metadata in callers:
        errors += await call_every_method(service, metadata)
        errors += await every_use_of(issued, service, metadata)
    async with httpx.AsyncClient(base_url=service.addresses.http_url) as http:
        pages = [(await http.get(f"/metrics?token={CANARY_TOKEN}")).text]
        store.stop()
        errors += await call_every_method(service, service.login)
        errors += await every_use_of(issued, service, service.login)
        pages += [(await http.get(path)).text for path in ("/metrics", "/readyz", f"/{CANARY_TOKEN}")]
    await wait_until(lambda: "UNAVAILABLE" in str(backend.records("traces")))
    await wait_until(lambda: {request.signal for request in backend.taken} >= {"metrics", "traces"})

    keys = service.server.keys
    secrets = keys.refresh_token_secrets()
    codec = RefreshTokenCodec(secrets.by_id, secrets.active_id)
    raw = [
        codec.decode(issued[0].refresh_token).family_secret,
        keys.client_secret_pepper(),
        *secrets.by_id.values(),
    ]
    canaries = {CANARY_SECRET, CANARY_TOKEN, CANARY_KEY, wrong, ours, *service.secrets.values()}
    canaries = canaries.union(*(parts_of(tokens) for tokens in issued))
    canaries |= {value.hex() for value in raw} | {
        base64.urlsafe_b64encode(value).decode()[:43] for value in raw
    }
    places = {
        "the log": written_log.text,
        "a span": str(backend.records("traces")),
        "a pushed metric": str(backend.records("metrics")),
        "a page": "\n".join(pages),
        "an error": "\n".join(errors),
    }
    assert len(written_log.of("identity.auth")) > 50
    assert len(backend.records("traces")) > 100
    assert len(errors) > 100
    for place, text in places.items():
        assert len(text) > 1000, place
        for canary in canaries:
            assert canary not in text, f"{canary[:6]}… in {place}"
