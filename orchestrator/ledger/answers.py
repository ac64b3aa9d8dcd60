"""The part of the ledger's port that answers those who ask: readers, operators, and who checks the records."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from keshi.orchestrator.closure import Chain
from keshi.orchestrator.finding import Hits, Place, Sought


@dataclass(frozen=True, slots=True)
class LaneLook:
    """How a lane stands: what waits in it, and the earliest moment at which something is due."""

    stage: str
    partition: int
    epoch: int
    next: int
    topic_id: str | None
    inbox: int
    outbox: int
    next_due: datetime | None


@dataclass(frozen=True, slots=True)
class QuarantineLook:
    """A message that could not be taken, without its payload."""

    id: int
    stage: str
    partition: int
    offset: int
    reason: str
    field: str | None
    size: int
    at: datetime


@dataclass(frozen=True, slots=True)
class ExportRow:
    """That something was exported: by whom, what for, what was asked for, and the hash of what was written."""

    person: str
    purpose: str
    form: str
    filters: str
    requests: int
    lines: int
    sha256: str
    id: int = 0
    at: datetime | None = None


class Asking(Protocol):
    """What a read-only view answers besides."""

    def find(self, sought: Sought, after: Place | None, limit: int) -> Hits:
        """Requests as asked for, from `after` on. May be fewer than `limit`, or none, and still have a next place."""

    def inventories(self, hashes: Collection[str]) -> Mapping[str, str]: ...
    def chains(self) -> Mapping[int, Chain]:
        """The end of each partition's chain."""

    def chained(self, partition: int, after: int, limit: int) -> Sequence[str]:
        """Closure records as they were sealed, in the order of their chain, behind number `after`."""

    def lanes(self) -> Sequence[LaneLook]: ...
    def quarantined(self, limit: int, before: int | None) -> Sequence[QuarantineLook]:
        """What could not be taken, the latest first; `before` is the id of such a row."""

    def exports(self, limit: int, before: int | None) -> Sequence[ExportRow]:
        """What was exported, the latest first; `before` is the id of such a row."""
