"""Every RPC is driven with canaries; none of them may turn up where secrets and tokens do not belong."""

from __future__ import annotations

import base64
import logging
from pathlib import Path
from typing import Any

import grpc
from cryptography.hazmat.primitives.serialization import load_der_private_key
from prometheus_client import generate_latest
from stores import open_async_client

from grpc_identity.v1 import admin_service_pb2 as admin_pb
from grpc_identity.v1 import clients_pb2
from grpc_identity.v1 import identity_service_pb2 as pb
from identity.tokens.refresh_token import RefreshTokenCodec

CANARY_SECRET = "CANARY-client-secret-8f3a"
CANARY_TOKEN = "CANARY-token-c41d"
CANARY_KEY = "CANARY-idempotency-key-77e0"


def every_method() -> list[tuple[str, Any]]:
    """Every method of both services, with requests that carry canaries wherever text fits."""
    methods = []
    for module, name in ((pb, "IdentityService"), (admin_pb, "AdminService")):
        for method in module.DESCRIPTOR.services_by_name[name].methods:
            request = getattr(module, method.input_type.name)()
            for field, value in (
                ("refresh_token", CANARY_TOKEN),
                ("token", CANARY_TOKEN),
                ("subject_token", CANARY_TOKEN),
                ("idempotency_key", CANARY_KEY),
            ):
                if field in method.input_type.fields_by_name:
                    setattr(request, field, value)
            methods.append((f"/grpc_identity.v1.{name}/{method.name}", request))
    return methods


def content_of(folder: Path) -> str:
    """Everything that lies there."""
    return "\n".join(path.read_text(errors="replace") for path in folder.rglob("*") if path.is_file())


async def dump_of(service: Any) -> bytes:
    """Everything the store holds, keys and values."""
    redis = open_async_client(service.settings.redis.url.get_secret_value())
    parts: list[bytes] = []
    readers: dict[bytes, Any] = {
        b"string": redis.get,
        b"hash": redis.hgetall,
        b"stream": redis.xrange,
        b"zset": lambda name: redis.zrange(name, 0, -1),
    }
    async for key in redis.scan_iter(match=f"{service.settings.redis.key_prefix}:*"):
        kind = await redis.type(key)
        parts += [key, repr(await readers[kind](key)).encode()]
    await redis.aclose()
    return b"\n".join(parts)


async def call_every_method(service: Any, metadata: Any) -> list[str]:
    """The texts of all errors."""
    texts = []
    for path, request in every_method():
        call: Any
        if path.endswith("WatchVerifierState"):
            call = service.channel.stream_stream(path, type(request).SerializeToString)(
                iter([request]), metadata=metadata
            ).read()
        else:
            call = service.channel.unary_unary(path, type(request).SerializeToString)(
                request, metadata=metadata
            )
        try:
            await call
        except grpc.aio.AioRpcError as error:
            texts.append(f"{error!r} {error.details()} {error.trailing_metadata()}")
    return texts


async def test_no_secret_and_no_token_turns_up_in_logs_spans_errors_or_the_store(
    make_settings: Any, start_service: Any, collector: Any, wait_until: Any, caplog: Any, tmp_path: Path
) -> None:
    caplog.set_level(logging.DEBUG)
    service = await start_service(make_settings(audit={"relay": True, "relay_poll_ms": 10}))
    wrong = base64.b64encode(f"login:{CANARY_SECRET}".encode()).decode()
    errors = await call_every_method(service, (("authorization", f"Basic {wrong}"),))
    errors += await call_every_method(service, service.login)
    errors += await call_every_method(service, service.admin)
    await service.administration.RotateKeys(admin_pb.RotateKeysRequest(), metadata=service.admin)
    secrets_and_tokens = {CANARY_SECRET, CANARY_TOKEN, CANARY_KEY, wrong, *service.secrets.values()}

    issued = await service.identity.IssueTokens(
        pb.IssueTokensRequest(subject="alice", audience=["orders"], idempotency_key=CANARY_KEY),
        metadata=service.login,
    )
    tokens = [issued.tokens]
    for number in range(3):
        refreshed = await service.identity.Refresh(
            pb.RefreshRequest(
                refresh_token=tokens[-1].refresh_token, idempotency_key=f"{CANARY_KEY}-{number}"
            ),
            metadata=service.login,
        )
        tokens.append(refreshed.tokens)
    for item in tokens:
        await service.identity.Introspect(
            pb.IntrospectRequest(token=item.access_token), metadata=service.login
        )
        await service.identity.Introspect(
            pb.IntrospectRequest(token=item.refresh_token), metadata=service.login
        )
    try:
        await service.identity.Refresh(
            pb.RefreshRequest(refresh_token=tokens[0].refresh_token), metadata=service.login
        )
    except grpc.aio.AioRpcError as error:
        errors.append(f"{error!r} {error.trailing_metadata()}")
    await service.identity.Revoke(pb.RevokeRequest(token=tokens[-1].access_token), metadata=service.login)
    await service.identity.Revoke(pb.RevokeRequest(token=tokens[-1].refresh_token), metadata=service.login)
    await service.new_client("another", clients_pb2.ClientPolicy(grants=["GRANT_ISSUE"]))
    rotated = await service.administration.RotateClientSecret(
        admin_pb.RotateClientSecretRequest(client_id="another"), metadata=service.admin
    )
    secrets_and_tokens |= {rotated.client_secret, service.secrets["another"]}

    keys = service.server.keys
    refresh_secrets = keys.refresh_token_secrets()
    codec = RefreshTokenCodec(refresh_secrets.by_id, refresh_secrets.active_id)
    family_secret = codec.decode(tokens[0].refresh_token).family_secret
    raw = [family_secret, keys.client_secret_pepper(), *refresh_secrets.by_id.values()]
    signing = [keys.custody._private_part(key) for key in keys.keyring.keys if key.sealed_private_key]
    scalars = [load_der_private_key(der, None).private_numbers().private_value for der in signing if der]
    assert len(scalars) >= 2
    raw += [*signing, *(scalar.to_bytes(32) for scalar in scalars)]
    secrets_and_tokens |= {str(scalar) for scalar in scalars}
    secrets_and_tokens |= {item.access_token for item in tokens} | {item.refresh_token for item in tokens}
    # A token without its signature or prefix would serve a thief nearly as well.
    secrets_and_tokens |= {item.access_token.rsplit(".", 1)[1] for item in tokens}
    secrets_and_tokens |= {item.refresh_token[5:-6] for item in tokens}
    secrets_and_tokens |= {value.hex() for value in raw} | {repr(value)[2:-1] for value in raw}
    secrets_and_tokens |= {base64.b64encode(value).decode().rstrip("=") for value in raw}
    secrets_and_tokens |= {base64.urlsafe_b64encode(value).decode().rstrip("=") for value in raw}

    # The store before the outbox is emptied, then the spans that came out of it.
    stored = (await dump_of(service)).decode("utf-8", "replace")
    await wait_until(lambda: collector.of_type("client.secret_rotated"))
    places = {
        "a log": caplog.text,
        "a span": "\n".join(str(span) for span in collector.spans),
        "an error": "\n".join(errors),
        "a metric": generate_latest(service.server.meters.registry).decode(),
        "a file": content_of(tmp_path),
        "what is published": str(await service.identity.GetJWKS(pb.GetJWKSRequest()))
        + str(await service.administration.ListKeys(admin_pb.ListKeysRequest(), metadata=service.admin)),
        "the store": stored,
        "a repr": "\n".join(repr(item) for item in (keys, service.server, codec, service.settings)),
    }
    assert len(errors) > 40
    assert len(collector.spans) > 10
    for place, text in places.items():
        assert len(text) > 40, place
        for canary in secrets_and_tokens:
            assert canary not in text, f"{canary[:12]}… in {place}"


async def test_grpc_itself_logs_no_metadata_that_is_not_utf_8(service: Any, caplog: Any) -> None:
    # What gRPC does on its own with such a value, whose sending takes a client that gRPC's are not.
    value = f"Bearer {CANARY_TOKEN}".encode() + b"\xe9"
    try:
        value.decode()
    except UnicodeDecodeError:
        logging.getLogger("grpc._cython.cygrpc").exception("Invalid encoding on %s", value)
    assert "not UTF-8" in caplog.text
    assert CANARY_TOKEN not in caplog.text
