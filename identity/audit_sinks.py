"""From settings to the sinks of the audit, and to what becomes of an event before it goes out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from grpc_identity._version import __version__
from identity.audit.event_types import EventType
from identity.audit.pseudonym import Naming, PseudonymKey, PseudonymKeyError, pseudonym
from identity.audit.recorded_event import RecordedEvent
from identity.audit.sinks.file.sink import FileSink, Rotation
from identity.audit.sinks.otlp.settings import OtlpSettingError
from identity.audit.sinks.otlp.sink import otlp_sink
from identity.audit.sinks.ports import AuditSink
from identity.audit.sinks.syslog.address import SyslogAddress, SyslogAddressError
from identity.audit.sinks.syslog.sink import SyslogSink
from identity.audit.sinks.syslog.stream import TlsFiles
from identity.config import ConfigurationError, Settings
from identity.errors import FieldViolation


def audit_sinks(settings: Settings, instance_id: str) -> Sequence[AuditSink]:
    """One of each that ``audit.sinks`` names, in that order. Raises ``ConfigurationError``."""
    return [_sink(name, settings, instance_id) for name in settings.audit.sinks]


def shape_of(settings: Settings) -> Callable[[RecordedEvent], RecordedEvent]:
    """What becomes of an event before it is chained. Raises ``ConfigurationError``."""
    key = _pseudonym_key(settings)
    return (lambda event: event) if key is None else pseudonym(key)


def naming_of(settings: Settings) -> Naming:
    """How logs name people: as the audit does, so that neither tells what the other hides. Raises ``ConfigurationError``."""
    return Naming(_pseudonym_key(settings))


def _pseudonym_key(settings: Settings) -> PseudonymKey | None:
    file = settings.audit.pseudonym_key_file
    if settings.audit.subject == "plain" or file is None:
        return None
    try:
        return PseudonymKey.from_file(file)
    except PseudonymKeyError as error:
        raise _wrong("audit.pseudonym_key_file", error) from None


def _sink(name: str, settings: Settings, instance_id: str) -> AuditSink:
    audit = settings.audit
    match name:
        case "otlp":
            try:
                return otlp_sink(
                    service_version=__version__,
                    instance_id=instance_id,
                    with_logs=audit.otlp_logs,
                    trusted=_trusted,
                )
            except OtlpSettingError as error:
                raise _wrong("audit.sinks", error) from None
        case "file" if audit.file_path is not None:
            return FileSink(
                audit.file_path,
                form=audit.file_format,
                rotation=Rotation(audit.file_max_bytes, audit.file_max_age_hours * 3600),
            )
        case "syslog":
            try:
                address = SyslogAddress.parse(audit.syslog_address)
            except SyslogAddressError as error:
                raise _wrong("audit.syslog_address", error) from None
            return SyslogSink(
                address,
                files=TlsFiles(
                    audit.syslog_ca_file, audit.syslog_certificate_file, audit.syslog_private_key_file
                ),
            )
        case _:
            raise AssertionError(name)


def _trusted(event: RecordedEvent) -> bool:
    """Whoever could not say who it is has no say in whose trace it is part of."""
    return event.type != EventType.CLIENT_AUTHENTICATION_FAILED


def _wrong(field: str, error: Exception) -> ConfigurationError:
    return ConfigurationError((FieldViolation(field, str(error)),))
