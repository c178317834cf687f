"""A token of SoftHSM2: a real PKCS #11 module without the hardware."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

PIN = "91827364"
MODULES = (
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
    "/opt/homebrew/lib/softhsm/libsofthsm2.so",
)


class SoftHsm:
    """One token, in a folder of its own. The module reads ``SOFTHSM2_CONF`` when it is first loaded."""

    def __init__(self, folder: Path, module: str) -> None:
        (folder / "tokens").mkdir()
        config = folder / "softhsm2.conf"
        config.write_text(f"directories.tokendir = {folder}/tokens\nlog.level = ERROR\n")
        os.environ["SOFTHSM2_CONF"] = str(config)
        self.module = module
        self.pin_file = folder / "pin"
        self.pin_file.write_text(PIN + "\n")
        command = ["softhsm2-util", "--init-token", "--free", "--label", "identity"]
        subprocess.run([*command, "--so-pin", "12345678", "--pin", PIN], check=True, capture_output=True)

    @property
    def uri(self) -> str:
        """As the setting has it."""
        return self.uri_with("token=identity;object=signing")

    def uri_of(self, place: str) -> str:
        """By the name of the scheme, of which there is one."""
        assert place == "pkcs11"
        return self.uri

    def uri_with(self, path: str) -> str:
        """With another path."""
        return f"pkcs11:{path}?module-path={self.module}&pin-source=file:{self.pin_file}"

    def make_aes_key(self, label: str) -> None:
        """An AES key, made in the token as an operator does it; one of each label."""
        from pkcs11 import Attribute, KeyType, ObjectClass

        from identity.keys.providers.pkcs11_token import TokenSessions
        from identity.keys.providers.pkcs11_uri import Pkcs11Uri

        def make(session: Any) -> None:
            query = {Attribute.CLASS: ObjectClass.SECRET_KEY, Attribute.LABEL: label}
            if not list(session.get_objects(query)):
                session.generate_key(KeyType.AES, 256, label=label, store=True)

        TokenSessions(Pkcs11Uri.parse(self.uri)).writing(make)


def softhsm(folder: Path) -> SoftHsm:
    """A new token; without SoftHSM2 the test is skipped, and fails in CI, which has to have it."""
    module = next((path for path in MODULES if Path(path).exists()), None)
    if module is None or shutil.which("softhsm2-util") is None:
        reason = "SoftHSM2 is not installed; on Debian: apt-get install softhsm2"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return SoftHsm(folder, module)
