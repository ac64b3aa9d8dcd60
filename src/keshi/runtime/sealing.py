"""Sealing of identifiers: compact JWE under keys derived from one key per request.

The request's key is random, wrapped by a key-encryption key (RFC 3394) outside the database, and destroyed when
the request closes: what was sealed under it is then gone wherever it lies (ledger, topics, backups).
"""

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap

from keshi.runtime.settings import ConfigurationError, KeySettings

KEY_BYTES = 32
_PROTECTED = base64.urlsafe_b64encode(b'{"alg":"dir","enc":"A256GCM"}').rstrip(b"=")
_IV_BYTES = 12
_TAG_BYTES = 16


def _base64(raw: bytes) -> bytes:
    return base64.urlsafe_b64encode(raw).rstrip(b"=")


def _unbase64(text: bytes) -> bytes:
    """Strictly: of two texts for the same bytes one is refused, so that a changed seal is never taken."""
    raw = base64.urlsafe_b64decode(text + b"=" * (-len(text) % 4))
    if _base64(raw) != text:
        raise SealBroken
    return raw


class SealBroken(Exception):  # noqa: N818 - names the finding
    """A sealed text was not made with this key, or was changed."""


@dataclass(frozen=True, slots=True, repr=False)
class Key:
    """Thirty-two secret bytes. Its representation shows none of them."""

    raw: bytes

    @classmethod
    def random(cls) -> "Key":
        """A new key."""
        return cls(secrets.token_bytes(KEY_BYTES))

    def derive(self, purpose: str) -> "Key":
        """The key for one purpose (HKDF-SHA-256, RFC 5869)."""
        return Key(HKDF(hashes.SHA256(), KEY_BYTES, salt=None, info=b"keshi/1/" + purpose.encode()).derive(self.raw))

    def seal(self, data: Any) -> str:
        """Seal JSON data as a compact JWE (RFC 7516, sections 3.1 and 5.1, direct encryption)."""
        text = orjson.dumps(data)
        iv = secrets.token_bytes(_IV_BYTES)
        sealed = AESGCM(self.raw).encrypt(iv, text, _PROTECTED)
        parts = _PROTECTED, b"", _base64(iv), _base64(sealed[:-_TAG_BYTES]), _base64(sealed[-_TAG_BYTES:])
        return b".".join(parts).decode()

    def open(self, sealed: str) -> Any:
        """Open what `seal` made.

        Raises:
            SealBroken: with another key, or after any change.
        """
        try:
            protected, key, *rest = sealed.encode("ascii").split(b".")
            iv, text, tag = map(_unbase64, rest)
            # The header is not asked what to do: there is one way, and the tag covers it.
            if protected != _PROTECTED or key or len(iv) != _IV_BYTES or len(tag) != _TAG_BYTES:
                raise SealBroken
            return orjson.loads(AESGCM(self.raw).decrypt(iv, text + tag, protected))
        except (InvalidTag, ValueError):
            raise SealBroken from None

    def mac(self, data: bytes) -> str:
        """Hexadecimal HMAC-SHA-256."""
        return hmac.new(self.raw, data, hashlib.sha256).hexdigest()

    def __repr__(self) -> str:
        return "Key(…)"


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """A key as it may stand in a database: wrapped, with the id of the key that wrapped it."""

    kek_id: str
    wrapped: bytes


@dataclass(frozen=True, slots=True, repr=False)
class KeyRing:
    """The key-encryption keys by id. New keys are wrapped under `current`."""

    current: str
    keys: Mapping[str, Key]

    def wrap(self, key: Key, owner: str) -> WrappedKey:
        """Wrap `key`, bound to the id of what it belongs to."""
        return WrappedKey(self.current, aes_key_wrap(self._for(self.current, owner), key.raw))

    def unwrap(self, wrapped: WrappedKey, owner: str) -> Key:
        """Unwrap a key.

        Raises:
            SealBroken: wrapped for something else, or under another key of this id.
            ConfigurationError: the key-encryption key is not here any more.
        """
        try:
            return Key(aes_key_unwrap(self._for(wrapped.kek_id, owner), wrapped.wrapped))
        except InvalidUnwrap:
            raise SealBroken from None

    def _for(self, kek_id: str, owner: str) -> bytes:
        kek = self.keys.get(kek_id)
        if kek is None:
            raise ConfigurationError(
                f"key-encryption key {kek_id} is missing: add its line to KESHI_KEK_FILE behind the current one"
            )
        return kek.derive(f"wrap/{owner}").raw

    def __repr__(self) -> str:
        return f"KeyRing(current={self.current!r})"


def key_ring(settings: KeySettings) -> KeyRing:
    """Read the key-encryption keys.

    Raises:
        ConfigurationError: none given, or one that cannot be read; its text never repeats the key.
    """
    if settings.kek_file:
        try:
            text = settings.kek_file.read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError):
            raise ConfigurationError(f"KESHI_KEK_FILE: cannot read {settings.kek_file}") from None
    elif settings.kek:
        text = settings.kek.get_secret_value()
    else:
        raise ConfigurationError(
            "no key-encryption key: set KESHI_KEK_FILE (or KESHI_KEK) to a line `id base64-of-32-bytes`; "
            "`keshi keys new` makes one"
        )
    keys: dict[str, Key] = {}
    for number, line in enumerate(text.strip().splitlines(), start=1):
        name, _, encoded = line.strip().partition(" ")
        try:
            raw = base64.b64decode(encoded.strip(), validate=True)
        except binascii.Error:
            raw = b""
        if not name or len(raw) != KEY_BYTES:
            raise ConfigurationError(f"key-encryption key, line {number}: expected `id base64-of-32-bytes`")
        keys[name] = Key(raw)
    if not keys:
        raise ConfigurationError("KESHI_KEK_FILE is empty: put a line `id base64-of-32-bytes` there")
    return KeyRing(next(iter(keys)), keys)


def new_key_line(key_id: str) -> str:
    """A new key-encryption key as its line in the file."""
    return f"{key_id} {base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()}"
