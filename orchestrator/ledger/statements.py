"""The SQL of the ledger on PostgreSQL. Values travel as parameters alone.

A list of ids is an array, so that each is looked up in an index. A subquery in its place is a join, whose plan for
empty tables (read all of one by its index) is kept while they grow.
"""

from collections.abc import Collection, Mapping
from functools import cache
from typing import Any, Final

from sqlalchemy import DateTime

from keshi.orchestrator.ledger.sections import COLUMNS, Rows
from keshi.orchestrator.ledger.wire import Statement, columns, texts

_LISTED = "ANY (CAST(:ids AS text[]))"


def listed(ids: Collection[str]) -> bytes:
    """A list of ids as an array."""
    return texts(sorted(ids))


STATES = Statement(f"SELECT request_id, state, accepted FROM requests WHERE request_id = {_LISTED}")  # noqa: S608
_DOORS = f"FROM requests r LEFT JOIN keys k ON k.owner = r.request_id WHERE r.request_id = {_LISTED}"
_DOOR = "SELECT r.request_id, r.partition, r.door, k.kek_id, k.wrapped"
DOORS = Statement(f"{_DOOR}, NULL AS accepted {_DOORS}")
DOORS_SEALED = Statement(f"{_DOOR}, r.accepted {_DOORS}")
KEYS = Statement(f"SELECT owner, kek_id, wrapped FROM keys WHERE owner = {_LISTED}")  # noqa: S608
PLANS = Statement(f"SELECT hash, body FROM plans WHERE hash = {_LISTED}")  # noqa: S608
CLOSURES = Statement(f"SELECT request_id, record FROM closures WHERE request_id = {_LISTED}")  # noqa: S608
MANIFESTS = Statement(
    f"SELECT request_id, system, manifest FROM evidence WHERE request_id = {_LISTED} ORDER BY at, begin_id"  # noqa: S608
)
_LEASE = (
    "SELECT begin_id, request_id, system, attempt, mode, digest, counts, at, searched, learned, lease_id, "
    "CASE WHEN lease_id IS NOT NULL THEN at END AS granted_at, "
    "greatest(until, (SELECT max(r.until) FROM renewals r WHERE r.lease_id = e.lease_id)) AS until"
)
_LEASES_OF = f"FROM evidence e WHERE request_id = {_LISTED}"
_LEASE_ORDER = "ORDER BY request_id, system, ordinal, at"  # NULL comes last
LEASES = Statement(f"{_LEASE} {_LEASES_OF} {_LEASE_ORDER}")
LEASES_IN = Statement(f"{_LEASE} {_LEASES_OF} AND system = ANY (CAST(:systems AS text[])) {_LEASE_ORDER}")
ENTRIES = Statement(f"{_LEASE}, manifest {_LEASES_OF} AND system = :system {_LEASE_ORDER}")
_OBLIGATION = (
    "SELECT obligation_id, request_id, partition, system, kind, state, due, coalesce(sealed, '') AS sealed, "
    "data, sequence FROM obligations"
)
OBLIGATIONS = Statement(f"{_OBLIGATION} WHERE obligation_id = {_LISTED}")
OBLIGATIONS_OF = Statement(f"{_OBLIGATION} WHERE request_id = :r ORDER BY due NULLS LAST, obligation_id")
# Sorted, so that two transactions that want the same people cannot wait for each other in a circle.
LOCK_HOLDERS = Statement(
    "SELECT count(pg_advisory_xact_lock(k)) FROM (SELECT DISTINCT ('x' || substr(value, 1, 16))::bit(64)::bigint AS k "
    "FROM unnest(CAST(:ids AS text[])) AS value ORDER BY 1) AS holders"
)
CLAIMS = Statement(
    f"SELECT holder, request_id, partition, number, action FROM claims WHERE holder = {_LISTED} "  # noqa: S608
    "ORDER BY number, holder"
)
IN_FORCE = Statement(
    "SELECT m.holder, m.system, m.obligation_id, o.kind FROM remembered m JOIN obligations o USING (obligation_id) "  # noqa: S608
    f"WHERE o.state = 'open' AND m.holder = {_LISTED} ORDER BY m.obligation_id"
)
INBOX = Statement("SELECT id, request_id, data FROM inbox WHERE partition = :p ORDER BY id LIMIT :n")
DUE = Statement("SELECT request_id FROM requests WHERE partition = :p AND next_due <= :now ORDER BY next_due LIMIT :n")
DUE_OBLIGATIONS = Statement(
    f"{_OBLIGATION} WHERE state = 'open' AND partition = :p AND due <= :now ORDER BY due, obligation_id LIMIT :n"
)
CHAIN = Statement("SELECT chain_number, chain_head FROM lanes WHERE stage = 'reports' AND partition = :p")
OUTBOX = Statement(
    "SELECT id, topic, value, key, to_partition FROM outbox WHERE stage = :s AND partition = :p ORDER BY id LIMIT :n"
)
SWAP = Statement(
    "UPDATE lanes SET next = :to WHERE stage = :s AND partition = :p AND next = :expected AND epoch = :epoch "
    "RETURNING clock_timestamp() AS now"
)
# Locked as an update would lock it: who takes the lane waits for the end, and a lane that was taken is not found.
SWAP_AT_HOME = Statement(
    "WITH home AS (SELECT 1 FROM lanes WHERE stage = :hs AND partition = :hp AND epoch = :home FOR NO KEY UPDATE) "
    "UPDATE lanes SET next = :to WHERE stage = :s AND partition = :p AND next = :expected AND epoch = :epoch "
    "AND EXISTS (SELECT 1 FROM home) RETURNING clock_timestamp() AS now"
)
STANDS = Statement("SELECT epoch, next FROM lanes WHERE stage = :s AND partition = :p")
CLOCK = Statement("SELECT clock_timestamp() AS now")
# The clock is read behind the wait: a target list is worked from left to right.
LOCK_SHARED = Statement("SELECT pg_advisory_xact_lock_shared(:space, :p), clock_timestamp() AS now")
LOCK = Statement("SELECT pg_advisory_xact_lock(:space, :p)")
NUMBERS = Statement("SELECT nextval('acceptance') AS n FROM generate_series(1, CAST(:n AS integer))")
AT = DateTime(timezone=True)
HAS_TASK = "(CAST(r.state AS json)->'tasks'->CAST(:system AS text)) IS NOT NULL"
HAS_LATE = (
    "EXISTS (SELECT 1 FROM json_each(CAST(r.state AS json)->'tasks') AS t WHERE t.value->>'status' <> 'ended' AND "
    "(t.value->>'late' = 'true' OR t.value->>'status' = 'open' AND (t.value->>'next_at')::timestamptz <= :now))"
)
HAS_HELD = "EXISTS (SELECT 1 FROM json_each(CAST(r.state AS json)->'tasks') AS t WHERE t.value->>'status' = 'held')"
HAS_OPEN = "(CAST(r.state AS json)->'tasks'->CAST(:open_in AS text)->>'status') <> 'ended'"
HISTORY = Statement("SELECT sequence, kind, at, data FROM events WHERE stream = :s ORDER BY sequence")
# By now(), which stands still: a clock that runs on is not looked up in an index, and all that is open would be read.
WAITING = Statement(
    "SELECT p FROM unnest(CAST(:ps AS integer[])) AS p "
    "WHERE EXISTS (SELECT 1 FROM inbox i WHERE i.partition = p) OR EXISTS "
    "(SELECT 1 FROM requests r WHERE r.partition = p AND r.next_due <= now()) OR EXISTS "
    "(SELECT 1 FROM obligations o WHERE o.state = 'open' AND o.partition = p AND o.due <= now())"
)

# An open request has a next moment: the index over those finds them among any number that are closed.
OLDEST = Statement(
    "SELECT t.key AS system, min((CAST(r.state AS json)->>'accepted_at')::timestamptz) AS accepted_at FROM requests r, "
    "json_each(CAST(r.door AS json)->'t') AS t WHERE r.next_due IS NOT NULL AND t.value->>0 <> 'ended' GROUP BY t.key"
)


# --- writing


def _list(section: str, column: str) -> str:
    return f"CAST(:{section}__{column} AS {COLUMNS[section][column]}[])"


def _into(table: str, section: str, *more: str, behind: str = "") -> str:
    """Insert a section's rows. `more` are columns that are alike in all of them."""
    places = [*COLUMNS[section], *more]
    # In a target list arrays are unnested in step, and without being kept in between, as a function in FROM would be.
    values = [f"unnest({_list(section, c)})" for c in COLUMNS[section]] + [_ALIKE[c] for c in more]
    return f"INSERT INTO {table} ({', '.join(places)}) SELECT {', '.join(values)} {behind}"


def _without(table: str, section: str, also: str = "") -> str:
    (column,) = COLUMNS[section]
    return f"DELETE FROM {table} WHERE {column} = ANY ({_list(section, column)}) {also}"  # noqa: S608 - as above


def _changed(table: str, section: str, change: str) -> str:
    """Change rows, which are named by the first column of the section, to what `x` has."""
    key, *_ = COLUMNS[section]
    given = ", ".join(f"unnest({_list(section, c)}) AS {c}" for c in COLUMNS[section])
    return f"UPDATE {table} SET {change} FROM (SELECT {given}) AS x WHERE {table}.{key} = x.{key}"  # noqa: S608 - as above


_ALIKE: Final = {
    "at": "CAST(:now AS timestamptz)",
    "stage": "CAST(:stage AS text)",
    "partition": "CAST(:partition AS integer)",
}
_ANYWAY: Final = "ON CONFLICT DO NOTHING"
_SECTIONS: Final = {
    "events": _into("events", "events", "partition", "at"),
    "states": _into(
        "requests",
        "states",
        behind="ON CONFLICT (request_id) DO UPDATE SET sequence = excluded.sequence, status = excluded.status, "
        "number = excluded.number, next_due = excluded.next_due, state = excluded.state, "
        "accepted = coalesce(excluded.accepted, requests.accepted), door = excluded.door",
    ),
    "due_moved": _changed("requests", "due_moved", "next_due = x.due"),
    "inbox": _into("inbox", "inbox"),
    "inbox_done": _without("inbox", "inbox_done"),
    "outbox": _into("outbox", "outbox", "stage", "partition"),
    "outbox_done": _without(
        "outbox", "outbox_done", f"AND stage = {_ALIKE['stage']} AND partition = {_ALIKE['partition']}"
    ),
    "arrivals": _into("arrivals", "arrivals", "at", behind=_ANYWAY),
    "quarantine": _into("quarantine", "quarantine", "at"),
    "claims": _into("claims", "claims"),
    "claims_ended": _without("claims", "claims_ended"),
    "keys": _into("keys", "keys"),
    "keys_destroyed": _without("keys", "keys_destroyed"),
    "plans": _into("plans", "plans", behind=_ANYWAY),
    "inventories": _into("inventories", "inventories", behind=_ANYWAY),
    "closures": _into("closures", "closures", "at"),
    "obligations": _into("obligations", "obligations"),
    "remembered": _into("remembered", "remembered"),
    "obligations_met": _changed(
        "obligations", "obligations_met", "state = 'met', sealed = NULL, due = NULL, sequence = x.sequence"
    ),
    "obligations_due": _changed("obligations", "obligations_due", "due = x.due, sequence = x.sequence"),
    "cases": _into("cases", "cases"),
    "cases_closed": _changed("cases", "cases_closed", "closed = x.closed"),
    "people": _into("people", "people"),
    "endings": _into("endings", "endings", behind=_ANYWAY),
    "forgotten": _without("remembered", "forgotten"),
    "chain": "UPDATE lanes SET chain_number = (CAST(:chain__chain_number AS bigint[]))[1], "
    "chain_head = (CAST(:chain__chain_head AS text[]))[1] "
    "WHERE stage = 'reports' AND partition = CAST(:partition AS integer)",
    "given": _into("evidence", "given", "at"),
    "refused": _into("evidence", "refused", "at", behind="ON CONFLICT (begin_id) DO NOTHING"),
    "renewed": _into("renewals", "renewed", behind=_ANYWAY),
}


@cache
def _write(names: tuple[str, ...]) -> Statement:
    """One statement that does all of these sections. There are as many as cycles of different kinds."""
    *first, last = names
    parts = ",\n".join(f"{name}_ AS ({_SECTIONS[name]})" for name in first)
    return Statement(f"WITH {parts}\n{_SECTIONS[last]}" if first else _SECTIONS[last])


def write(found: Mapping[str, Rows]) -> tuple[Statement, dict[str, Any]]:
    """What writes these sections: a statement with its values, but for what is alike in all rows."""
    values: dict[str, Any] = {}
    for name, rows in found.items():
        kinds = COLUMNS[name]
        arrays = columns(rows, tuple(kinds.values()))
        values |= {f"{name}__{column}": array for column, array in zip(kinds, arrays, strict=True)}
    return _write(tuple(found)), values
