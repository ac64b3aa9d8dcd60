"""Certificates for signing, made for development: an authority of its own, and what it issues for a domain."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DAYS: Final = 397
_BITS: Final = 2048


class Authority:
    """Issues certificates, as long as this object lives: its key is kept nowhere.

    Args:
        name: its common name.
    """

    def __init__(self, name: str) -> None:
        self._key = generate_private_key(65_537, _BITS)
        self._name = _named(name)
        builder = _builder(self._name, self._name, self._key, DAYS)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(_usage(ca=True), critical=True)
        key_id = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        self.certificate = builder.add_extension(key_id, critical=False).sign(self._key, SHA256())

    def issue(self, domain: str, key: Path, certificate: Path, days: int = DAYS) -> None:
        """Writes a new private key, for the eyes of its owner alone, and a certificate for the domain."""
        own = generate_private_key(65_537, _BITS)
        builder = _builder(_named(domain), self._name, own, days)
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        purposes = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
        for extension, critical in (
            (x509.BasicConstraints(ca=False, path_length=None), True),
            (x509.SubjectAlternativeName([x509.DNSName(domain)]), False),
            (purposes, False),
            (authority, False),
            (_usage(ca=False), True),
        ):
            builder = builder.add_extension(extension, critical=critical)
        key.touch(mode=0o600)
        key.write_bytes(own.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        certificate.write_bytes(builder.sign(self._key, SHA256()).public_bytes(Encoding.PEM))

    def write(self, path: Path) -> None:
        """Writes the authority's own certificate, for those who trust it."""
        path.write_bytes(self.certificate.public_bytes(Encoding.PEM))


def in_force(path: Path) -> bool:
    """Whether a certificate is there that counts for another month."""
    try:
        found = x509.load_pem_x509_certificate(path.read_bytes())
    except FileNotFoundError:
        return False
    return found.not_valid_after_utc > datetime.now(UTC) + timedelta(days=30)


def signer(path: Path) -> Callable[[bytes], bytes]:
    """Signs by a private key in a file (RSASSA-PKCS1-v1_5 over SHA-256).

    Raises:
        ValueError: there is no RSA key in it.
    """
    key = load_pem_private_key(path.read_bytes(), None)
    if not isinstance(key, RSAPrivateKey):
        raise ValueError(f"{path} holds no RSA key")  # noqa: TRY004 - it is about what stands in a file
    return lambda text: key.sign(text, PKCS1v15(), SHA256())


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _builder(subject: x509.Name, issuer: x509.Name, key: RSAPrivateKey, days: int) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    return builder.not_valid_before(now - timedelta(days=2)).not_valid_after(now + timedelta(days=days))


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        key_cert_sign=ca,
        crl_sign=ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
