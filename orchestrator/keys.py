"""All that keshi does with keys: one place names every purpose.

The ledger's own secret is made at the first start and stands wrapped in the ledger. What has to be answered after a
request's key is gone (is this the same person? was this record in that manifest?) hangs on it; what must be gone
with the request hangs on the request's own key.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from keshi.orchestrator.ledger.port import KeyRow, Ledger
from keshi.runtime.sealing import Derivation, Key, KeyRing, Mac, WrappedKey
from keshi.schemas.base import canonical
from keshi.schemas.identifiers import Identifier
from keshi.schemas.tasks import Found
from keshi.schemas.writing import canonical_whole

_SECRET = "ledger"  # noqa: S105 - the name of a secret, not one


@dataclass(frozen=True, slots=True, repr=False)
class Manifests:
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


def _seal_identifiers(own: Key, identifiers: Iterable[Identifier]) -> str:
    return own.seal([{"type": i.type, "value": i.value} for i in identifiers])


class Keys:
    """The keys of one ledger.

    Args:
        ring: The key-encryption keys.
        root: The ledger's own secret.
    """

    def __init__(self, ring: KeyRing, root: Key) -> None:
        self.ring = ring
        self.root = root
        derivation = Derivation(root)
        self._holder = Mac(derivation.derive("holder"))
        self._item = Mac(derivation.derive("item"))
        self._fingerprint = Mac(derivation.derive("fingerprint"))
        self._manifest = Mac(derivation.derive("manifest"))
        self._lease = Mac(derivation.derive("lease"))
        self._decision = Mac(derivation.derive("decision"))
        self._cursor = Mac(derivation.derive("cursor"))
        self._quarantine = derivation.derive("quarantine")

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
        return _seal_identifiers(key.derive(f"system/{system}"), identifiers)

    @staticmethod
    def seal_identifiers_apart(key: Key, identifiers: Mapping[str, Iterable[Identifier]]) -> dict[str, str]:
        """The same for several systems, each by itself."""
        derivation = Derivation(key)
        return {s: _seal_identifiers(derivation.derive(f"system/{s}"), found) for s, found in identifiers.items()}

    @staticmethod
    def open_identifiers(key: Key, system: str, sealed: Iterable[str]) -> list[dict[str, str]]:
        """What was sealed for this system, each once, as JSON has identifiers: they were judged before."""
        own = key.derive(f"system/{system}")
        found: dict[tuple[str, str], dict[str, str]] = {}
        for text in sealed:
            for identifier in own.open(text):
                found.setdefault((identifier["type"], identifier["value"]), identifier)
        return list(found.values())

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
        rows = [[f.category, f.ref, f.was] for f in union]
        return self._manifest.hex(canonical([request_id, system, rows]))

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
