"""Signatures of others: is a certificate good for a domain, and a text signed under it?

Chains are checked by cryptography's path validation (RFC 5280 as the CA/Browser Forum narrows it): issued by an
authority that we trust, in force today, for this domain. Whether it was revoked is not looked up.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

MAX_PEM_BYTES: Final = 64 * 1024
MAX_CERTIFICATES: Final = 8


class CertificateRefused(Exception):  # noqa: N818 - it is a finding
    """A certificate is not good for what it was shown for. The message says no more than the kind of trouble."""


@dataclass(frozen=True, slots=True)
class Signer:
    """Who may sign for a domain.

    Attributes:
        key: Public, RSA.
        until: The end of the certificate.
    """

    key: RSAPublicKey
    until: datetime

    def signed(self, text: bytes, signature: bytes) -> bool:
        """Whether this is its signature over the SHA-256 digest of the text (FIPS 186-4; RSASSA-PKCS1-v1_5)."""
        try:
            self.key.verify(signature, text, PKCS1v15(), SHA256())
        except InvalidSignature:
            return False
        return True


class Authorities:
    """Certificate authorities that we trust.

    Args:
        certificates: Theirs.
    """

    def __init__(self, certificates: Sequence[x509.Certificate]) -> None:
        self._store = Store(list(certificates))

    @classmethod
    def of(cls, path: Path) -> "Authorities":
        """Those in a file.

        Raises:
            CertificateRefused: there are none, too many, or what stands there is no PEM.
            OSError: it cannot be read.
        """
        return cls(_certificates(path.read_bytes()))

    def signer(self, pem: bytes, domain: str, now: datetime | None = None) -> Signer:
        """Who signs for a domain, by a certificate and those between it and an authority, in this order.

        Raises:
            CertificateRefused: it is not good for this.
        """
        leaf, *between = _certificates(pem)
        policy = PolicyBuilder().store(self._store).time(now or datetime.now(UTC))
        try:
            policy.build_server_verifier(x509.DNSName(domain)).verify(leaf, between)
        except VerificationError:
            raise CertificateRefused("its chain is not good for this domain today") from None
        key = leaf.public_key()
        if not isinstance(key, RSAPublicKey):
            raise CertificateRefused("its key is not RSA")
        return Signer(key, leaf.not_valid_after_utc)


def _certificates(pem: bytes) -> list[x509.Certificate]:
    if len(pem) > MAX_PEM_BYTES:
        raise CertificateRefused("it is too long")
    try:
        found = x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise CertificateRefused("it is no certificate in PEM") from None
    if len(found) > MAX_CERTIFICATES:
        raise CertificateRefused("there are too many")
    return found
