"""``AdminService``: for clients with the grant ``ADMIN`` only."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from grpc_identity.v1 import admin_service_pb2 as admin_pb2
from grpc_identity.v1 import admin_service_pb2_grpc as admin_pb2_grpc
from identity.clients.administration import ClientAdministration
from identity.clients.policy import Grant, require_grant
from identity.clock import Clock
from identity.errors import IdentityError, Reason, field_invalid
from identity.keys.administration import KeyAdministration
from identity.keys.plan import steps_to_come
from identity.rpc import translation, validation
from identity.rpc.calls import Calls
from identity.rpc.metrics import RefreshMetrics
from identity.rpc.unimplemented import answer_unimplemented
from identity.sessions.caller import Caller
from identity.sessions.explain import ExplainSession
from identity.verifiers.census import Census

DEFAULT_PAGE_SIZE = 100
MAX_PAGE_SIZE = 500


class AdminService(admin_pb2_grpc.AdminServiceServicer):
    """The methods of the proto that concern clients, keys, sessions and verifiers; the others are still to come."""

    def __init__(
        self,
        calls: Calls,
        clients: ClientAdministration,
        explain: ExplainSession,
        census: Census,
        clock: Clock,
        keys: KeyAdministration,
        metrics: RefreshMetrics,
    ) -> None:
        self._metrics = metrics
        self._keys = keys
        self._explain = explain
        self._clients = clients
        self._census = census
        self._clock = clock
        behaviours: dict[str, Callable[[Caller, Any], Awaitable[Any]]] = {
            "CreateClient": self._create_client,
            "GetClient": self._get_client,
            "ListClients": self._list_clients,
            "UpdateClient": self._update_client,
            "SetClientDisabled": self._set_client_disabled,
            "RotateClientSecret": self._rotate_client_secret,
            "ListKeys": self._list_keys,
            "RotateKeys": self._rotate_keys,
            "RevokeKey": self._revoke_key,
            "RotateRefreshTokenSecret": self._rotate_refresh_token_secret,
            "ResealKeyring": self._reseal_keyring,
            "ListVerifiers": self._list_verifiers,
            "ExplainSession": self._explain_session,
        }
        for name, behaviour in behaviours.items():
            method = f"/grpc_identity.v1.AdminService/{name}"
            setattr(self, name, calls.guard(method, _admins_only(behaviour)))
        service = admin_pb2.DESCRIPTOR.services_by_name["AdminService"]
        answer_unimplemented(self, calls, service, behaviours.keys())

    async def _create_client(
        self, caller: Caller, request: admin_pb2.CreateClientRequest
    ) -> admin_pb2.CreateClientResponse:
        client, secret = await self._clients.create(
            request.client_id,
            request.display_name,
            translation.policy_value(request.policy),
            caller.circumstances,
        )
        return admin_pb2.CreateClientResponse(client=translation.client(client), client_secret=secret.text)

    async def _get_client(
        self, caller: Caller, request: admin_pb2.GetClientRequest
    ) -> admin_pb2.GetClientResponse:
        del caller
        await self._clients.registry.refresh()
        client = self._clients.registry.get(request.client_id)
        if client is None:
            raise IdentityError(Reason.CLIENT_NOT_FOUND, f"There is no client {request.client_id!r}.")
        return admin_pb2.GetClientResponse(client=translation.client(client))

    async def _list_clients(
        self, caller: Caller, request: admin_pb2.ListClientsRequest
    ) -> admin_pb2.ListClientsResponse:
        del caller
        if not 0 <= request.page_size <= MAX_PAGE_SIZE:
            raise field_invalid("page_size", f"between 1 and {MAX_PAGE_SIZE}")
        size = request.page_size or DEFAULT_PAGE_SIZE
        await self._clients.registry.refresh()
        later = [client for client in self._clients.registry.all() if client.client_id > request.page_token]
        return admin_pb2.ListClientsResponse(
            clients=[translation.client(client) for client in later[:size]],
            next_page_token=later[size - 1].client_id if len(later) > size else "",
        )

    async def _update_client(
        self, caller: Caller, request: admin_pb2.UpdateClientRequest
    ) -> admin_pb2.UpdateClientResponse:
        client = await self._clients.update(
            request.client_id,
            request.display_name,
            translation.policy_value(request.policy),
            caller.circumstances,
        )
        return admin_pb2.UpdateClientResponse(client=translation.client(client))

    async def _set_client_disabled(
        self, caller: Caller, request: admin_pb2.SetClientDisabledRequest
    ) -> admin_pb2.SetClientDisabledResponse:
        client = await self._clients.set_disabled(request.client_id, request.disabled, caller.circumstances)
        if request.disabled:
            self._metrics.client_disabled()
        return admin_pb2.SetClientDisabledResponse(client=translation.client(client))

    async def _rotate_client_secret(
        self, caller: Caller, request: admin_pb2.RotateClientSecretRequest
    ) -> admin_pb2.RotateClientSecretResponse:
        client, secret = await self._clients.rotate_secret(
            request.client_id,
            revoke_previous=request.revoke_previous,
            circumstances=caller.circumstances,
        )
        return admin_pb2.RotateClientSecretResponse(
            client=translation.client(client), client_secret=secret.text
        )

    async def _list_keys(
        self, caller: Caller, request: admin_pb2.ListKeysRequest
    ) -> admin_pb2.ListKeysResponse:
        del caller, request
        roll = await self._census.roll()
        service = self._keys.keys
        return admin_pb2.ListKeysResponse(
            keys=[
                translation.signing_key(key, service.schedule, roll.lacking(key.kid), roll.holding(key.kid))
                for key in reversed(service.keyring.keys)
            ],
            steps=[
                translation.key_step(step)
                for step in steps_to_come(service.keyring, service.clock.now(), service.schedule)
            ],
        )

    async def _rotate_keys(
        self, caller: Caller, request: admin_pb2.RotateKeysRequest
    ) -> admin_pb2.RotateKeysResponse:
        key = await self._keys.rotate(
            at_once=request.now,
            idempotency_key=validation.idempotency_key(request.idempotency_key),
            circumstances=caller.circumstances,
        )
        return admin_pb2.RotateKeysResponse(key=translation.signing_key(key, self._keys.keys.schedule))

    async def _revoke_key(
        self, caller: Caller, request: admin_pb2.RevokeKeyRequest
    ) -> admin_pb2.RevokeKeyResponse:
        active = await self._keys.revoke(validation.kid(request.kid), caller.circumstances)
        return admin_pb2.RevokeKeyResponse(
            active_key=translation.signing_key(active, self._keys.keys.schedule)
        )

    async def _rotate_refresh_token_secret(
        self, caller: Caller, request: admin_pb2.RotateRefreshTokenSecretRequest
    ) -> admin_pb2.RotateRefreshTokenSecretResponse:
        number = await self._keys.rotate_refresh_secret(
            force=request.force, circumstances=caller.circumstances
        )
        return admin_pb2.RotateRefreshTokenSecretResponse(secret_number=number)

    async def _reseal_keyring(
        self, caller: Caller, request: admin_pb2.ResealKeyringRequest
    ) -> admin_pb2.ResealKeyringResponse:
        del request
        done = await self._keys.reseal(caller.circumstances)
        return admin_pb2.ResealKeyringResponse(
            resealed=done.count, kek_fingerprint=done.kek, previous_kek_fingerprint=done.previous_kek
        )

    async def _list_verifiers(
        self, caller: Caller, request: admin_pb2.ListVerifiersRequest
    ) -> admin_pb2.ListVerifiersResponse:
        del caller, request
        now_ms = int(self._clock.now().timestamp() * 1000)
        return admin_pb2.ListVerifiersResponse(
            verifiers=[translation.verifier(state, now_ms) for state in await self._census.verifiers()]
        )

    async def _explain_session(
        self, caller: Caller, request: admin_pb2.ExplainSessionRequest
    ) -> admin_pb2.ExplainSessionResponse:
        del caller
        return translation.explanation(await self._explain(request.session_id))


def _admins_only(
    behaviour: Callable[[Caller, Any], Awaitable[Any]],
) -> Callable[[Caller, Any], Awaitable[Any]]:
    async def checked(caller: Caller, request: Any) -> Any:
        require_grant(caller.policy, Grant.ADMIN)
        return await behaviour(caller, request)

    return checked
