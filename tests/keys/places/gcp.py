"""KMS and Secret Manager of Google Cloud, as far as the providers use them: the real messages over real gRPC.

Made from the API's documentation (cloud.google.com/kms/docs/reference/rpc, cloud.google.com/secret-manager/docs/reference/rpc): the
states of a key version, what is refused in which, signatures in DER, digests that are signed as they come.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from google.cloud import kms_v1, secretmanager_v1
from google.protobuf.empty_pb2 import Empty

Algorithm = kms_v1.CryptoKeyVersion.CryptoKeyVersionAlgorithm
State = kms_v1.CryptoKeyVersion.CryptoKeyVersionState
MAKERS: dict[Any, Callable[[], Any]] = {
    Algorithm.EC_SIGN_P256_SHA256: lambda: ec.generate_private_key(ec.SECP256R1()),
    Algorithm.RSA_SIGN_PKCS1_3072_SHA256: lambda: rsa.generate_private_key(65537, 3072),
    Algorithm.EC_SIGN_ED25519: ed25519.Ed25519PrivateKey.generate,
}
RING = "projects/p/locations/europe-west3/keyRings/identity"
WRAPPING_KEY = f"{RING}/cryptoKeys/kek"


class Gcp:
    """Both services on one port."""

    def __init__(self) -> None:
        self._keys: dict[str, Any] = {}
        self._states: dict[str, State] = {}
        self.secrets: dict[str, list[bytes]] = {}
        self._wrapping = AESGCM(os.urandom(32))
        self._server = grpc.server(ThreadPoolExecutor(4))
        kms, secrets = kms_v1, secretmanager_v1
        self._add(
            "google.cloud.kms.v1.KeyManagementService",
            ("CreateCryptoKey", kms.CreateCryptoKeyRequest, kms.CryptoKey, self._create_key),
            ("GetPublicKey", kms.GetPublicKeyRequest, kms.PublicKey, self._public_key),
            ("AsymmetricSign", kms.AsymmetricSignRequest, kms.AsymmetricSignResponse, self._sign),
            (
                "DestroyCryptoKeyVersion",
                kms.DestroyCryptoKeyVersionRequest,
                kms.CryptoKeyVersion,
                self._destroy,
            ),
            ("Encrypt", kms.EncryptRequest, kms.EncryptResponse, self._encrypt),
            ("Decrypt", kms.DecryptRequest, kms.DecryptResponse, self._decrypt),
        )
        self._add(
            "google.cloud.secretmanager.v1.SecretManagerService",
            ("CreateSecret", secrets.CreateSecretRequest, secrets.Secret, self._create_secret),
            ("AddSecretVersion", secrets.AddSecretVersionRequest, secrets.SecretVersion, self._add_version),
            (
                "AccessSecretVersion",
                secrets.AccessSecretVersionRequest,
                secrets.AccessSecretVersionResponse,
                self._access,
            ),
            ("DeleteSecret", secrets.DeleteSecretRequest, None, self._delete),
        )
        self._port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def uri_of(self, place: str) -> str:
        """As the setting has it."""
        target = RING if place == "gcpkms" else "projects/p"
        return f"{place}:{target}?endpoint=127.0.0.1:{self._port}"

    @property
    def wrapping_uri(self) -> str:
        """Of a symmetric key."""
        return f"gcpkms:{WRAPPING_KEY}?endpoint=127.0.0.1:{self._port}"

    def stop(self) -> None:
        """Ends it."""
        self._server.stop(None).wait()

    def _add(self, service: str, *methods: tuple[str, Any, Any, Callable[[Any, Any], Any]]) -> None:
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(
                method, request.deserialize, response.serialize if response else Empty.SerializeToString
            )
            for name, request, response, method in methods
        }
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))

    def _create_key(self, request: Any, context: Any) -> Any:
        assert request.parent == RING
        key = request.crypto_key
        assert key.purpose == kms_v1.CryptoKey.CryptoKeyPurpose.ASYMMETRIC_SIGN
        name = f"{RING}/cryptoKeys/{request.crypto_key_id}"
        version = f"{name}/cryptoKeyVersions/1"
        if version in self._keys:
            context.abort(grpc.StatusCode.ALREADY_EXISTS, name)
        self._keys[version] = MAKERS[key.version_template.algorithm]()
        self._states[version] = State.PENDING_GENERATION
        return kms_v1.CryptoKey(name=name, purpose=key.purpose, version_template=key.version_template)

    def _enabled(self, name: str, context: Any) -> Any:
        if name not in self._keys:
            context.abort(grpc.StatusCode.NOT_FOUND, name)
        if self._states[name] is not State.ENABLED:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"{name} is {self._states[name].name}")
        return self._keys[name]

    def _public_key(self, request: Any, context: Any) -> Any:
        if self._states.get(request.name) is State.PENDING_GENERATION:
            # Who asks next finds it made.
            self._states[request.name] = State.ENABLED
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"{request.name} is PENDING_GENERATION")
        public = self._enabled(request.name, context).public_key()
        pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        return kms_v1.PublicKey(pem=pem.decode())

    def _sign(self, request: Any, context: Any) -> Any:
        key, hashed = self._enabled(request.name, context), utils.Prehashed(SHA256())
        match key:
            case ec.EllipticCurvePrivateKey():
                signature = key.sign(request.digest.sha256, ec.ECDSA(hashed))
            case rsa.RSAPrivateKey():
                signature = key.sign(request.digest.sha256, padding.PKCS1v15(), hashed)
            case _:
                if not request.data:
                    context.abort(grpc.StatusCode.INVALID_ARGUMENT, "Ed25519 signs data")
                signature = key.sign(request.data)
        return kms_v1.AsymmetricSignResponse(signature=signature, name=request.name)

    def _destroy(self, request: Any, context: Any) -> Any:
        self._enabled(request.name, context)
        self._states[request.name] = State.DESTROY_SCHEDULED
        return kms_v1.CryptoKeyVersion(name=request.name, state=State.DESTROY_SCHEDULED)

    def _encrypt(self, request: Any, context: Any) -> Any:
        if request.name != WRAPPING_KEY:
            context.abort(grpc.StatusCode.NOT_FOUND, request.name)
        nonce = os.urandom(12)
        sealed = self._wrapping.encrypt(nonce, request.plaintext, request.additional_authenticated_data)
        return kms_v1.EncryptResponse(ciphertext=nonce + sealed)

    def _decrypt(self, request: Any, context: Any) -> Any:
        nonce, sealed = request.ciphertext[:12], request.ciphertext[12:]
        try:
            plain = self._wrapping.decrypt(nonce, sealed, request.additional_authenticated_data)
        except InvalidTag:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "Decryption failed")
        return kms_v1.DecryptResponse(plaintext=plain)

    def _create_secret(self, request: Any, context: Any) -> Any:
        name = f"{request.parent}/secrets/{request.secret_id}"
        self.secrets[name] = []
        return secretmanager_v1.Secret(name=name)

    def _add_version(self, request: Any, context: Any) -> Any:
        self.secrets[request.parent].append(request.payload.data)
        return secretmanager_v1.SecretVersion(
            name=f"{request.parent}/versions/{len(self.secrets[request.parent])}"
        )

    def _access(self, request: Any, context: Any) -> Any:
        secret, _, version = request.name.partition("/versions/")
        if not self.secrets.get(secret):
            context.abort(grpc.StatusCode.NOT_FOUND, request.name)
        data = self.secrets[secret][-1 if version == "latest" else int(version) - 1]
        return secretmanager_v1.AccessSecretVersionResponse(name=request.name, payload={"data": data})

    def _delete(self, request: Any, context: Any) -> Any:
        if self.secrets.pop(request.name, None) is None:
            context.abort(grpc.StatusCode.NOT_FOUND, request.name)
        return Empty()
