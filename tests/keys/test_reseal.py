"""``identity keys reseal`` says that a key-encryption key opens nothing only where that is so."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from grpc_identity.v1 import admin_service_pb2 as admin_pb
from identity.audit.event import Circumstances
from identity.backup import export_keyring
from identity.keys.administration import KeyAdministration
from identity.keys.sealing import KeyEncryptionKey, SealError, load_kek_file

RESEAL = admin_pb.ResealKeyringRequest()


@pytest.fixture
def settings_with(make_settings: Any, service: Any) -> Callable[..., Any]:
    """Settings of a server that shares the store with the service, and has other key-encryption keys."""

    def make(**keys: Path) -> Any:
        return make_settings(redis={"key_prefix": service.settings.redis.key_prefix}, keys=keys)

    return make


async def test_a_server_that_was_not_restarted_does_not_call_the_key_it_still_uses_worthless(
    service: Any,
    start_service: Any,
    settings_with: Any,
    run_identity: Callable[..., Awaitable[tuple[int, str]]],
    wait_until: Callable[..., Awaitable[None]],
    tmp_path: Path,
    write_kek: Callable[[Path], Path],
) -> None:
    leaked, fresh = tmp_path / "kek", write_kek(tmp_path / "fresh")
    old, new = load_kek_file(leaked).fingerprint, load_kek_file(fresh).fingerprint
    code, output = await run_identity("keys", "reseal")
    assert code == 1, output
    assert output.startswith("identity: PREVIOUS_KEK_MISSING: ")
    assert old in output
    assert "keys.previous_kek_file" in output
    assert "opens nothing" not in output

    other = await start_service(settings_with(kek_file=fresh, previous_kek_file=leaked))
    for begin in ("3 seals were made anew:", "nothing was to do:"):
        code, output = await run_identity("keys", "reseal", at=other)
        assert code == 0, output
        assert output == (
            f"{begin} everything in the keyring is sealed under the key-encryption key {new}; the one before it, "
            f"{old}, opens nothing there\n"
        )
    with pytest.raises(SealError):
        await export_keyring(service.settings)

    def says_that_it_cannot_read_it() -> bool:
        return [problem.name for problem in service.server.keys.problems()] == ["keyring_unavailable"]

    await wait_until(says_that_it_cannot_read_it)

    async def knows_the_new_secret() -> bool:
        with contextlib.suppress(grpc.aio.AioRpcError):
            await service.administration.ListClients(admin_pb.ListClientsRequest(), metadata=other.admin)
            return True
        return False

    await wait_until(knows_the_new_secret)
    code, output = await run_identity(
        "keys", "rotate", at=other, IDENTITY_TARGET=service.addresses.grpc_target
    )
    assert code == 1, output
    assert output.startswith("identity: KEYRING_UNAVAILABLE: Nothing was changed: ")
    assert "is it running" not in output


async def test_a_previous_key_that_is_the_same_replaces_nothing(
    start_service: Any, settings_with: Any, refused: Any, tmp_path: Path
) -> None:
    leaked = tmp_path / "kek"
    running = await start_service(settings_with(kek_file=leaked, previous_kek_file=leaked))
    refusal = await refused(running.administration.ResealKeyring(RESEAL, metadata=running.admin))
    assert refusal.reason == "PREVIOUS_KEK_MISSING"


async def test_what_is_written_under_the_old_key_at_the_same_moment_is_sealed_anew_too(
    service: Any,
    start_service: Any,
    settings_with: Any,
    tmp_path: Path,
    write_kek: Callable[[Path], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    leaked, fresh = tmp_path / "kek", write_kek(tmp_path / "fresh")
    running = await start_service(settings_with(kek_file=fresh, previous_kek_file=leaked))
    store = running.server.store.keyring
    write, overtaken = store.compare_and_set, []

    async def write_second(*arguments: Any) -> bool:
        if not overtaken:
            overtaken.append(
                await KeyAdministration(service.server.keys).rotate(
                    at_once=False, idempotency_key="", circumstances=Circumstances("", "test")
                )
            )
        return bool(await write(*arguments))

    monkeypatch.setattr(store, "compare_and_set", write_second)
    answer = await running.administration.ResealKeyring(RESEAL, metadata=running.admin)
    assert answer.resealed == 4
    stored = await store.load()
    assert overtaken[0].kid in {key.kid for key in stored.published}
    old = load_kek_file(leaked)
    seals = [(key.sealed_private_key, f"signing-key/{key.kid}") for key in stored.keys]
    for sealed, name in [*seals, *((secret.sealed, secret.name) for secret in stored.secrets)]:
        with pytest.raises(SealError):
            old.open(sealed, name)


def test_a_fingerprint_is_of_one_key_and_holds_no_part_of_it() -> None:
    one, other = KeyEncryptionKey(bytes(32)), KeyEncryptionKey(bytes(31) + b"\1")
    assert one.fingerprint == KeyEncryptionKey(bytes(32), previous=other).fingerprint != other.fingerprint
    shown = KeyEncryptionKey(bytes(range(32)))
    assert shown.fingerprint not in shown.raw.hex()


async def test_the_fingerprint_can_be_had_from_the_settings(
    run_identity: Callable[..., Awaitable[tuple[int, str]]], tmp_path: Path, write_kek: Callable[[Path], Path]
) -> None:
    kek, fresh = tmp_path / "kek", write_kek(tmp_path / "fresh")
    config = tmp_path / "identity.toml"
    config.write_text(
        f'issuer = "https://id.example"\n[keys]\nkek_file = "{fresh}"\nprevious_kek_file = "{kek}"\n'
    )
    code, output = await run_identity("kek", "fingerprint", "--config", str(config))
    assert code == 0, output
    assert output == f"{load_kek_file(fresh).fingerprint}\n{load_kek_file(kek).fingerprint} (previous)\n"
