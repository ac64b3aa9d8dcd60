"""Looks for marked identifiers wherever bytes are kept: files, topics, tables. Names places, never what it found."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import psycopg
from kafka import KafkaConsumer, TopicPartition
from psycopg import sql

from kit.marks import Mark

_BLOCK = 64 * 1024 * 1024
_OVERLAP = 4096
_EMPTY = b"\0" * 4096


def in_bytes(marks: Iterable[Mark], data: bytes) -> bool:
    """Whether some mark stands in these bytes, in any writing."""
    return any(mark.found_in(data) for mark in marks)


def in_files(marks: Iterable[Mark], root: Path, but: Iterable[Path] = ()) -> list[str]:
    """Files below `root` that hold a mark, also those that are named after one; those below `but` are left out."""
    left_out, known = tuple(but), tuple(marks)
    found = []
    for path in sorted(root.rglob("*")):
        if any(path.is_relative_to(p) for p in left_out):
            continue
        try:
            leaks = in_bytes(known, path.name.encode()) or (path.is_file() and _in_file(known, path))
        except FileNotFoundError:  # servers delete files of their own while we look
            continue
        if leaks:
            found.append(str(path.relative_to(root)))
    return found


def _in_file(marks: Iterable[Mark], path: Path) -> bool:
    with path.open("rb") as file:
        rest = b""
        while block := file.read(_BLOCK):
            # What is preallocated and empty is passed over: no writing of a mark is as long as that.
            data = rest + block.replace(_EMPTY, b"\0\0")
            if in_bytes(marks, data):
                return True
            rest = data[-_OVERLAP:]
    return False


def in_topics(marks: Iterable[Mark], bootstrap: str, but: Iterable[str] = ()) -> list[str]:
    """Topics with a mark in a key, a value or a header of any message; what is compressed on disk is plain here."""
    known, left_out = tuple(marks), set(but)
    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap, group_id=None, enable_auto_commit=False, exclude_internal_topics=False
    )
    try:
        names = sorted(consumer.topics() - left_out)
        return [name for name in names if any(in_bytes(known, m) for m in _messages(consumer, name))]
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


def in_tables(marks: Iterable[Mark], dsn: str) -> list[str]:
    """Tables of a database with a mark in any row."""
    known = tuple(marks)
    with psycopg.connect(dsn, connect_timeout=10) as db:
        names = db.execute(
            "SELECT schemaname, tablename FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
        ).fetchall()
        return [table for schema, table in names if _in_table(known, db, schema, table)]


def _in_table(marks: tuple[Mark, ...], db: psycopg.Connection, schema: str, table: str) -> bool:
    rows = db.execute(sql.SQL("SELECT t::text FROM {} AS t").format(sql.Identifier(schema, table)))
    return in_bytes(marks, "\n".join(text for (text,) in rows).encode())
