"""``IdentityService``: translates, calls the use case, translates back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from grpc_identity.v1 import identity_service_pb2 as service_pb2
from grpc_identity.v1 import identity_service_pb2_grpc as service_pb2_grpc
from identity.clients.policy import Grant
from identity.clock import Clock
from identity.rpc import translation, validation
from identity.rpc.calls import Calls
from identity.rpc.keys import PublishesKeys, jwks_response
from identity.rpc.metrics import RefreshMetrics
from identity.rpc.unimplemented import answer_unimplemented
from identity.rpc.usage import usage_report
from identity.rpc.verifier_state import VerifierWatch
from identity.sessions.caller import Caller
from identity.sessions.erase import EraseSubject
from identity.sessions.exchange import ExchangeToken
from identity.sessions.explain import ExplainSession
from identity.sessions.introspect import Introspect
from identity.sessions.issue import IssueTokens
from identity.sessions.listing import ListSessions
from identity.sessions.refresh import Refresh
from identity.sessions.revoke import Revoke
from identity.sessions.usage import RecordUsage
from identity.verifiers.census import Census

MAX_PENDING_NAMED = 100


@dataclass(frozen=True, slots=True)
class UseCases:
    """What the service can do."""

    issue: IssueTokens
    refresh: Refresh
    revoke: Revoke
    introspect: Introspect
    list_sessions: ListSessions
    exchange: ExchangeToken
    erase: EraseSubject
    explain: ExplainSession
    record_usage: RecordUsage


class IdentityService(service_pb2_grpc.IdentityServiceServicer):
    """The methods of the proto, each guarded."""

    def __init__(
        self,
        calls: Calls,
        use_cases: UseCases,
        keys: PublishesKeys,
        watch: VerifierWatch,
        census: Census,
        clock: Clock,
        metrics: RefreshMetrics,
    ) -> None:
        self._metrics = metrics
        self._use_cases = use_cases
        self._census = census
        self._keys = keys
        self._clock = clock
        guarded: dict[str, Callable[[Caller, Any], Awaitable[Any]]] = {
            "IssueTokens": self._issue_tokens,
            "Refresh": self._refresh,
            "Revoke": self._revoke,
            "Introspect": self._introspect,
            "ListSessions": self._list_sessions,
            "ExchangeToken": self._exchange_token,
            "EraseSubject": self._erase_subject,
            "RecordUsage": self._record_usage,
        }
        for name, behaviour in guarded.items():
            setattr(self, name, calls.guard(method_name(name), behaviour))
        setattr(self, "GetJWKS", calls.open_to_all(method_name("GetJWKS"), self._get_jwks))  # noqa: B010 - as above
        watching = calls.guard_stream(method_name("WatchVerifierState"), Grant.VERIFY, watch)
        setattr(self, "WatchVerifierState", watching)  # noqa: B010 - as above
        implemented = {*guarded, "GetJWKS", "WatchVerifierState"}
        service = service_pb2.DESCRIPTOR.services_by_name["IdentityService"]
        answer_unimplemented(self, calls, service, implemented)

    async def _issue_tokens(
        self, caller: Caller, request: service_pb2.IssueTokensRequest
    ) -> service_pb2.IssueTokensResponse:
        checked = validation.issue_request(request, now_seconds=int(self._clock.now().timestamp()))
        caller = caller.on_behalf_of(validation.end_user(request.client_context))
        minted = await self._use_cases.issue(caller, checked)
        return service_pb2.IssueTokensResponse(tokens=translation.token_set(minted))

    async def _refresh(
        self, caller: Caller, request: service_pb2.RefreshRequest
    ) -> service_pb2.RefreshResponse:
        checked = validation.refresh_request(request)
        if request.HasField("client_context"):
            caller = caller.on_behalf_of(validation.end_user(request.client_context))
        minted = await self._use_cases.refresh(caller, checked)
        return service_pb2.RefreshResponse(tokens=translation.token_set(minted))

    async def _revoke(self, caller: Caller, request: service_pb2.RevokeRequest) -> service_pb2.RevokeResponse:
        target, cause = validation.revoke_target(request)
        caller = caller.on_behalf_of(validation.end_user(request.client_context))
        wait_seconds = validation.seconds_to_wait(request)
        await self._use_cases.revoke(caller, target, cause)
        self._metrics.revoked(target)
        if wait_seconds is None:
            return service_pb2.RevokeResponse()
        count = await self._census.wait_until_applied(wait_seconds)
        return service_pb2.RevokeResponse(
            applied=count.applied,
            connected=count.connected,
            pending_verifiers=count.pending[:MAX_PENDING_NAMED],
        )

    async def _get_jwks(self, request: service_pb2.GetJWKSRequest) -> service_pb2.GetJWKSResponse:
        return jwks_response(self._keys.published(), known_version=request.if_version)

    async def _introspect(
        self, caller: Caller, request: service_pb2.IntrospectRequest
    ) -> service_pb2.IntrospectResponse:
        active = await self._use_cases.introspect(caller, validation.token(request.token))
        return translation.introspection(active)

    async def _list_sessions(
        self, caller: Caller, request: service_pb2.ListSessionsRequest
    ) -> service_pb2.ListSessionsResponse:
        page = await self._use_cases.list_sessions(
            caller, validation.subject(request.subject), request.page_size, request.page_token
        )
        return service_pb2.ListSessionsResponse(
            sessions=[
                translation.session(state, current=request.current_session_id) for state in page.sessions
            ],
            next_page_token=page.next_page_token,
        )

    async def _exchange_token(
        self, caller: Caller, request: service_pb2.ExchangeTokenRequest
    ) -> service_pb2.ExchangeTokenResponse:
        checked = validation.exchange_request(request)
        caller = caller.on_behalf_of(validation.end_user(request.client_context))
        minted = await self._use_cases.exchange(caller, checked)
        return service_pb2.ExchangeTokenResponse(tokens=translation.token_set(minted))

    async def _erase_subject(
        self, caller: Caller, request: service_pb2.EraseSubjectRequest
    ) -> service_pb2.EraseSubjectResponse:
        erased = await self._use_cases.erase(caller, validation.subject(request.subject))
        self._metrics.erased()
        return service_pb2.EraseSubjectResponse(
            sessions_removed=erased.sessions, entries_removed=erased.entries
        )

    async def _record_usage(
        self, caller: Caller, request: service_pb2.RecordUsageRequest
    ) -> service_pb2.RecordUsageResponse:
        spool_id, uses = usage_report(request, now_ms=int(self._clock.now().timestamp() * 1000))
        taken = await self._use_cases.record_usage(caller, spool_id, uses)
        return service_pb2.RecordUsageResponse(
            recorded=taken.recorded, already_recorded=taken.already_recorded
        )


def method_name(name: str) -> str:
    """The full name of a method of this service."""
    return f"/grpc_identity.v1.IdentityService/{name}"
