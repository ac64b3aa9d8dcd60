"""The lanes of this process, and the one way to write for a lane: a transaction that only its owner can commit."""

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from typing import TypeVar

import structlog
from kafka import KafkaProducer

from keshi.orchestrator.flow import OnTheWay
from keshi.orchestrator.ledger.port import (
    Batch,
    Cycle,
    Lasting,
    Ledger,
    OutboxRow,
    Passing,
    Position,
    Raced,
    WrongOffset,
)
from keshi.orchestrator.ledger.port import NotOwner as LaneLost
from keshi.orchestrator.remembered import RememberedStates
from keshi.orchestrator.sender import Sender
from keshi.orchestrator.stream.port import Lane, LogBounds, LogMismatch, NotOwner

log = structlog.get_logger()
T = TypeVar("T")

OUTBOX_AT_TAKE = 10_000
COLLISIONS = 5
"""How often in a row two transactions may write the same thing before the data are to blame."""
_SETTLE_SECONDS = 0.25
_BACKOFF_SECONDS = (0.02, 0.1, 0.3, 1.0, 2.0)


@dataclass(slots=True)
class Owned:
    """A lane of ours."""

    lane: Lane
    position: Position
    sender: Sender
    states: RememberedStates = field(default_factory=RememberedStates)
    on_the_way: OnTheWay = field(default_factory=OnTheWay)
    numbered: int = 0
    reload: bool = False
    settled: float = field(default_factory=time.monotonic)

    def row(self, topic: str, value: bytes, key: str | None = None, to: int | None = None) -> OutboxRow:
        """The next message of this lane. Its id sorts by the order of sending."""
        self.numbered += 1
        p = self.position
        name = f"{self.lane.stage}-{self.lane.partition:05d}-{p.epoch:010d}-{self.numbered:012d}"
        return OutboxRow(name, topic, value.decode(), key, to)


class Ownership:
    """Takes lanes and gives them up, and commits for them.

    Args:
        ledger: Says who owns what.
        producer: Of all lanes.
    """

    def __init__(self, ledger: Ledger, producer: KafkaProducer) -> None:
        self._ledger = ledger
        self._producer = producer
        self._owned: dict[Lane, Owned] = {}

    # --- lanes

    def take(self, lane: Lane, bounds: LogBounds) -> int:
        """Become the owner of a lane, and send what a former one left; its next offset.

        Raises:
            LogMismatch: the broker's log cannot be the one that the ledger has read.
        """
        position = patiently(lambda: self._ledger.take(lane.stage, lane.partition, bounds.topic_id, bounds.start))
        _check_bounds(lane, position, bounds)
        owned = Owned(lane, position, Sender(self._producer))
        self._owned[lane] = owned
        self._resend(owned)
        log.info("lane_taken", lane=str(lane), epoch=position.epoch, next_offset=position.next)
        return position.next

    def release(self, lane: Lane) -> None:
        """It is another's now, or may be."""
        self._owned.pop(lane, None)

    def find(self, lane: Lane) -> Owned | None:
        """A lane, if it is ours."""
        return self._owned.get(lane)

    def mine(self, lane: Lane) -> Owned:
        """A lane of ours.

        Raises:
            NotOwner: it is none.
        """
        if lane not in self._owned:
            raise NotOwner(lane)
        return self._owned[lane]

    def jump(self, owned: Owned, to: int) -> None:
        """Go on from an offset above the next one.

        Raises:
            NotOwner: the lane is another's.
        """
        try:
            owned.position = patiently(lambda: self._ledger.jump(owned.position, to))
        except LaneLost:
            self.release(owned.lane)
            raise NotOwner(owned.lane) from None

    def _resend(self, owned: Owned) -> None:
        """Send what the ledger still holds for this lane, also what a former owner left."""
        rows = patiently(lambda: self._ledger.outbox(owned.lane.stage, owned.lane.partition, OUTBOX_AT_TAKE))
        owned.sender.send(rows)
        owned.reload = len(rows) == OUTBOX_AT_TAKE

    # --- one transaction

    def waiting(self, partitions: Collection[int]) -> Collection[int]:
        """Of these partitions those that have inbox rows or due moments."""
        return patiently(lambda: self._ledger.waiting(partitions))

    def commit(
        self,
        owned: Owned,
        to: int,
        decide: Callable[[Cycle], Batch],
        in_time: Callable[[Cycle], None] = lambda _: None,
        home: Owned | None = None,
    ) -> None:
        """One transaction, tried again in place while its failure may pass.

        Args:
            owned: The lane.
            to: Its next offset afterwards.
            decide: What to write.
            in_time: Called right before the commit; raises `Passing` where it comes too late.
            home: The lane of `reports` whose requests are decided, where it is not `owned` itself.

        Raises:
            NotOwner: a lane is another's, and nothing was written.
            Lasting: the ledger refuses what was to be written.
        """
        states = (home or owned).states
        at_home = home.position if home is not None else None
        for attempt in range(1_000_000):
            done = owned.sender.settle()
            try:
                with self._ledger.cycle(owned.position, to, at_home) as tx:
                    batch = decide(tx)
                    batch.outbox_done.extend(done)
                    tx.write(batch)
                    in_time(tx)
            except Passing as e:
                if isinstance(e, Raced) and attempt >= COLLISIONS:
                    raise Lasting(str(e)) from None
                # The commit may have been lost on its way back: what it put into the outbox is read again.
                owned.reload = True
                states.forget()
                log.warning("ledger_passing", lane=str(owned.lane), reason=str(e), attempt=attempt)
                time.sleep(_BACKOFF_SECONDS[min(attempt, len(_BACKOFF_SECONDS) - 1)])
            except WrongOffset as e:
                if e.next_offset != to:
                    raise NotOwner(owned.lane) from None
                # Ours, committed, and its answer lost.
                states.forget()
                owned.position = replace(owned.position, next=to)
                self._resend(owned)
                return
            except LaneLost:
                # Of two lanes either may be lost: one that is still ours is taken again.
                for lane in {owned.lane, (home or owned).lane}:
                    self.release(lane)
                raise NotOwner(owned.lane) from None
            else:
                owned.position = replace(owned.position, next=to)
                states.keep(state for state, _ in batch.states)
                owned.sender.forget(done)
                if owned.reload:
                    self._resend(owned)
                return

    def settle(self, owned: Owned) -> None:
        """Delete from the outbox what has arrived, where no other transaction does it."""
        now = time.monotonic()
        if not owned.sender.busy or now - owned.settled < _SETTLE_SECONDS:
            return
        owned.settled = now
        if owned.sender.settle():
            self.commit(owned, owned.position.next, lambda _: Batch())


def patiently(ask: Callable[[], T]) -> T:
    """What the ledger answers, however long that takes."""
    for attempt in range(1_000_000):
        try:
            return ask()
        except Passing as e:
            log.warning("ledger_passing", reason=str(e), attempt=attempt)
            time.sleep(_BACKOFF_SECONDS[min(attempt, len(_BACKOFF_SECONDS) - 1)])
    raise AssertionError


def _check_bounds(lane: Lane, position: Position, bounds: LogBounds) -> None:
    """Whether the broker's log can be the one that the ledger has read."""
    if position.topic_id and bounds.topic_id and position.topic_id != bounds.topic_id:
        raise LogMismatch(f"{lane}: the topic was made anew; its offsets are not those that the ledger knows")
    if bounds.end < position.next:
        raise LogMismatch(f"{lane}: the log ends at {bounds.end}, the ledger has read up to {position.next}")
    if bounds.start > position.next:
        raise LogMismatch(f"{lane}: the log begins at {bounds.start}, the ledger expects {position.next}")
