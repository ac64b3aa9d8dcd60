"""What the stream asks of an engine: synchronous, called by one thread, one call at a time."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

Stage = Literal["commands", "reports"]
STAGES: tuple[Stage, ...] = ("commands", "reports")


@dataclass(frozen=True, slots=True, order=True)
class Lane:
    """One partition of what is consumed. `stage` is the topic without its prefix."""

    stage: Stage
    partition: int

    def __str__(self) -> str:
        return f"{self.stage}/{self.partition}"


@dataclass(frozen=True, slots=True)
class Record:
    """One record as the broker has it. Its `repr` shows where it lies, never what it says."""

    lane: Lane
    offset: int
    value: bytes | None = field(repr=False)
    key: bytes | None = field(repr=False)
    headers: Sequence[tuple[str, bytes | None]] = field(repr=False)
    timestamp_ms: int


@dataclass(frozen=True, slots=True)
class LogBounds:
    """The broker's log of a lane: first offset kept, next offset to be written, and the topic's UUID."""

    start: int
    end: int
    topic_id: str | None


@dataclass(frozen=True, slots=True)
class Processed:
    """What one cycle did.

    Attributes:
        next_offset: The ledger's next offset now. Records at and above it are given again with the next call.
        more: There is work that waits for no record: `idle` is wanted at once.
        on_the_way: Tasks of the lane's partition that workers have in hand, about.
    """

    next_offset: int
    more: bool = False
    on_the_way: int = 0


class StreamError(Exception):
    """Base of what an engine tells its stream by raising. Messages hold coordinates only."""


class LogMismatch(StreamError):  # noqa: N818 - an answer, not a fault
    """The broker's log cannot be the one the ledger has read: made anew, cut off, or older than what is kept.

    The process stops with an exit code of its own; a person decides.
    """


class Gap(StreamError):  # noqa: N818 - as above
    """The first record given lies above the ledger's next offset: nothing was done."""

    def __init__(self, lane: Lane, expected: int) -> None:
        super().__init__(f"{lane}: records start above {expected}")
        self.lane = lane
        self.expected = expected


class NotOwner(StreamError):  # noqa: N818 - as above
    """Another process has raised the lane's epoch: nothing was done, and nothing more can be."""

    def __init__(self, lane: Lane) -> None:
        super().__init__(f"{lane}: owned by another")
        self.lane = lane


class Engine(Protocol):
    """What the stream drives.

    Passing failures (the ledger is away, a race is lost) are tried again inside. What escapes besides what is
    named here ends the process, and a supervisor starts it again.
    """

    def take(self, lanes: Mapping[Lane, LogBounds]) -> Mapping[Lane, int]:
        """Own these lanes from now on (raise their epoch) and say the next offset of each.

        Raises:
            LogMismatch: The log's bounds or its topic's id do not fit what the ledger has read.
        """
        ...

    def release(self, lanes: Collection[Lane]) -> None:
        """These lanes are no longer ours. A crash skips this call: it can only be a courtesy."""
        ...

    def process(self, lane: Lane, records: Sequence[Record]) -> Processed:
        """Run one cycle over consecutive records of one lane.

        Those below the ledger's next offset are dropped.

        Raises:
            Gap: The first of them lies above the next offset.
            NotOwner: The lane's epoch is another's.
        """
        ...

    def idle(self, lanes: Collection[Lane]) -> float:
        """Do what waits for no record in these lanes: due moments, inbox rows, outbox.

        Returns:
            Seconds until it wants to be called again; the stream keeps them between 0.01 and 1. It is also
            called after a `process` that says so.

        Raises:
            NotOwner: A lane's epoch is another's.
        """
        ...

    def accept_gap(self, lane: Lane, expected: int, seen: int) -> None:
        """Offsets from `expected` to before `seen` hold no record (transaction markers): two readers agree.

        Raises:
            NotOwner: The lane's epoch is another's.
        """
        ...
