"""Sealing of identifiers: compact JWE under keys derived from one key per request.

The request's key is random, wrapped by a key-encryption key (RFC 3394) outside the database, and destroyed when
the request closes: what was sealed under it is then gone wherever it lies (ledger, topics, backups).
"""

import base64
import secrets
from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap

from keshi.runtime.settings import ConfigurationError, KeySettings

KEY_BYTES = 32
_SHA256: Final = hashes.SHA256()
_PROTECTED: Final = base64.urlsafe_b64encode(b'{"alg":"dir","enc":"A256GCM"}').rstrip(b"=")
_IV_BYTES: Final = 12
_TAG_BYTES: Final = 16
_TO_URL: Final = bytes.maketrans(b"+/", b"-_")
_FROM_URL: Final = bytes.maketrans(b"-_+/=", b"+/\0\0\0")
_LAST: Final = (b"", b"", b"AQgw", b"AEIMQUYcgkosw048")
"""What a text may end with that leaves four, two bits over: they are zero. By its length in the last group of four."""


def _base64(raw: bytes) -> bytes:
    """Base64 as in a URL, without padding (RFC 7515, section 2)."""
    return b2a_base64(raw, newline=False).translate(_TO_URL, b"=")


def _unbase64(text: bytes) -> bytes:
    """Strictly: of two texts for the same bytes one is refused, so that a changed seal is never taken."""
    over = len(text) % 4
    if over and text[-1] not in _LAST[over]:
        raise SealBroken
    return a2b_base64(text.translate(_FROM_URL) + b"=" * (-over % 4), strict_mode=True)


class SealBroken(Exception):  # noqa: N818 - names the finding
    """A sealed text was not made with this key, or was changed."""


class Mac:
    """HMAC-SHA-256 under one key for many texts: to make it ready costs more than its work. Serves several threads."""

    __slots__ = ("_ready",)

    def __init__(self, key: "Key") -> None:
        self._ready = HMAC(key.raw, _SHA256)

    def digest(self, data: bytes) -> bytes:
        """The tag, 32 bytes."""
        work = self._ready.copy()
        work.update(data)
        return work.finalize()

    def hex(self, data: bytes) -> str:
        """The tag, hexadecimal."""
        return self.digest(data).hex()


class Key:
    """Thirty-two secret bytes. Its representation shows none of them. Serves several threads."""

    __slots__ = ("_expand", "raw")

    def __init__(self, raw: bytes) -> None:
        self.raw: Final = raw
        self._expand: Mac | None = None

    @classmethod
    def random(cls) -> "Key":
        """A new key."""
        return cls(secrets.token_bytes(KEY_BYTES))

    def derive(self, purpose: str) -> "Key":
        """The key for one purpose (HKDF-SHA-256, RFC 5869). The first of its two steps is done once for all."""
        expand = self._expand
        if expand is None:
            # Section 2.2, without a salt.
            expand = self._expand = Mac(Key(_EXTRACT.digest(self.raw)))
        # Section 2.3: the first block of the output is as long as a key.
        return Key(expand.digest(b"keshi/1/" + purpose.encode() + b"\x01"))

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
            protected, key, iv, text, tag = sealed.encode("ascii").split(b".")
            iv, tag = _unbase64(iv), _unbase64(tag)
            # The header is not asked what to do: there is one way, and the tag covers it.
            if protected != _PROTECTED or key or len(iv) != _IV_BYTES or len(tag) != _TAG_BYTES:
                raise SealBroken
            return orjson.loads(AESGCM(self.raw).decrypt(iv, _unbase64(text) + tag, protected))
        except (InvalidTag, ValueError):
            raise SealBroken from None

    def __repr__(self) -> str:
        return "Key(…)"


_EXTRACT: Final = Mac(Key(bytes(KEY_BYTES)))


class WrappedKey(NamedTuple):
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
        except Base64Error:
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
