"""The private half of every signing key, looked for in all that a service writes or says, as numbers and bytes are written."""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from redis.asyncio import Redis
from stores import start_valkey

from grpc_identity.v1 import admin_service_pb2 as admin_pb
from grpc_identity.v1 import identity_service_pb2 as pb
from identity.backup import export_keyring
from identity.keys.providers import local
from identity.keys.providers.local import PrivateKey, generate_private_key, to_der

ALGORITHMS = ("ES256", "RS256", "EdDSA")
ISSUE = pb.IssueTokensRequest(subject="alice", audience=["orders"])


def private_numbers(key: PrivateKey) -> dict[str, bytes]:
    """What nobody must know, big endian without leading zeros, by its name in RFC 7518."""
    match key:
        case ec.EllipticCurvePrivateKey():
            values = {"d": key.private_numbers().private_value}
        case ed25519.Ed25519PrivateKey():
            values = {"d": int.from_bytes(key.private_bytes_raw())}
        case rsa.RSAPrivateKey():
            found = key.private_numbers()
            values = {
                "d": found.d, "p": found.p, "q": found.q, "dp": found.dmp1, "dq": found.dmq1, "qi": found.iqmp,
            }  # fmt: skip
    return {name: value.to_bytes((value.bit_length() + 7) // 8) for name, value in values.items()}


def spellings(value: bytes) -> Iterator[tuple[str, bytes]]:
    """A value as somebody may have written it, alone or in the midst of other bytes."""
    yield "raw", value
    yield "raw, little endian", value[::-1]
    # Python escapes the one quote or the other.
    escaped = repr(value + b"'" + b'"')[2:-4].replace("\\'", "'").encode()
    yield "repr", escaped
    yield "repr, quotes escaped", escaped.replace(b"'", b"\\'")
    yield "hex", value.hex().lstrip("0").encode()
    yield "HEX", value.hex().lstrip("0").upper().encode()
    yield "decimal", str(int.from_bytes(value)).encode()
    yield "decimal, little endian", str(int.from_bytes(value, "little")).encode()
    for before in range(3):
        # What is shared with neighbours is left out.
        text = base64.b64encode(bytes(before) + value)[4 if before else 0 : -4]
        yield f"base64 after {before}", text
        yield f"base64url after {before}", text.translate(bytes.maketrans(b"+/", b"-_"))


def found_in(text: bytes, keys: list[PrivateKey]) -> list[str]:
    """Which private number is there, and how it is spelled."""
    return [
        f"{type(key).__name__} {number}: {spelling}"
        for key in keys
        for number, value in private_numbers(key).items()
        for spelling, needle in spellings(value)
        if needle in text
    ]


def files_in(folder: Path) -> bytes:
    """Everything that lies there, byte for byte."""
    return b"\n".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_private_half_would_be_found_however_it_is_written(algorithm: str) -> None:
    key = generate_private_key(algorithm)
    for value in private_numbers(key).values():
        number = int.from_bytes(value)
        for text in (
            value, value.hex().encode(), str(number).encode(), f"{number:X}".encode(), repr(b"x" + value).encode(),
            *(base64.b64encode(b"y" * offset + value + b"z" * offset) for offset in range(7)),
            *(base64.urlsafe_b64encode(b"y" * offset + value + b"z") for offset in range(7)),
        ):  # fmt: skip
            assert found_in(b"before " + text + b" after", [key]), text
    assert found_in(to_der(key), [key])
    assert found_in(base64.b64encode(to_der(key)), [key])
    assert not found_in(to_der(generate_private_key(algorithm)), [key])


@pytest.mark.parametrize("store", ["redis", "file"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_no_private_half_is_in_the_store_on_disk_in_logs_metrics_or_spans(
    algorithm: str, store: str, make_settings: Any, start_service: Any, wait_until: Any, collector: Any,
    monkeypatch: pytest.MonkeyPatch, caplog: Any, tmp_path: Path,
) -> None:  # fmt: skip
    caplog.set_level(logging.DEBUG)
    made: list[PrivateKey] = []

    def make(wanted: str) -> PrivateKey:
        made.append(generate_private_key(wanted))
        return made[-1]

    monkeypatch.setattr(local, "generate_private_key", make)
    config = {"maxmemory-policy": "noeviction", "appendonly": "yes", "save": "", "rdbcompression": "no"}
    valkey = await asyncio.to_thread(start_valkey, config, data_dir=tmp_path / "valkey")
    try:
        where = {"store": store} | ({"file": tmp_path / "keyring.json"} if store == "file" else {})
        service = await start_service(
            make_settings(
                redis={"url": f"{valkey.connection_url}/0"},
                audit={"relay": True, "relay_poll_ms": 10},
                keys={"algorithm": algorithm, **where},
            )
        )
        said = [await service.identity.IssueTokens(ISSUE, metadata=service.login)]
        keys = service.server.keys
        for number in range(2):
            request = admin_pb.RotateKeysRequest(now=True, idempotency_key=f"{number}")
            new = (await service.administration.RotateKeys(request, metadata=service.admin)).key
            await wait_until(lambda new=new: keys.active_signer().kid == new.public_key.kid)
            said.append(await service.identity.IssueTokens(ISSUE, metadata=service.login))
        revoke = admin_pb.RevokeKeyRequest(kid=keys.active_signer().kid)
        said.append(await service.administration.RevokeKey(revoke, metadata=service.admin))
        said.append(await service.administration.ListKeys(admin_pb.ListKeysRequest(), metadata=service.admin))
        waits = admin_pb.RotateKeysRequest(idempotency_key="waits")
        said.append(await service.administration.RotateKeys(waits, metadata=service.admin))
        bundle = await export_keyring(service.settings)
        await wait_until(lambda: len(collector.of_type("key.created")) == len(made))
        async with httpx.AsyncClient() as client:
            for path in ("/.well-known/jwks.json", "/metrics", "/readyz"):
                said.append((await client.get(service.addresses.http_url + path)).text)  # noqa: PERF401
        redis = Redis.from_url(valkey.connection_url)
        await redis.execute_command("SAVE")
        commands = [await redis.dump(key) or b"" async for key in redis.scan_iter()]
        await redis.aclose()
        places = {
            "the store": b"\n".join(commands),
            "the disk": await asyncio.to_thread(files_in, tmp_path),
            "a backup": bundle.encode(),
            "the log": caplog.text.encode(),
            "a span": b"\n".join(span.SerializeToString() for span in collector.spans),
            "an answer": "\n".join(map(str, said)).encode(),
            "a repr": "\n".join(map(repr, (keys, keys.keyring, keys.custody, keys.active_signer()))).encode(),
        }
        assert len(made) == 5
        assert b"key.created" in places["the disk"]
        for place, text in places.items():
            assert len(text) > 100, place
            assert not (found := found_in(text, made)), (place, found)
        # What each key is called is in all of them, so that one that holds nothing would be noticed.
        kid = keys.active_signer().kid.encode()
        assert all(kid in text for text in places.values())
    finally:
        await asyncio.to_thread(valkey.stop)
