"""Every setting, typed and explained. Sources, the later the stronger: defaults, one TOML file, environment, flags.

In the environment a setting is ``IDENTITY_<SECTION>__<NAME>`` (``IDENTITY_REDIS__URL``). A secret may come from a
file: ``redis.url_file`` in place of ``redis.url``. An unknown setting is an error that names the nearest known one.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    Field,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from identity.config_sections import (
    AuditSettings,
    ClaimsSourceSettings,
    GrpcSettings,
    HttpSettings,
    KeySettings,
    LimitSettings,
    LogSettings,
    RedisSettings,
    TokenSettings,
)
from identity.errors import FieldViolation

ENV_PREFIX = "IDENTITY_"
ENV_DELIMITER = "__"
# Read by the commands that call a running service; not settings of the service.
COMMAND_VARIABLES = frozenset({"CLIENT_ID", "CLIENT_SECRET", "CLIENT_SECRET_FILE", "TARGET", "CONFIG"})


class ConfigurationError(Exception):
    """The settings cannot be used; one line a problem, each with the name of the setting."""

    def __init__(self, violations: Iterable[FieldViolation]) -> None:
        self.violations = tuple(violations)
        super().__init__("\n".join(f"{item.field}: {item.description}" for item in self.violations))


class Settings(BaseSettings):
    """All of it. ``Settings(...)`` takes sections as keywords; ``load_settings`` reads file and environment too."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix=ENV_PREFIX,
        env_nested_delimiter=ENV_DELIMITER,
        hide_input_in_errors=True,
    )

    issuer: str = Field(description="the claim iss: an https URL; http on loopback only")
    environment: Literal["production", "development"] = Field(
        "production", description="development: reflection on, for a start"
    )
    grpc: GrpcSettings = GrpcSettings()
    http: HttpSettings = HttpSettings()
    redis: RedisSettings = RedisSettings()
    keys: KeySettings = KeySettings()
    tokens: TokenSettings = TokenSettings()
    limits: LimitSettings = LimitSettings()
    audit: AuditSettings = AuditSettings()
    claims_source: ClaimsSourceSettings = ClaimsSourceSettings()
    log: LogSettings = LogSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What ``load_settings`` has merged, and nothing else: a library call must not depend on the shell."""
        del settings_cls, env_settings, dotenv_settings, file_secret_settings
        return (init_settings,)

    @model_validator(mode="after")
    def _check_issuer(self) -> Self:
        parts = urlsplit(self.issuer)
        host = parts.hostname or ""
        if parts.query or parts.fragment or not host:
            raise ValueError("issuer: must be a URL without query and fragment (RFC 8414, section 2)")
        if parts.scheme != "https" and not (parts.scheme == "http" and _is_loopback(host)):
            raise ValueError("issuer: must be https; http is for loopback only")
        return self

    @property
    def reflection_enabled(self) -> bool:
        """Whether reflection is served."""
        if self.grpc.reflection is None:
            return self.environment == "development"
        return self.grpc.reflection


def load_settings(
    file: Path | None = None,
    flags: Mapping[str, str] | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Settings:
    """Settings from a TOML file, then the environment, then flags (``{"grpc.listen": "…"}``).

    Raises ``ConfigurationError``.
    """
    merged: dict[str, Any] = {}
    if file is not None:
        try:
            merged = tomllib.loads(file.read_text())
        except OSError as error:
            raise _error("--config", f"cannot read {file}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise _error("--config", f"cannot read {file}: it is not text") from None
        except tomllib.TOMLDecodeError as error:
            raise _error(str(file), f"is not TOML: {error}") from None
    for name, value in environ.items():
        if name.startswith(ENV_PREFIX) and (rest := name.removeprefix(ENV_PREFIX)) not in COMMAND_VARIABLES:
            _put(merged, rest.lower().split(ENV_DELIMITER), value, name)
    for name, value in (flags or {}).items():
        _put(merged, name.split("."), value, name)
    unknown = list(_unknown(merged))
    if unknown:
        raise ConfigurationError(unknown)
    try:
        return Settings(**merged)
    except ValidationError as error:
        raise ConfigurationError(_violations(error)) from None


def setting_names() -> list[str]:
    """Every setting, as flags and TOML name it."""
    return [name for name, _ in described_settings()]


def described_settings() -> list[tuple[str, Any]]:
    """Every setting with pydantic's description of it."""
    rows: list[tuple[str, Any]] = []
    for name, info in Settings.model_fields.items():
        section = info.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            rows += [(f"{name}.{inner}", detail) for inner, detail in section.model_fields.items()]
        else:
            rows.append((name, info))
    return rows


def _put(merged: dict[str, Any], path: list[str], value: str, source: str) -> None:
    *sections, name = path
    place = merged
    for section in sections:
        place = place.setdefault(section, {})
        if not isinstance(place, dict):
            raise _error(source, f"{section} is a setting, not a section")
    place[name] = value


def _unknown(merged: Mapping[str, Any]) -> Iterable[FieldViolation]:
    known = setting_names()
    for name, value in merged.items():
        for full in [f"{name}.{inner}" for inner in value] if isinstance(value, dict) else [name]:
            if full in known:
                continue
            near = difflib.get_close_matches(full, known, n=1, cutoff=0.5)
            hint = f"; did you mean {near[0]}?" if near else "; see: identity config reference"
            yield FieldViolation(full, f"is not a setting{hint}")


def _violations(error: ValidationError) -> Iterable[FieldViolation]:
    for item in error.errors(include_input=False, include_url=False):
        field = ".".join(str(part) for part in item["loc"])
        message = item["msg"].removeprefix("Value error, ")
        if not field and ": " in message:
            field, message = message.split(": ", 1)
        if item["type"] == "missing":
            message = "is required; give it in the configuration file, in the environment or with --set"
        yield FieldViolation(field, message)


def _error(field: str, description: str) -> ConfigurationError:
    return ConfigurationError([FieldViolation(field, description)])


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
