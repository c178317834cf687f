"""Keeps callers' metadata out of the log of gRPC itself.

gRPC decodes the metadata of a call before any interceptor runs, and logs at ERROR, whole, each value that is not
UTF-8: a token with one odd byte behind it is then in the log of the service. ``keep_metadata_out_of_logs`` leaves the
record and takes the value out of it.
"""

from __future__ import annotations

import logging

__all__ = ["keep_metadata_out_of_logs"]

_LOGGER_NAME = "grpc._cython.cygrpc"
_MESSAGE = "Invalid encoding on "


class _WithoutValue(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        if str(record.msg).startswith(_MESSAGE):
            record.msg = "A caller sent metadata that is not UTF-8; the value is left out here."
            record.args = ()
            record.exc_info = None
        return True


_FILTER = _WithoutValue()


def keep_metadata_out_of_logs() -> None:
    """Has gRPC log that a value was not UTF-8, without the value. To do it twice does nothing more."""
    logging.getLogger(_LOGGER_NAME).addFilter(_FILTER)
