"""``IdentityService``: translates, calls the use case, translates back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from google.protobuf.duration_pb2 import Duration

from grpc_identity.v1 import identity_service_pb2 as service_pb2
from grpc_identity.v1 import identity_service_pb2_grpc as service_pb2_grpc
from identity.clock import Clock
from identity.keys.service import PublishedKeys
from identity.rpc import translation, validation
from identity.rpc.calls import Calls
from identity.rpc.unimplemented import answer_unimplemented
from identity.sessions.caller import Caller
from identity.sessions.introspect import Introspect
from identity.sessions.issue import IssueTokens
from identity.sessions.listing import ListSessions
from identity.sessions.refresh import Refresh
from identity.sessions.revoke import Revoke


class PublishesKeys(Protocol):
    """Where the public keys come from."""

    def published(self) -> PublishedKeys:
        """The keys as they are now; costs nothing."""
        ...


@dataclass(frozen=True, slots=True)
class UseCases:
    """What the service can do."""

    issue: IssueTokens
    refresh: Refresh
    revoke: Revoke
    introspect: Introspect
    list_sessions: ListSessions


class IdentityService(service_pb2_grpc.IdentityServiceServicer):
    """The methods of the proto, each guarded."""

    def __init__(self, calls: Calls, use_cases: UseCases, keys: PublishesKeys, clock: Clock) -> None:
        self._use_cases = use_cases
        self._keys = keys
        self._clock = clock
        guarded: dict[str, Callable[[Caller, Any], Awaitable[Any]]] = {
            "IssueTokens": self._issue_tokens,
            "Refresh": self._refresh,
            "Revoke": self._revoke,
            "Introspect": self._introspect,
            "ListSessions": self._list_sessions,
        }
        for name, behaviour in guarded.items():
            setattr(self, name, calls.guard(method_name(name), behaviour))
        setattr(self, "GetJWKS", calls.open_to_all(method_name("GetJWKS"), self._get_jwks))  # noqa: B010 - as above
        answer_unimplemented(
            self, calls, service_pb2.DESCRIPTOR.services_by_name["IdentityService"], {*guarded, "GetJWKS"}
        )

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
        await self._use_cases.revoke(caller, target, cause)
        return service_pb2.RevokeResponse()

    async def _get_jwks(self, request: service_pb2.GetJWKSRequest) -> service_pb2.GetJWKSResponse:
        published = self._keys.published()
        not_modified = request.if_version == published.version
        return service_pb2.GetJWKSResponse(
            keys=() if not_modified else [translation.json_web_key(members) for members in published.jwks],
            version=published.version,
            max_age=Duration(seconds=published.max_age_seconds),
            not_modified=not_modified,
        )

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
            sessions=[translation.session(state) for state in page.sessions],
            next_page_token=page.next_page_token,
        )


def method_name(name: str) -> str:
    """The full name of a method of this service."""
    return f"/grpc_identity.v1.IdentityService/{name}"
