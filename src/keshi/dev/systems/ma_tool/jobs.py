"""Deletion jobs: taken in, kept, and worked on one after another, also after a restart.

A job deletes the records that it names and no others. What it has deleted stays deleted when it fails. Asked for again
under the same key it is the same job; one that failed begins again.
"""

from __future__ import annotations

import json
import sqlite3
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from keshi.dev.systems.filestore import ConflictError, FileStore, GoneError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from keshi.dev.systems.calls import Row

KINDS: Final = ("behaviour", "mails", "lists", "cookies", "contacts")
"""In the order in which a job deletes them."""
PART: Final = 100
"""So many records go in one transaction."""
HOURS: Final = 24
"""The maker promises that a job is over by then."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS deletions (
    id TEXT PRIMARY KEY, key TEXT NOT NULL UNIQUE, reference TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('queued', 'running', 'done', 'failed')), error TEXT,
    refs TEXT, total INTEGER NOT NULL, deleted INTEGER NOT NULL DEFAULT 0, created_at TEXT NOT NULL, ended_at TEXT);
CREATE INDEX IF NOT EXISTS deletions_reference ON deletions (reference);
CREATE INDEX IF NOT EXISTS deletions_pending ON deletions (created_at) WHERE state IN ('queued', 'running');
"""


class Jobs:
    """The jobs of one store.

    Args:
        store: with their table, and the records that they delete.
    """

    def __init__(self, store: FileStore) -> None:
        self._store = store

    def ask(self, key: str, reference: str, refs: Sequence[str]) -> Row:
        """Takes a job in, or finds the one of this key.

        Raises:
            ConflictError: `key_in_use`: the key names a job over other records.
        """
        text, at = json.dumps(sorted(set(refs))), datetime.now(UTC).isoformat()
        total = len(set(refs))
        with self._store.write() as db:
            known = db.execute("SELECT * FROM deletions WHERE key = ?", (key,)).fetchone()
            if known and (known["total"] != total or known["refs"] not in {None, text}):
                raise ConflictError("key_in_use", "the key belongs to a job over other records")
            if known and known["state"] == "failed":
                query = "UPDATE deletions SET state = 'queued', error = NULL, ended_at = NULL WHERE key = ?"
                db.execute(query, (key,))
            elif not known:
                row = (f"D-{uuid4().hex}", key, reference, text, total, at)
                query = "INSERT INTO deletions (id, key, reference, state, refs, total, created_at)"
                db.execute(f"{query} VALUES (?, ?, ?, 'queued', ?, ?, ?)", row)
        return self._found("key", [key])[0]

    def get(self, job: str) -> Row:
        """One job.

        Raises:
            GoneError: there is none.
        """
        found = self._found("id", [job])
        if not found:
            raise GoneError
        return found[0]

    def search(self, column: str, values: Sequence[str], *, after: str, limit: int) -> list[Row]:
        """Jobs past `after` with one of these ids or references."""
        return [job for job in self._found(column, values) if job["id"] > after][:limit]

    def _found(self, column: str, values: Sequence[str]) -> list[Row]:
        holes = ", ".join("?" * len(values))
        names = "id, reference, state, error, total, deleted, created_at, ended_at"
        query = f"SELECT {names} FROM deletions WHERE {column} IN ({holes}) ORDER BY id"  # noqa: S608 - own names
        return [_told(row) for row in self._store.rows(query, values)]

    # --- working

    def pending(self) -> bool:
        """Whether there is a job to work on."""
        return bool(self._store.rows("SELECT 1 FROM deletions WHERE state IN ('queued', 'running') LIMIT 1"))

    def step(self) -> bool:
        """Does one part of the oldest job that can go on; False where there is nothing to do.

        A job whose contacts still stand on a partner's list lets the others pass.
        """
        query = "SELECT * FROM deletions WHERE state IN ('queued', 'running') ORDER BY created_at, id"
        return any(self._part(job) for job in self._store.rows(query))

    def _part(self, job: Row) -> bool:
        """One transaction; whether anything came of it."""
        refs: list[str] = json.loads(job["refs"])
        try:
            with self._store.write() as db:
                left = _left(db, refs)
                gone = _delete_some(db, left[:PART])
                moved = gone > 0 or not left or job["state"] == "queued"
                if moved:
                    _note(db, job["id"], "running" if gone < len(left) else "done", gone)
        except sqlite3.IntegrityError:
            with self._store.write() as db:
                _note(db, job["id"], "failed", 0, error="has_children")
            return True
        return moved


def ask_partners(db: sqlite3.Connection, contacts: Sequence[str]) -> None:
    """Tells the ad partners to take contacts from their lists."""
    holes, at = ", ".join("?" * len(contacts)), datetime.now(UTC).isoformat()
    query = "UPDATE audiences SET status = 'removal_asked', asked_at = ? WHERE status = 'active'"
    db.execute(f"{query} AND contact_id IN ({holes})", (at, *contacts))


def _left(db: sqlite3.Connection, refs: Sequence[str]) -> list[tuple[str, str]]:
    """Those of the records that exist, in the order in which they go."""
    found: list[tuple[str, str]] = []
    for kind in KINDS:
        ids = [ref.partition(":")[2] for ref in refs if ref.partition(":")[0] == kind]
        for n in range(0, len(ids), PART):
            some = ids[n : n + PART]
            holes = ", ".join("?" * len(some))
            found += [(kind, r["id"]) for r in db.execute(f"SELECT id FROM {kind} WHERE id IN ({holes})", some)]  # noqa: S608 - own names
    return found


def _delete_some(db: sqlite3.Connection, part: Sequence[tuple[str, str]]) -> int:
    """How many records went. Contacts wait for the partners that have them on their lists."""
    ask_partners(db, [record for kind, record in part if kind == "contacts"])
    gone = 0
    for kind, record in part:
        query = "SELECT 1 FROM audiences WHERE contact_id = ? AND status <> 'removed'"
        if kind != "contacts" or not db.execute(query, (record,)).fetchone():
            gone += db.execute(f"DELETE FROM {kind} WHERE id = ?", (record,)).rowcount  # noqa: S608 - own names
    return gone


def _note(db: sqlite3.Connection, job: str, state: str, gone: int, *, error: str | None = None) -> None:
    """Writes down how far it has come. Of one that is done no record's name is kept."""
    over = datetime.now(UTC).isoformat() if state in {"done", "failed"} else None
    db.execute(
        "UPDATE deletions SET state = ?, error = ?, deleted = deleted + ?, ended_at = ?,"
        " refs = CASE WHEN ? = 'done' THEN NULL ELSE refs END WHERE id = ?",
        (state, error, gone, over, state, job),
    )


def _told(job: dict[str, Any]) -> Row:
    """As it is shown: with its age in seconds, and whether the maker's promise is broken."""
    created = datetime.fromisoformat(job["created_at"])
    end = datetime.fromisoformat(job["ended_at"]) if job["ended_at"] else datetime.now(UTC)
    overdue = job["state"] in {"queued", "running"} and end - created > timedelta(hours=HOURS)
    return {**job, "age_seconds": int((end - created).total_seconds()), "overdue": overdue}
