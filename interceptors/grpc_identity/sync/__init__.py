"""For ``grpc``: servers (``AuthInterceptor``) and channels (``open_channel``, ``client_interceptors``)."""

from __future__ import annotations

from grpc_identity.sync.client import client_interceptors, open_channel
from grpc_identity.sync.server import AuthInterceptor

__all__ = ["AuthInterceptor", "client_interceptors", "open_channel"]
