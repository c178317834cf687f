"""docs/runbooks.md, played: what was lost or leaked, and what is to be done."""

from __future__ import annotations

import asyncio
import base64
import secrets
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from grpc_identity import Issuer, Verifier
from grpc_identity.v1 import admin_service_pb2 as admin_pb
from grpc_identity.v1 import clients_pb2
from grpc_identity.v1 import identity_service_pb2 as pb
from identity.app import IdentityServer
from identity.audit.event import Circumstances
from identity.backup import export_keyring, import_keyring, stored_keyring
from identity.bootstrap import bootstrap_client
from identity.diagnosis import examine
from identity.keys.administration import KeyAdministration
from identity.keys.keyring import KeyState
from identity.keys.ports import KeyStoreError
from identity.keys.sealing import SealError
from identity.parts import StoreParts

ISSUER = "https://id.example"


class Ahead:
    """The machine's clock, ahead by as much as a test says."""

    def __init__(self, ahead: timedelta) -> None:
        self.ahead = ahead

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead  # noqa: TID251 - moved by the test


async def stop(service: Any) -> None:
    await service.channel.close()
    await service.server.stop(0)


async def kids_of(service: Any) -> list[str]:
    return [key.kid for key in (await service.identity.GetJWKS(pb.GetJWKSRequest())).keys]


async def active_at(service: Any, token: str) -> bool:
    answer = await service.identity.Introspect(pb.IntrospectRequest(token=token), metadata=service.login)
    return bool(answer.active)


async def test_the_store_was_lost_while_an_instance_ran(
    service: Any, new_session: Any, wait_until: Callable[..., Awaitable[None]]
) -> None:
    before, secrets_before = await kids_of(service), service.server.keys.refresh_token_secrets()
    await service.server.store.connection.command("DEL", service.server.store.keys.keyring)

    async def is_back() -> bool:
        return await stored_keyring(service.settings) is not None

    await wait_until(is_back)
    assert await kids_of(service) == before
    assert service.server.keys.refresh_token_secrets() == secrets_before
    assert (await new_session()).tokens.access_token


async def test_the_store_was_lost_while_nothing_ran_and_the_keyring_is_imported(
    service: Any, start_service: Any, new_session: Any
) -> None:
    bundle = await export_keyring(service.settings)
    session = await new_session()
    before = await kids_of(service)
    space = service.server.store.keys
    await stop(service)
    # The sessions stay, so that their tokens show whether the old secrets are back.
    await _delete(service.settings, space.keyring, space.registry_clients, space.registry_revision)
    imported = await import_keyring(service.settings, bundle)
    assert [key.kid for key in imported.published] == before
    again = await start_service(service.settings)
    assert await kids_of(again) == before
    assert await active_at(again, session.tokens.access_token)
    refreshed = await again.identity.Refresh(
        pb.RefreshRequest(refresh_token=session.tokens.refresh_token), metadata=again.login
    )
    assert refreshed.tokens.access_token


async def test_an_instance_began_anew_before_the_import_and_both_keyrings_become_one(
    service: Any, start_service: Any, new_session: Any
) -> None:
    bundle = await export_keyring(service.settings)
    session = await new_session()
    (old,) = await kids_of(service)
    space = service.server.store.keys
    await stop(service)
    await _delete(service.settings, space.keyring, space.registry_clients, space.registry_revision)
    anew = await start_service(service.settings)
    (new,) = await kids_of(anew)
    assert new != old
    meanwhile = await anew.identity.IssueTokens(
        pb.IssueTokensRequest(subject="bob", audience=["orders"]), metadata=anew.login
    )
    await import_keyring(service.settings, bundle)
    await stop(anew)
    again = await start_service(service.settings)
    assert set(await kids_of(again)) == {old, new}
    assert await active_at(again, session.tokens.access_token)
    assert await active_at(again, meanwhile.tokens.access_token)
    # The secrets of the older are those that sessions and clients were made with.
    assert (
        await again.identity.Refresh(
            pb.RefreshRequest(refresh_token=session.tokens.refresh_token), metadata=again.login
        )
    ).tokens.access_token


async def test_an_import_brings_nothing_back_that_was_revoked(service: Any) -> None:
    bundle = await export_keyring(service.settings)
    (stolen,) = await kids_of(service)
    await service.administration.RevokeKey(admin_pb.RevokeKeyRequest(kid=stolen), metadata=service.admin)
    imported = await import_keyring(service.settings, bundle)
    key = imported.get(stolen)
    assert key is not None
    assert key.state is KeyState.REVOKED
    await service.server.keys.tick()
    assert stolen not in await kids_of(service)


@pytest.mark.parametrize("store", ["redis", "file"])
async def test_what_is_done_to_a_keyring_without_a_service_is_recorded_wherever_it_is(
    store: str, make_settings: Any, tmp_path: Path
) -> None:
    where = {"file": tmp_path / "keyring.json"} if store == "file" else {}
    settings = make_settings(keys={"store": store, **where})
    await bootstrap_client(
        settings, client_id="admin", display_name="Admin", policy=clients_pb2.ClientPolicy()
    )
    await import_keyring(settings, await export_keyring(settings))
    parts = StoreParts(settings)
    try:
        entries = [
            entry
            for bucket in parts.keys.buckets
            for _, entry in await parts.connection.command("XRANGE", bucket.outbox, "-", "+")
        ]
    finally:
        await parts.close()
    types = {dict(zip(entry[::2], entry[1::2], strict=True))[b"type"].decode() for entry in entries}
    assert {"key.created", "key.activated", "keyring.imported"} <= types


async def test_a_bundle_that_was_altered_or_is_of_another_key_is_refused(
    service: Any, make_settings: Any, tmp_path: Path, write_kek: Callable[[Path], Path]
) -> None:
    bundle = await export_keyring(service.settings)
    with pytest.raises(KeyStoreError, match="damaged"):
        await import_keyring(service.settings, bundle[:-20])
    other = make_settings(
        redis={"key_prefix": f"t{secrets.token_hex(6)}"}, keys={"kek_file": write_kek(tmp_path / "other")}
    )
    with pytest.raises(SealError, match="does not open"):
        await import_keyring(other, bundle)
    assert await stored_keyring(other) is None
    with pytest.raises(KeyStoreError, match="no keyring yet"):
        await export_keyring(other)


async def test_the_key_encryption_key_leaked(
    service: Any,
    make_settings: Any,
    start_service: Any,
    new_session: Any,
    tmp_path: Path,
    write_kek: Callable[[Path], Path],
) -> None:
    session = await new_session()
    leaked, (old,) = tmp_path / "kek", await kids_of(service)
    dump = await export_keyring(service.settings)
    await stop(service)
    prefix = {"key_prefix": service.settings.redis.key_prefix}
    fresh = write_kek(tmp_path / "fresh")
    changing = make_settings(redis=prefix, keys={"kek_file": fresh, "previous_kek_file": leaked})
    running = await start_service(changing)
    assert await kids_of(running) == [old]
    answer = await running.administration.ResealKeyring(
        admin_pb.ResealKeyringRequest(), metadata=running.admin
    )
    assert answer.resealed == 3
    answer = await running.administration.ResealKeyring(
        admin_pb.ResealKeyringRequest(), metadata=running.admin
    )
    assert answer.resealed == 0
    await stop(running)

    # What was sealed before opens nothing any more, and neither does the old key what is there now.
    with pytest.raises(SealError):
        await export_keyring(make_settings(redis=prefix, keys={"kek_file": leaked}))
    with pytest.raises(SealError):
        await import_keyring(make_settings(redis=prefix, keys={"kek_file": fresh}), dump)

    settled = await start_service(make_settings(redis=prefix, keys={"kek_file": fresh}))
    await settled.administration.RevokeKey(admin_pb.RevokeKeyRequest(kid=old), metadata=settled.admin)
    await settled.administration.RotateRefreshTokenSecret(
        admin_pb.RotateRefreshTokenSecretRequest(), metadata=settled.admin
    )
    assert not await active_at(settled, session.tokens.access_token)
    refreshed = await settled.identity.Refresh(
        pb.RefreshRequest(refresh_token=session.tokens.refresh_token), metadata=settled.login
    )
    assert await active_at(settled, refreshed.tokens.access_token)


async def test_the_key_has_expired_and_tokens_are_issued_all_the_same(
    service: Any, wait_until: Callable[..., Awaitable[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    (old,) = await kids_of(service)
    await stop(service)
    late = Ahead(timedelta(days=120))
    monkeypatch.setattr("identity.diagnosis.SystemClock", lambda: late)
    findings = {finding.subject: finding for finding in await examine(service.settings)}
    assert not findings["signing key"].healthy
    assert "should have retired" in findings["signing key"].message

    server = IdentityServer(service.settings, clock=late)
    await server.start()
    try:
        assert server.keys.active_signer().kid == old
        (_, successor) = server.keys.keyring.keys
        assert successor.state is KeyState.PENDING
        operator = KeyAdministration(server.keys)
        await operator.rotate(at_once=True, idempotency_key="", circumstances=Circumstances("", "test"))
        await wait_until(lambda: server.keys.active_signer().kid == successor.kid)
    finally:
        await server.stop(0)


async def test_a_secret_of_refresh_tokens_is_replaced_and_no_session_notices(
    service: Any, start_service: Any, new_session: Any, refused: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, idle = await new_session(), await new_session("bob")
    keys, clock = service.server.keys, Ahead(timedelta())
    monkeypatch.setattr(keys, "clock", clock)

    async def rotate(force: bool = False) -> int:
        request = admin_pb.RotateRefreshTokenSecretRequest(force=force)
        made = await service.administration.RotateRefreshTokenSecret(request, metadata=service.admin)
        return int(made.secret_number)

    def number(token: str) -> int:
        return base64.urlsafe_b64decode(token.removeprefix("gidr_")[:4])[1]

    def start(key: str) -> Awaitable[Any]:
        request = pb.IssueTokensRequest(subject="carol", audience=["orders"], idempotency_key=key)
        answer: Awaitable[Any] = service.identity.IssueTokens(request, metadata=service.login)
        return answer

    def family_of(answer: Any) -> str:
        return str(answer.tokens.session_id)

    first = number(session.tokens.refresh_token)
    begun = await start("before")
    second = await rotate()
    assert second == first + 1
    # Not yet: another instance may not have heard of it.
    assert number((await session.refresh()).refresh_token) == first
    refusal = await refused(
        service.administration.RotateRefreshTokenSecret(
            admin_pb.RotateRefreshTokenSecretRequest(), metadata=service.admin
        )
    )
    assert refusal.reason == "SECRET_STILL_NEEDED"
    clock.ahead = timedelta(seconds=61)
    await keys.tick()
    assert number((await session.refresh()).refresh_token) == second
    spent = session.tokens.refresh_token
    assert number((await session.refresh(spent, key="again")).refresh_token) == second
    # A repeated call gets the same token, whatever was rotated meanwhile.
    assert (await session.refresh(spent, key="again")).refresh_token == session.tokens.refresh_token

    # A repeated start is answered with the same session under two secrets, and not once its own is gone.
    assert family_of(await start("before")) == family_of(begun)
    begun_after = await start("after")

    third = await rotate(force=True)
    assert sorted(keys.refresh_token_secrets().by_id) == [second, third]
    refusal = await refused(
        service.identity.Refresh(
            pb.RefreshRequest(refresh_token=idle.tokens.refresh_token), metadata=service.login
        )
    )
    assert refusal.reason == "REFRESH_TOKEN_INVALID"
    assert (await refused(start("before"))).reason == "IDEMPOTENCY_KEY_REUSED"
    assert family_of(await start("after")) == family_of(begun_after)
    assert (await session.refresh()).refresh_token
    newcomer = await start_service(service.settings)
    assert (
        await newcomer.identity.Refresh(
            pb.RefreshRequest(refresh_token=session.tokens.refresh_token), metadata=newcomer.login
        )
    ).tokens.refresh_token


async def test_a_leaked_key_is_revoked_from_the_command_line(
    service: Any, new_session: Any, run_identity: Callable[..., Awaitable[tuple[int, str]]]
) -> None:
    await service.new_client("orders", clients_pb2.ClientPolicy(grants=["GRANT_VERIFY"]))
    verifier = Verifier(
        Issuer(
            ISSUER,
            target=service.addresses.grpc_target,
            audience="orders",
            client_id="orders",
            client_secret=service.secrets["orders"],
        )
    )
    await asyncio.to_thread(verifier.start)
    try:
        (stolen,) = await kids_of(service)
        code, output = await run_identity("keys", "revoke", stolen)
        assert code == 0, output
        assert f"{stolen} is revoked" in output
        assert "none of 1 connected verifiers holds it any more" in output
        assert stolen not in verifier.held_kids(ISSUER)
        code, output = await run_identity("keys", "list", "--json")
        assert '"state": "revoked"' in output
        code, output = await run_identity("keys", "revoke", "nothing")
        assert code == 1
        assert "identity keys list" in output
    finally:
        await asyncio.to_thread(verifier.close)


async def _delete(settings: Any, *keys: str) -> None:
    parts = StoreParts(settings)
    await parts.connection.command("DEL", *keys)
    await parts.close()
