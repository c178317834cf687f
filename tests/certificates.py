"""Certificates of an authority that only a test trusts."""

from __future__ import annotations

import datetime as dt
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

# What strict verification (RFC 5280, section 4.2.1.3) wants an authority to say: that it signs certificates.
_AUTHORITYS_USE = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)
_HERE = (x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1")))


class Authority:
    """Issues certificates for 127.0.0.1, and for names."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = name
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._certificate = self._sign(name, self._key, is_authority=True)
        self.file = self._write(f"{name}.pem", self._certificate.public_bytes(Encoding.PEM))

    def issue(
        self, name: str, hosts: tuple[str, ...] = (), *, for_this_host: bool = True
    ) -> tuple[Path, Path]:
        """Files of a certificate and its private key."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._sign(
            name, key, is_authority=False, hosts=hosts, addresses=_HERE if for_this_host else ()
        )
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return (
            self._write(f"{name}.pem", certificate.public_bytes(Encoding.PEM)),
            self._write(f"{name}.key", private),
        )

    def _write(self, name: str, content: bytes) -> Path:
        path = self._folder / name
        path.write_bytes(content)
        return path

    def _sign(
        self,
        name: str,
        key: ec.EllipticCurvePrivateKey,
        *,
        is_authority: bool,
        hosts: tuple[str, ...] = (),
        addresses: tuple[x509.GeneralName, ...] = _HERE,
    ) -> x509.Certificate:
        now = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self._name)])
        names = [*addresses, *(x509.DNSName(host) for host in hosts)]
        public, own = key.public_key(), self._key.public_key()
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now)
            .not_valid_after(now + dt.timedelta(days=36500))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(own), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
        )
        if is_authority:
            builder = builder.add_extension(_AUTHORITYS_USE, critical=True)
        return builder.sign(self._key, hashes.SHA256())
