"""The CRM's store: one SQLite file, crash-safe. What a write has returned from survives a kill -9."""

from __future__ import annotations

import fcntl
import sqlite3
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from keshi.dev.systems.people import Person

FILE = "crm.sqlite3"
KINDS = ("contacts", "cards", "activities")
SEARCHABLE = ("email", "phone", "customer_id")

_STATE = """
    status TEXT NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'suspended')),
    suspended_by TEXT,
    CHECK ((status = 'suspended') = (suspended_by IS NOT NULL))
"""
_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS contacts (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, email TEXT COLLATE NOCASE, phone TEXT, customer_id TEXT,
    company TEXT NOT NULL, duplicate_of TEXT REFERENCES contacts (id) ON DELETE SET NULL, {_STATE});
CREATE INDEX IF NOT EXISTS contacts_email ON contacts (email);
CREATE INDEX IF NOT EXISTS contacts_phone ON contacts (phone);
CREATE INDEX IF NOT EXISTS contacts_customer ON contacts (customer_id);
CREATE INDEX IF NOT EXISTS contacts_duplicate ON contacts (duplicate_of);
CREATE TABLE IF NOT EXISTS cards (
    id TEXT PRIMARY KEY, contact_id TEXT NOT NULL REFERENCES contacts (id), image_text TEXT NOT NULL,
    email TEXT, {_STATE});
CREATE INDEX IF NOT EXISTS cards_contact ON cards (contact_id);
CREATE TABLE IF NOT EXISTS activities (
    id TEXT PRIMARY KEY, contact_id TEXT NOT NULL REFERENCES contacts (id), kind TEXT NOT NULL,
    at TEXT NOT NULL, note TEXT NOT NULL, {_STATE});
CREATE INDEX IF NOT EXISTS activities_contact ON activities (contact_id);
"""

_CLUSTER = """
WITH RECURSIVE cluster (id) AS (
    VALUES (:id)
    UNION SELECT c.id FROM cluster k JOIN contacts c ON c.duplicate_of = k.id
    UNION SELECT c.duplicate_of FROM cluster k JOIN contacts c ON c.id = k.id WHERE c.duplicate_of IS NOT NULL
)
SELECT * FROM contacts
WHERE id IN (SELECT id FROM cluster) AND id <> :id AND id > :after ORDER BY id LIMIT :limit
"""

Row = dict[str, Any]


class GoneError(Exception):
    """There is no such record (any more)."""


class ConflictError(Exception):
    """The record is not in a state that allows this; `code` says why."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class InUseError(Exception):
    """Another process works with this data directory."""


class Store:
    """All access to the CRM's records, safe to share between threads.

    Raises:
        InUseError: a second process (or store) was opened on the same directory.
    """

    def __init__(self, data: Path) -> None:
        data.mkdir(parents=True, exist_ok=True)
        self._owner = (data / "lock").open("w")
        try:
            fcntl.flock(self._owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._owner.close()
            raise InUseError(f"another CRM runs on {data}; stop it or name another directory") from None
        self._lock = Lock()
        self._db = sqlite3.connect(data / FILE, isolation_level=None, check_same_thread=False)
        self._db.row_factory = sqlite3.Row
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("PRAGMA foreign_keys = ON")
        self._db.execute("PRAGMA secure_delete = ON")  # what is deleted is overwritten, not only unlinked
        self._db.executescript(_SCHEMA)

    def close(self) -> None:
        """Puts the log into the file and lets go of the directory."""
        with self._lock:
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._db.close()
            self._owner.close()

    def get(self, kind: str, record_id: str) -> Row:
        """One record.

        Raises:
            GoneError: there is none.
        """
        rows = self._rows(f"SELECT * FROM {_known(kind)} WHERE id = ?", (record_id,))  # noqa: S608 - a known table
        if not rows:
            raise GoneError
        return rows[0]

    def search(self, wanted: dict[str, list[str]], *, after: str, limit: int) -> list[Row]:
        """Contacts past `after` with any of the values, by id; e-mail regardless of (ASCII) case."""
        terms, values = [], []
        for column in SEARCHABLE:
            if column in wanted:
                terms.append(f"{column} IN ({', '.join('?' * len(wanted[column]))})")
                values += wanted[column]
        query = f"SELECT * FROM contacts WHERE ({' OR '.join(terms)}) AND id > ? ORDER BY id LIMIT ?"  # noqa: S608 - own column names
        return self._rows(query, (*values, after, limit))

    def duplicates(self, contact_id: str, *, after: str, limit: int) -> list[Row]:
        """All other contacts linked to this one, over any number of links and in both directions."""
        self.get("contacts", contact_id)
        return self._rows(_CLUSTER, {"id": contact_id, "after": after, "limit": limit})

    def children(self, kind: str, contact_id: str, *, after: str, limit: int) -> list[Row]:
        """The cards or activities of a contact."""
        self.get("contacts", contact_id)
        query = f"SELECT * FROM {_known(kind)} WHERE contact_id = ? AND id > ? ORDER BY id LIMIT ?"  # noqa: S608 - a known table
        return self._rows(query, (contact_id, after, limit))

    def read(self, kind: str, ids: Sequence[str]) -> list[Row]:
        """Those of the records that exist."""
        query = f"SELECT * FROM {_known(kind)} WHERE id IN ({', '.join('?' * len(ids))}) ORDER BY id"  # noqa: S608 - a known table
        return self._rows(query, ids)

    def delete(self, kind: str, record_id: str) -> None:
        """Deletes one record, and nothing else.

        Raises:
            GoneError: it was gone before.
            ConflictError: `has_children`: a contact's cards and activities have to go first.
        """
        with self._write() as db:
            try:
                done = db.execute(f"DELETE FROM {_known(kind)} WHERE id = ?", (record_id,))  # noqa: S608 - a known table
            except sqlite3.IntegrityError:
                message = "the contact still has cards or activities: delete those first"
                raise ConflictError("has_children", message) from None
            if not done.rowcount:
                raise GoneError

    def mark(self, kind: str, record_id: str, status: str, marker: str) -> Row:
        """Suspends a record under a marker, or makes one active that is suspended under it; may be repeated.

        Raises:
            GoneError: there is no such record.
            ConflictError: `suspended_by_other`: it is suspended under another marker, and stays so.
        """
        held = marker if status == "suspended" else None
        query = f"UPDATE {_known(kind)} SET status = ?, suspended_by = ? WHERE id = ?"  # noqa: S608 - a known table
        with self._write() as db:
            found = db.execute(f"SELECT suspended_by FROM {kind} WHERE id = ?", (record_id,)).fetchone()  # noqa: S608 - a known table
            if found is None:
                raise GoneError
            if found["suspended_by"] not in {None, marker}:
                raise ConflictError("suspended_by_other", "the record is suspended under another marker")
            db.execute(query, (status, held, record_id))
        return self.get(kind, record_id)

    def seed(self, people: Iterable[Person]) -> None:
        """Writes the people's records in one transaction."""
        everybody = tuple(people)
        with self._write() as db:
            db.execute("PRAGMA defer_foreign_keys = ON")
            db.executemany(
                "INSERT INTO contacts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    (c.id, c.name, c.email, c.phone, c.customer_id, c.company, c.duplicate_of)
                    + (("suspended", c.suspended_by) if c.suspended_by else ("active", None))
                    for p in everybody
                    for c in p.contacts
                ],
            )
            db.executemany(
                "INSERT INTO cards (id, contact_id, image_text, email) VALUES (?, ?, ?, ?)",
                [(c.id, c.contact_id, c.image_text, c.email) for p in everybody for c in p.cards],
            )
            db.executemany(
                "INSERT INTO activities (id, contact_id, kind, at, note) VALUES (?, ?, ?, ?, ?)",
                [(a.id, a.contact_id, a.kind, a.at.isoformat(), a.note) for p in everybody for a in p.activities],
            )

    def _rows(self, query: str, values: Sequence[object] | dict[str, object]) -> list[Row]:
        with self._lock:
            return [dict(row) for row in self._db.execute(query, values)]

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")


def seed(data: Path, people: Iterable[Person]) -> None:
    """Fills the store of a CRM that does not run yet."""
    store = Store(data)
    try:
        store.seed(people)
    finally:
        store.close()


def _known(kind: str) -> str:
    if kind not in KINDS:
        raise ValueError(f"no kind of record called {kind!r}")
    return kind
