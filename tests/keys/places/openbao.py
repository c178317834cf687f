"""A real OpenBao on this machine, which keeps what it has when it is killed."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx

BINARY = Path(sys.executable).with_name("bao")
START_SECONDS = 30.0
POLICY = """
path "transit/keys/grpc-identity-*" { capabilities = ["create", "read", "update", "delete"] }
path "transit/sign/grpc-identity-*" { capabilities = ["update"] }
path "transit/encrypt/kek" { capabilities = ["update"] }
path "transit/decrypt/kek" { capabilities = ["update"] }
"""


class OpenBao:
    """One server. ``token_file`` holds a token that may do what the documents say it must."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._port = _free_port()
        self._unseal_key = ""
        self.root_token = ""
        self.token_file = folder / "token"
        self.address = f"http://127.0.0.1:{self._port}"

    @property
    def uri(self) -> str:
        """As the setting has it."""
        return f"transit:{self.address}/transit?token-file={self.token_file}"

    @property
    def pid(self) -> int:
        """Of its process."""
        assert self._process is not None
        return self._process.pid

    def uri_of(self, place: str) -> str:
        """By the name of the scheme, of which there is one."""
        assert place == "transit"
        return self.uri

    def set_up(self) -> None:
        """Starts it for the first time: a Transit engine, a policy, a token."""
        (self._folder / "data").mkdir()
        self._config.write_text(
            json.dumps(
                {
                    "storage": {
                        "raft": {
                            "path": str(self._folder / "data"),
                            "node_id": "one",
                            "performance_multiplier": 1,
                        }
                    },
                    "cluster_addr": f"http://127.0.0.1:{_free_port()}",
                    "listener": {"tcp": {"address": f"127.0.0.1:{self._port}", "tls_disable": True}},
                    "api_addr": self.address,
                }
            )
        )
        self._launch()
        made = self.call("PUT", "sys/init", {"secret_shares": 1, "secret_threshold": 1})
        self._unseal_key, self.root_token = made["keys"][0], made["root_token"]
        self._unseal()
        self.call("POST", "sys/mounts/transit", {"type": "transit"})
        self.call("POST", "transit/keys/kek", {"type": "aes256-gcm96"})
        self.call("POST", "sys/policies/acl/grpc-identity", {"policy": POLICY})
        self.token_file.write_text(self.new_token(period="1h"))

    def new_token(self, **fields: Any) -> str:
        """A token with the policy of the service."""
        body = {"policies": ["grpc-identity"], **fields}
        token: str = self.call("POST", "auth/token/create", body)["auth"]["client_token"]
        return token

    def kill(self) -> None:
        """As a crash does it."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def bring_back(self) -> None:
        """After ``kill``, on the same port with what it had, and after ``hang``."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
        else:
            self._launch()
            self._unseal()

    def hang(self) -> None:
        """Keeps it from answering, with its port open."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """As the administrator."""
        headers = {"X-Vault-Token": self.root_token} if self.root_token else {}
        response = httpx.request(
            method, f"{self.address}/v1/{path}", json=body, headers=headers, trust_env=False, timeout=20
        )
        assert response.is_success, (path, response.status_code, response.text)
        return response.json() if response.content else {}

    @property
    def _config(self) -> Path:
        return self._folder / "config.json"

    def _launch(self) -> None:
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [BINARY, "server", f"-config={self._config}"], stdout=log, stderr=subprocess.STDOUT
            )
        deadline = time.monotonic() + START_SECONDS
        while True:
            assert self._process.poll() is None, (self._folder / "log").read_text()
            try:
                httpx.get(f"{self.address}/v1/sys/seal-status", trust_env=False)
            except httpx.HTTPError:
                assert time.monotonic() < deadline, "OpenBao does not start"
                time.sleep(0.05)
            else:
                return

    def _unseal(self) -> None:
        assert self.call("PUT", "sys/unseal", {"key": self._unseal_key})["sealed"] is False
        deadline = time.monotonic() + START_SECONDS
        while httpx.get(f"{self.address}/v1/sys/health", trust_env=False).status_code != 200:
            assert time.monotonic() < deadline, "OpenBao does not become active"
            time.sleep(0.05)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
