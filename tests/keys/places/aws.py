"""KMS and Secrets Manager as moto plays them, over HTTP on this machine, for boto3 as it is."""

from __future__ import annotations

import base64
import json
import os
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, padding, utils
from cryptography.hazmat.primitives.hashes import SHA256
from moto.kms.exceptions import NotFoundException
from moto.kms.responses import KmsResponse
from moto.moto_server.threaded_moto_server import ThreadedMotoServer

ACCESS_KEY = "AKIAIOSFODNN7EXAMPLE"
SECRET_KEY = "CANARY-wJalrXUtnFEMI"


def sign_what_was_hashed(response: Any) -> str:
    """``Sign`` as KMS has it. moto takes a message of ``MessageType`` ``DIGEST`` for one that is still to be hashed."""
    if response._get_param("MessageType") != "DIGEST":
        signed: str = sign_as_moto_does(response)
        return signed
    key_id = response._get_param("KeyId")
    response._validate_key_id(key_id)
    key = response.kms_backend.describe_key(key_id)
    if not key.enabled:
        raise NotFoundException(key_id)
    digest = response._get_param("Message")  # which moto has decoded
    private_key, hashed = key.private_key.private_key, utils.Prehashed(SHA256())
    if isinstance(private_key, ec.EllipticCurvePrivateKey):
        signature = private_key.sign(digest, ec.ECDSA(hashed))
    else:
        signature = private_key.sign(digest, padding.PKCS1v15(), hashed)
    return json.dumps({"KeyId": key_id, "Signature": base64.b64encode(signature).decode()})


sign_as_moto_does = KmsResponse.sign
KmsResponse.sign = sign_what_was_hashed  # type: ignore[method-assign]


class Aws:
    """One region."""

    def __init__(self) -> None:
        os.environ["AWS_ACCESS_KEY_ID"] = ACCESS_KEY
        os.environ["AWS_SECRET_ACCESS_KEY"] = SECRET_KEY
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self._server.start()
        self.address = "http://{}:{}".format(*self._server.get_host_and_port())

    def uri_of(self, place: str) -> str:
        """As the setting has it."""
        return f"{place}:eu-central-1?endpoint={self.address}"

    def stop(self) -> None:
        """Ends it."""
        self._server.stop()
