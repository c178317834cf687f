"""Keys in an HSM, by PKCS #11: made there, marked sensitive and not extractable, and used there.

The URI names the token (RFC 7512); ``object`` is the label that keys get. A key's private part is the URI of its
``CKA_ID``, 16 random bytes, which are the same on every HSM of a cluster. What the HSM is given to sign is the SHA-256
of a token for ES256, and the token itself for RS256 and EdDSA, whose mechanisms hash for themselves.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers
from pkcs11 import Attribute, GCMParams, KeyType, Mechanism, MechanismFlag, ObjectClass
from pkcs11.util.ec import encode_named_curve_parameters

from grpc_identity.jwk import PublicKey
from identity.keys.ports import ProviderError
from identity.keys.providers.pkcs11_token import TokenSession, TokenSessions
from identity.keys.providers.pkcs11_uri import Pkcs11Uri, key_id_of, key_uri
from identity.keys.providers.purpose import PURPOSE
from identity.keys.providers.remote import NewPair, RemoteKeys, RemoteLimits
from identity.keys.providers.threads import WorkerThreads

RSA_BITS = 3072
KEY_ID_BYTES = 16
NONCE_BYTES = 12
DEFAULT_LABEL = "grpc-identity"
_ED25519_OID = "1.3.101.112"
_CAPABILITIES = MechanismFlag.SIGN | MechanismFlag.VERIFY
_GENERATE = {
    "ES256": Mechanism.EC_KEY_PAIR_GEN,
    "RS256": Mechanism.RSA_PKCS_KEY_PAIR_GEN,
    "EdDSA": Mechanism.EC_EDWARDS_KEY_PAIR_GEN,
}
_SIGN = {"ES256": Mechanism.ECDSA, "RS256": Mechanism.SHA256_RSA_PKCS, "EdDSA": Mechanism.EDDSA}


class Pkcs11Backend:
    """One token."""

    def __init__(self, uri: str, limits: RemoteLimits) -> None:
        self._uri = Pkcs11Uri.parse(uri)
        self._sessions = TokenSessions(self._uri)
        self._threads = WorkerThreads("pkcs11", limits.concurrency)

    @property
    def place(self) -> str:
        """See ``Backend``."""
        return str(self._uri)

    async def generate(self, algorithm: str) -> NewPair:
        """See ``Backend``."""
        return await self._threads.run(self._generate, algorithm)

    async def sign(self, algorithm: str, private_part: bytes, signing_input: bytes) -> bytes:
        """See ``Backend``."""
        return await self._threads.run(self._sign, algorithm, key_id_of(private_part), signing_input)

    async def destroy(self, private_part: bytes) -> None:
        """See ``Backend``."""
        await self._threads.run(self._destroy, key_id_of(private_part))

    async def close(self) -> None:
        """See ``Backend``."""
        self._threads.close()
        self._sessions.close()

    def _generate(self, algorithm: str) -> NewPair:
        if not {_GENERATE[algorithm], _SIGN[algorithm]} <= self._sessions.mechanisms():
            raise ProviderError(
                f"{self._uri} cannot make or use keys for {algorithm}; set keys.algorithm to another one"
            )
        key_id = secrets.token_bytes(KEY_ID_BYTES)

        def make(session: Any) -> PublicKey:
            public, private = _keys(
                session,
                algorithm,
                id=key_id,
                label=self._uri.path.get("object", DEFAULT_LABEL),
                store=True,
                capabilities=_CAPABILITIES,
                mechanism=_GENERATE[algorithm],
                private_template={Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False},
            )
            if private[Attribute.EXTRACTABLE] or not private[Attribute.SENSITIVE]:
                private.destroy()
                public.destroy()
                raise ProviderError(f"{self._uri} makes keys that can be taken out; they are no safer there")
            return _public_key(algorithm, public)

        return NewPair(self._sessions.writing(make), key_uri(key_id).encode())

    def _sign(self, algorithm: str, key_id: bytes, signing_input: bytes) -> bytes:
        data = hashlib.sha256(signing_input).digest() if algorithm == "ES256" else signing_input

        def sign(session: TokenSession) -> bytes:
            signature: bytes = session.private_key(key_id).sign(data, mechanism=_SIGN[algorithm])
            return signature

        return self._sessions.reading(sign)

    def _destroy(self, key_id: bytes) -> None:
        def destroy(session: Any) -> None:
            for found in list(session.get_objects({Attribute.ID: key_id})):
                found.destroy()

        self._sessions.writing(destroy)


class Pkcs11WrappingKey:
    """An AES key of the token, by the label that ``object`` gives. What it wraps starts with the nonce."""

    def __init__(self, uri: str, limits: RemoteLimits) -> None:
        self._uri = Pkcs11Uri.parse(uri)
        if "object" not in self._uri.path:
            raise ProviderError("the PKCS #11 URI needs object=, the label of the AES key that wraps")
        self._sessions = TokenSessions(self._uri)
        self._threads = WorkerThreads("pkcs11", limits.concurrency)

    @property
    def place(self) -> str:
        """See ``WrappingKey``."""
        return str(self._uri)

    async def wrap(self, raw: bytes) -> bytes:
        """See ``WrappingKey``."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        return nonce + await self._threads.run(self._crypt, "encrypt", nonce, raw)

    async def unwrap(self, wrapped: bytes) -> bytes:
        """See ``WrappingKey``."""
        return await self._threads.run(self._crypt, "decrypt", wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:])

    async def close(self) -> None:
        """See ``WrappingKey``."""
        self._threads.close()
        self._sessions.close()

    def _crypt(self, operation: str, nonce: bytes, data: bytes) -> bytes:
        def run(session: TokenSession) -> bytes:
            key = session.raw.get_key(object_class=ObjectClass.SECRET_KEY, label=self._uri.path["object"])
            parameters = GCMParams(nonce, aad=PURPOSE.encode(), tag_bits=128)
            done: bytes = getattr(key, operation)(
                data, mechanism=Mechanism.AES_GCM, mechanism_param=parameters
            )
            return done

        return self._sessions.reading(run)


def wrapping_key(uri: str, limits: RemoteLimits) -> Pkcs11WrappingKey:
    """The key that wraps the key-encryption key. Raises ``ProviderError``."""
    return Pkcs11WrappingKey(uri, limits)


def provider(uri: str, limits: RemoteLimits) -> RemoteKeys:
    """The provider of a URI. Raises ``ProviderError``."""
    return RemoteKeys(Pkcs11Backend(uri, limits), limits, time.monotonic)


def _keys(session: Any, algorithm: str, **template: Any) -> Any:
    """The public and the private half."""
    if algorithm == "RS256":
        return session.generate_keypair(KeyType.RSA, RSA_BITS, **template)
    kind, curve = {"ES256": (KeyType.EC, "secp256r1"), "EdDSA": (KeyType.EC_EDWARDS, _ED25519_OID)}[algorithm]
    parameters = session.create_domain_parameters(
        kind, {Attribute.EC_PARAMS: encode_named_curve_parameters(curve)}, local=True
    )
    return parameters.generate_keypair(**template)


def _public_key(algorithm: str, key: Any) -> PublicKey:
    match algorithm:
        case "RS256":
            exponent, modulus = key[Attribute.PUBLIC_EXPONENT], key[Attribute.MODULUS]
            return RSAPublicNumbers(int.from_bytes(exponent), int.from_bytes(modulus)).public_key()
        case "ES256":
            return EllipticCurvePublicKey.from_encoded_point(
                SECP256R1(), _bare_point(key[Attribute.EC_POINT], 65)
            )
        case _:
            return Ed25519PublicKey.from_public_bytes(_bare_point(key[Attribute.EC_POINT], 32))


def _bare_point(value: bytes, length: int) -> bytes:
    """Without the DER octet string that the standard puts around a point, and some HSMs do not."""
    return value[2:] if len(value) == length + 2 and value[:2] == bytes([4, length]) else value
