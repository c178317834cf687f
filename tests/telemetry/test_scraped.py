"""What is scraped from a server and from a relay is what happened, and all of the table."""

from __future__ import annotations

import contextlib
from typing import Any

import grpc
import pytest

from grpc_identity.v1 import admin_service_pb2 as admin_pb
from grpc_identity.v1 import clients_pb2
from grpc_identity.v1 import identity_service_pb2 as pb
from identity.relay_process import RelayProcess
from identity.telemetry.instruments import INSTRUMENTS, OTHER_CLIENTS, Where

CALLS = "rpc_server_call_duration_seconds_count"
REFRESH = "grpc_identity.v1.IdentityService/Refresh"


async def attempt(call: Any) -> None:
    with contextlib.suppress(grpc.aio.AioRpcError):
        await call


async def refresh(service: Any, token: str, key: str = "", address: str = "") -> None:
    request = pb.RefreshRequest(refresh_token=token, idempotency_key=key)
    if address:
        request.client_context.ip_address = address
    await attempt(service.identity.Refresh(request, metadata=service.login))


async def test_a_server_shows_every_instrument_and_no_other(
    service: Any, scrape: Any, new_session: Any
) -> None:
    await new_session()
    seen = await scrape(service.addresses.http_url)
    expected = {
        each.prometheus_name
        for each in INSTRUMENTS
        if each.where is not Where.RELAY and not each.name.startswith("identity.claims_source.")
    }
    assert seen.names == expected


async def test_calls_are_counted_by_method_status_and_reason(
    service: Any, scrape: Any, new_session: Any
) -> None:
    session = await new_session()
    await session.refresh()
    await refresh(service, "gidr_forged")
    await attempt(service.identity.Refresh(pb.RefreshRequest()))
    seen = await scrape(service.addresses.http_url)
    assert seen.value(CALLS, rpc_method=REFRESH, rpc_response_status_code="OK", error_type="") == 1
    assert seen.value(CALLS, rpc_method=REFRESH, error_type="REFRESH_TOKEN_INVALID") == 1
    assert seen.value(CALLS, rpc_method=REFRESH, error_type="CLIENT_UNAUTHENTICATED") == 1
    assert seen.value("rpc_server_call_duration_seconds_sum", rpc_method=REFRESH, error_type="") > 0
    assert seen.total(CALLS, rpc_system_name="grpc") == 4


async def test_a_call_that_its_caller_gives_up_is_cancelled(
    service: Any, scrape: Any, wait_until: Any
) -> None:
    await service.new_client("orders", clients_pb2.ClientPolicy(grants=["GRANT_VERIFY"]))
    from conftest import basic

    watch = service.identity.WatchVerifierState(metadata=basic("orders", service.secrets["orders"]))
    await watch.write(pb.WatchVerifierStateRequest(verifier_id="pod-1"))
    await watch.read()

    async def verifiers(state: str) -> float:
        seen = await scrape(service.addresses.http_url)
        return float(seen.value("identity_verifier_count", identity_verifier_state=state))

    assert await verifiers("connected") == 1
    watch.cancel()

    async def is_counted() -> bool:
        seen = await scrape(service.addresses.http_url)
        return bool(seen.total(CALLS, rpc_response_status_code="CANCELLED"))

    await wait_until(is_counted)
    assert await verifiers("connected") == 0


async def test_refreshes_are_counted_by_verdict_client_and_the_worst_address(
    service: Any, scrape: Any, new_session: Any
) -> None:
    session = await new_session()
    first = session.tokens.refresh_token
    await session.refresh(key="a")
    await refresh(service, first, "b")
    for address, times in (("192.0.2.1", 3), ("192.0.2.2", 1)):
        for _ in range(times):
            await refresh(service, "gidr_forged", address=address)
    seen = await scrape(service.addresses.http_url)
    verdicts = "identity_refreshes_total"
    assert seen.value(verdicts, identity_refresh_verdict="ROTATED") == 1
    assert seen.value(verdicts, identity_refresh_verdict="REUSED") == 1
    assert seen.value(verdicts, identity_refresh_verdict="UNKNOWN") == 4
    assert seen.value(verdicts, identity_refresh_verdict="RECOVERED") == 0
    by_client = "identity_client_refreshes_total"
    assert seen.value(by_client, identity_client_id="login", identity_event_outcome="success") == 1
    assert seen.value(by_client, identity_client_id="login", identity_event_outcome="refused") == 5
    assert seen.value("identity_refresh_address_failures") == 3
    assert seen.value("identity_revocations_total", identity_revocation_kind="reuse") == 1
    assert "192.0.2" not in seen.text


async def test_revocations_are_counted_by_what_they_took(service: Any, scrape: Any, new_session: Any) -> None:
    session = await new_session()
    for target in ({"subject": "alice"}, {"session_id": session.tokens.session_id}, {"token": "unknown"}):
        await service.identity.Revoke(pb.RevokeRequest(**target), metadata=service.login)
    await attempt(service.identity.Revoke(pb.RevokeRequest(client_id="admin"), metadata=service.login))
    await service.identity.EraseSubject(pb.EraseSubjectRequest(subject="bob"), metadata=service.admin)
    await service.administration.SetClientDisabled(
        admin_pb.SetClientDisabledRequest(client_id="login", disabled=True), metadata=service.admin
    )
    seen = await scrape(service.addresses.http_url)
    counts = {
        labels["identity_revocation_kind"]: value
        for labels, value in seen.samples["identity_revocations_total"]
    }
    assert {kind for kind, count in counts.items() if count} == {
        "subject",
        "session",
        "token",
        "erasure",
        "client_disabled",
    }


async def test_keys_have_an_age_and_the_next_a_time(service: Any, scrape: Any) -> None:
    seen = await scrape(service.addresses.http_url)
    kid = service.server.keys.active_signer().kid
    assert 0 <= seen.value("identity_signing_key_age_seconds", identity_key_id=kid) < 120
    assert (
        89 * 86_400 < seen.value("identity_signing_key_time_left_seconds", identity_key_id=kid) < 91 * 86_400
    )
    assert 88 * 86_400 < seen.value("identity_signing_key_next_rotation_seconds") < 91 * 86_400
    assert seen.value("identity_key_count", identity_key_state="active") == 1
    assert seen.value("identity_key_count", identity_key_state="pending") == 0
    await service.administration.RotateKeys(admin_pb.RotateKeysRequest(), metadata=service.admin)
    seen = await scrape(service.addresses.http_url)
    assert seen.value("identity_key_count", identity_key_state="pending") == 1
    assert 86_000 < seen.value("identity_signing_key_next_rotation_seconds") < 2 * 86_400


async def test_sessions_in_use_are_estimated_over_all_servers(
    make_settings: Any, start_service: Any, scrape: Any, wait_until: Any
) -> None:
    settings = make_settings()
    services = [await start_service(settings), await start_service(settings)]
    login = services[1].login

    async def knows_the_secret() -> bool:
        try:
            await services[0].identity.Introspect(pb.IntrospectRequest(token="x"), metadata=login)
        except grpc.aio.AioRpcError:
            return False
        return True

    await wait_until(knows_the_secret)
    for number, service in enumerate([*services, *services]):
        issued = await service.identity.IssueTokens(
            pb.IssueTokensRequest(subject=f"user-{number}", audience=["orders"]), metadata=login
        )
        # Wherever a session is refreshed, it is one.
        await services[0].identity.Refresh(
            pb.RefreshRequest(refresh_token=issued.tokens.refresh_token), metadata=login
        )
    for service in services:
        await service.server._sessions.tell()
    await services[0].server._sessions.tell()
    seen = await scrape(services[0].addresses.http_url)
    for window in ("15m", "24h"):
        assert seen.value("identity_session_active", identity_window=window) == 4


async def test_the_outbox_tells_of_what_waits(service: Any, scrape: Any, new_session: Any) -> None:
    for _ in range(3):
        await new_session()
    await service.server._backlog.look()
    seen = await scrape(service.addresses.http_url)
    waiting = seen.value("identity_audit_outbox_events")
    assert waiting >= 3
    assert seen.value("identity_audit_sink_behind", identity_audit_sink="otlp") == waiting
    assert 0 < seen.value("identity_audit_outbox_fullest_ratio") < 0.01
    assert 0 < seen.value("identity_audit_sink_lag_seconds", identity_audit_sink="otlp") < 60
    assert seen.value("identity_audit_outbox_oldest_age_seconds") > 0


async def test_a_relay_tells_what_it_has_delivered_and_which_sink_is_away(
    make_settings: Any, start_service: Any, collector: Any, scrape: Any, wait_until: Any, tmp_path: Any
) -> None:
    settings = make_settings(
        audit={
            "relay": False,
            "relay_listen": "127.0.0.1:0",
            "relay_poll_ms": 10,
            "sinks": ("otlp", "file"),
            "file_path": tmp_path / "audit.jsonl",
        }
    )
    service = await start_service(settings)
    collector.refusing = True
    await service.identity.IssueTokens(
        pb.IssueTokensRequest(subject="alice", audience=["orders"]), metadata=service.login
    )
    relay = RelayProcess(settings)
    url = await relay.start()
    try:

        async def is_seen() -> bool:
            seen = await scrape(url)
            return (
                seen.value("identity_audit_sink_delivered_total", identity_audit_sink="file") >= 3
                and seen.value("identity_audit_sink_up", identity_audit_sink="otlp") == 0
                and seen.value("identity_audit_sink_behind", identity_audit_sink="otlp") >= 3
                and seen.value("identity_audit_sink_behind", identity_audit_sink="file") == 0
            )

        await wait_until(is_seen)
        seen = await scrape(url)
        assert seen.value("identity_audit_sink_up", identity_audit_sink="file") == 1
        assert seen.value("identity_audit_sink_lag_seconds", identity_audit_sink="otlp") > 0
        assert seen.value("identity_audit_sink_lag_seconds", identity_audit_sink="file") == 0
        assert seen.names == {each.prometheus_name for each in INSTRUMENTS if each.where is not Where.SERVER}
        await wait_until_problem(scrape, url, wait_until)
    finally:
        await relay.stop()


async def wait_until_problem(scrape: Any, url: str, wait_until: Any) -> None:
    async def is_named() -> bool:
        seen = await scrape(url)
        return bool(seen.value("identity_problem", identity_problem_name="audit_sink_takes_nothing"))

    await wait_until(is_named)
    assert (await scrape(url)).value("identity_ready") == 1


async def test_round_trips_to_the_store_are_timed_and_failures_named(
    make_settings: Any, start_service: Any, new_valkey: Any, scrape: Any, wait_until: Any
) -> None:
    server = new_valkey({"maxmemory-policy": "noeviction", "save": ""})
    service = await start_service(make_settings(redis={"url": server.connection_url}))
    duration = "db_client_operation_duration_seconds_count"
    seen = await scrape(service.addresses.http_url)
    trips = seen.value(duration, identity_store_lane="calls", error_type="", db_system_name="redis")
    assert 0 < trips <= seen.value("identity_store_calls_total", identity_store_lane="calls")
    assert seen.total("db_client_connection_count", db_client_connection_pool_name="store") > 0
    server.stop()

    async def fails() -> bool:
        seen = await scrape(service.addresses.http_url)
        named = [labels["error_type"] for labels, _ in seen.samples[duration] if labels["error_type"]]
        return bool(named) and seen.value("identity_ready") == 0

    await wait_until(fails)
    seen = await scrape(service.addresses.http_url)
    assert seen.value("identity_problem", identity_problem_name="store_unreachable") == 1


@pytest.mark.parametrize("clients", [99, 100, 150])
def test_so_many_clients_have_series_of_their_own(clients: int) -> None:
    from identity.rpc.metrics import RefreshMetrics
    from identity.store.decisions import SpendVerdict
    from identity.telemetry.instruments import CLIENT_REFRESHES, MAX_CLIENTS
    from identity.telemetry.meters import Meters

    meters = Meters()
    metrics = RefreshMetrics(meters)
    for _ in range(2):
        for number in range(clients):
            metrics.refreshed(SpendVerdict.UNKNOWN, f"client-{number}", "")
    (family,) = [metric for each, metric in meters.collected() if each is CLIENT_REFRESHES]
    counts = {
        sample.labels["identity_client_id"]: sample.value
        for sample in family.samples
        if sample.labels["identity_event_outcome"] == "refused"
    }
    assert len(counts) == min(clients, MAX_CLIENTS) + (clients > MAX_CLIENTS)
    assert counts.get(OTHER_CLIENTS, 0) == 2 * max(clients - MAX_CLIENTS, 0)
    assert sum(counts.values()) == 2 * clients


async def test_what_cannot_be_observed_takes_nothing_else_along(service: Any, scrape: Any) -> None:
    service.server._roster.verifiers = None
    seen = await scrape(service.addresses.http_url)
    assert "identity_verifier_count" not in seen.names
    assert seen.value("identity_ready") == 1
