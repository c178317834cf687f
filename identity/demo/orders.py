"""The guarded orders service of the demonstration: two methods behind the interceptor, as another team would write it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.wrappers_pb2 import StringValue

from grpc_identity import Issuer, Policy, UsageAudit, Verifier, current_principal, scope
from grpc_identity.aio import AuthInterceptor
from grpc_identity.usage import UsageRecorder

SERVICE = "shop.v1.Orders"
LIST, REFUND = f"/{SERVICE}/List", f"/{SERVICE}/Refund"
SPOOL_BYTES = 1024 * 1024


async def _list(request: StringValue, context: grpc.aio.ServicerContext[Any, Any]) -> StringValue:
    del request, context
    return StringValue(value=f"orders of {current_principal().subject}: #1001, #1002")


async def _refund(request: StringValue, context: grpc.aio.ServicerContext[Any, Any]) -> StringValue:
    del context
    return StringValue(value=f"order {request.value} refunded by {current_principal().subject}")


@asynccontextmanager
async def orders_service(issuer: Issuer, spool: Path) -> AsyncIterator[str]:
    """Runs the service on loopback, verifying with the issuer's keys and revocations. Gives its target.

    What tokens are used for is recorded, in the folder ``spool`` until the identity service has it.
    """
    policy = (
        Policy()
        .require(LIST, scope("orders.read"), audit=UsageAudit.USE)
        .require(REFUND, scope("orders.refund"), audit=UsageAudit.MUST)
    )
    usage = UsageRecorder(
        issuer.target or "",
        client_id=issuer.client_id,
        client_secret=issuer.client_secret,
        directory=spool,
        spool_bytes=SPOOL_BYTES,
    )
    async with Verifier(issuer) as verifier, usage:
        server = grpc.aio.server(interceptors=[AuthInterceptor(verifier, policy, usage=usage)])
        methods = {
            name: grpc.unary_unary_rpc_method_handler(
                behaviour, StringValue.FromString, StringValue.SerializeToString
            )
            for name, behaviour in (("List", _list), ("Refund", _refund))
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            await server.stop(None)
