"""What ``redis.url`` may say, and what is said of one that cannot be used."""

from __future__ import annotations

import pytest
from redis.asyncio.connection import SSLConnection

from identity.config import ConfigurationError, load_settings
from identity.store.redis.address import StoreAddress, StoreKind
from identity.store.redis.topology import connection_options

SECRET = "hunter2"


@pytest.mark.parametrize(
    ("url", "kind", "hosts", "service"),
    [
        ("redis://store", StoreKind.SERVER, (), ""),
        ("rediss://u:hunter2@store:6380/2", StoreKind.SERVER, (), ""),
        ("unix:///run/valkey.sock?db=1", StoreKind.SERVER, (), ""),
        (
            "redis+sentinel://u:hunter2@a,b:1/primary/3",
            StoreKind.SENTINEL,
            (("a", 26379), ("b", 1)),
            "primary",
        ),
        ("rediss+sentinel://[::1]:5/primary", StoreKind.SENTINEL, (("::1", 5),), "primary"),
        ("redis+cluster://u:hunter2@a:7000,b", StoreKind.CLUSTER, (("a", 7000), ("b", 6379)), ""),
        ("rediss+cluster://[fd00::1],b/0", StoreKind.CLUSTER, (("fd00::1", 6379), ("b", 6379)), ""),
    ],
)
def test_each_form_is_read_and_shows_no_password(
    url: str, kind: StoreKind, hosts: tuple[tuple[str, int], ...], service: str
) -> None:
    address = StoreAddress.parse(url)
    assert (address.kind, address.hosts, address.service_name) == (kind, hosts, service)
    assert SECRET not in repr(address)
    options = connection_options(address, timeout_seconds=1)
    assert options.get("password") == (SECRET if SECRET in url else None)
    assert (options.get("connection_class") is SSLConnection) == url.startswith("rediss")


def test_sentinels_may_have_credentials_of_their_own() -> None:
    address = StoreAddress.parse(
        "redis+sentinel://a/primary?sentinel_username=watch&sentinel_password=hunter2&ssl_ca_certs=/ca"
    )
    assert (address.sentinel_username, address.sentinel_password) == ("watch", SECRET)
    assert SECRET not in address.server_url
    assert "ssl_ca_certs" in connection_options(address, timeout_seconds=1)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("hunter2", "must start with redis://"),
        ("http://u:hunter2@store", "must start with redis://"),
        ("redis+://u:hunter2@store", "must start with redis://"),
        ("redis+proxy://u:hunter2@store", "must start with redis://"),
        ("redis://u:hunter2@", "must name a host"),
        ("redis://u:hunter2@store:0", "port"),
        ("redis://u:hunter2@store:http", "port"),
        ("redis://u:hunt/er2@store", "%2F"),
        ("redis://u:hunter2#@store", "%23"),
        ("redis://[hunter2", "is not a URL"),
        ("redis://u:hunter2@a,b", "several hosts"),
        ("redis://u:hunter2@a/first", "number of a database"),
        ("redis+sentinel://u:hunter2@a:26379", "must name what the sentinels watch"),
        ("redis+sentinel://u:hunter2@a/primary/x", "number of a database"),
        ("redis+cluster://u:hunter2@a,,b", "must name a host"),
        ("redis+cluster://u:hunter2@a/1", "number 0 only"),
        ("redis+cluster://a?sentinel_password=hunter2", "redis+sentinel:// only"),
        ("redis+cluster://" + ",".join(["hunter2"] * 65), "more than 64"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_and_not_shown(url: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(None, {"issuer": "https://id.example", "redis.url": url}, {})
    (violation,) = caught.value.violations
    assert violation.field == "redis.url"
    assert said in violation.description
    for part in (SECRET, "er2"):
        assert part not in str(caught.value)
