"""The ledger's port: the one store of all that happened. Every implementation passes one contract suite.

A transaction is the only way to change anything. `cycle` transactions begin by moving a lane's offset with
compare-and-swap under the owner's epoch; who lost the lane learns it there and has changed nothing.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, NamedTuple, Protocol

from keshi.orchestrator.closure import Chain
from keshi.orchestrator.context import Lease, Leases
from keshi.orchestrator.door import Door
from keshi.orchestrator.finding import Notes
from keshi.orchestrator.ledger.answers import Asking, ExportRow
from keshi.orchestrator.request import State
from keshi.runtime.sealing import WrappedKey

Stage = Literal["commands", "reports"]


class LedgerError(Exception):
    """Base of what a ledger can say."""


class NotOwner(LedgerError):  # noqa: N818 - names the finding
    """Another process has taken this lane: nothing was changed."""


class WrongOffset(LedgerError):  # noqa: N818
    """The lane's next offset is not the expected one: nothing was changed."""

    def __init__(self, next_offset: int) -> None:
        super().__init__(f"the ledger's next offset is {next_offset}")
        self.next_offset = next_offset


class Passing(LedgerError):  # noqa: N818
    """Connection lost, serialization, deadlock, time-out: the same again may well succeed."""


class NotLetIn(Passing):
    """The database is there, and does not know us, or we not it. It may be set right while we try on."""


class Raced(Passing):
    """Another transaction has written the same: what was read is no longer so."""


class Unusable(LedgerError):  # noqa: N818
    """The database cannot be used as it is set up (rights, tables): nothing is wrong with the data."""


class Lasting(LedgerError):  # noqa: N818
    """The database refuses these data, and will refuse them again."""


class SchemaMismatch(LedgerError):  # noqa: N818
    """The database's schema is not this version's. The message says what to run."""


@dataclass(frozen=True, slots=True)
class Position:
    """Where the owner of a lane stands in it."""

    stage: Stage
    partition: int
    epoch: int
    next: int
    topic_id: str | None


class EventRow(NamedTuple):
    """One fact of a stream (a request or an obligation)."""

    stream: str
    sequence: int
    kind: str
    data: str


@dataclass(frozen=True, slots=True)
class InboxRow:
    """One input for a request of a partition. `id` is the ledger's."""

    partition: int
    request_id: str
    data: str
    id: int = 0


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """One message to produce. Kept until its own send future has succeeded."""

    id: str
    topic: str
    value: str
    key: str | None = None
    to_partition: int | None = None


@dataclass(frozen=True, slots=True)
class Arrival:
    """What became of one offset of `commands`."""

    topic_id: str
    partition: int
    offset: int
    result: Literal["accepted", "duplicate", "rejected", "quarantined"]
    request_id: str | None = None
    code: str | None = None


@dataclass(frozen=True, slots=True)
class QuarantineRow:
    """A message that could not be read: where it stood, why, and its sealed payload."""

    stage: Stage
    partition: int
    offset: int
    reason: str
    field: str | None
    size: int
    sealed: str


@dataclass(frozen=True, slots=True)
class ObligationRow:
    """What is left to do, as it stands."""

    obligation_id: str
    request_id: str
    partition: int
    system: str
    kind: str
    state: str
    due: datetime | None
    sealed: str
    data: str
    sequence: int = 1


@dataclass(frozen=True, slots=True)
class KeyRow:
    """A wrapped key and what it belongs to."""

    owner: str
    key: WrappedKey


@dataclass(frozen=True, slots=True)
class Claim:
    """That an open request speaks of the holder of an identifier (by its keyed hash). `action`: what it asks for."""

    holder: str
    request_id: str
    partition: int
    number: int
    action: str


@dataclass(frozen=True, slots=True)
class ClosureRow:
    """A sealed record."""

    request_id: str
    partition: int
    number: int
    hash: str
    record: str


@dataclass(slots=True)
class Batch:
    """All that one transaction writes. Lists stay empty where nothing is to be done."""

    events: list[EventRow] = field(default_factory=list)
    states: list[tuple[State, datetime | None]] = field(default_factory=list)
    as_accepted: set[str] = field(default_factory=set)
    """Requests among `states` whose case stands in the ledger as it is: it is not written again."""
    inbox: list[InboxRow] = field(default_factory=list)
    inbox_done: list[int] = field(default_factory=list)
    outbox: list[OutboxRow] = field(default_factory=list)
    outbox_done: list[str] = field(default_factory=list)
    arrivals: list[Arrival] = field(default_factory=list)
    quarantine: list[QuarantineRow] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)
    claims_ended: list[str] = field(default_factory=list)
    keys: list[KeyRow] = field(default_factory=list)
    keys_destroyed: list[str] = field(default_factory=list)
    plans: dict[str, str] = field(default_factory=dict)
    inventories: dict[str, str] = field(default_factory=dict)
    closures: list[ClosureRow] = field(default_factory=list)
    obligations: list[ObligationRow] = field(default_factory=list)
    remembered: list[tuple[str, str, str]] = field(default_factory=list)
    obligations_met: list[tuple[str, int]] = field(default_factory=list)
    obligations_due: list[tuple[str, int, datetime]] = field(default_factory=list)
    due_moved: list[tuple[str, datetime]] = field(default_factory=list)
    notes: list[Notes] = field(default_factory=list)
    chain: Chain | None = None

    def add(self, other: "Batch") -> None:
        """Write what another batch writes, too. At most one of them moves the chain."""
        for name in self.__dataclass_fields__:
            mine, more = getattr(self, name), getattr(other, name)
            if isinstance(mine, list):
                mine.extend(more)
            elif mine is None:
                setattr(self, name, more)
            elif more is not None:
                mine.update(more)

    @property
    def empty(self) -> bool:
        """Whether there is nothing to write."""
        return not any(getattr(self, name) for name in self.__dataclass_fields__)


class Cycle(Protocol):
    """An open transaction of the owner of a lane."""

    @property
    def now(self) -> datetime:
        """The database's clock, read once at the start."""

    def lock_partition(self) -> None:
        """Keep `begin` out of this partition until the end, and wait for those that are in it."""

    def lock_holders(self, holders: Collection[str]) -> None:
        """Keep others from accepting requests for these people until the end. In sorted order.

        What is read from here on is read under these locks.
        """

    def states(self, request_ids: Collection[str]) -> Mapping[str, State]: ...
    def leases(self, request_ids: Collection[str], systems: Collection[str] = ()) -> Mapping[str, Leases]:
        """Of each request, in these systems alone where any are named."""

    def manifests(self, request_ids: Collection[str]) -> Mapping[tuple[str, str], Sequence[str]]:
        """The sealed manifests by request and system, oldest first."""

    def keys(self, owners: Collection[str]) -> Mapping[str, WrappedKey]: ...
    def claims(self, holders: Collection[str]) -> Sequence[Claim]:
        """The open claims of these people, read again under their locks; eldest first."""

    def in_force(self, holders: Collection[str]) -> Sequence[tuple[str, str, str, str]]:
        """Open obligations towards these people: (holder, system, obligation, kind)."""

    def closures(self, request_ids: Collection[str]) -> Mapping[str, str]: ...
    def obligations(self, ids: Collection[str]) -> Mapping[str, ObligationRow]: ...
    def plans(self, hashes: Collection[str]) -> Mapping[str, str]: ...
    def inbox(self, limit: int) -> Sequence[InboxRow]:
        """The oldest inputs of this partition."""

    def due(self, limit: int) -> Sequence[str]:
        """Requests of this partition whose moment has come."""

    def due_obligations(self, limit: int) -> Sequence[ObligationRow]:
        """Open obligations of this partition whose moment has come."""

    def chain(self) -> Chain: ...
    def numbers(self, count: int) -> Iterator[int]:
        """Acceptance numbers, rising over all partitions."""

    def write(self, batch: Batch) -> None:
        """Write it, by the end of the transaction at the latest."""

    def written(self) -> None:
        """Wait until all of it is written and nothing is left but to commit."""


class EvidenceRow(NamedTuple):
    """What one attempt found, before anything is destroyed. Insert-only."""

    begin_id: str
    request_id: str
    partition: int
    system: str
    attempt: int
    mode: str
    manifest: str
    digest: str
    counts: str
    searched: str
    learned: str


class LeaseRow(NamedTuple):
    """One go (`ordinal` counts those of a task from 1), or its renewal (`ordinal` 0). Insert-only."""

    lease_id: str
    begin_id: str
    request_id: str
    system: str
    ordinal: int
    until: datetime


class DoorRow(NamedTuple):
    """A request as far as a go depends on it, with its wrapped key, unless that was destroyed.

    `sealed` are the texts with the identifiers for one system, where they were asked for.
    """

    partition: int
    door: Door
    key: WrappedKey | None
    sealed: tuple[str, ...] = ()


class Entry(NamedTuple):
    """What one `begin` brought: evidence, with its lease where it got a go, and its sealed manifest."""

    lease: Lease
    manifest: str


class Begins(Protocol):
    """An open transaction of the API under a partition's shared lock."""

    @property
    def now(self) -> datetime: ...
    def doors(self, request_ids: Collection[str], system: str) -> Mapping[str, DoorRow]:
        """As far as one system is concerned. Without the requests that nobody knows."""

    def entries(self, request_ids: Collection[str], system: str) -> Mapping[str, Sequence[Entry]]:
        """What every `begin` of these requests in one system brought, in the order of `leases`, in one snapshot."""

    def keys(self, owners: Collection[str]) -> Mapping[str, WrappedKey]: ...
    def plans(self, hashes: Collection[str]) -> Mapping[str, str]: ...
    def obligations(self, ids: Collection[str]) -> Mapping[str, ObligationRow]: ...
    def insert(self, evidence: Sequence[EvidenceRow], leases: Sequence[LeaseRow]) -> None: ...


class Reader(Asking, Protocol):
    """A read-only view for queries."""

    @property
    def now(self) -> datetime: ...
    def doors(self, request_ids: Collection[str], system: str, *, sealed: bool = False) -> Mapping[str, DoorRow]:
        """As in `Begins`; if asked for, with the sealed identifiers for this system."""

    def states(self, request_ids: Collection[str]) -> Mapping[str, State]: ...
    def closures(self, request_ids: Collection[str]) -> Mapping[str, str]: ...
    def history(self, stream: str) -> Sequence[tuple[datetime, EventRow]]: ...
    def oldest(self) -> Mapping[str, datetime]:
        """By system with open tasks: when the oldest request that waits for it was accepted."""

    def leases(self, request_ids: Collection[str]) -> Mapping[str, Leases]: ...
    def keys(self, owners: Collection[str]) -> Mapping[str, WrappedKey]: ...
    def obligations(self, ids: Collection[str]) -> Mapping[str, ObligationRow]: ...
    def obligations_of(self, request_id: str) -> Sequence[ObligationRow]: ...
    def plans(self, hashes: Collection[str]) -> Mapping[str, str]: ...


class Ledger(Protocol):
    """The store. Its methods block; each may raise `Passing`."""

    def check(self) -> None:
        """Raise SchemaMismatch unless the schema is this version's."""

    def on_duty(self) -> bool:
        """Whether this process may own lanes: from the first True until it ends, however it ends.

        Where several may share the work all of them do; else one does, and another asks again until it may.
        """

    def partitions(self, wanted: int) -> int:
        """The number of partitions, written at the first start and never changed."""

    def secret(self, propose: KeyRow) -> KeyRow:
        """The ledger's own wrapped secret; `propose` becomes it at the first start."""

    def rewrap(self, secret: KeyRow) -> None:
        """Keep the ledger's secret wrapped under another key-encryption key."""

    def take(self, stage: Stage, partition: int, topic_id: str | None, start: int) -> Position:
        """Become the owner of a lane: raises its epoch. A new lane begins at `start`."""

    def jump(self, position: Position, to: int) -> Position:
        """Go on behind a gap that was seen to be empty."""

    def cycle(self, position: Position, to: int, home: Position | None = None) -> AbstractContextManager[Cycle]:
        """Move the lane from `position.next` to `to`, and write what the block writes, or nothing at all.

        Args:
            position: The lane.
            to: Its next offset afterwards.
            home: The lane of `reports` of the same partition, where the block decides its requests while it moves
                another lane: its owner's epoch has to be this one, and stays so until the end. It does not move.

        Raises:
            NotOwner, WrongOffset: at once.
        """

    def register(self, export: ExportRow) -> int:
        """Note for good that something was exported; returns its number."""

    def begins(self, partition: int) -> AbstractContextManager[Begins]: ...
    def reader(self) -> AbstractContextManager[Reader]: ...
    def outbox(self, stage: Stage, partition: int, limit: int) -> Sequence[OutboxRow]:
        """Messages of a lane that are still to be sent, oldest first."""

    def waiting(self, partitions: Collection[int]) -> Collection[int]:
        """Which of these partitions have inbox rows, or requests whose moment has come."""

    def close(self) -> None: ...
