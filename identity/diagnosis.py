"""What the service stands on, examined from outside: the findings of ``identity doctor``."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from redis.exceptions import RedisError

from identity.audit.sink_agreement import sinks_differ
from identity.backup import stored_keyring
from identity.clock import SystemClock
from identity.config import ConfigurationError, Settings
from identity.errors import IdentityError
from identity.keys.ports import KeyStoreError
from identity.keys.sealing import SealError
from identity.parts import StoreParts, claims_source_transport, key_encryption_key
from identity.rpc.server import ListenError, require_loopback, split_address
from identity.store.redis.fitness import look_at

MAX_CLOCK_DIFFERENCE = timedelta(seconds=5)
CONNECT_TIMEOUT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. Of what is wrong, the message says how to mend it."""

    subject: str
    healthy: bool
    message: str


async def examine(settings: Settings) -> Sequence[Finding]:
    """Looks at everything; never raises for what it finds."""
    now = SystemClock().now()
    findings = [Finding("configuration", True, f"issuer {settings.issuer}, {settings.environment}")]
    findings.append(_listening(settings))
    findings += await _keys(settings, now)
    findings += await _store(settings, now)
    findings += await _claims_source(settings)
    return findings


def _listening(settings: Settings) -> Finding:
    try:
        host, _ = split_address(settings.grpc.listen)
        if settings.grpc.tls_certificate_file is None:
            require_loopback(host, allow_plaintext=settings.grpc.allow_plaintext)
            how = "plain text"
        else:
            how = "mTLS" if settings.grpc.tls_client_ca_file else "TLS"
    except ListenError as error:
        return Finding("gRPC port", False, str(error))
    return Finding("gRPC port", True, f"{settings.grpc.listen}, {how}")


async def _keys(settings: Settings, now: datetime) -> Sequence[Finding]:
    is_in_file = settings.keys.store == "file"
    path = settings.keys.file
    try:
        kek = key_encryption_key(settings)
        keyring = await stored_keyring(settings)
    except (ConfigurationError, KeyStoreError, SealError) as error:
        return [Finding("keys", False, str(error))]
    if keyring is None:
        where = f"at {path}" if is_in_file else "in the store"
        return [Finding("keys", True, f"none yet {where}; the service makes them when it first starts")]
    findings = []
    if is_in_file and path.stat().st_mode & 0o077:
        findings.append(Finding("keyring file", False, f"others may read {path}; mend it: chmod 600 {path}"))
    try:
        for secret in keyring.secrets:
            kek.open(secret.sealed, secret.name)
    except SealError as error:
        findings.append(Finding("key-encryption key", False, str(error)))
    active = keyring.active
    if active is None:
        findings.append(Finding("signing key", False, "none is active; start the service to have one made"))
    elif now > active.retires_at:
        overdue = (now - active.retires_at).days
        findings.append(
            Finding(
                "signing key",
                False,
                f"{active.kid} should have retired {overdue} days ago; start the service",
            )
        )
    else:
        left = (active.retires_at - now).days
        findings.append(
            Finding("signing key", True, f"{active.kid} ({active.algorithm}), signs {left} more days")
        )
    return findings


async def _store(settings: Settings, now: datetime) -> Sequence[Finding]:
    store = StoreParts(settings)
    try:
        problems = await store.problems()
        findings = [Finding("store", False, problem.message) for problem in problems]
        if any(problem.blocks for problem in problems):
            return findings
        for server, info in await look_at(store.connection):
            if info is not None:
                time = await server.redis.time()
                findings += _server(server.name, info, time, settings, now)
        findings.append(await _audit(settings, store))
    except IdentityError as error:
        findings.append(Finding("audit sinks", False, f"the relays that live cannot be read: {error.reason}"))
    except (RedisError, OSError) as error:
        return [Finding("store", False, f"does not answer: {type(error).__name__}; check redis.url")]
    finally:
        await store.close()
    return findings


def _server(
    name: str, info: Mapping[str, Any], time: tuple[int, int], settings: Settings, now: datetime
) -> Sequence[Finding]:
    place = f" {name}" if name else ""
    version = info.get("valkey_version") or info.get("redis_version")
    what = f"{info.get('server_name', 'redis')} {version}, {info['maxmemory_policy']}"
    findings = [Finding(f"store{place}", True, what)]
    if not info.get("aof_enabled"):
        findings.append(
            Finding(
                f"store durability{place}",
                settings.environment == "development",
                "appendonly is off: a restart of the store ends every session. Set it: CONFIG SET appendonly yes",
            )
        )
    seconds, microseconds = time
    difference = abs(now.timestamp() - (seconds + microseconds / 1e6))
    healthy = difference <= MAX_CLOCK_DIFFERENCE.total_seconds()
    hint = "" if healthy else "; synchronise both machines by NTP, or verifiers will refuse new tokens"
    findings.append(
        Finding(f"clock{place}", healthy, f"differs from the store's by {difference:.1f} s{hint}")
    )
    return findings


async def _audit(settings: Settings, store: StoreParts) -> Finding:
    relays = await store.relay_outbox.living()
    for problem in sinks_differ(settings.audit.sinks, relays):
        return Finding("audit sinks", False, problem.message)
    return Finding("audit sinks", True, f"{', '.join(settings.audit.sinks)}; relays that live: {len(relays)}")


async def _claims_source(settings: Settings) -> Sequence[Finding]:
    try:
        transport = claims_source_transport(settings)
    except ConfigurationError as error:
        return [Finding("claims source", False, str(error))]
    if transport is None:
        return []
    try:
        async with transport.open() as channel, asyncio.timeout(CONNECT_TIMEOUT_SECONDS):
            await channel.channel_ready()
    except TimeoutError:
        message = f"no connection to {transport.target}; check claims_source.target and its TLS files"
        return [Finding("claims source", False, message)]
    return [Finding("claims source", True, transport.target)]
