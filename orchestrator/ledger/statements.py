"""The SQL of the ledger on PostgreSQL. Values travel as parameters alone.

A list of ids is an array, so that each is looked up in an index. A subquery in its place is a join, whose plan for
empty tables (read all of one by its index) is kept while they grow.
"""

from collections.abc import Collection

from sqlalchemy import DateTime, TextClause, text

_LISTED = "ANY (CAST(:ids AS text[]))"


def listed(ids: Collection[str]) -> str:
    """A list of ids as PostgreSQL writes an array."""
    quoted = (i.replace("\\", r"\\").replace('"', r"\"") for i in sorted(ids))
    return "{" + ",".join(f'"{i}"' for i in quoted) + "}"


_STATE = "state::text AS state, accepted::text AS accepted"
STATES = text(f"SELECT request_id, {_STATE} FROM requests WHERE request_id = {_LISTED}")  # noqa: S608
_DOORS = f"FROM requests r LEFT JOIN keys k ON k.owner = r.request_id WHERE r.request_id = {_LISTED}"
_DOOR = "SELECT r.request_id, r.partition, r.door::text AS door, k.kek_id, k.wrapped"
DOORS = text(f"{_DOOR}, NULL AS sealed {_DOORS}")
DOORS_SEALED = text(f"{_DOOR}, (r.accepted->'sealed'->:system)::text AS sealed {_DOORS}")
KEYS = text(f"SELECT owner, kek_id, wrapped FROM keys WHERE owner = {_LISTED}")  # noqa: S608
PLANS = text(f"SELECT hash, body::text AS body FROM plans WHERE hash = {_LISTED}")  # noqa: S608
CLOSURES = text(f"SELECT request_id, record FROM closures WHERE request_id = {_LISTED}")  # noqa: S608
MANIFESTS = text(
    f"SELECT request_id, system, manifest FROM evidence WHERE request_id = {_LISTED} ORDER BY at, begin_id"  # noqa: S608
)
_LEASE = (
    "SELECT e.begin_id, e.request_id, e.system, e.attempt, e.mode, e.digest, e.counts::text AS counts, e.at, "
    "e.searched::text AS searched, e.learned::text AS learned, l.lease_id, l.at AS granted_at, "
    "greatest(l.until, (SELECT max(r.until) FROM renewals r WHERE r.lease_id = l.lease_id)) AS until"
)
_LEASES_OF = f"FROM evidence e LEFT JOIN leases l ON l.begin_id = e.begin_id WHERE e.request_id = {_LISTED}"
_LEASE_ORDER = "ORDER BY e.request_id, e.system, l.ordinal NULLS LAST, e.at"
LEASES = text(f"{_LEASE} {_LEASES_OF} {_LEASE_ORDER}")
ENTRIES = text(f"{_LEASE}, e.manifest {_LEASES_OF} AND e.system = :system {_LEASE_ORDER}")
_OBLIGATION = (
    "SELECT obligation_id, request_id, partition, system, kind, state, due, coalesce(sealed, '') AS sealed, "
    "data::text AS data, sequence FROM obligations"
)
OBLIGATIONS = text(f"{_OBLIGATION} WHERE obligation_id = {_LISTED}")
OBLIGATIONS_OF = text(f"{_OBLIGATION} WHERE request_id = :r ORDER BY due NULLS LAST, obligation_id")
# Sorted, so that two transactions that want the same people cannot wait for each other in a circle.
LOCK_HOLDERS = text(
    "SELECT count(pg_advisory_xact_lock(k)) FROM (SELECT DISTINCT ('x' || substr(value, 1, 16))::bit(64)::bigint AS k "
    "FROM unnest(CAST(:ids AS text[])) AS value ORDER BY 1) AS holders"
)
CLAIMS = text(
    f"SELECT holder, request_id, partition, number FROM claims WHERE holder = {_LISTED} "  # noqa: S608
    "ORDER BY number, holder"
)
IN_FORCE = text(
    "SELECT m.holder, m.system, m.obligation_id, o.kind FROM remembered m JOIN obligations o USING (obligation_id) "  # noqa: S608
    f"WHERE o.state = 'open' AND m.holder = {_LISTED} ORDER BY m.obligation_id"
)
INBOX = text("SELECT id, request_id, data::text AS data FROM inbox WHERE partition = :p ORDER BY id LIMIT :n")
DUE = text("SELECT request_id FROM requests WHERE partition = :p AND next_due <= :now ORDER BY next_due LIMIT :n")
DUE_OBLIGATIONS = text(
    f"{_OBLIGATION} WHERE state = 'open' AND partition = :p AND due <= :now ORDER BY due, obligation_id LIMIT :n"
)
CHAIN = text("SELECT chain_number, chain_head FROM lanes WHERE stage = 'reports' AND partition = :p")
NUMBERS = text("SELECT nextval('acceptance') FROM generate_series(1, :n)")
AT = DateTime(timezone=True)
HAS_TASK = "(r.state->'tasks'->CAST(:system AS text)) IS NOT NULL"
HAS_LATE = (
    "EXISTS (SELECT 1 FROM json_each(r.state->'tasks') AS t WHERE t.value->>'status' <> 'ended' AND "
    "(t.value->>'late' = 'true' OR t.value->>'status' = 'open' AND (t.value->>'next_at')::timestamptz <= :now))"
)
HAS_HELD = "EXISTS (SELECT 1 FROM json_each(r.state->'tasks') AS t WHERE t.value->>'status' = 'held')"
HISTORY = text("SELECT sequence, kind, at, data::text AS data FROM events WHERE stream = :s ORDER BY sequence")
WAITING = text(
    "SELECT p::integer FROM json_array_elements_text(CAST(:ps AS json)) AS p "
    "WHERE EXISTS (SELECT 1 FROM inbox i WHERE i.partition = p::integer) OR EXISTS "
    "(SELECT 1 FROM requests r WHERE r.partition = p::integer AND r.next_due <= clock_timestamp()) OR EXISTS "
    "(SELECT 1 FROM obligations o WHERE o.state = 'open' AND o.partition = p::integer AND o.due <= clock_timestamp())"
)

# An open request has a next moment: the index over those finds them among any number that are closed.
OLDEST = text(
    "SELECT t.key AS system, min((r.state->>'accepted_at')::timestamptz) AS accepted_at FROM requests r, "
    "json_each(r.door->'t') AS t WHERE r.next_due IS NOT NULL AND t.value->>0 <> 'ended' GROUP BY t.key"
)
INSERT_BEGINS = text(
    """WITH found AS (INSERT INTO evidence (begin_id, request_id, partition, system, attempt, mode, manifest, digest,
                                    counts, searched, learned, at)
        SELECT x.begin_id, x.request_id, x.partition, x.system, x.attempt, x.mode, x.manifest, x.digest,
               x.counts::json, x.searched::json, x.learned::json, :now
        FROM json_to_recordset(CAST(:evidence AS json)) AS x(begin_id text, request_id text, partition int, system text,
             attempt int, mode text, manifest text, digest text, counts text, searched text, learned text)
        ON CONFLICT (begin_id) DO NOTHING),
    granted AS (INSERT INTO leases (lease_id, begin_id, request_id, system, ordinal, at, until)
        SELECT x.lease_id, x.begin_id, x.request_id, x.system, x.ordinal, :now, x.until
        FROM json_to_recordset(CAST(:leases AS json)) AS x(lease_id text, begin_id text, request_id text, system text,
             ordinal int, until timestamptz) WHERE x.ordinal > 0)
    INSERT INTO renewals (lease_id, until)
        SELECT x.lease_id, x.until FROM json_to_recordset(CAST(:leases AS json))
            AS x(lease_id text, ordinal int, until timestamptz) WHERE x.ordinal = 0
        ON CONFLICT DO NOTHING"""
)

_SECTIONS = {
    "events": """INSERT INTO events (stream, sequence, partition, kind, at, data)
        SELECT x.stream, x.sequence, x.partition, x.kind, :now, x.data::json
        FROM json_to_recordset(CAST(:events AS json))
        AS x(stream text, sequence int, partition int, kind text, data text)""",
    "states": """INSERT INTO requests (request_id, partition, sequence, status, number, next_due, state, accepted, door)
        SELECT x.request_id, x.partition, x.sequence, x.status, x.number, x.next_due, x.state::json, x.accepted::json,
        x.door::json
        FROM json_to_recordset(CAST(:states AS json)) AS x(request_id text, partition int, sequence int, status text,
        number bigint, next_due timestamptz, state text, accepted text, door text)
        ON CONFLICT (request_id) DO UPDATE SET sequence = excluded.sequence, status = excluded.status,
        number = excluded.number, next_due = excluded.next_due, state = excluded.state,
        accepted = coalesce(excluded.accepted, requests.accepted), door = excluded.door""",
    "due_moved": """UPDATE requests SET next_due = x.due FROM json_to_recordset(CAST(:due_moved AS json))
        AS x(request_id text, due timestamptz) WHERE requests.request_id = x.request_id""",
    "inbox": """INSERT INTO inbox (partition, request_id, data) SELECT x.partition, x.request_id, x.data::json
        FROM json_to_recordset(CAST(:inbox AS json)) AS x(partition int, request_id text, data text)""",
    "inbox_done": """DELETE FROM inbox USING json_array_elements_text(CAST(:inbox_done AS json)) AS v
        WHERE inbox.id = v::bigint""",
    "outbox": """INSERT INTO outbox (id, stage, partition, topic, to_partition, key, value)
        SELECT x.id, x.stage, x.partition, x.topic, x.to_partition, x.key, x.value
        FROM json_to_recordset(CAST(:outbox AS json)) AS x(id text, stage text, partition int, topic text,
        to_partition int, key text, value text)""",
    "outbox_done": """DELETE FROM outbox USING json_array_elements_text(CAST(:outbox_done AS json)) AS v
        WHERE outbox.id = v""",
    "arrivals": """INSERT INTO arrivals (topic_id, partition, place, result, request_id, code, at)
        SELECT x.topic_id, x.partition, x.place, x.result, x.request_id, x.code, :now
        FROM json_to_recordset(CAST(:arrivals AS json)) AS x(topic_id text, partition int, place bigint, result text,
        request_id text, code text) ON CONFLICT DO NOTHING""",
    "quarantine": """INSERT INTO quarantine (stage, partition, place, reason, field, size, sealed, at)
        SELECT x.stage, x.partition, x.place, x.reason, x.field, x.size, x.sealed, :now
        FROM json_to_recordset(CAST(:quarantine AS json)) AS x(stage text, partition int, place bigint, reason text,
        field text, size bigint, sealed text)""",
    "claims": """INSERT INTO claims (holder, request_id, partition, number)
        SELECT x.holder, x.request_id, x.partition, x.number FROM json_to_recordset(CAST(:claims AS json))
        AS x(holder text, request_id text, partition int, number bigint)""",
    "claims_ended": """DELETE FROM claims USING json_array_elements_text(CAST(:claims_ended AS json)) AS v
        WHERE claims.request_id = v""",
    "keys": """INSERT INTO keys (owner, kek_id, wrapped) SELECT x.owner, x.kek_id, x.wrapped
        FROM json_to_recordset(CAST(:keys AS json)) AS x(owner text, kek_id text, wrapped text)""",
    "keys_destroyed": """DELETE FROM keys USING json_array_elements_text(CAST(:keys_destroyed AS json)) AS v
        WHERE keys.owner = v""",
    "plans": """INSERT INTO plans (hash, body) SELECT x.hash, x.body::json
        FROM json_to_recordset(CAST(:plans AS json)) AS x(hash text, body text)
        ON CONFLICT DO NOTHING""",
    "inventories": """INSERT INTO inventories (hash, body) SELECT x.hash, x.body::json
        FROM json_to_recordset(CAST(:inventories AS json)) AS x(hash text, body text)
        ON CONFLICT DO NOTHING""",
    "closures": """INSERT INTO closures (request_id, partition, number, hash, record, at)
        SELECT x.request_id, x.partition, x.number, x.hash, x.record, :now
        FROM json_to_recordset(CAST(:closures AS json)) AS x(request_id text, partition int, number bigint, hash text,
        record text)""",
    "obligations": """INSERT INTO obligations (obligation_id, request_id, partition, system, kind, state, sequence,
        due, sealed, data)
        SELECT x.obligation_id, x.request_id, x.partition, x.system, x.kind, x.state, x.sequence, x.due, x.sealed,
        x.data::json FROM json_to_recordset(CAST(:obligations AS json)) AS x(obligation_id text, request_id text,
        partition int, system text, kind text, state text, sequence int, due timestamptz, sealed text, data text)""",
    "remembered": """INSERT INTO remembered (holder, obligation_id, system)
        SELECT x.holder, x.obligation_id, x.system FROM json_to_recordset(CAST(:remembered AS json))
        AS x(holder text, obligation_id text, system text)""",
    "obligations_met": """UPDATE obligations SET state = 'met', sealed = NULL, due = NULL, sequence = x.sequence
        FROM json_to_recordset(CAST(:obligations_met AS json)) AS x(obligation_id text, sequence int)
        WHERE obligations.obligation_id = x.obligation_id""",
    "obligations_due": """UPDATE obligations SET due = x.due, sequence = x.sequence
        FROM json_to_recordset(CAST(:obligations_due AS json)) AS x(obligation_id text, sequence int, due timestamptz)
        WHERE obligations.obligation_id = x.obligation_id""",
    "cases": """INSERT INTO cases (number, request_id, action, regime, ground, arrived, due, closed)
        SELECT x.number, x.request_id, x.action, x.regime, x.ground, x.arrived, x.due, x.closed
        FROM json_to_recordset(CAST(:cases AS json)) AS x(number bigint, request_id text, action text, regime text,
        ground text, arrived timestamptz, due timestamptz, closed timestamptz)""",
    "cases_closed": """UPDATE cases SET closed = x.closed FROM json_to_recordset(CAST(:cases_closed AS json))
        AS x(number bigint, closed timestamptz) WHERE cases.number = x.number""",
    "people": """INSERT INTO people (holder, number) SELECT x.holder, x.number
        FROM json_to_recordset(CAST(:people AS json)) AS x(holder text, number bigint)""",
    "endings": """INSERT INTO endings (outcome, number, system, ground)
        SELECT x.outcome, x.number, x.system, x.ground FROM json_to_recordset(CAST(:endings AS json))
        AS x(outcome text, number bigint, system text, ground text) ON CONFLICT DO NOTHING""",
    "forgotten": """DELETE FROM remembered USING json_array_elements_text(CAST(:forgotten AS json)) AS v
        WHERE remembered.obligation_id = v""",
    "chain": """UPDATE lanes SET chain_number = x.number, chain_head = x.head
        FROM json_to_record(CAST(:chain AS json)) AS x(number bigint, head text, partition int)
        WHERE stage = 'reports' AND lanes.partition = x.partition""",
}


def write(names: tuple[str, ...]) -> TextClause:
    """One statement that does all of these sections.

    Each has a document of its own as a parameter (json is text: each look into a document reads all of it), and joins
    it: a list that is looked into row by row would be read for each row.
    """
    parts = ",\n".join(f"{name}_ AS ({_SECTIONS[name]})" for name in names)
    return text(f"WITH {parts}\nSELECT CAST(:now AS timestamptz)")
