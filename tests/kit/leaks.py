"""Looks for marked identifiers wherever bytes are kept: files, topics, tables. Names places, never what it found."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import psycopg
from kafka import KafkaConsumer, TopicPartition
from psycopg import sql

from kit.marks import Mark, is_base64

_BLOCK = 64 * 1024 * 1024
_OVERLAP = 4096
_EMPTY = b"\0" * 4096


class Scan:
    """All writings of some marks, for one pass over many bytes.

    Args:
        marks: what is looked for.
        since: a file that nobody has written to since then holds none of them, and is passed over.
    """

    def __init__(self, marks: Iterable[Mark], since: float = 0) -> None:
        writings = {needle for mark in marks for needle in mark.needles()}
        base64 = {w for w in writings if is_base64(w)}
        self._exact = _without_longer(base64)
        self._folded = _without_longer({w.lower() for w in writings - base64})
        self._since = since

    def fresh(self, path: Path) -> bool:
        """Whether it has been written to since."""
        return path.stat().st_mtime >= self._since

    def __call__(self, data: bytes) -> bool:
        folded = data.lower()
        return any(w in folded for w in self._folded) or any(w in data for w in self._exact)


def _without_longer(needles: set[bytes]) -> tuple[bytes, ...]:
    """Those that no other one is a part of: who finds the part has found the whole."""
    return tuple(n for n in needles if not any(other != n and other in n for other in needles))


def in_files(scan: Scan, root: Path, but: Iterable[Path] = ()) -> list[str]:
    """Files below `root` that hold a mark, also those that are named after one; those below `but` are left out."""
    left_out = tuple(but)
    found = []
    for path in sorted(root.rglob("*")):
        if any(path.is_relative_to(p) for p in left_out):
            continue
        try:
            leaks = scan(path.name.encode()) or (path.is_file() and scan.fresh(path) and _in_file(scan, path))
        except FileNotFoundError:  # servers delete files of their own while we look
            continue
        if leaks:
            found.append(str(path.relative_to(root)))
    return found


def _in_file(scan: Scan, path: Path) -> bool:
    with path.open("rb") as file:
        rest = b""
        while block := file.read(_BLOCK):
            # What is preallocated and empty is passed over: no writing of a mark is as long as that.
            data = rest + block.replace(_EMPTY, b"\0\0")
            if scan(data):
                return True
            rest = data[-_OVERLAP:]
    return False


def in_topics(scan: Scan, bootstrap: str, but: Iterable[str] = ()) -> list[str]:
    """Topics with a mark in a key, a value or a header of any message; what is compressed on disk is plain here."""
    left_out = set(but)
    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap, group_id=None, enable_auto_commit=False, exclude_internal_topics=False
    )
    try:
        names = sorted(consumer.topics() - left_out)
        return [name for name in names if any(scan(m) for m in _messages(consumer, name))]
    finally:
        consumer.close(autocommit=False)


def _messages(consumer: KafkaConsumer, topic: str) -> Iterator[bytes]:
    consumer.assign([TopicPartition(topic, p) for p in consumer.partitions_for_topic(topic) or ()])
    ends = consumer.end_offsets(list(consumer.assignment()))
    consumer.seek_to_beginning()
    while any(consumer.position(p) < end for p, end in ends.items()):
        for batch in consumer.poll(timeout_ms=500).values():
            for m in batch:
                heads = [part for name, value in m.headers or () for part in (name.encode(), value or b"")]
                yield b"\n".join([m.key or b"", m.value or b"", *heads])


def in_tables(scan: Scan, dsn: str) -> list[str]:
    """Tables of a database with a mark in any row."""
    with psycopg.connect(dsn, connect_timeout=10) as db:
        names = db.execute(
            "SELECT schemaname, tablename FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
        ).fetchall()
        return [table for schema, table in names if _in_table(scan, db, schema, table)]


def _in_table(scan: Scan, db: psycopg.Connection, schema: str, table: str) -> bool:
    rows = db.execute(sql.SQL("SELECT t::text FROM {} AS t").format(sql.Identifier(schema, table)))
    return scan("\n".join(text for (text,) in rows).encode())
