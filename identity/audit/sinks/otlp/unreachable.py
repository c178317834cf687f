"""Why a backend gives no answer, and which variable to look at.

Neither client names a variable. What is said here is the reason of a library, never what the other side has sent.
"""

from __future__ import annotations

import errno
import re
import ssl

import aiohttp

from identity.audit.sinks.certificates import not_trusted, of_another_name, why_refused
from identity.audit.sinks.otlp.settings import Target

NOT_CONNECTED = "failed to connect"
"""How gRPC begins what it says when it cannot."""
_ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
_CA = "OTEL_EXPORTER_OTLP_CERTIFICATE"
_IF_MUTUAL = "if it wants a client certificate, check OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE"
_IF_ENCRYPTED = f"if it speaks TLS, use https:// in {_ENDPOINT}"
_IF_PLAIN = f"if it does not speak TLS, use http:// in {_ENDPOINT}"
_ENDED = frozenset({errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED})
# What ended a connection has lost its type on the way through aiohttp, and kept its text.
_TLS_REASON = re.compile(r"\[SSL: (\w+)\]")


def why_not_over_http(target: Target, error: Exception) -> str:
    """Of what aiohttp raises instead of an answer."""
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    match cause:
        case ssl.SSLCertVerificationError():
            return why_refused(cause, address_setting=_ENDPOINT, ca_setting=_CA)
        case OSError(strerror=str(text)) if reason := _TLS_REASON.match(text):
            return f"TLS fails ({reason[1]}); {_IF_MUTUAL if '_ALERT_' in reason[1] else _IF_PLAIN}"
        case aiohttp.ServerDisconnectedError() | ConnectionResetError():
            return f"it ends the connection; {_if_ended(target)}"
        case OSError(errno=number) if number in _ENDED:
            return f"it ends the connection; {_if_ended(target)}"
        case OSError(strerror=str(text)):
            return text
        case _:
            return type(cause).__name__


def hint_over_grpc(target: Target, said: str) -> str:
    """Of what gRPC says when it cannot connect; empty where TLS is not the trouble."""
    if "Hostname Verification Check failed" in said:
        return of_another_name(_ENDPOINT)
    if "CERTIFICATE_VERIFY_FAILED" in said:
        return not_trusted(_CA)
    if "ALERT" in said:
        return _IF_MUTUAL
    if "handshake failed" in said:
        return _IF_PLAIN
    if "Socket closed" in said or "Connection reset" in said:
        return _if_ended(target)
    return ""


def _if_ended(target: Target) -> str:
    return _IF_MUTUAL if target.encrypted else _IF_ENCRYPTED
