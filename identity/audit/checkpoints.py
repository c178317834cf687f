"""A checkpoint: what a server has signed about how far the chains of a sink had got. Pure; who asks for one is elsewhere.

A compact JWS (RFC 7515), ``typ`` strictly ``audit-checkpoint+jwt``, so that no access token is a checkpoint and no checkpoint an
access token. Its payload::

    {"iss": issuer, "iat": seconds, "sink": "otlp", "heads": {"3": [17, "base64url of the link"]}, "jwk": public key}

``heads`` are the last events that the sink had acknowledged, by bucket; at most ``MAX_HEADS``, so that a checkpoint is no longer
than a token may be. More buckets need more checkpoints. ``iat`` is by the clock of the store, as the times of events are: up to then
the sink had everything. No clock of a server is asked, since one that is ahead would vouch for time that has not been.

**It carries its public key**, since keys leave the published set a day after they signed last, and checkpoints are read years
later. That key proves nothing by itself: it has to be the one that ``kid`` names, which is its thumbprint (RFC 7638), and
which kid counts, the auditor says (``identity.audit.trust``).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from grpc_identity.encoding import decode_base64url, encode_base64url, parse_json_object
from grpc_identity.errors import KeyRefusedError, TokenError
from grpc_identity.jwk import KeySet, parse_jwk
from grpc_identity.jws import parse_compact, verify_signature
from identity.audit.chain import DIGEST_BYTES, ChainHead
from identity.audit.exported import MAX_BUCKET, MAX_SEQUENCE

CHECKPOINT_TYPE = "audit-checkpoint+jwt"
MAX_HEADS = 64
MAX_ISSUED_AT_SECONDS = 253_402_300_800
"""The end of the year 9999, up to which a time can be told."""
_PUBLIC_MEMBERS = ("crv", "e", "kty", "n", "x", "y")


class NotACheckpointError(ValueError):
    """It is none, or its signature is not of the key that it names. The message holds nothing of it."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One whose signature is good; whether its key counts is another question."""

    issuer: str
    issued_at_seconds: int
    sink: str
    heads: Mapping[int, ChainHead]
    kid: str


def signing_inputs(
    *,
    issuer: str,
    issued_at_seconds: int,
    sink: str,
    heads: Mapping[int, ChainHead],
    algorithm: str,
    public_jwk: Mapping[str, Any],
) -> Iterator[bytes]:
    """What is to be signed (RFC 7515, section 5.1): as many as it takes to have all heads."""
    header = _part({"alg": algorithm, "kid": public_jwk["kid"], "typ": CHECKPOINT_TYPE})
    jwk = {name: public_jwk[name] for name in _PUBLIC_MEMBERS if name in public_jwk}
    left = iter(sorted(heads.items()))
    while some := list(islice(left, MAX_HEADS)):
        told = {str(bucket): [head.sequence, encode_base64url(head.link)] for bucket, head in some}
        payload = {"iss": issuer, "iat": issued_at_seconds, "sink": sink, "heads": told, "jwk": jwk}
        yield header + b"." + _part(payload)


def compact(signing_input: bytes, signature: bytes) -> str:
    """The checkpoint (RFC 7515, section 7.1)."""
    return signing_input.decode() + "." + encode_base64url(signature)


def read(token: str) -> Checkpoint:
    """Raises ``NotACheckpointError``."""
    try:
        jws = parse_compact(token, typ=CHECKPOINT_TYPE)
        members = parse_json_object(jws.payload)
        kid = parse_jwk(members["jwk"]).thumbprint
        # Under the name that the key has by right: who names it otherwise has no key here.
        verify_signature(jws, KeySet.from_jwks([{**members["jwk"], "kid": kid}]))
        return _checkpoint(members, kid)
    except (TokenError, KeyRefusedError) as error:
        raise NotACheckpointError(f"it is no checkpoint: {error}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise NotACheckpointError("its payload is not that of a checkpoint") from error


def _checkpoint(members: Mapping[str, Any], kid: str) -> Checkpoint:
    heads = {int(bucket): _head(*head) for bucket, head in members["heads"].items()}
    if len(heads) > MAX_HEADS:
        raise ValueError("too many heads")
    issuer, issued_at, sink = members["iss"], members["iat"], members["sink"]
    if type(issuer) is not str or type(issued_at) is not int or type(sink) is not str:
        raise TypeError("a member of another type")
    if not 0 <= issued_at < MAX_ISSUED_AT_SECONDS or any(not 0 <= bucket < MAX_BUCKET for bucket in heads):
        raise ValueError("no such time or bucket")
    return Checkpoint(issuer, issued_at, sink, heads, kid)


def _head(sequence: object, link: str) -> ChainHead:
    decoded = decode_base64url(link.encode())
    if type(sequence) is not int or not 0 < sequence < MAX_SEQUENCE or len(decoded) != DIGEST_BYTES:
        raise ValueError("not a head")
    return ChainHead(sequence, decoded)


def _part(members: Mapping[str, Any]) -> bytes:
    return encode_base64url(_dumps(members).encode()).encode()


_dumps = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode
