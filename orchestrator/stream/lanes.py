"""The records of one lane between the stream that brings them and the engine that takes them."""

import asyncio
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from keshi.orchestrator.stream.port import Lane, Record

MAX_RUN_BYTES: Final = 262_144
"""Of the records that the engine gets at once, one alone may be larger. A record of `reports` holds up to two hundred
reports: so many records could be work for minutes, which no transaction may last, and no other lane would have a turn.
"""
FEW: Final = 20
"""Commands that are taken while reports wait."""
MUCH: Final = 2_500
"""Tasks of one partition in workers' hands: lists are as long as they may be, and more only waits there."""


@dataclass(slots=True, eq=False)
class Held:
    """A lane in hand. A new assignment makes a new one, so that late answers to an old one are seen as such.

    Attributes:
        next: The ledger's next offset; meaningless before `ready`.
        taken: `engine.take` was called: a release is due.
        ready: Records are taken in.
        lost_at: When the engine said that another owns it.
        topic_id: Of the topic whose log the engine compared.
        gap: The offset sought back to last, and how often in a row.
        quiet_end: An end of the log up to which a second reader saw no record.
        watched: Next offset and when the watch first saw it, with records waiting behind it.
        read_again: How often it was read anew from that offset.
        stuck: Cycles in a row that moved nothing.
        turn_at: When it last had its turn, or began to wait for one.
        on_the_way: Of a lane of `commands`: tasks of its partition that workers have in hand.
    """

    lane: Lane
    next: int = -1
    taken: bool = False
    ready: bool = False
    lost_at: float | None = None
    topic_id: str | None = None
    gap: tuple[int, int] = (-1, 0)
    quiet_end: int = -1
    watched: tuple[int, float] = (-1, 0.0)
    read_again: int = 0
    stuck: int = 0
    turn_at: float = 0.0
    on_the_way: int = 0
    pending: deque[Record] = field(default_factory=deque)
    drained: asyncio.Event = field(default_factory=asyncio.Event)

    def put(self, record: Record) -> bool:
        """Take a record in, unless the ledger is past it."""
        if not self.ready or record.offset < self.next:
            return False
        if not self.pending:
            self.turn_at = time.monotonic()
        self.pending.append(record)
        self.drained.clear()
        return True

    def run(self, limit: int) -> list[Record]:
        """The next records without a hole, at most `limit`, and not too large; they stay until `advance`."""
        while self.pending and self.pending[0].offset < self.next:
            self.pending.popleft()
        records: list[Record] = []
        size = 0
        for record in self.pending:
            size += len(record.value or b"")
            hole = records and record.offset != records[-1].offset + 1
            if len(records) == limit or hole or (records and size > MAX_RUN_BYTES):
                break
            records.append(record)
        if not self.pending:
            self.drained.set()
        return records

    def advance(self, next_offset: int) -> None:
        """The ledger is at `next_offset`: what lies below is done."""
        self.stuck = self.stuck + 1 if next_offset <= self.next else 0
        self.next = max(self.next, next_offset)
        while self.pending and self.pending[0].offset < self.next:
            self.pending.popleft()
        if not self.pending:
            self.drained.set()

    def drop(self) -> None:
        """Forget what was brought, and let go of who waits for it."""
        self.ready = False
        self.pending.clear()
        self.drained.set()


def next_turn(lanes: Iterable[Held], now: float, patience: float, most: int) -> tuple[Held, int] | None:
    """Whose turn it is, and how many records it gets: `reports` first, `commands` while workers are not full.

    What is begun is ended first. A hundred thousand commands at once then wait on the broker, where they cost nothing,
    and not as open requests whose states have to be read again and again. They are not left for good.

    Args:
        lanes: In hand; who had a turn the longest ago stands first.
        now: Seconds, of the clock of `turn_at`.
        patience: So many seconds commands wait for reports, or for workers.
        most: Records a turn.
    """
    able = [held for held in lanes if held.ready and held.pending]
    late = [held for held in able if held.lane.stage == "commands" and now - held.turn_at > patience]
    reports = [held for held in able if held.lane.stage == "reports"]
    begin = [held for held in able if held.on_the_way < MUCH]
    held = next(iter(late or reports or begin), None)
    if held is None:
        return None
    return held, min(FEW, most) if late and reports else most
