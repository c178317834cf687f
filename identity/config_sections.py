"""The settings, section by section: typed, bounded, each with what it is for.

A secret may come from a file: ``redis.url_file`` in place of ``redis.url``.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    field_validator,
    model_validator,
)

from identity.keys.schedule import Schedule
from identity.store.redis.address import StoreAddress
from identity.tokens.access_token import MAX_PRIVATE_CLAIMS, is_claim_name


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


def _from_file(section: Any, name: str) -> Any:
    """Puts the content of ``<name>_file`` in place of ``<name>``."""
    if not isinstance(section, dict) or section.get(f"{name}_file") is None:
        return section
    if section.get(name) is not None:
        raise ValueError(f"set {name} or {name}_file, not both")
    path = Path(section[f"{name}_file"])
    try:
        content = path.read_text().strip()
    except OSError as error:
        raise ValueError(f"cannot read {name}_file {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"cannot read {name}_file {path}: it is not text") from None
    return {key: value for key, value in section.items() if key != f"{name}_file"} | {name: content}


def _names(value: Any) -> Any:
    return [name for name in value.replace(",", " ").split() if name] if isinstance(value, str) else value


class GrpcSettings(_Section):
    """The gRPC port."""

    listen: str = Field("127.0.0.1:50051", description="host:port; port 0 picks a free one")
    tls_certificate_file: Path | None = Field(None, description="PEM certificate chain; turns TLS on")
    tls_private_key_file: Path | None = Field(None, description="PEM private key of the certificate")
    tls_client_ca_file: Path | None = Field(
        None, description="PEM roots of client certificates; turns mTLS on"
    )
    allow_plaintext: bool = Field(False, description="plain text on other addresses than loopback")
    reflection: bool | None = Field(
        None, description="server reflection, for authenticated clients; default: in development only"
    )
    drain_seconds: Annotated[float, Field(ge=0, le=300)] = Field(
        10.0, description="how long calls under way may take at shutdown"
    )
    max_message_bytes: Annotated[int, Field(ge=4096, le=4 * 1024 * 1024)] = Field(
        65_536, description="largest request"
    )
    max_metadata_bytes: Annotated[int, Field(ge=4096, le=65_536)] = Field(
        16_384, description="largest metadata"
    )
    max_concurrent_calls: Annotated[int, Field(ge=1, le=100_000)] = Field(
        2000, description="calls under way; more are answered RESOURCE_EXHAUSTED"
    )


class HttpSettings(_Section):
    """The HTTP port: public keys, health, metrics."""

    enabled: bool = Field(True, description="whether to listen at all")
    listen: str = Field("127.0.0.1:8080", description="host:port; port 0 picks a free one")


class RedisSettings(_Section):
    """The session store."""

    url: SecretStr = Field(
        SecretStr("redis://127.0.0.1:6379/0"),
        description=(
            "redis://host:6379/0, unix:///path, redis+sentinel://h1:26379,h2:26379/<service name>/0 or "
            "redis+cluster://h1:6379,h2:6379; rediss for TLS; may carry user:password@"
        ),
    )
    url_file: Path | None = Field(None, description="file that holds the url")
    key_prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,32}$")] = Field(
        "gi", description="first part of every key"
    )
    buckets: Annotated[int, Field(ge=1, le=4096)] = Field(
        64, description="fixed when a store is first used; decides how a cluster shares the load"
    )
    timeout_ms: Annotated[int, Field(ge=50, le=60_000)] = Field(
        2000, description="after which the store counts as away"
    )
    refresh_durability: Literal["none", "replica", "disk"] = Field(
        "none", description="where a start or refresh must be before it is answered"
    )
    revoke_durability: Literal["none", "replica", "disk"] = Field(
        "none", description="where a revocation must be before it is answered"
    )
    max_batch: Annotated[int, Field(ge=1, le=1024)] = Field(128, description="calls that share a round trip")

    @model_validator(mode="before")
    @classmethod
    def _read_files(cls, section: Any) -> Any:
        return _from_file(section, "url")

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: SecretStr) -> SecretStr:
        StoreAddress.parse(url.get_secret_value())
        return url


class KeySettings(_Section):
    """Signing keys and the secrets beside them."""

    store: Literal["redis", "file"] = Field(
        "redis", description="where the keyring is: with the sessions, or in a file, for one machine"
    )
    file: Path = Field(Path("keyring.json"), description="the keyring, where keys.store is file")
    kek: SecretStr | None = Field(None, description="key-encryption key: 32 bytes in base64")
    kek_file: Path | None = Field(None, description="file that holds it, mode 0600")
    previous_kek_file: Path | None = Field(
        None, description="file of the one before, which still opens; until: identity keys reseal"
    )
    algorithm: Literal["ES256", "RS256", "EdDSA"] = Field(
        "ES256", description="of keys that are made from now on"
    )
    publish_ahead_hours: Annotated[float, Field(ge=2, le=24 * 30)] = Field(
        24.0, description="a key is published this long before it signs"
    )
    sign_days: Annotated[float, Field(gt=0, le=90)] = Field(90.0, description="a key signs this long")
    kek_provider: str = Field(
        "local:", description="URI of what unwraps the key-encryption key; local: it is not wrapped"
    )
    provider: str = Field(
        "local:", description="URI of where new keys are made and sign; see docs/key-providers.md"
    )
    former_providers: Annotated[tuple[str, ...], BeforeValidator(_names)] = Field(
        (), description="URIs of other providers that still hold keys of the keyring"
    )
    provider_timeout_ms: Annotated[int, Field(ge=100, le=10_000)] = Field(
        2000, description="a signature from elsewhere may take, with all attempts"
    )
    provider_concurrency: Annotated[int, Field(ge=1, le=256)] = Field(
        16, description="signatures under way elsewhere, and sessions with an HSM"
    )

    secret_days: Annotated[float, Field(ge=31)] = Field(
        90.0, description="the secret of refresh tokens is replaced when it is so old"
    )

    @model_validator(mode="after")
    def _check_file(self) -> Self:
        if self.store != "file" and "file" in self.model_fields_set:
            # Passed over in silence, it would have the service begin with new keys beside those in the file.
            raise ValueError('file is where the keyring is only with store = "file"')
        return self

    @model_validator(mode="after")
    def _check_schedule(self) -> Self:
        self.schedule()
        return self

    def schedule(self) -> Schedule:
        """When keys come and go. Raises ``ValueError`` for one by which good tokens could be refused."""
        return Schedule(
            publish_ahead=timedelta(hours=self.publish_ahead_hours),
            sign_for=timedelta(days=self.sign_days),
            secret_for=timedelta(days=self.secret_days),
        )


class TokenSettings(_Section):
    """Lifetimes, where a client's policy names none."""

    access_ttl_seconds: Annotated[int, Field(ge=60, le=900)] = Field(600, description="of access tokens")
    web_session_days: Annotated[float, Field(gt=0, le=30)] = Field(
        7.0, description="absolute, of web sessions"
    )
    mobile_session_days: Annotated[float, Field(gt=0, le=30)] = Field(
        30.0, description="absolute, of mobile sessions"
    )
    idle_hours: Annotated[float, Field(gt=0, le=720)] = Field(
        48.0, description="a session unused this long ends"
    )
    retry_window_seconds: Annotated[int, Field(ge=10, le=600)] = Field(
        120, description="how long a call with the same idempotency key gets the same answer"
    )
    recovery_window_seconds: Annotated[int, Field(ge=0, le=30 * 24 * 3600)] = Field(
        24 * 3600,
        description="how long after its last known use a session is caught up with that the store lost writes of",
    )
    refresh_leeway_seconds: Annotated[int, Field(ge=0, le=60)] = Field(
        10, description="how long a spent token gets the same answer, for callers without keys"
    )


class LimitSettings(_Section):
    """Calls per minute. ``strict`` holds every address to 5 refreshes a minute."""

    profile: Literal["default", "strict"] = Field(
        "default", description="strict overrides the two of an address"
    )
    refreshes_per_family_per_minute: Annotated[int, Field(ge=1)] = Field(5, description="of one session")
    address_successes_per_minute: Annotated[int, Field(ge=1)] = Field(
        300, description="refreshes from one end-user address"
    )
    address_failures_per_minute: Annotated[int, Field(ge=1)] = Field(
        30, description="refused refreshes from one end-user address"
    )

    sessions_per_subject: Annotated[int, Field(ge=1, le=500)] = Field(
        50, description="of one subject at one client; the one not used for longest makes room"
    )

    @property
    def effective_address_successes_per_minute(self) -> int:
        """With the profile applied."""
        return 5 if self.profile == "strict" else self.address_successes_per_minute

    @property
    def effective_address_failures_per_minute(self) -> int:
        """With the profile applied."""
        return 5 if self.profile == "strict" else self.address_failures_per_minute


class AuditSettings(_Section):
    """The outbox, its relay and its sinks. Where the sink ``otlp`` sends: the standard OTEL_EXPORTER_OTLP_* variables."""

    relay: bool = Field(True, description="export from inside this process; off where: identity audit relay")
    relay_listen: str = Field(
        "127.0.0.1:8081", description="host:port of a relay's HTTP side (health, metrics); empty: none"
    )
    sinks: Annotated[tuple[Literal["otlp", "file", "syslog"], ...], BeforeValidator(_names)] = Field(
        ("otlp",), min_length=1, description="where events go, each with a place of its own in the outbox"
    )
    outbox_max_events: Annotated[int, Field(ge=100)] = Field(
        100_000, description="a bucket; beyond it nothing is issued"
    )
    when_full: Literal["refuse", "drop_oldest_refusals"] = Field(
        "refuse",
        description="a full bucket issues nothing, or first lets go of recorded refusals that changed nothing, and tells which",
    )
    relay_poll_ms: Annotated[int, Field(ge=10, le=60_000)] = Field(
        1000, description="how often to look for events"
    )
    relay_batch: Annotated[int, Field(ge=1, le=2048)] = Field(256, description="events a bucket and look")
    checkpoint_seconds: Annotated[float, Field(ge=0.5, le=86_400)] = Field(
        60, description="how often one of the servers signs how far the sinks have got, if they have"
    )
    subject: Literal["plain", "pseudonym"] = Field(
        "plain", description="how events name subjects; pseudonym: by a hash with pseudonym_key_file"
    )
    pseudonym_key_file: Path | None = Field(
        None, description="at least 32 random bytes, the key of pseudonyms"
    )
    otlp_logs: bool = Field(
        True, description="send log records beside the spans; false for a backend that has no logs"
    )
    file_path: Path | None = Field(None, description="where the file sink writes; its folder has to exist")
    file_format: Literal["events", "ocsf"] = Field(
        "events", description="of a line: the event itself, or OCSF's class Authentication"
    )
    file_max_bytes: Annotated[int, Field(ge=0)] = Field(
        100_000_000, description="a file of this size is put away; 0: none is for its size"
    )
    file_max_age_hours: Annotated[int, Field(ge=0, le=8784)] = Field(
        24, description="a file whose events are of so long a time is put away; 0: none is for its age"
    )
    syslog_address: str = Field(
        "", description="tls://host:6514, tcp://host:601, udp://host:514 or unix:///path"
    )
    syslog_ca_file: Path | None = Field(
        None, description="PEM roots of the collector's certificate; default: the system's"
    )
    syslog_certificate_file: Path | None = Field(
        None, description="PEM client certificate chain; turns mTLS on"
    )
    syslog_private_key_file: Path | None = Field(None, description="PEM private key of the certificate")

    @model_validator(mode="after")
    def _check_sinks(self) -> Self:
        if len(set(self.sinks)) < len(self.sinks):
            raise ValueError("sinks: none may be named twice")
        if "file" in self.sinks and self.file_path is None:
            raise ValueError("file_path: is needed by the file sink")
        if "syslog" in self.sinks and not self.syslog_address:
            raise ValueError("syslog_address: is needed by the syslog sink")
        if (self.syslog_certificate_file is None) != (self.syslog_private_key_file is None):
            raise ValueError("syslog_certificate_file and syslog_private_key_file belong together")
        if self.subject == "pseudonym" and self.pseudonym_key_file is None:
            raise ValueError("pseudonym_key_file: is needed for pseudonyms")
        return self


class ClaimsSourceSettings(_Section):
    """The owner of user data, asked for current roles and claims before tokens are given."""

    target: str = Field("", description="gRPC target of a ClaimsSourceService; empty: none is asked")
    timeout_ms: Annotated[int, Field(ge=10, le=10_000)] = Field(500, description="a question may take")
    ca_file: Path | None = Field(None, description="PEM roots of its certificate; default: the system's")
    certificate_file: Path | None = Field(None, description="PEM client certificate chain; turns mTLS on")
    private_key_file: Path | None = Field(None, description="PEM private key of the certificate")
    allow_plaintext: bool = Field(False, description="plain text to other machines than this one")
    allowed_claims: Annotated[tuple[str, ...], BeforeValidator(_names)] = Field(
        (), description="names of further claims that are taken over into access tokens; at most 16"
    )
    when_away_at_issue: Literal["refuse", "proceed"] = Field(
        "refuse", description="without an answer: start no session, or one with the roles the client asks for"
    )
    when_away_at_refresh: Literal["last_known", "refuse"] = Field(
        "last_known", description="without an answer: go on with what was last known, or refuse"
    )
    breaker_failures: Annotated[int, Field(ge=1, le=100)] = Field(
        5, description="unanswered questions in a row after which it is left alone"
    )
    breaker_max_open_seconds: Annotated[float, Field(ge=1, le=300)] = Field(
        15.0, description="how long it is left alone at most before one question goes out again"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.certificate_file is None) != (self.private_key_file is None):
            raise ValueError("needs both certificate_file and private_key_file, or neither")
        if len(self.allowed_claims) > MAX_PRIVATE_CLAIMS:
            raise ValueError(f"allowed_claims: at most {MAX_PRIVATE_CLAIMS}")
        for name in self.allowed_claims:
            if not is_claim_name(name):
                raise ValueError(
                    f"allowed_claims: {name!r} has a meaning in an access token already, or is no name"
                )
        return self


class LogSettings(_Section):
    """What the service says of itself, on standard error."""

    level: Annotated[
        Literal["DEBUG", "INFO", "WARNING", "ERROR"],
        BeforeValidator(lambda value: value.upper() if isinstance(value, str) else value),
    ] = Field("INFO", description="least severity")
    format: Literal["console", "json"] = Field("console", description="console or json")
