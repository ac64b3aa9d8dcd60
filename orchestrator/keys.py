"""All that keshi does with keys: one place names every purpose.

The ledger's own secret is made at the first start and stands wrapped in the ledger. What has to be answered after a
request's key is gone (is this the same person? was this record in that manifest?) hangs on it; what must be gone
with the request hangs on the request's own key.
"""

from collections.abc import Iterable, Mapping, Sequence
from threading import Lock, Timer
from typing import Any, Final, NamedTuple

import orjson
from pydantic import BaseModel

from keshi.orchestrator.ledger.port import KeyRow, Ledger
from keshi.runtime.sealing import Key, KeyRing, Mac, WrappedKey
from keshi.schemas.base import canonical
from keshi.schemas.identifiers import Identifier
from keshi.schemas.tasks import Found
from keshi.schemas.writing import canonical_whole

MAX_OPEN: Final = 2048
OPEN_SECONDS: Final = 15.0
_SECRET = "ledger"  # noqa: S105 - the name of a secret, not one


class Manifests(NamedTuple):
    """What was found in one system: references of records, sealed under a key of their own."""

    key: Key

    def seal(self, manifest: Iterable[Found]) -> str:
        """Evidence, or the references of an obligation."""
        return self.key.seal([[f.category, f.ref, f.was] for f in manifest])

    def open(self, sealed: str) -> tuple[Found, ...]:
        """What `seal` sealed."""
        return tuple(Found(category=c, ref=r, was=w) for c, r, w in self.key.open(sealed))

    def __repr__(self) -> str:
        return "Manifests(…)"


class Keys:
    """The keys of one ledger.

    Args:
        ring: The key-encryption keys.
        root: The ledger's own secret.
    """

    def __init__(self, ring: KeyRing, root: Key) -> None:
        self.ring = ring
        self.root = root
        self._holder = Mac(root.derive("holder"))
        self._item = Mac(root.derive("item"))
        self._fingerprint = Mac(root.derive("fingerprint"))
        self._manifest = Mac(root.derive("manifest"))
        self._lease = Mac(root.derive("lease"))
        self._decision = Mac(root.derive("decision"))
        self._cursor = Mac(root.derive("cursor"))
        self._quarantine = root.derive("quarantine")

    @classmethod
    def of(cls, ring: KeyRing, ledger: Ledger) -> "Keys":
        """The keys of a ledger; its secret is made if this is the first start."""
        found = ledger.secret(KeyRow(_SECRET, ring.wrap(Key.random(), _SECRET)))
        root = ring.unwrap(found.key, _SECRET)
        if found.key.kek_id != ring.current:
            # The key-encryption key was changed: the old one is needed for older requests only from now on.
            ledger.rewrap(KeyRow(_SECRET, ring.wrap(root, _SECRET)))
        return cls(ring, root)

    # --- keys that are destroyed with what they belong to

    def new(self, owner: str) -> tuple[Key, WrappedKey]:
        """A key for a request or an obligation, and how it may stand in the ledger."""
        key = Key.random()
        return key, self.ring.wrap(key, owner)

    def open(self, wrapped: WrappedKey, owner: str) -> Key:
        """The key of a request or an obligation."""
        return self.ring.unwrap(wrapped, owner)

    @staticmethod
    def seal_identifiers(key: Key, system: str, identifiers: Iterable[Identifier]) -> str:
        """Identifiers for one system alone."""
        return key.derive(f"system/{system}").seal([{"type": i.type, "value": i.value} for i in identifiers])

    @staticmethod
    def seal_identifiers_apart(key: Key, identifiers: Mapping[str, Iterable[Identifier]]) -> dict[str, str]:
        """The same for several systems, each by itself."""
        return {s: Keys.seal_identifiers(key, s, found) for s, found in identifiers.items()}

    @staticmethod
    def open_identifiers(key: Key, system: str, sealed: Iterable[str]) -> list[dict[str, str]]:
        """What was sealed for this system, each once, as JSON has identifiers: they were judged before."""
        own = key.derive(f"system/{system}")
        return list({(i["type"], i["value"]): i for text in sealed for i in own.open(text)}.values())

    @staticmethod
    def manifests(key: Key, system: str) -> "Manifests":
        """Seals and opens the manifests of one request, or of one obligation, in one system."""
        return Manifests(key.derive(f"manifest/{system}"))

    @staticmethod
    def seal_manifest(key: Key, system: str, manifest: Sequence[Found]) -> str:
        """Evidence, or the references of an obligation."""
        return Keys.manifests(key, system).seal(manifest)

    @staticmethod
    def open_manifest(key: Key, system: str, sealed: str) -> tuple[Found, ...]:
        """What `seal_manifest` sealed."""
        return Keys.manifests(key, system).open(sealed)

    @staticmethod
    def seal_items(key: Key, items: Sequence[str]) -> str:
        """The records that a request is about."""
        return key.derive("items").seal(list(items))

    @staticmethod
    def open_items(key: Key, sealed: str) -> tuple[str, ...]:
        """What `seal_items` sealed."""
        return tuple(key.derive("items").open(sealed))

    # --- keyed hashes that outlive the request

    def holder(self, identifier: Identifier) -> str:
        """The keyed hash that stands for a person's identifier."""
        normal = identifier.normal()
        return self._holder.hex(f"{normal.type}\x00{normal.value}".encode())

    def item(self, item: str) -> str:
        """A record (`category:reference`) with a keyed hash for its reference."""
        category, _, _ = item.partition(":")
        return f"{category}:{self._item.hex(item.encode())[:32]}"

    def fingerprint(self, kind: str, command: BaseModel) -> str:
        """Tells whether a command came before, without keeping it."""
        return self._fingerprint.hex(kind.encode() + b"\x00" + canonical_whole(command))

    def commitment(self, request_id: str, system: str, union: Iterable[Found]) -> str:
        """Keyed digest of a union of manifests, in its canonical order."""
        # Lists of text alone: orjson writes them as RFC 8785 does.
        return self._manifest.hex(orjson.dumps([request_id, system, [[f.category, f.ref, f.was] for f in union]]))

    # --- secrets and signatures that are derived, not stored

    def lease_secret(self, lease_id: str) -> str:
        """The secret under which a report has to be signed."""
        return self._lease.hex(lease_id.encode())

    def decision_signature(self, data: dict[str, Any]) -> str:
        """Signs a person's decision: `DecideTask` without its signature."""
        return self._decision.hex(canonical({k: v for k, v in data.items() if k != "signature"}))

    def cursor_mac(self, body: bytes) -> str:
        """Signs where a page ended: whoever asks for the next one cannot have made it up."""
        return self._cursor.hex(body)

    # --- free text and quarantined payloads, kept as long as their record

    def seal_text(self, request_id: str, words: str) -> str:
        """Free text that a person wrote about a request."""
        return self.root.derive(f"text/{request_id}").seal(words)

    def open_text(self, request_id: str, sealed: str) -> str:
        """What `seal_text` sealed."""
        return str(self.root.derive(f"text/{request_id}").open(sealed))

    def seal_payload(self, payload: bytes) -> str:
        """A message that could not be read."""
        return self._quarantine.seal(payload.hex())

    def __repr__(self) -> str:
        return "Keys(…)"


class OpenKeys:
    """Keys that were opened a moment ago: each is asked for twice by the workers of every system. For several threads.

    Whoever asks has just read the wrapped key from the ledger, and finds an open one by nothing else: what is destroyed
    there opens nothing, whatever is remembered here.

    Args:
        keys: Open what is not remembered.
        most: Keys of one generation; two are remembered.
        seconds: How long one generation lives. Then it goes, whether somebody asks or not.
    """

    def __init__(self, keys: Keys, *, most: int = MAX_OPEN, seconds: float = OPEN_SECONDS) -> None:
        self._keys = keys
        self._most = most
        self._seconds = seconds
        self._lock = Lock()
        self._young: dict[tuple[str, WrappedKey], Key] = {}
        self._old: dict[tuple[str, WrappedKey], Key] = {}
        self._ageing = False

    def open(self, wrapped: WrappedKey, owner: str) -> Key:
        """See `Keys.open`."""
        name = owner, wrapped
        return self._young.get(name) or self._old.get(name) or self._opened(name)

    def _opened(self, name: tuple[str, WrappedKey]) -> Key:
        owner, wrapped = name
        key = self._keys.open(wrapped, owner)
        with self._lock:
            if len(self._young) >= self._most:
                self._old, self._young = self._young, {}
            if not self._ageing:
                self._wake()
            self._young[name] = key
        return key

    def _wake(self) -> None:
        timer = Timer(self._seconds, self._age)
        timer.daemon = True
        timer.start()
        self._ageing = True

    def _age(self) -> None:
        with self._lock:
            self._old, self._young = self._young, {}
            self._ageing = False
            if self._old:
                self._wake()

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def __repr__(self) -> str:
        return "OpenKeys(…)"
