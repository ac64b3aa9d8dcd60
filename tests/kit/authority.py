"""An authority that vouches for servers and clients of a test. Its key is kept nowhere."""

from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID


class Authority:
    """Issues certificates as long as this object lives.

    Args:
        directory: Where all files lie.
        name: Its common name, and the name of its file.
    """

    def __init__(self, directory: Path, name: str = "ca") -> None:
        self._directory = directory
        self._key = generate_private_key(SECP256R1())
        self._name = _named(name)
        builder = _builder(self._name, self._name, self._key)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(_for_signing(), critical=True)
        certificate = builder.sign(self._key, SHA256()).public_bytes(Encoding.PEM)
        self.file = directory / f"{name}.pem"
        """Its own certificate, for those who trust it."""
        self.file.write_bytes(certificate)

    def issue(self, name: str, *addresses: str) -> Path:
        """A private key and its certificate in one file, for the eyes of its owner alone.

        Args:
            name: The common name, and the name of the file.
            addresses: Names and IPv4 addresses of a server.
        """
        key = generate_private_key(SECP256R1())
        builder = _builder(_named(name), self._name, key)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = builder.add_extension(issuer, critical=False)
        if addresses:
            names = x509.SubjectAlternativeName([_address(a) for a in addresses])
            builder = builder.add_extension(names, critical=False)
        file = self._directory / f"{name}.pem"
        file.touch(mode=0o600)
        file.write_bytes(
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            + builder.sign(self._key, SHA256()).public_bytes(Encoding.PEM)
        )
        return file


def _address(address: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(IPv4Address(address))
    except ValueError:
        return x509.DNSName(address)


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _builder(subject: x509.Name, issuer: x509.Name, key: EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    key_id = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return builder.add_extension(key_id, critical=False)


def _for_signing() -> x509.KeyUsage:
    return x509.KeyUsage(
        key_cert_sign=True,
        crl_sign=True,
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
