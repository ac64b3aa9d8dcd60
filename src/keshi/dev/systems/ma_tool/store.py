"""The MA tool's store: what it holds about people, and what of it is in use. Deletion jobs are in `jobs`."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from keshi.dev.systems.filestore import FileStore
from keshi.dev.systems.ma_tool import jobs
from keshi.dev.systems.ma_tool.people import held, visitor

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from keshi.dev.systems.calls import Row
    from keshi.dev.systems.people import Person

FILE = "ma_tool.sqlite3"
SEARCHABLE: Final[Mapping[str, tuple[str, ...]]] = {
    "contacts": ("id", "email", "customer_id"),
    "cookies": ("cookie_id", "contact_id"),
    "behaviour": ("cookie_id", "contact_id"),
    "lists": ("contact_id",),
    "mails": ("contact_id",),
}
"""Each kind of record with what it is found by."""
MARKS: Final[Mapping[str, tuple[str, ...]]] = {
    "suppressed_by": ("contacts", "cookies", "mails"),
    "provision_stopped_by": ("contacts", "cookies"),
}
"""Each mark, with the kinds that carry it. What hangs on a record follows its marks."""

PARTNER_HOURS: Final = 72
"""Partners promise to take a contact from their lists within this time."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS contacts (
    id TEXT PRIMARY KEY, email TEXT COLLATE NOCASE, customer_id TEXT, name TEXT NOT NULL,
    suppressed_by TEXT, provision_stopped_by TEXT);
CREATE INDEX IF NOT EXISTS contacts_email ON contacts (email);
CREATE INDEX IF NOT EXISTS contacts_customer ON contacts (customer_id);
CREATE TABLE IF NOT EXISTS cookies (
    id TEXT PRIMARY KEY, cookie_id TEXT NOT NULL UNIQUE, contact_id TEXT REFERENCES contacts (id) ON DELETE SET NULL,
    linked_at TEXT, suppressed_by TEXT, provision_stopped_by TEXT);
CREATE INDEX IF NOT EXISTS cookies_contact ON cookies (contact_id);
-- No foreign keys: a visitor does something before there is a contact, and what was done outlives cookie and contact.
CREATE TABLE IF NOT EXISTS behaviour (
    id TEXT PRIMARY KEY, cookie_id TEXT NOT NULL, contact_id TEXT, at TEXT NOT NULL, kind TEXT NOT NULL,
    page TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS behaviour_cookie ON behaviour (cookie_id);
CREATE INDEX IF NOT EXISTS behaviour_contact ON behaviour (contact_id);
CREATE TABLE IF NOT EXISTS lists (
    id TEXT PRIMARY KEY, contact_id TEXT NOT NULL REFERENCES contacts (id), list TEXT NOT NULL, since TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS lists_contact ON lists (contact_id);
CREATE TABLE IF NOT EXISTS mails (
    id TEXT PRIMARY KEY, contact_id TEXT NOT NULL REFERENCES contacts (id), address TEXT, campaign TEXT NOT NULL,
    send_at TEXT NOT NULL, sent_at TEXT, suppressed_by TEXT);
CREATE INDEX IF NOT EXISTS mails_contact ON mails (contact_id);
CREATE INDEX IF NOT EXISTS mails_due ON mails (send_at) WHERE sent_at IS NULL;
CREATE TABLE IF NOT EXISTS audiences (
    id TEXT PRIMARY KEY, contact_id TEXT NOT NULL REFERENCES contacts (id) ON DELETE CASCADE, partner TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('active', 'removal_asked', 'removed')), asked_at TEXT);
CREATE INDEX IF NOT EXISTS audiences_contact ON audiences (contact_id);
CREATE INDEX IF NOT EXISTS audiences_asked ON audiences (asked_at) WHERE status = 'removal_asked';
"""

_FOLLOWS: Final[Mapping[str, str]] = {
    "contacts": "SELECT NULL AS id, NULL AS follows WHERE 0",
    "cookies": "SELECT id, 'contacts:' || contact_id AS follows FROM cookies WHERE contact_id IS NOT NULL",
    "lists": "SELECT id, 'contacts:' || contact_id AS follows FROM lists",
    "mails": "SELECT id, 'contacts:' || contact_id AS follows FROM mails",
    "behaviour": """
        SELECT b.id, 'cookies:' || k.id AS follows FROM behaviour b JOIN cookies k ON k.cookie_id = b.cookie_id
        UNION SELECT b.id, 'contacts:' || k.contact_id FROM behaviour b JOIN cookies k ON k.cookie_id = b.cookie_id
            WHERE k.contact_id IS NOT NULL
        UNION SELECT b.id, 'contacts:' || c.id FROM behaviour b JOIN contacts c ON c.id = b.contact_id""",
}
"""Whose marks a record follows, besides its own: a query for each kind."""

_DUE = """
SELECT m.id FROM mails m JOIN contacts c ON c.id = m.contact_id
WHERE m.sent_at IS NULL AND m.send_at <= ? AND m.suppressed_by IS NULL AND c.suppressed_by IS NULL
ORDER BY m.send_at LIMIT 500
"""
_EXPORT = """
SELECT c.id, (
    SELECT json_group_array(k.cookie_id) FROM cookies k
    WHERE k.contact_id = c.id AND coalesce(k.suppressed_by, k.provision_stopped_by) IS NULL) AS cookies
FROM contacts c
WHERE coalesce(c.suppressed_by, c.provision_stopped_by) IS NULL AND c.id > ? ORDER BY c.id LIMIT ?
"""
_COLLECTS_NOT = """
SELECT 1 FROM cookies k LEFT JOIN contacts c ON c.id = k.contact_id
WHERE k.cookie_id = ? AND coalesce(k.suppressed_by, c.suppressed_by) IS NOT NULL
"""


class Store(FileStore):
    """All access to the records, safe to share between threads.

    Raises:
        InUseError: a second process (or store) was opened on the same directory.
    """

    def __init__(self, data: Path) -> None:
        super().__init__(data, FILE, _SCHEMA + jobs.SCHEMA, "MA tool")

    # --- looking

    def search(self, kind: str, wanted: Mapping[str, Sequence[str]], *, after: str, limit: int) -> list[Row]:
        """Records past `after` with any of the values, by id; e-mail regardless of (ASCII) case."""
        terms = [
            f"{column} IN ({', '.join('?' * len(wanted[column]))})" for column in SEARCHABLE[kind] if column in wanted
        ]
        values = [value for column in SEARCHABLE[kind] for value in wanted.get(column, ())]
        query = f"SELECT * FROM {kind} WHERE ({' OR '.join(terms)}) AND id > ? ORDER BY id LIMIT ?"  # noqa: S608 - own names
        return self._in_full(kind, self.rows(query, (*values, after, limit)))

    def read(self, kind: str, ids: Sequence[str]) -> list[Row]:
        """Those of the records that exist."""
        found = self.rows(f"SELECT * FROM {kind} WHERE id IN ({', '.join('?' * len(ids))}) ORDER BY id", ids)  # noqa: S608 - own names
        return self._in_full(kind, found)

    def _in_full(self, kind: str, rows: list[Row]) -> list[Row]:
        """With the marks in force on each: its own, and those of what it hangs on."""
        ids = [row["id"] for row in rows]
        holes = ", ".join("?" * len(ids))
        follows: dict[str, list[str]] = {i: [] for i in ids}
        for row in self.rows(f"SELECT * FROM ({_FOLLOWS[kind]}) WHERE id IN ({holes})", ids):  # noqa: S608 - own names
            follows[row["id"]].append(row["follows"])
        marked = self._marks({ref.partition(":")[2] for some in follows.values() for ref in some})
        audiences = self._audiences(ids) if kind == "contacts" else {}
        for row in rows:
            own = {f"{kind}:{row['id']}": {mark: row.pop(mark, None) for mark in MARKS}}
            row["follows"] = follows[row["id"]]
            for name, mark in (("suppressed", "suppressed_by"), ("provision_stopped", "provision_stopped_by")):
                places = own | {ref: marked[ref] for ref in row["follows"] if ref in marked}
                row[name] = [{"ref": ref, "by": marks[mark]} for ref, marks in places.items() if marks[mark]]
            if kind == "contacts":
                row["audiences"] = audiences.get(row["id"], [])
        return rows

    def _marks(self, ids: Iterable[str]) -> dict[str, Row]:
        """Reference → marks of those contacts and cookies."""
        some = sorted(ids)
        holes = ", ".join("?" * len(some))
        return {
            f"{kind}:{row.pop('id')}": row
            for kind in ("contacts", "cookies")
            for row in self.rows(f"SELECT id, {', '.join(MARKS)} FROM {kind} WHERE id IN ({holes})", some)  # noqa: S608 - own names
        }

    def _audiences(self, ids: Sequence[str]) -> dict[str, list[Row]]:
        """Contact → partners that have it on their lists, or had."""
        holes = ", ".join("?" * len(ids))
        query = f"SELECT contact_id, partner, status, asked_at FROM audiences WHERE contact_id IN ({holes}) ORDER BY id"  # noqa: S608 - own names
        found: dict[str, list[Row]] = {}
        for row in self.rows(query, ids):
            asked = datetime.now(UTC) - datetime.fromisoformat(row["asked_at"]) if row["asked_at"] else timedelta()
            told = {"partner": row["partner"], "status": row["status"], "age_seconds": int(asked.total_seconds())}
            overdue = row["status"] == "removal_asked" and asked > timedelta(hours=PARTNER_HOURS)
            found.setdefault(row["contact_id"], []).append({**told, "overdue": overdue})
        return found

    def export(self, *, after: str, limit: int) -> list[Row]:
        """Contacts that the next export gives to a partner, with their cookies."""
        found = self.rows(_EXPORT, (after, limit))
        return [{**row, "cookies": json.loads(row["cookies"])} for row in found]

    # --- changing

    def mark(self, kind: str, mark: str, ids: Sequence[str], by: str | None, *, only: str | None = None) -> list[Row]:
        """Sets a mark where there is none, or takes it off where it is `only`; returns the records that exist."""
        holes = ", ".join("?" * len(ids))
        where = f"{mark} IS NULL" if only is None else f"{mark} = ?"
        values = (by, *ids) if only is None else (by, *ids, only)
        with self.write() as db:
            db.execute(f"UPDATE {kind} SET {mark} = ? WHERE id IN ({holes}) AND {where}", values)  # noqa: S608 - own names
            if kind == "contacts" and mark == "provision_stopped_by" and by:
                jobs.ask_partners(db, ids)
        return self.read(kind, ids)

    def collect(self, cookie_id: str, kind: str, page: str) -> bool:
        """Keeps what a visitor did, and the cookie with it; False where this is not to be collected."""
        at = now_text()
        with self.write() as db:
            if db.execute(_COLLECTS_NOT, (cookie_id,)).fetchone():
                return False
            db.execute("INSERT OR IGNORE INTO cookies (id, cookie_id) VALUES (?, ?)", (f"K-{uuid4().hex}", cookie_id))
            known = db.execute("SELECT contact_id FROM cookies WHERE cookie_id = ?", (cookie_id,)).fetchone()
            row = (f"V-{uuid4().hex}", cookie_id, known["contact_id"], at, kind, page)
            db.execute("INSERT INTO behaviour VALUES (?, ?, ?, ?, ?, ?)", row)
        return True

    def send_due(self) -> int:
        """Sends the mails whose time has come and that nothing holds back; how many."""
        now = now_text()
        if not self.rows(_DUE, (now,)):
            return 0
        with self.write() as db:
            due = [row["id"] for row in db.execute(_DUE, (now,))]
            db.executemany("UPDATE mails SET sent_at = ? WHERE id = ?", [(now, mail) for mail in due])
        return len(due)

    def partners_answer(self, partner_ms: int) -> int:
        """Partners take from their lists what they were asked to, after their time; how many contacts."""
        asked = (datetime.now(UTC) - timedelta(milliseconds=partner_ms)).isoformat()
        query = "UPDATE audiences SET status = 'removed' WHERE status = 'removal_asked' AND asked_at <= ?"
        if not self.rows("SELECT 1 FROM audiences WHERE status = 'removal_asked' AND asked_at <= ? LIMIT 1", (asked,)):
            return 0
        with self.write() as db:
            return db.execute(query, (asked,)).rowcount

    def seed(self, people: Iterable[Person]) -> None:
        """Writes the people's records in one transaction."""
        with self.write() as db:
            for person in people:
                for tables in (held(person), visitor(person)):
                    for table, rows in tables.items():
                        _insert(db, table, rows)


def _insert(db: sqlite3.Connection, table: str, rows: Sequence[Row]) -> None:
    if rows:
        names = ", ".join(rows[0])
        holes = ", ".join(f":{name}" for name in rows[0])
        db.executemany(f"INSERT INTO {table} ({names}) VALUES ({holes})", rows)  # noqa: S608 - own names


def now_text() -> str:
    """This moment in UTC, as the store writes it."""
    return datetime.now(UTC).isoformat()


def seed(data: Path, people: Iterable[Person]) -> None:
    """Fills the store of an MA tool that does not run yet."""
    store = Store(data)
    try:
        store.seed(people)
    finally:
        store.close()
