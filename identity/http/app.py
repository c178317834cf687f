"""The HTTP side: public keys, metadata (RFC 8414), health and metrics. Reads only; no credentials, no cookies."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from identity.keys.service import PublishedKeys
from identity.readiness import Problem

JWKS_PATH = "/.well-known/jwks.json"
METADATA_PATH = "/.well-known/oauth-authorization-server"

_log = logging.getLogger(__name__)


class PublishesKeys(Protocol):
    """Where the public keys come from."""

    def published(self) -> PublishedKeys:
        """The keys as they are now."""
        ...


def create_app(
    *,
    keys: PublishesKeys,
    issuer: str,
    readiness: Callable[[], Awaitable[Sequence[Problem]]],
    metrics: CollectorRegistry,
    extra_routes: Sequence[BaseRoute] = (),
) -> Starlette:
    """The ASGI application."""

    async def jwks(request: Request) -> Response:
        published = keys.published()
        if not published.jwks:
            # An empty set would be kept, and would refuse every token for as long.
            return JSONResponse({"error": "no_keys"}, status_code=503, headers=_NO_STORE)
        headers = {
            "Cache-Control": f"public, max-age={published.max_age_seconds}, must-revalidate",
            "ETag": f'"{published.version}"',
        }
        if _matches(request.headers.get("If-None-Match", ""), headers["ETag"]):
            return Response(status_code=304, headers=headers)
        body = {"keys": [dict(key) for key in published.jwks]}
        return JSONResponse(body, headers=headers, media_type="application/jwk-set+json")

    async def metadata(request: Request) -> Response:
        del request
        # Tokens are had by gRPC, so there is no endpoint to name for them; RFC 8414 leaves that open to profiles.
        return JSONResponse(
            {
                "issuer": issuer,
                "jwks_uri": issuer.rstrip("/") + JWKS_PATH,
                "response_types_supported": [],
                "grant_types_supported": ["client_credentials", "refresh_token"],
                "token_endpoint_auth_methods_supported": ["client_secret_basic"],
            },
            headers={"Cache-Control": "public, max-age=3600"},
        )

    return _application(
        [
            Route(JWKS_PATH, jwks),
            Route(METADATA_PATH, metadata),
            *_operations_routes(readiness, metrics),
            *extra_routes,
        ]
    )


def create_operations_app(
    *, readiness: Callable[[], Awaitable[Sequence[Problem]]], metrics: CollectorRegistry
) -> Starlette:
    """The ASGI application of a process that publishes nothing: health and metrics."""
    return _application(_operations_routes(readiness, metrics))


def _operations_routes(
    readiness: Callable[[], Awaitable[Sequence[Problem]]], metrics: CollectorRegistry
) -> Sequence[BaseRoute]:
    async def healthz(request: Request) -> Response:
        del request
        return JSONResponse({"status": "alive"}, headers=_NO_STORE)

    async def readyz(request: Request) -> Response:
        del request
        try:
            problems = await readiness()
        except Exception:
            _log.exception("readiness could not be found out")
            problems = [Problem("readiness_unknown", "Readiness could not be found out; the log says why.")]
        is_blocked = any(problem.blocks for problem in problems)
        body = {
            "status": "not ready" if is_blocked else "ready",
            "problems": [{"name": problem.name, "message": problem.message} for problem in problems],
        }
        return JSONResponse(body, status_code=503 if is_blocked else 200, headers=_NO_STORE)

    async def prometheus(request: Request) -> Response:
        del request
        return Response(generate_latest(metrics), media_type=CONTENT_TYPE_LATEST, headers=_NO_STORE)

    return (Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", prometheus))


def _application(routes: Sequence[BaseRoute]) -> Starlette:
    app = Starlette(
        routes=routes,
        middleware=[Middleware(_SecurityHeaders)],
        exception_handlers={404: _not_found, 405: _method_not_allowed, 500: _failed},
    )
    # A redirect would name whatever host the caller has named.
    app.router.redirect_slashes = False
    return app


_NO_STORE = {"Cache-Control": "no-store"}


class _SecurityHeaders:
    """Plain ASGI, because Starlette's own base class costs a task a request."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), (b"x-content-type-options", b"nosniff")]
            await send(message)

        await self._app(scope, receive, send_with_headers if scope["type"] == "http" else send)


def _matches(if_none_match: str, etag: str) -> bool:
    # RFC 9110, section 13.1.2: a list of tags, compared weakly.
    tags = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return "*" in tags or etag in tags


async def _not_found(request: Request, error: Exception) -> Response:
    del request, error
    return JSONResponse({"error": "not_found"}, status_code=404)


async def _method_not_allowed(request: Request, error: Exception) -> Response:
    del request
    # RFC 9110, section 15.5.6: the answer says what is allowed.
    headers = error.headers if isinstance(error, HTTPException) else None
    return JSONResponse({"error": "method_not_allowed"}, status_code=405, headers=headers)


async def _failed(request: Request, error: Exception) -> Response:
    del request, error
    # Made outside all middleware, so it brings the header itself.
    headers = {"X-Content-Type-Options": "nosniff"}
    return JSONResponse({"error": "internal"}, status_code=500, headers=headers)
