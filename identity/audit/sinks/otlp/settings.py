"""Where events go and how, and the service's own metrics and spans, as the standard ``OTEL_EXPORTER_OTLP_*`` variables say; after the OTLP exporter specification.

A variable of a signal (``OTEL_EXPORTER_OTLP_TRACES_ENDPOINT``) goes before the general one (``OTEL_EXPORTER_OTLP_ENDPOINT``). An empty one is
none. docs/audit.md lists them. What a problem says names variables and never their values: headers are credentials.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from re import compile as compile_pattern
from typing import Literal
from urllib.parse import unquote, urlsplit

PREFIX = "OTEL_EXPORTER_OTLP_"
DEFAULT_TIMEOUT_MS = 10_000

Signal = Literal["traces", "logs", "metrics"]
Protocol = Literal["http/protobuf", "grpc"]

_HEADER_NAME = compile_pattern(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_PATHS: Mapping[Signal, str] = {"traces": "v1/traces", "logs": "v1/logs", "metrics": "v1/metrics"}


class OtlpSettingError(ValueError):
    """A variable cannot be used; the text names it."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where the events of one signal go. ``endpoint``: a URL with HTTP, what a gRPC channel takes with gRPC."""

    signal: Signal
    protocol: Protocol
    endpoint: str
    encrypted: bool
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    ca_file: Path | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None
    compressed: bool = False
    timeout_seconds: float = DEFAULT_TIMEOUT_MS / 1000


def target_of(signal: Signal, environ: Mapping[str, str]) -> Target:
    """The target of a signal. Raises ``OtlpSettingError``."""
    variables = _Variables(signal, environ)
    grpc = variables.choice("PROTOCOL", ("http/protobuf", "grpc"), "http/protobuf") == "grpc"
    protocol: Protocol = "grpc" if grpc else "http/protobuf"
    certificate, key = variables.file("CLIENT_CERTIFICATE"), variables.file("CLIENT_KEY")
    if (certificate is None) != (key is None):
        raise OtlpSettingError(
            f"{PREFIX}CLIENT_CERTIFICATE and {PREFIX}CLIENT_KEY belong together: set both, or neither"
        )
    endpoint, encrypted = (_grpc if grpc else _http)(variables)
    return Target(
        signal=signal,
        protocol=protocol,
        endpoint=endpoint,
        encrypted=encrypted,
        headers=variables.headers(),
        ca_file=variables.file("CERTIFICATE"),
        certificate_file=certificate,
        key_file=key,
        compressed=variables.choice("COMPRESSION", ("none", "gzip"), "none") == "gzip",
        timeout_seconds=variables.milliseconds("TIMEOUT", DEFAULT_TIMEOUT_MS) / 1000,
    )


def require_place_for_logs(environ: Mapping[str, str]) -> None:
    """Refuses to guess where log records go when only traces have been given a place. Raises ``OtlpSettingError``."""
    general, of_logs, of_traces = (
        environ.get(f"{PREFIX}{name}ENDPOINT") for name in ("", "LOGS_", "TRACES_")
    )
    if of_traces and not general and not of_logs:
        raise OtlpSettingError(
            f"{PREFIX}TRACES_ENDPOINT is set, but nothing says where log records go: "
            f"set {PREFIX}ENDPOINT or {PREFIX}LOGS_ENDPOINT, or audit.otlp_logs = false"
        )


class _Variables:
    """Those that hold for one signal."""

    def __init__(self, signal: Signal, environ: Mapping[str, str]) -> None:
        self.signal: Signal = signal
        self._environ = environ

    def find(self, name: str) -> tuple[str, str]:
        """The variable that decides, and its value; an empty one where none is set."""
        general = f"{PREFIX}{name}"
        for variable in (f"{PREFIX}{self.signal.upper()}_{name}", general):
            if value := self._environ.get(variable, "").strip():
                return variable, value
        return general, ""

    def choice(self, name: str, known: tuple[str, ...], default: str) -> str:
        variable, value = self.find(name)
        if value and value not in known:
            raise OtlpSettingError(f"{variable}: use {' or '.join(known)}")
        return value or default

    def file(self, name: str) -> Path | None:
        variable, value = self.find(name)
        if not value:
            return None
        path = Path(value)
        try:
            path.open("rb").close()
        except OSError as error:
            raise OtlpSettingError(f"{variable}: cannot read {path}: {error.strerror}") from None
        return path

    def milliseconds(self, name: str, default: int) -> int:
        variable, value = self.find(name)
        if not value:
            return default
        if not (value.isascii() and value.isdecimal() and 0 < int(value) <= 600_000):
            raise OtlpSettingError(f"{variable}: must be a number of milliseconds from 1 to 600000")
        return int(value)

    def headers(self) -> tuple[tuple[str, str], ...]:
        """``name=value`` by commas, values percent-encoded, as in W3C baggage."""
        variable, text = self.find("HEADERS")
        pairs: dict[str, str] = {}
        for item in filter(None, (item.strip() for item in text.split(","))):
            name, equals, value = item.partition("=")
            name, value = name.strip().lower(), unquote(value.strip())
            if (
                not equals
                or not _HEADER_NAME.fullmatch(name)
                or not (value.isascii() and value.isprintable())
            ):
                raise OtlpSettingError(
                    f"{variable}: must be name=value, by commas, with values that are percent-encoded"
                )
            pairs[name] = value
        return tuple(pairs.items())


def _http(variables: _Variables) -> tuple[str, bool]:
    variable, value = variables.find("ENDPOINT")
    url = value or "http://localhost:4318"
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise OtlpSettingError(f"{variable}: must be a URL that starts with http:// or https://")
    # Only the general endpoint is a base, a signal's own is meant as it is.
    if variable == f"{PREFIX}ENDPOINT":
        url = f"{url.rstrip('/')}/{_PATHS[variables.signal]}"
    return url, parts.scheme == "https"


def _grpc(variables: _Variables) -> tuple[str, bool]:
    variable, value = variables.find("ENDPOINT")
    endpoint = value or "http://localhost:4317"
    scheme, separator, rest = endpoint.partition("://")
    if separator and scheme in ("http", "https"):
        authority = rest.split("/")[0]
        if not authority:
            raise OtlpSettingError(f"{variable}: names no host")
        return authority, scheme == "https"
    insecure = variables.choice("INSECURE", ("true", "false"), "false")
    return endpoint, insecure == "false"
