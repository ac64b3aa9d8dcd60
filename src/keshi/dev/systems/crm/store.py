"""The CRM's store: one SQLite file, crash-safe. What a write has returned from survives a kill -9."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

from keshi.dev.systems.filestore import ConflictError, FileStore, GoneError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from keshi.dev.systems.calls import Row
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


class Store(FileStore):
    """All access to the CRM's records, safe to share between threads.

    Raises:
        InUseError: a second process (or store) was opened on the same directory.
    """

    def __init__(self, data: Path) -> None:
        super().__init__(data, FILE, _SCHEMA, "CRM")

    def get(self, kind: str, record_id: str) -> Row:
        """One record.

        Raises:
            GoneError: there is none.
        """
        rows = self.rows(f"SELECT * FROM {_known(kind)} WHERE id = ?", (record_id,))  # noqa: S608 - a known table
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
        return self.rows(query, (*values, after, limit))

    def duplicates(self, contact_id: str, *, after: str, limit: int) -> list[Row]:
        """All other contacts linked to this one, over any number of links and in both directions."""
        self.get("contacts", contact_id)
        return self.rows(_CLUSTER, {"id": contact_id, "after": after, "limit": limit})

    def children(self, kind: str, contact_id: str, *, after: str, limit: int) -> list[Row]:
        """The cards or activities of a contact."""
        self.get("contacts", contact_id)
        query = f"SELECT * FROM {_known(kind)} WHERE contact_id = ? AND id > ? ORDER BY id LIMIT ?"  # noqa: S608 - a known table
        return self.rows(query, (contact_id, after, limit))

    def read(self, kind: str, ids: Sequence[str]) -> list[Row]:
        """Those of the records that exist."""
        query = f"SELECT * FROM {_known(kind)} WHERE id IN ({', '.join('?' * len(ids))}) ORDER BY id"  # noqa: S608 - a known table
        return self.rows(query, ids)

    def delete(self, kind: str, record_id: str) -> None:
        """Deletes one record, and nothing else.

        Raises:
            GoneError: it was gone before.
            ConflictError: `has_children`: a contact's cards and activities have to go first.
        """
        with self.write() as db:
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
        with self.write() as db:
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
        with self.write() as db:
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
