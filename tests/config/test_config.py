"""Settings: where they come from, what is refused, and what never shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from identity.config import ConfigurationError, load_settings, setting_names
from identity.tokens.access_token import RESERVED_CLAIMS

ISSUER = {"issuer": "https://id.example"}
SECRET = "redis://:CANARY-password@127.0.0.1:6379/0"


def refusal(file: Path | None = None, flags: dict[str, str] | None = None, **environ: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(file, ISSUER | (flags or {}), environ)
    return str(caught.value)


def test_flags_are_stronger_than_the_environment_and_that_than_the_file(tmp_path: Path) -> None:
    file = tmp_path / "identity.toml"
    file.write_text(
        'issuer = "https://file.example"\n[limits]\nprofile = "strict"\n[tokens]\naccess_ttl_seconds = 100\n'
        "idle_hours = 1\n"
    )
    environ = {"IDENTITY_TOKENS__ACCESS_TTL_SECONDS": "200", "IDENTITY_ISSUER": "https://environment.example"}
    settings = load_settings(file, {"issuer": "https://flag.example"}, environ)
    assert settings.issuer == "https://flag.example"
    assert settings.tokens.access_ttl_seconds == 200
    assert settings.tokens.idle_hours == 1
    assert settings.limits.effective_address_successes_per_minute == 5
    assert settings.tokens.web_session_days == 7


@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        ("redis.ulr", "redis.url"),
        ("token.access_ttl_seconds", "tokens.access_ttl_seconds"),
        ("isuer", "issuer"),
    ],
)
def test_an_unknown_setting_names_the_nearest_known_one(tmp_path: Path, wrong: str, near: str) -> None:
    assert f"did you mean {near}?" in refusal(flags={wrong: "x"})
    variable = "IDENTITY_" + wrong.replace(".", "__").upper()
    assert f"did you mean {near}?" in refusal(**{variable: "x"})
    file = tmp_path / "identity.toml"
    section, _, name = wrong.rpartition(".")
    file.write_text((f"[{section}]\n" if section else "") + f'{name} = "x"\n')
    assert f"did you mean {near}?" in refusal(file)


def test_variables_of_the_commands_are_not_settings() -> None:
    environ = {"IDENTITY_CLIENT_ID": "x", "IDENTITY_CLIENT_SECRET": "y", "IDENTITY_TARGET": "z", "OTHER": "1"}
    assert load_settings(None, ISSUER, environ).issuer == "https://id.example"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"issuer": "http://id.example"}, "issuer: must be https"),
        ({"issuer": "https://id.example?x=1"}, "issuer: must be a URL"),
        ({"issuer": "id.example"}, "issuer: must be"),
        ({"tokens.access_ttl_seconds": "901"}, "tokens.access_ttl_seconds"),
        ({"tokens.mobile_session_days": "31"}, "tokens.mobile_session_days"),
        ({"tokens.refresh_leeway_seconds": "61"}, "tokens.refresh_leeway_seconds"),
        ({"keys.algorithm": "HS256"}, "keys.algorithm"),
        ({"keys.publish_ahead_hours": "1"}, "keys.publish_ahead_hours"),
        ({"keys.sign_days": "1"}, "keys: sign_days must be more than 1.105"),
        ({"keys.publish_ahead_hours": "720", "keys.sign_days": "30"}, "keys: sign_days must be more than 30"),
        ({"redis.buckets": "0"}, "redis.buckets"),
        ({"redis": "x"}, "redis"),
        ({"log.level": "LOUD"}, "log.level"),
        ({"claims_source.timeout_ms": "5"}, "claims_source.timeout_ms"),
        ({"claims_source.when_away_at_issue": "last_known"}, "claims_source.when_away_at_issue"),
        ({"claims_source.when_away_at_refresh": "proceed"}, "claims_source.when_away_at_refresh"),
        ({"claims_source.certificate_file": "x.pem"}, "both certificate_file and private_key_file"),
        ({"claims_source.allowed_claims": "two words\\"}, "is no name"),
        ({"claims_source.allowed_claims": " ".join(f"c{n}" for n in range(17))}, "at most 16"),
    ],
    ids=str,
)
def test_what_is_out_of_bounds_is_named(flags: dict[str, str], message: str) -> None:
    assert message in refusal(flags=flags)


@pytest.mark.parametrize(
    "issuer", ["http://127.0.0.1:8080", "http://localhost", "http://[::1]:1", "https://id.example"]
)
def test_http_is_for_loopback(issuer: str) -> None:
    assert load_settings(None, {"issuer": issuer}, {}).issuer == issuer


def test_a_secret_may_come_from_a_file_but_not_twice(tmp_path: Path) -> None:
    file = tmp_path / "url"
    file.write_text(SECRET + "\n")
    settings = load_settings(None, ISSUER | {"redis.url_file": str(file)}, {})
    assert settings.redis.url.get_secret_value() == SECRET
    assert "not both" in refusal(flags={"redis.url_file": str(file), "redis.url": SECRET})
    assert "cannot read url_file" in refusal(flags={"redis.url_file": "/nonexistent"})


@pytest.mark.parametrize("name", sorted(RESERVED_CLAIMS))
def test_a_claim_that_means_something_already_cannot_be_allowed(name: str) -> None:
    assert f"'{name}' has a meaning" in refusal(flags={"claims_source.allowed_claims": f"tenant,{name}"})


def test_names_of_claims_come_as_a_list_or_with_commas_or_spaces(tmp_path: Path) -> None:
    file = tmp_path / "identity.toml"
    file.write_text('issuer = "https://id.example"\n[claims_source]\nallowed_claims = ["tenant", "plan"]\n')
    environ = {"IDENTITY_CLAIMS_SOURCE__ALLOWED_CLAIMS": "tenant, plan"}
    for settings in (load_settings(file, {}, {}), load_settings(None, ISSUER, environ)):
        assert settings.claims_source.allowed_claims == ("tenant", "plan")
    assert not load_settings(None, ISSUER, {}).claims_source.target


def test_secrets_show_nowhere() -> None:
    settings = load_settings(None, ISSUER | {"redis.url": SECRET, "keys.kek": "CANARY-kek"}, {})
    shown = repr(settings) + str(settings) + settings.model_dump_json() + repr(settings.redis)
    assert "CANARY" not in shown
    assert "CANARY" not in refusal(flags={"redis.url": SECRET, "redis.buckets": "x", "keys.kek": "CANARY"})


def test_a_file_that_cannot_be_read_is_said_to_be(tmp_path: Path) -> None:
    assert "cannot read" in refusal(tmp_path / "missing.toml")
    bad = tmp_path / "bad.toml"
    bad.write_text("issuer = ")
    assert "is not TOML" in refusal(bad)


def test_every_setting_is_described() -> None:
    from identity.config import described_settings

    rows: list[tuple[str, Any]] = described_settings()
    assert len(rows) == len(set(setting_names())) > 30
    assert all(info.description for _, info in rows)
