"""Where syslog messages go: ``tls://host:6514``, ``tcp://host:601``, ``udp://host:514`` or ``unix:///dev/log``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from urllib.parse import urlsplit


class SyslogAddressError(ValueError):
    """The address cannot be used."""


class Way(StrEnum):
    """How messages travel."""

    TLS = "tls"
    TCP = "tcp"
    UDP = "udp"
    UNIX = "unix"


# RFC 5425, RFC 6587 (which leaves it open; 601 is registered for syslog over TCP), RFC 5426.
_PORTS: Mapping[Way, int] = MappingProxyType({Way.TLS: 6514, Way.TCP: 601, Way.UDP: 514})


@dataclass(frozen=True, slots=True)
class SyslogAddress:
    """``place``: a host with its port, or a path."""

    way: Way
    place: str
    port: int = 0

    @staticmethod
    def parse(text: str) -> SyslogAddress:
        """Raises ``SyslogAddressError``."""
        try:
            parts = urlsplit(text)
            way = Way(parts.scheme)
            port = parts.port
        except ValueError:
            raise SyslogAddressError(
                "use tls://host:port, tcp://host:port, udp://host:port or unix:///path"
            ) from None
        if parts.query or parts.fragment or parts.username:
            raise SyslogAddressError("has more than a host and a port")
        if way is Way.UNIX:
            if parts.netloc or not parts.path.strip("/"):
                raise SyslogAddressError("needs an absolute path: unix:///dev/log")
            return SyslogAddress(way, parts.path)
        if not parts.hostname or parts.path.strip("/"):
            raise SyslogAddressError("has to name a host, and no path")
        return SyslogAddress(way, parts.hostname, port or _PORTS[way])

    @property
    def in_datagrams(self) -> bool:
        """One message a datagram, else one after the other."""
        return self.way in (Way.UDP, Way.UNIX)
