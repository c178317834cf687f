"""From an entry of the outbox to the event that it is."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from identity.audit.event_types import GIVES_TOKEN, NAMES_KEY
from identity.audit.recorded_event import RecordedEvent, ReuseEvidence
from identity.tokens.access_token import TokenId


def recorded_event(bucket: int, fields: Sequence[bytes] | Mapping[bytes, bytes]) -> RecordedEvent:
    """The event of an entry, whose fields come in pairs; see ``append`` in the prelude of the scripts."""
    pairs = fields.items() if isinstance(fields, Mapping) else zip(fields[::2], fields[1::2], strict=True)
    texts = {name: value.decode() for name, value in pairs}
    told: Mapping[str, Any] = json.loads(texts[b"circumstances"])
    event_type, sequence, generation = texts[b"type"], int(texts[b"seq"]), texts[b"generation"]
    gives_token = event_type in GIVES_TOKEN
    evidence, expires = texts[b"evidence"], texts[b"expires"]
    return RecordedEvent(
        event_id=texts[b"id"],
        bucket=bucket,
        sequence=sequence,
        time_ms=int(texts[b"at"]),
        type=event_type,
        outcome=texts[b"outcome"],
        reason=texts[b"reason"],
        client_id=told.get("client", ""),
        subject=texts[b"subject"],
        session_id=texts[b"session"],
        generation=int(generation) if generation else None,
        session_expires_at_ms=int(expires) if expires else 0,
        token_id=(
            str(TokenId(bucket, sequence, bytes.fromhex(texts[b"id"])))
            if gives_token
            else told.get("jti", "")
        ),
        # The circumstances are those of the call; what it grants is nothing of what it ends or is refused for.
        key_id=told.get("kid", "") if gives_token or event_type in NAMES_KEY else "",
        audience=told.get("aud", "") if gives_token else "",
        scope=told.get("scope", "") if gives_token else "",
        method=told.get("method", ""),
        ip_address=told.get("ip", ""),
        user_agent=told.get("ua", ""),
        device_label=told.get("device", ""),
        traceparent=told.get("traceparent", ""),
        detail=told.get("detail", ""),
        count=told.get("count", 0),
        reuse=ReuseEvidence(**json.loads(evidence)) if evidence else None,
        reported_by=told.get("by", ""),
        status_code=told.get("status", ""),
        occurred_at_ms=told.get("occurred", 0),
        checkpoint=told.get("checkpoint", ""),
    )
