"""What a wrapped key-encryption key is bound to, where its place can bind it to something."""

from __future__ import annotations

PURPOSE = "grpc-identity key-encryption key"
