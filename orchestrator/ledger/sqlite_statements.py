"""The SQL of the ledger on SQLite. Values travel as parameters alone; lists of ids as one JSON document.

Rows are written with one prepared statement for each table: unlike a server's, it costs no message a row, and half
of what reading them from a JSON document does.
"""

import json
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Dialect, Text, TextClause, TypeDecorator, bindparam, text

from keshi.orchestrator.ledger.sections import COLUMNS, Rows, moment


class Moment(TypeDecorator[datetime]):
    """A moment, kept as text of one width in UTC."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> str | None:  # noqa: ARG002 - SQLAlchemy's signature
        return None if value is None else moment(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - as above
        return datetime.fromisoformat(value) if value else None


_AT = Moment()


def _at_now(statement: str) -> TextClause:
    return text(statement).bindparams(bindparam("now", type_=_AT))


_LISTED = "(SELECT value FROM json_each(:ids))"


def listed(ids: Collection[str]) -> str:
    """A list of ids as one document."""
    return json.dumps(sorted(ids))


STATES = text(f"SELECT request_id, state, accepted FROM requests WHERE request_id IN {_LISTED}")  # noqa: S608
_DOORS = f"FROM requests r LEFT JOIN keys k ON k.owner = r.request_id WHERE r.request_id IN {_LISTED}"
_DOOR = "SELECT r.request_id, r.partition, r.door, k.kek_id, k.wrapped"
DOORS = text(f"{_DOOR}, NULL AS accepted {_DOORS}")
DOORS_SEALED = text(f"{_DOOR}, r.accepted {_DOORS}")
KEYS = text(f"SELECT owner, kek_id, wrapped FROM keys WHERE owner IN {_LISTED}")  # noqa: S608
PLANS = text(f"SELECT hash, body FROM plans WHERE hash IN {_LISTED}")  # noqa: S608
CLOSURES = text(f"SELECT request_id, record FROM closures WHERE request_id IN {_LISTED}")  # noqa: S608
MANIFESTS = text(
    f"SELECT request_id, system, manifest FROM evidence WHERE request_id IN {_LISTED} ORDER BY at, begin_id"  # noqa: S608
)
_LEASE = (
    "SELECT begin_id, request_id, system, attempt, mode, digest, counts, at, searched, learned, lease_id, "
    "CASE WHEN lease_id IS NOT NULL THEN at END AS granted_at, "
    "max(until, coalesce((SELECT max(r.until) FROM renewals r WHERE r.lease_id = e.lease_id), until)) AS until"
)
_LEASES_OF = f"FROM evidence e WHERE request_id IN {_LISTED}"
_LEASE_ORDER = "ORDER BY request_id, system, ordinal NULLS LAST, at"
_LEASE_MOMENTS = {"at": _AT, "granted_at": _AT, "until": _AT}
LEASES = text(f"{_LEASE} {_LEASES_OF} {_LEASE_ORDER}").columns(**_LEASE_MOMENTS)
_IN_SYSTEMS = "AND system IN (SELECT value FROM json_each(:systems))"
LEASES_IN = text(f"{_LEASE} {_LEASES_OF} {_IN_SYSTEMS} {_LEASE_ORDER}").columns(**_LEASE_MOMENTS)
ENTRIES = text(f"{_LEASE}, manifest {_LEASES_OF} AND system = :system {_LEASE_ORDER}").columns(**_LEASE_MOMENTS)
_OBLIGATION = (
    "SELECT obligation_id, request_id, partition, system, kind, state, due, coalesce(sealed, '') AS sealed, data, "
    "sequence FROM obligations"
)
OBLIGATIONS = text(f"{_OBLIGATION} WHERE obligation_id IN {_LISTED}").columns(due=_AT)
OBLIGATIONS_OF = text(f"{_OBLIGATION} WHERE request_id = :r ORDER BY due NULLS LAST, obligation_id").columns(due=_AT)
CLAIMS = text(
    f"SELECT holder, request_id, partition, number, action FROM claims WHERE holder IN {_LISTED} "  # noqa: S608
    "ORDER BY number, holder"
)
IN_FORCE = text(
    "SELECT m.holder, m.system, m.obligation_id, o.kind FROM remembered m JOIN obligations o USING (obligation_id) "  # noqa: S608
    f"WHERE o.state = 'open' AND m.holder IN {_LISTED} ORDER BY m.obligation_id"
)
INBOX = text("SELECT id, request_id, data FROM inbox WHERE partition = :p ORDER BY id LIMIT :n")
DUE = _at_now("SELECT request_id FROM requests WHERE partition = :p AND next_due <= :now ORDER BY next_due LIMIT :n")
DUE_OBLIGATIONS = _at_now(
    f"{_OBLIGATION} WHERE state = 'open' AND partition = :p AND due <= :now ORDER BY due, obligation_id LIMIT :n"
).columns(due=_AT)
CHAIN = text("SELECT chain_number, chain_head FROM lanes WHERE stage = 'reports' AND partition = :p")
NUMBERS = text(
    "WITH RECURSIVE found(n) AS (SELECT last - :n + 1 FROM acceptance UNION ALL "
    "SELECT n + 1 FROM found, acceptance WHERE n < last) SELECT n FROM found"
)
TAKE_NUMBERS = text("UPDATE acceptance SET last = last + :n")
AT = _AT
HAS_TASK = "EXISTS (SELECT 1 FROM json_each(r.state, '$.tasks') t WHERE t.key = :system)"
HAS_LATE = (
    "EXISTS (SELECT 1 FROM json_each(r.state, '$.tasks') t WHERE json_extract(t.value, '$.status') <> 'ended' AND "
    "(json_extract(t.value, '$.late') = 1 OR json_extract(t.value, '$.status') = 'open' "
    "AND julianday(json_extract(t.value, '$.next_at')) <= julianday(:now)))"
)
HAS_HELD = "EXISTS (SELECT 1 FROM json_each(r.state, '$.tasks') t WHERE json_extract(t.value, '$.status') = 'held')"
HAS_OPEN = (
    "EXISTS (SELECT 1 FROM json_each(r.state, '$.tasks') t WHERE t.key = :open_in AND "
    "json_extract(t.value, '$.status') <> 'ended')"
)
HISTORY = text("SELECT sequence, kind, at, data FROM events WHERE stream = :s ORDER BY sequence").columns(at=_AT)
# An open request has a next moment: the index over those finds them among any number that are closed.
OLDEST = text(
    "SELECT t.key AS system, min(json_extract(r.state, '$.accepted_at')) AS accepted_at FROM requests r, "
    "json_each(r.door, '$.t') t WHERE r.next_due IS NOT NULL AND json_extract(t.value, '$[0]') <> 'ended' "
    "GROUP BY t.key"
).columns(accepted_at=_AT)
WAITING = _at_now(
    "SELECT p.value FROM json_each(:ps) p "
    "WHERE EXISTS (SELECT 1 FROM inbox i WHERE i.partition = p.value) OR EXISTS "
    "(SELECT 1 FROM requests r WHERE r.partition = p.value AND r.next_due <= :now) OR EXISTS "
    "(SELECT 1 FROM obligations o WHERE o.state = 'open' AND o.partition = p.value AND o.due <= :now)"
)
OUTBOX = text(
    "SELECT id, topic, value, key, to_partition FROM outbox WHERE stage = :s AND partition = :p ORDER BY id LIMIT :n"
)
TAKE = text(
    "INSERT INTO lanes (stage, partition, epoch, next, topic_id, chain_head) VALUES (:s, :p, 1, :n, :t, :g) "
    "ON CONFLICT (stage, partition) "
    "DO UPDATE SET epoch = lanes.epoch + 1, topic_id = coalesce(lanes.topic_id, excluded.topic_id) "
    "RETURNING epoch, next, topic_id"
)
SWAP = text(
    "UPDATE lanes SET next = :to WHERE stage = :s AND partition = :p AND next = :expected AND epoch = :epoch "
    "RETURNING 1"
)
LANE = text("SELECT epoch, next FROM lanes WHERE stage = :s AND partition = :p")
KEEP_META = text("INSERT INTO meta VALUES (:n, :v) ON CONFLICT (name) DO NOTHING")
META = text("SELECT value FROM meta WHERE name = :n")
SET_META = text("UPDATE meta SET value = :v WHERE name = :n")


def _into(table: str, section: str, *more: str, behind: str = "") -> TextClause:
    """Insert a row of a section. `more` are columns that are alike in all of them."""
    places = [*COLUMNS[section], *more]
    values = [":now" if c == "at" else f":{c}" for c in places]
    return text(f"INSERT INTO {table} ({', '.join(places)}) VALUES ({', '.join(values)}) {behind}")  # noqa: S608 - names of ours


_ANYWAY = "ON CONFLICT DO NOTHING"
# By section, in the order of writing.
WRITE: dict[str, TextClause] = {
    "events": _into("events", "events", "partition", "at"),
    "states": _into(
        "requests",
        "states",
        behind="ON CONFLICT (request_id) DO UPDATE SET sequence = excluded.sequence, status = excluded.status, "
        "number = excluded.number, next_due = excluded.next_due, state = excluded.state, "
        "accepted = coalesce(excluded.accepted, requests.accepted), door = excluded.door",
    ),
    "due_moved": text("UPDATE requests SET next_due = :due WHERE request_id = :request_id"),
    "inbox": _into("inbox", "inbox"),
    "inbox_done": text("DELETE FROM inbox WHERE id = :id"),
    "outbox": _into("outbox", "outbox", "stage", "partition"),
    "outbox_done": text("DELETE FROM outbox WHERE stage = :stage AND partition = :partition AND id = :id"),
    "arrivals": _into("arrivals", "arrivals", "at", behind=_ANYWAY),
    "quarantine": _into("quarantine", "quarantine", "at"),
    "claims": _into("claims", "claims"),
    "claims_ended": text("DELETE FROM claims WHERE request_id = :request_id"),
    "keys": _into("keys", "keys"),
    "keys_destroyed": text("DELETE FROM keys WHERE owner = :owner"),
    "plans": _into("plans", "plans", behind=_ANYWAY),
    "inventories": _into("inventories", "inventories", behind=_ANYWAY),
    "closures": _into("closures", "closures", "at"),
    "obligations": _into("obligations", "obligations"),
    "remembered": _into("remembered", "remembered"),
    "obligations_met": text(
        "UPDATE obligations SET state = 'met', sealed = NULL, due = NULL, sequence = :sequence "
        "WHERE obligation_id = :obligation_id"
    ),
    "obligations_due": text(
        "UPDATE obligations SET due = :due, sequence = :sequence WHERE obligation_id = :obligation_id"
    ),
    "cases": _into("cases", "cases"),
    "cases_closed": text("UPDATE cases SET closed = :closed WHERE number = :number"),
    "people": _into("people", "people"),
    "endings": _into("endings", "endings", behind=_ANYWAY),
    "forgotten": text("DELETE FROM remembered WHERE obligation_id = :obligation_id"),
    "chain": text(
        "UPDATE lanes SET chain_number = :chain_number, chain_head = :chain_head "
        "WHERE stage = 'reports' AND partition = :partition"
    ),
    "given": _into("evidence", "given", "at"),
    "refused": _into("evidence", "refused", "at", behind="ON CONFLICT (begin_id) DO NOTHING"),
    "renewed": _into("renewals", "renewed", behind=_ANYWAY),
}


def rows(section: str, found: Rows, alike: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows of a section as parameters, each with what is alike in all of them."""
    kinds, same = COLUMNS[section], _written(alike)
    if "timestamptz" in kinds.values():
        return [{**same, **_written(dict(zip(kinds, row, strict=True)))} for row in found]
    return [{**same, **dict(zip(kinds, row, strict=True))} for row in found]


def _written(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: moment(v) if isinstance(v, datetime) else v for name, v in row.items()}
