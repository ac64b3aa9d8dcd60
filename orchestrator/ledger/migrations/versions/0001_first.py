"""The first schema.

Three kinds of tables. Primary and insert-only: events, arrivals, evidence (with the lease that it got), renewals,
closures, quarantine, plans, inventories; a trigger refuses to change them. Operational, never rebuilt: lanes, inbox,
outbox, keys, meta. All else (requests, claims, obligations, remembered) is a projection of the first.

JSON is kept as text: a column of that type reads through each document once more. Documents of some thousand bytes stay
in their row as they are: to compress one, or to cut it to pieces, takes longer than all the rest of writing it.
"""

from keshi.orchestrator.ledger.migrations.dialect import guard, is_sqlite, run

revision = "0001"
down_revision = None

INSERT_ONLY = (
    "events",
    "arrivals",
    "evidence",
    "renewals",
    "closures",
    "quarantine",
    "plans",
    "inventories",
)

TABLES = (
    "CREATE TABLE meta (name text PRIMARY KEY, value text NOT NULL)",
    """CREATE TABLE lanes (
        stage text NOT NULL, partition integer NOT NULL, epoch bigint NOT NULL, next bigint NOT NULL,
        topic_id text, chain_number bigint NOT NULL DEFAULT 0, chain_head text NOT NULL,
        PRIMARY KEY (stage, partition))""",
    """CREATE TABLE events (
        stream text NOT NULL, sequence integer NOT NULL, partition integer NOT NULL, kind text NOT NULL,
        at timestamptz NOT NULL, data text NOT NULL,
        PRIMARY KEY (stream, sequence)) WITH (toast_tuple_target = 8160)""",
    """CREATE TABLE requests (
        request_id text PRIMARY KEY, partition integer NOT NULL, sequence integer NOT NULL, status text NOT NULL,
        number bigint, next_due timestamptz, state text NOT NULL) WITH (toast_tuple_target = 8160)""",
    "CREATE INDEX requests_due ON requests (partition, next_due) WHERE next_due IS NOT NULL",
    """CREATE TABLE inbox (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, partition integer NOT NULL,
        request_id text NOT NULL, data text NOT NULL) WITH (toast_tuple_target = 8160)""",
    "CREATE INDEX inbox_next ON inbox (partition, id)",
    """CREATE TABLE outbox (
        id text NOT NULL, stage text NOT NULL, partition integer NOT NULL, topic text NOT NULL,
        to_partition integer, key text, value text NOT NULL,
        PRIMARY KEY (stage, partition, id)) WITH (toast_tuple_target = 8160)""",
    """CREATE TABLE arrivals (
        topic_id text NOT NULL, partition integer NOT NULL, place bigint NOT NULL, result text NOT NULL,
        request_id text, code text, at timestamptz NOT NULL, PRIMARY KEY (topic_id, partition, place))""",
    """CREATE TABLE quarantine (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, stage text NOT NULL, partition integer NOT NULL,
        place bigint NOT NULL, reason text NOT NULL, field text, size bigint NOT NULL, sealed text NOT NULL,
        at timestamptz NOT NULL)""",
    """CREATE TABLE evidence (
        begin_id text PRIMARY KEY, request_id text NOT NULL, partition integer NOT NULL, system text NOT NULL,
        attempt integer NOT NULL, mode text NOT NULL, manifest text NOT NULL, digest text NOT NULL,
        counts text NOT NULL, searched text NOT NULL, learned text NOT NULL, at timestamptz NOT NULL,
        lease_id text, ordinal integer, until timestamptz, UNIQUE (request_id, system, ordinal))""",
    """CREATE TABLE renewals (
        lease_id text NOT NULL, until timestamptz NOT NULL, PRIMARY KEY (lease_id, until))""",
    """CREATE TABLE claims (
        holder text NOT NULL, request_id text NOT NULL, partition integer NOT NULL, number bigint NOT NULL,
        PRIMARY KEY (holder, request_id))""",
    "CREATE INDEX claims_of ON claims (request_id)",
    "CREATE TABLE keys (owner text PRIMARY KEY, kek_id text NOT NULL, wrapped text NOT NULL)",
    "CREATE TABLE plans (hash text PRIMARY KEY, body text NOT NULL)",
    "CREATE TABLE inventories (hash text PRIMARY KEY, body text NOT NULL)",
    """CREATE TABLE closures (
        request_id text PRIMARY KEY, partition integer NOT NULL, number bigint NOT NULL, hash text NOT NULL,
        record text NOT NULL, at timestamptz NOT NULL, UNIQUE (partition, number)) WITH (toast_tuple_target = 8160)""",
    """CREATE TABLE obligations (
        obligation_id text PRIMARY KEY, request_id text NOT NULL, partition integer NOT NULL, system text NOT NULL,
        kind text NOT NULL, state text NOT NULL, sequence integer NOT NULL, due timestamptz, sealed text,
        data text NOT NULL)""",
    "CREATE INDEX obligations_of ON obligations (request_id)",
    "CREATE INDEX obligations_due ON obligations (partition, due) WHERE state = 'open'",
    """CREATE TABLE remembered (
        holder text NOT NULL, obligation_id text NOT NULL, system text NOT NULL,
        PRIMARY KEY (holder, obligation_id))""",
    "CREATE INDEX remembered_of ON remembered (obligation_id)",
)


def upgrade() -> None:
    """Create everything."""
    run(*TABLES)
    if is_sqlite():
        run("CREATE TABLE acceptance (last bigint NOT NULL)", "INSERT INTO acceptance VALUES (0)")
    else:
        run("CREATE SEQUENCE acceptance")
    guard(INSERT_ONLY)
