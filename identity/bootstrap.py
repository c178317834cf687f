"""Registering a client without a running service: the first administrator, and the clients of development."""

from __future__ import annotations

from grpc_identity.v1 import clients_pb2
from identity.audit.event import Circumstances
from identity.audit.recorder import RefusalRecorder
from identity.clients.administration import ClientAdministration
from identity.clients.registry import ClientRegistry
from identity.clients.secrets import SecretHasher
from identity.clock import SystemClock
from identity.config import Settings
from identity.parts import StoreParts, key_service
from identity.rpc.translation import policy_value


async def bootstrap_client(
    settings: Settings,
    *,
    client_id: str,
    display_name: str,
    policy: clients_pb2.ClientPolicy,
    replace_secret: bool = False,
) -> str:
    """Registers a client straight in the store, without a running service, and returns its secret.

    With ``replace_secret``, a client that exists gets this name and policy and a new secret, its old ones ending
    at once; without, it is ``CLIENT_EXISTS``.
    """
    store = StoreParts(settings)
    # It may be the first to start, and make the first key: a keyring in a file cannot record that itself.
    recorder = RefusalRecorder(store.outbox)
    keys = key_service(settings, SystemClock(), store, recorder)
    await keys.start()
    await recorder.flush()
    hasher = SecretHasher(keys.client_secret_pepper())
    registry = ClientRegistry(store.clients, hasher)
    administration = ClientAdministration(registry, store.clients, store.revocations, hasher, SystemClock())
    circumstances = Circumstances("", "bootstrap")
    try:
        await registry.refresh()
        if replace_secret and registry.get(client_id) is not None:
            await administration.update(client_id, display_name, policy_value(policy), circumstances)
            _, secret = await administration.rotate_secret(
                client_id, revoke_previous=True, circumstances=circumstances
            )
        else:
            _, secret = await administration.create(
                client_id, display_name, policy_value(policy), circumstances
            )
    finally:
        await keys.close()
        await store.close()
    return secret.text
