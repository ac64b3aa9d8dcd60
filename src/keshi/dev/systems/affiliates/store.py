"""The store of one affiliate: its members with their records, and the requests that came in about them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from keshi.dev.systems.affiliates.sample import held
from keshi.dev.systems.filestore import ConflictError, FileStore, GoneError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from keshi.dev.systems.calls import Row
    from keshi.dev.systems.people import Person

FILE: Final = "affiliate.sqlite3"
REQUESTS: Final = "requests"
"""The table that holds no data of members."""
KNOWN_BY: Final = ("email", "phone", "customer_id")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS members (
    id TEXT PRIMARY KEY, email TEXT COLLATE NOCASE, phone TEXT, customer_id TEXT, name TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS members_email ON members (email);
CREATE INDEX IF NOT EXISTS members_phone ON members (phone);
CREATE INDEX IF NOT EXISTS members_customer ON members (customer_id);
CREATE TABLE IF NOT EXISTS records (
    id TEXT PRIMARY KEY, member_id TEXT NOT NULL REFERENCES members (id), kind TEXT NOT NULL, at TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS records_member ON records (member_id);
CREATE TABLE IF NOT EXISTS requests (
    id TEXT PRIMARY KEY, received_at TEXT NOT NULL, expected_at TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('pending', 'in_progress', 'completed', 'cancelled')),
    identities TEXT, results_count INTEGER);
CREATE INDEX IF NOT EXISTS requests_open ON requests (received_at) WHERE identities IS NOT NULL;
"""


class Store:
    """See the module. Serves several threads.

    Args:
        data: its directory.
        company: for people.

    Raises:
        InUseError: another process works on it.
    """

    def __init__(self, data: Path, company: str) -> None:
        self._store = FileStore(data, FILE, _SCHEMA, company)

    def close(self) -> None:
        self._store.close()

    def receive(self, request: str, identities: Mapping[str, Sequence[str]], expected: timedelta) -> Row:
        """Takes a request in.

        Raises:
            ConflictError: one of this id is there.
        """
        now = datetime.now(UTC)
        with self._store.write() as db:
            if db.execute("SELECT 1 FROM requests WHERE id = ?", (request,)).fetchone():
                raise ConflictError("known", "a request of this id came in before")
            db.execute(
                "INSERT INTO requests VALUES (?, ?, ?, 'pending', ?, NULL)",
                (request, _text(now), _text(now + expected), json.dumps(identities)),
            )
        return self.request(request)

    def request(self, request: str) -> Row:
        """How far it is.

        Raises:
            GoneError: there is none of this id.
        """
        rows = self._store.rows("SELECT * FROM requests WHERE id = ?", (request,))
        if not rows:
            raise GoneError
        return rows[0]

    def cancel(self, request: str) -> None:
        """Ends a request that nobody has begun.

        Raises:
            GoneError: there is none of this id.
            ConflictError: it was begun.
        """
        self.request(request)
        with self._store.write() as db:
            query = "UPDATE requests SET status = 'cancelled', identities = NULL WHERE id = ? AND status = 'pending'"
            if not db.execute(query, (request,)).rowcount:
                raise ConflictError("begun", "only a pending request can be cancelled")

    def waiting(self) -> bool:
        """Whether there is a request that is not over."""
        return bool(self._store.rows("SELECT 1 FROM requests WHERE identities IS NOT NULL LIMIT 1"))

    def begin(self, before: datetime) -> list[str]:
        """Begins what came in before this time; all that is begun and not over."""
        with self._store.write() as db:
            query = "UPDATE requests SET status = 'in_progress' WHERE status = 'pending' AND received_at <= ?"
            db.execute(query, (_text(before),))
        return [r["id"] for r in self._store.rows("SELECT id FROM requests WHERE status = 'in_progress'")]

    def complete(self, request: str) -> None:
        """Deletes the member with all records, counts them, and forgets by what the person was known."""
        with self._store.write() as db:
            row = db.execute("SELECT identities FROM requests WHERE id = ? AND status = 'in_progress'", (request,))
            found = row.fetchone()
            if found is None:
                return
            identities = json.loads(found["identities"])
            members = [
                m["id"]
                for kind in KNOWN_BY
                for value in identities.get(kind, ())
                for m in db.execute(f"SELECT id FROM members WHERE {kind} = ?", (value,))  # noqa: S608 - a known column
            ]
            count = 0
            for member in dict.fromkeys(members):
                count += db.execute("DELETE FROM records WHERE member_id = ?", (member,)).rowcount
                count += db.execute("DELETE FROM members WHERE id = ?", (member,)).rowcount
            query = "UPDATE requests SET status = 'completed', identities = NULL, results_count = ? WHERE id = ?"
            db.execute(query, (count, request))

    def reject(self) -> None:
        """Ends all that is open without doing anything."""
        with self._store.write() as db:
            db.execute("UPDATE requests SET status = 'cancelled', identities = NULL WHERE identities IS NOT NULL")

    def seed(self, company: str, people: Iterable[Person]) -> None:
        """Writes what the company has about these people in one transaction."""
        everything = [held(company, person) for person in people]
        with self._store.write() as db:
            db.executemany(
                "INSERT INTO members VALUES (:id, :email, :phone, :customer_id, :name)",
                [row for tables in everything for row in tables["members"]],
            )
            db.executemany(
                "INSERT INTO records VALUES (:id, :member_id, :kind, :at)",
                [row for tables in everything for row in tables["records"]],
            )


def _text(at: datetime) -> str:
    """All alike, so that they can be compared as text."""
    return at.isoformat(timespec="microseconds")


def seed(data: Path, company: str, people: Iterable[Person]) -> None:
    """Fills the store of an affiliate that does not run yet."""
    store = Store(data, company)
    try:
        store.seed(company, people)
    finally:
        store.close()
