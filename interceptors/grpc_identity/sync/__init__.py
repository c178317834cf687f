"""For ``grpc.server`` servers."""

from __future__ import annotations

from grpc_identity.sync.server import AuthInterceptor

__all__ = ["AuthInterceptor"]
