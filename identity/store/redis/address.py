"""What ``redis.url`` may say: one server, the sentinels that know one, or some nodes of a cluster. Pure: no I/O.

==========================================================================  =================================
``redis://user:password@host:6379/0``, ``unix:///run/valkey.sock?db=0``     one server, or a name that always
                                                                            leads to the primary
``redis+sentinel://user:password@h1:26379,h2:26379/<service name>/<db>``    the primary that these name
``redis+cluster://user:password@h1:6379,h2:6379``                           the cluster that these belong to
==========================================================================  =================================

``rediss`` in place of ``redis`` is TLS. User and password are those of the servers; sentinels that ask for their own
are told ``?sentinel_username=…&sentinel_password=…``. No message of an error repeats any of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

SERVER_PORT = 6379
SENTINEL_PORT = 26379
MAX_HOSTS = 64
_MAX_PORT = 65_535
_SENTINEL_OPTIONS = frozenset({"sentinel_username", "sentinel_password"})


class StoreKind(StrEnum):
    """What the store consists of."""

    SERVER = ""
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


@dataclass(frozen=True, slots=True)
class StoreAddress:
    """Where the store is. ``server_url`` is for one server; of sentinels and clusters, everything in it but the host."""

    kind: StoreKind
    server_url: str = field(repr=False)
    hosts: tuple[tuple[str, int], ...] = ()
    service_name: str = ""
    sentinel_username: str | None = field(default=None, repr=False)
    sentinel_password: str | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, url: str) -> StoreAddress:
        """Raises ``ValueError``, which says what is wrong and shows nothing of the URL but its scheme."""
        scheme, separator, _ = url.partition("://")
        transport, _, kind = scheme.partition("+")
        known = {item.value for item in StoreKind}
        is_known = transport in ("redis", "rediss") and kind in known and not scheme.endswith("+")
        if not separator or not (is_known or scheme == "unix"):
            raise ValueError(
                "must start with redis://, rediss:// or unix:// for one server, redis+sentinel:// or rediss+sentinel:// "
                "for sentinels, redis+cluster:// or rediss+cluster:// for a cluster"
            )
        if scheme == "unix":
            return cls(StoreKind.SERVER, url)
        try:
            parts = urlsplit(url)
        except ValueError:
            # Its text may repeat a part of the URL.
            raise ValueError("is not a URL; an IPv6 address is written as [::1]") from None
        if parts.fragment:
            raise ValueError("has a #: write it as %23 where it belongs to the password")
        user_info, _, places = parts.netloc.rpartition("@")
        found = StoreKind(kind)
        hosts = _hosts(places, SENTINEL_PORT if found is StoreKind.SENTINEL else SERVER_PORT)
        options = parse_qsl(parts.query)
        credentials = {name: value for name, value in options if name in _SENTINEL_OPTIONS}
        if credentials and found is not StoreKind.SENTINEL:
            raise ValueError("sentinel_username and sentinel_password are for redis+sentinel:// only")
        segments = [unquote(segment) for segment in parts.path.strip("/").split("/") if segment]
        service_name = ""
        if found is StoreKind.SENTINEL:
            if not segments:
                raise ValueError(
                    "must name what the sentinels watch: redis+sentinel://host:26379/<service name>"
                )
            service_name = segments.pop(0)
        database = _database(segments, found)
        if found is StoreKind.SERVER:
            if len(hosts) > 1:
                raise ValueError("names several hosts: that is redis+cluster:// or redis+sentinel://")
            return cls(found, url)
        query = urlencode([(name, value) for name, value in options if name not in _SENTINEL_OPTIONS])
        before, after = f"{user_info}@" if user_info else "", f"?{query}" if query else ""
        return cls(
            found,
            f"{transport}://{before}localhost/{database}{after}",
            hosts,
            service_name,
            credentials.get("sentinel_username"),
            credentials.get("sentinel_password"),
        )


def _hosts(places: str, default_port: int) -> tuple[tuple[str, int], ...]:
    hosts = []
    for place in places.split(","):
        host, separator, port = place.rpartition(":")
        if not separator or port.endswith("]"):
            host, port = place, str(default_port)
        host = host.removeprefix("[").removesuffix("]")
        if not host:
            raise ValueError("must name a host")
        if not (port.isascii() and port.isdigit() and 0 < int(port) <= _MAX_PORT):
            raise ValueError(
                "has a port that is none; a /, ? or # in the password is written as %2F, %3F or %23"
            )
        hosts.append((host, int(port)))
    if len(hosts) > MAX_HOSTS:
        raise ValueError(f"names more than {MAX_HOSTS} hosts")
    return tuple(hosts)


def _database(segments: list[str], kind: StoreKind) -> int:
    if not segments:
        return 0
    if len(segments) > 1 or not (segments[0].isascii() and segments[0].isdigit()):
        raise ValueError("must end with the number of a database, or with none")
    if kind is StoreKind.CLUSTER and int(segments[0]) != 0:
        raise ValueError("names a database: a cluster has number 0 only")
    return int(segments[0])
