"""The standard variables mean what the OTLP exporter specification says, and what cannot be used is said before anything is sent."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from identity.audit.sinks.otlp.settings import OtlpSettingError, target_of
from identity.audit.sinks.otlp.sink import otlp_sink

OTLP = "OTEL_EXPORTER_OTLP_"


def variables(**values: str) -> Mapping[str, str]:
    return {OTLP + name: value for name, value in values.items()}


def test_without_any_it_goes_to_this_machine_over_http() -> None:
    target = target_of("traces", {})
    assert (target.endpoint, target.protocol, target.timeout_seconds) == (
        "http://localhost:4318/v1/traces",
        "http/protobuf",
        10.0,
    )
    assert not target.compressed


@pytest.mark.parametrize(
    ("values", "endpoint"),
    [
        ({"ENDPOINT": "https://c.example"}, "https://c.example/v1/traces"),
        ({"ENDPOINT": "https://c.example/otlp/"}, "https://c.example/otlp/v1/traces"),
        (
            {"ENDPOINT": "https://c.example", "TRACES_ENDPOINT": "https://t.example/in"},
            "https://t.example/in",
        ),
        ({"ENDPOINT": "https://c.example", "TRACES_ENDPOINT": ""}, "https://c.example/v1/traces"),
        ({"ENDPOINT": "https://c.example:4317", "PROTOCOL": "grpc"}, "c.example:4317"),
        ({"ENDPOINT": "https://c.example:4317/a", "PROTOCOL": "grpc"}, "c.example:4317"),
        ({"ENDPOINT": "unix:///run/c.sock", "PROTOCOL": "grpc"}, "unix:///run/c.sock"),
        ({"PROTOCOL": "grpc"}, "localhost:4317"),
    ],
)
def test_an_endpoint(values: Mapping[str, str], endpoint: str) -> None:
    assert target_of("traces", variables(**values)).endpoint == endpoint


@pytest.mark.parametrize(
    ("values", "encrypted"),
    [
        ({"ENDPOINT": "https://c:1", "INSECURE": "true"}, True),
        ({"ENDPOINT": "http://c:1", "INSECURE": "false"}, False),
        ({"ENDPOINT": "c:1"}, True),
        ({"ENDPOINT": "c:1", "INSECURE": "true"}, False),
        ({"ENDPOINT": "c:1", "INSECURE": "true", "TRACES_INSECURE": "false"}, True),
    ],
)
def test_the_scheme_says_whether_grpc_is_encrypted_and_without_one_a_variable(
    values: Mapping[str, str], encrypted: bool
) -> None:
    assert target_of("traces", variables(PROTOCOL="grpc", **values)).encrypted is encrypted


def test_a_variable_of_the_signal_goes_before_the_general_one() -> None:
    values = variables(
        HEADERS="a=1", LOGS_HEADERS="b=2%2C3", TIMEOUT="1000", LOGS_TIMEOUT="2500", LOGS_COMPRESSION="gzip"
    )
    of_traces, of_logs = target_of("traces", values), target_of("logs", values)
    assert (of_traces.headers, of_logs.headers) == ((("a", "1"),), (("b", "2,3"),))
    assert (of_traces.timeout_seconds, of_logs.timeout_seconds) == (1.0, 2.5)
    assert (of_traces.compressed, of_logs.compressed) == (False, True)


@pytest.mark.parametrize(
    ("values", "variable"),
    [
        ({"PROTOCOL": "http/json"}, "PROTOCOL"),
        ({"ENDPOINT": "c.example:4318"}, "ENDPOINT"),
        ({"ENDPOINT": "https://[::1"}, "ENDPOINT"),
        ({"ENDPOINT": "https://c:99999"}, "ENDPOINT"),
        ({"TRACES_ENDPOINT": "ftp://c"}, "TRACES_ENDPOINT"),
        ({"ENDPOINT": "https:///a", "PROTOCOL": "grpc"}, "ENDPOINT"),
        ({"ENDPOINT": "c:1", "PROTOCOL": "grpc", "INSECURE": "yes"}, "INSECURE"),
        ({"HEADERS": "s3cr3t"}, "HEADERS"),
        ({"HEADERS": "a=s3cr3t%0d%0ab"}, "HEADERS"),
        ({"TRACES_HEADERS": "a b=s3cr3t"}, "TRACES_HEADERS"),
        ({"TIMEOUT": "10s"}, "TIMEOUT"),
        ({"TIMEOUT": "0"}, "TIMEOUT"),
        ({"COMPRESSION": "zstd"}, "COMPRESSION"),
        ({"CERTIFICATE": "/none.pem"}, "CERTIFICATE"),
        ({"CLIENT_KEY": __file__}, "CLIENT_CERTIFICATE"),
    ],
)
def test_what_cannot_be_used_is_named_and_not_quoted(values: Mapping[str, str], variable: str) -> None:
    with pytest.raises(OtlpSettingError, match=OTLP + variable) as caught:
        target_of("traces", variables(**values))
    assert "s3cr3t" not in str(caught.value)


def test_credentials_in_headers_are_not_shown() -> None:
    assert "s3cr3t" not in repr(target_of("traces", variables(HEADERS="authorization=s3cr3t")))


def test_where_only_traces_have_a_place_that_of_logs_is_not_guessed() -> None:
    values = variables(TRACES_ENDPOINT="https://t.example/v1/traces")
    with pytest.raises(OtlpSettingError, match="LOGS_ENDPOINT"):
        otlp_sink(service_version="1", instance_id="a", with_logs=True, environ=values)
    assert otlp_sink(service_version="1", instance_id="a", with_logs=False, environ=values).name == "otlp"


def test_files_are_those_of_the_variables(tmp_path: Path) -> None:
    for name in ("ca", "crt", "key"):
        (tmp_path / name).write_text("")
    target = target_of(
        "logs",
        variables(
            CERTIFICATE=str(tmp_path / "ca"),
            CLIENT_CERTIFICATE=str(tmp_path / "crt"),
            LOGS_CLIENT_KEY=str(tmp_path / "key"),
        ),
    )
    assert (target.ca_file, target.certificate_file, target.key_file) == (
        tmp_path / "ca",
        tmp_path / "crt",
        tmp_path / "key",
    )
