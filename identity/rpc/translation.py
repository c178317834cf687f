"""Between the domain's values and the messages of the proto; nothing is decided here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Literal, TypeAlias

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from grpc_identity.v1 import (
    admin_service_pb2,
    clients_pb2,
    identity_service_pb2,
    keys_pb2,
    sessions_pb2,
    tokens_pb2,
)
from identity.audit.event import EndUser
from identity.clients.client import Client
from identity.clients.policy import ClientPolicy, Grant, Patterns, ReusePolicy
from identity.errors import field_invalid
from identity.keys.keyring import KeyRecord
from identity.keys.plan import KeyStep, needed_until
from identity.keys.schedule import Schedule
from identity.sessions.introspect import ActiveToken, TokenType
from identity.sessions.minting import MintedTokens
from identity.store.decisions import FamilyState, Lineage, SpendVerdict
from identity.tokens.lifetimes import ClientKind
from identity.verifiers.census import VerifierState

MAX_NAMED = 100

_DurationField: TypeAlias = Literal[
    "access_token_ttl", "web_session_ttl", "mobile_session_ttl", "session_idle_ttl", "refresh_leeway"
]

_KINDS = {
    ClientKind.WEB: tokens_pb2.CLIENT_KIND_WEB,
    ClientKind.MOBILE: tokens_pb2.CLIENT_KIND_MOBILE,
}
_REUSE_POLICIES = {
    ReusePolicy.ENFORCE: clients_pb2.REUSE_POLICY_ENFORCE,
    ReusePolicy.REPORT: clients_pb2.REUSE_POLICY_REPORT,
}
_STATES = {
    None: sessions_pb2.SESSION_STATE_ACTIVE,
    SpendVerdict.REVOKED: sessions_pb2.SESSION_STATE_REVOKED,
    SpendVerdict.EXPIRED: sessions_pb2.SESSION_STATE_EXPIRED,
}
_TOKEN_TYPES = {
    TokenType.ACCESS_TOKEN: tokens_pb2.TOKEN_TYPE_ACCESS_TOKEN,
    TokenType.REFRESH_TOKEN: tokens_pb2.TOKEN_TYPE_REFRESH_TOKEN,
}


def token_set(minted: MintedTokens) -> tokens_pb2.TokenSet:
    """Without a session there is no refresh token, no expiry of it and no session id."""
    message = tokens_pb2.TokenSet(access_token=minted.access_token, scopes=minted.scopes)
    # In place: this is the hottest message there is.
    _set(message.access_token_expires_at, minted.access_token_expires_at_ms)
    _set(message.refresh_after, minted.refresh_after_ms)
    if minted.session is not None:
        message.session_id = minted.session.session_id
        message.refresh_token = minted.session.refresh_token
        _set(message.refresh_token_expires_at, minted.session.refresh_token_expires_at_ms)
    return message


def introspection(active: ActiveToken | None) -> identity_service_pb2.IntrospectResponse:
    """Of a token that is not active, only that."""
    if active is None:
        return identity_service_pb2.IntrospectResponse(active=False)
    return identity_service_pb2.IntrospectResponse(
        active=True,
        token_type=_TOKEN_TYPES[active.token_type],
        subject=active.subject,
        client_id=active.client_id,
        audience=active.audience,
        scopes=active.scopes,
        session_id=active.session_id,
        token_id=active.token_id,
        issued_at=None if active.issued_at_ms is None else timestamp(active.issued_at_ms),
        expires_at=timestamp(active.expires_at_ms),
        roles=active.roles,
    )


def explanation(lineage: Lineage | None) -> admin_service_pb2.ExplainSessionResponse:
    """What became of a session; empty when nothing is stored of it."""
    if lineage is None:
        return admin_service_pb2.ExplainSessionResponse()
    state, ending = lineage.state, lineage.ending
    return admin_service_pb2.ExplainSessionResponse(
        session=session(state),
        state=_STATES[state.ended],
        generation=state.generation,
        steps=[
            sessions_pb2.SessionStep(
                generation=step.generation,
                spent_at=timestamp(step.spent_seconds * 1000),
                ip_address=step.ip_address,
                retries_answered=step.retries,
                recovered=step.recovered,
            )
            for step in lineage.steps
        ],
        earlier_steps=lineage.earlier_steps,
        end_reason=None if ending is None else f"SESSION_END_REASON_{ending.reason}",
        ended_at=None if ending is None else timestamp(ending.at_ms),
        revocation_reason=f"REVOCATION_REASON_{ending.cause}" if ending and ending.cause else None,
        ended_by_client_id="" if ending is None else ending.client_id,
    )


def session(state: FamilyState, *, current: str = "") -> sessions_pb2.Session:
    """A session; ``current`` is the id of the one that asks."""
    return sessions_pb2.Session(
        session_id=str(state.family),
        subject=state.subject,
        client_id=state.client_id,
        client_kind=_KINDS[state.client_kind],
        created_at=timestamp(state.created_ms),
        last_used_at=timestamp(state.last_used_ms),
        expires_at=timestamp(state.absolute_expiry_ms),
        client_context=client_context(state.end_user),
        scopes=state.scope.split(),
        audience=state.audience.split(),
        current=str(state.family) == current,
    )


def client_context(end_user: EndUser) -> tokens_pb2.ClientContext:
    """The end user's side of a call."""
    return tokens_pb2.ClientContext(
        ip_address=end_user.ip_address, user_agent=end_user.user_agent, device_label=end_user.device_label
    )


def json_web_key(members: Mapping[str, object]) -> keys_pb2.JsonWebKey:
    """A public key; an unknown or private member is an error here rather than a leak there."""
    return keys_pb2.JsonWebKey(**{name: str(value) for name, value in members.items()})


def signing_key(
    key: KeyRecord, schedule: Schedule, lacking: Sequence[str] = (), holding: Sequence[str] = ()
) -> keys_pb2.SigningKey:
    """A signing key without anything private. ``lacking`` and ``holding``: verifiers, as far as they were asked."""
    needed = needed_until(key, schedule)
    return keys_pb2.SigningKey(
        public_key=json_web_key(key.public_jwk),
        state=f"KEY_STATE_{key.state.name}",
        created_at=_moment(key.created_at),
        activates_at=_moment(key.activates_at),
        activates_by=_moment(key.activates_by),
        retires_at=_moment(key.retires_at),
        removed_at=_moment(key.removes_at),
        provider=key.provider,
        lacking_verifiers=lacking[:MAX_NAMED] if key.state.is_published else (),
        holding_verifiers=() if key.state.is_published else holding[:MAX_NAMED],
        needed_until=_moment(needed) if needed is not None else None,
    )


def key_step(step: KeyStep) -> keys_pb2.KeyStep:
    """A step that is to come."""
    return keys_pb2.KeyStep(
        at=_moment(step.at),
        at_latest=_moment(step.at_latest) if step.at_latest is not None else None,
        kid=step.kid,
        state=f"KEY_STATE_{step.state.name}",
    )


def client(value: Client) -> clients_pb2.Client:
    """A client without its secrets."""
    return clients_pb2.Client(
        client_id=value.client_id,
        display_name=value.display_name,
        policy=policy_message(value.policy),
        disabled=value.disabled,
        created_at=Timestamp(seconds=value.created_at_seconds),
        secrets=[
            clients_pb2.ClientSecretInfo(
                secret_id=kept.secret_id, created_at=Timestamp(seconds=kept.created_at_seconds)
            )
            for kept in value.secrets
        ],
    )


def policy_message(policy: ClientPolicy) -> clients_pb2.ClientPolicy:
    """A policy, with what is left to the service's defaults left out."""
    message = clients_pb2.ClientPolicy(
        grants=[f"GRANT_{grant}" for grant in sorted(policy.grants)],
        subjects=policy.subjects.patterns,
        audiences=policy.audiences.patterns,
        scopes=policy.scopes.patterns,
        roles=policy.roles.patterns,
        may_forward_client_context=policy.may_forward_client_context,
        calls_per_second=policy.calls_per_second,
        concurrent_calls=policy.concurrent_calls,
        max_sessions_per_subject=policy.max_sessions_per_subject or 0,
        reuse_policy=_REUSE_POLICIES[policy.reuse_policy],
    )
    for field, seconds in (
        (message.access_token_ttl, policy.access_token_ttl_seconds),
        (message.web_session_ttl, policy.web_session_ttl_seconds),
        (message.mobile_session_ttl, policy.mobile_session_ttl_seconds),
        (message.session_idle_ttl, policy.session_idle_ttl_seconds),
        (message.refresh_leeway, policy.refresh_leeway_seconds),
    ):
        if seconds is not None:
            field.CopyFrom(Duration(seconds=seconds))
    return message


def _reuse_policy(number: clients_pb2.ReusePolicy) -> ReusePolicy:
    if number == clients_pb2.REUSE_POLICY_UNSPECIFIED:
        return ReusePolicy.ENFORCE
    for policy, known in _REUSE_POLICIES.items():
        if number == known:
            return policy
    raise field_invalid("policy.reuse_policy", f"{number} is not a policy this service knows")


def policy_value(message: clients_pb2.ClientPolicy) -> ClientPolicy:
    """The policy of a message. Raises ``FIELD_INVALID`` for a grant this service does not know."""
    grants = set()
    for number in message.grants:
        name = clients_pb2.Grant.Name(number) if number in clients_pb2.Grant.values() else ""
        if name.removeprefix("GRANT_") not in Grant.__members__:
            raise field_invalid("policy.grants", f"{number} is not a grant this service knows")
        grants.add(Grant(name.removeprefix("GRANT_")))
    defaults = ClientPolicy()
    return ClientPolicy(
        grants=frozenset(grants),
        subjects=Patterns(tuple(message.subjects)),
        audiences=Patterns(tuple(message.audiences)),
        scopes=Patterns(tuple(message.scopes)),
        roles=Patterns(tuple(message.roles)),
        access_token_ttl_seconds=_seconds(message, "access_token_ttl"),
        web_session_ttl_seconds=_seconds(message, "web_session_ttl"),
        mobile_session_ttl_seconds=_seconds(message, "mobile_session_ttl"),
        session_idle_ttl_seconds=_seconds(message, "session_idle_ttl"),
        refresh_leeway_seconds=_seconds(message, "refresh_leeway"),
        may_forward_client_context=message.may_forward_client_context,
        calls_per_second=message.calls_per_second or defaults.calls_per_second,
        concurrent_calls=message.concurrent_calls or defaults.concurrent_calls,
        max_sessions_per_subject=message.max_sessions_per_subject or None,
        reuse_policy=_reuse_policy(message.reuse_policy),
    )


def verifier(state: VerifierState, now_ms: int) -> admin_service_pb2.Verifier:
    """A connected verifier."""
    return admin_service_pb2.Verifier(
        verifier_id=state.verifier_id,
        verifier_version=state.verifier_version,
        applied_position=state.applied_position,
        held_kids=state.held_kids,
        last_seen_at=timestamp(now_ms - int(state.silent_seconds * 1000)),
        client_id=state.client_id,
        behind=state.behind,
        connected=state.is_connected,
    )


def _moment(value: datetime) -> Timestamp:
    moment = Timestamp()
    moment.FromDatetime(value)
    return moment


def timestamp(milliseconds: int) -> Timestamp:
    """A moment."""
    moment = Timestamp()
    _set(moment, milliseconds)
    return moment


def _set(moment: Timestamp, milliseconds: int) -> None:
    moment.seconds, rest = divmod(milliseconds, 1000)
    moment.nanos = rest * 1_000_000


def _seconds(message: clients_pb2.ClientPolicy, field: _DurationField) -> int | None:
    if not message.HasField(field):
        return None
    duration: Duration = getattr(message, field)
    if duration.nanos:
        raise field_invalid(f"policy.{field}", "must be whole seconds")
    return duration.seconds
