"""A host with a small engine that only writes down what it got: `python stream_process.py OPTIONS`.

The engine keeps its books in SQLite with the ledger's rules: compare-and-swap on the next offset, and an epoch
that a new owner raises. A record written down twice breaks a primary key, one left out shows as a hole.
"""

import json
import os
import sqlite3
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from keshi.orchestrator.stream.heartbeat import Heartbeat
from keshi.orchestrator.stream.host import run
from keshi.orchestrator.stream.port import Gap, Lane, LogBounds, LogMismatch, NotOwner, Processed, Record
from keshi.orchestrator.stream.settings import StreamSettings
from keshi.runtime import logs
from keshi.runtime.health import Health, HealthServer
from keshi.runtime.settings import Environment, KafkaSettings, ProcessSettings

SCHEMA = """
CREATE TABLE IF NOT EXISTS lane (
    stage TEXT, part INTEGER, next INTEGER, epoch INTEGER, pid INTEGER, topic_id TEXT,
    PRIMARY KEY (stage, part));
CREATE TABLE IF NOT EXISTS done (
    stage TEXT, part INTEGER, at INTEGER, pid INTEGER, value BLOB, latency_ms INTEGER,
    PRIMARY KEY (stage, part, at));
CREATE TABLE IF NOT EXISTS gap (stage TEXT, part INTEGER, expected INTEGER, seen INTEGER);
CREATE TABLE IF NOT EXISTS refused (stage TEXT, part INTEGER, pid INTEGER);
CREATE TABLE IF NOT EXISTS idle (pid INTEGER PRIMARY KEY, calls INTEGER, lanes INTEGER);
"""


def connect(path: str | Path) -> sqlite3.Connection:
    """Open the books, made on the first call."""
    db = sqlite3.connect(path, timeout=60, isolation_level=None, check_same_thread=False)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=OFF")
    for statement in SCHEMA.split(";"):
        db.execute(statement)
    return db


class BookEngine:
    """Writes down, and can be told by files beside its books to be slow, to stall or to fail."""

    def __init__(self, books: Path, delay_seconds: float) -> None:
        self._db = connect(books)
        self._stall = books.with_suffix(".stall")
        self._fail = books.with_suffix(".fail")
        self._delay = delay_seconds
        self._epochs: dict[Lane, int] = {}
        self._pid = os.getpid()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield self._db
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def take(self, lanes: Mapping[Lane, LogBounds]) -> Mapping[Lane, int]:
        nexts: dict[Lane, int] = {}
        with self._transaction() as db:
            for lane, log in lanes.items():
                db.execute(
                    "INSERT OR IGNORE INTO lane VALUES (?, ?, ?, 0, 0, ?)",
                    (lane.stage, lane.partition, log.start, log.topic_id),
                )
                db.execute(
                    "UPDATE lane SET epoch = epoch + 1, pid = ? WHERE stage = ? AND part = ?",
                    (self._pid, lane.stage, lane.partition),
                )
                found, self._epochs[lane], topic_id = self._row(lane)
                if not log.start <= found <= log.end or topic_id != log.topic_id:
                    raise LogMismatch(f"{lane}: {found} is not in {log}")
                nexts[lane] = found
        return nexts

    def release(self, lanes: Collection[Lane]) -> None:
        for lane in lanes:
            del self._epochs[lane]

    def process(self, lane: Lane, records: Sequence[Record]) -> Processed:
        while self._stall.exists():
            time.sleep(0.05)
        if self._fail.exists():
            raise ValueError(records[0].value)
        time.sleep(self._delay)
        with self._transaction() as db:
            start = self._check(lane)
            offsets = [record.offset for record in records]
            assert offsets == list(range(offsets[0], offsets[0] + len(offsets))), "records with a hole between"
            if offsets[0] > start:
                raise Gap(lane, start)
            new = [record for record in records if record.offset >= start]
            now = round(time.time() * 1000)
            db.executemany(
                "INSERT INTO done VALUES (?, ?, ?, ?, ?, ?)",
                [(lane.stage, lane.partition, r.offset, self._pid, r.value, now - r.timestamp_ms) for r in new],
            )
            following = max(start, offsets[-1] + 1)
            self._advance(lane, start, following)
        return Processed(following)

    def idle(self, lanes: Collection[Lane]) -> float:
        assert set(lanes) <= set(self._epochs), "idle over lanes that are not ours"
        self._db.execute(
            "INSERT INTO idle VALUES (?, 1, ?) ON CONFLICT DO UPDATE SET calls = calls + 1, lanes = excluded.lanes",
            (self._pid, len(lanes)),
        )
        return 0.2

    def accept_gap(self, lane: Lane, expected: int, seen: int) -> None:
        with self._transaction() as db:
            start = self._check(lane)
            assert start == expected, "a gap elsewhere"
            db.execute("INSERT INTO gap VALUES (?, ?, ?, ?)", (lane.stage, lane.partition, expected, seen))
            self._advance(lane, expected, seen)

    def _row(self, lane: Lane) -> Any:
        where = (lane.stage, lane.partition)
        return self._db.execute("SELECT next, epoch, topic_id FROM lane WHERE stage = ? AND part = ?", where).fetchone()

    def _check(self, lane: Lane) -> int:
        start, epoch, _ = self._row(lane)
        if epoch != self._epochs.get(lane):
            raise NotOwner(lane)
        return int(start)

    def _advance(self, lane: Lane, start: int, following: int) -> None:
        changed = self._db.execute(
            "UPDATE lane SET next = ? WHERE stage = ? AND part = ? AND next = ? AND epoch = ?",
            (following, lane.stage, lane.partition, start, self._epochs[lane]),
        )
        assert changed.rowcount == 1


class NoEngine(BookEngine):
    """Does nothing but count, in memory: what the stream itself costs."""

    def __init__(self, books: Path, delay_seconds: float) -> None:
        super().__init__(books, delay_seconds)
        self._nexts: dict[Lane, int] = {}
        self._latency: list[int] = []

    def take(self, lanes: Mapping[Lane, LogBounds]) -> Mapping[Lane, int]:
        self._nexts.update(super().take(lanes))
        return {lane: self._nexts[lane] for lane in lanes}

    def process(self, lane: Lane, records: Sequence[Record]) -> Processed:
        start = self._nexts[lane]
        if records[0].offset > start:
            raise Gap(lane, start)
        self._nexts[lane] = max(start, records[-1].offset + 1)
        now = round(time.time() * 1000)
        self._latency.append(now - records[0].timestamp_ms)
        return Processed(self._nexts[lane])

    def idle(self, lanes: Collection[Lane]) -> float:
        return 0.5

    def release(self, lanes: Collection[Lane]) -> None:
        latency = sorted(self._latency) or [0]
        sys.stdout.write(
            json.dumps(
                {
                    "records": sum(self._nexts.values()), "calls": len(self._latency),
                    "p50": latency[len(latency) // 2], "p99": latency[int(len(latency) * 0.99)],
                    "cpu": sum(os.times()[:2]),
                }
            ) + "\n"
        )  # fmt: skip
        sys.stdout.flush()
        super().release(lanes)


def main() -> int:
    logs.configure(ProcessSettings(environment=Environment.DEVELOPMENT, log_level="debug"))
    options = json.loads(sys.argv[1])
    settings = StreamSettings(
        kafka=KafkaSettings(
            bootstrap=options["bootstrap"],
            prefix=options["prefix"],
            session_timeout_seconds=options["session"],
        ),
        group=f"{options['prefix']}group", heartbeat_seconds=options["session"] / 4,
        **options.get("settings", {}),
    )  # fmt: skip
    kind = NoEngine if options.get("no_op") else BookEngine
    engine = kind(Path(options["books"]), options.get("delay", 0.0))
    heartbeat = Heartbeat(settings.stall_seconds, settings.join_seconds)
    with HealthServer(Health(live=heartbeat.healthy, ready=heartbeat.ready)) as health:
        sys.stdout.write(json.dumps({"health": health.port}) + "\n")
        sys.stdout.flush()
        return run(settings, engine, heartbeat)


if __name__ == "__main__":
    sys.exit(main())
