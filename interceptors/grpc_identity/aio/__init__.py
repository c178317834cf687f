"""For ``grpc.aio`` servers."""

from __future__ import annotations

from grpc_identity.aio.server import AuthInterceptor

__all__ = ["AuthInterceptor"]
