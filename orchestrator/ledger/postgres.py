"""The ledger on PostgreSQL. One JSON parameter a table: passing arrays costs more than all the rest."""

import json
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from typing import Any

import orjson
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DataError, DBAPIError, SQLAlchemyError

from keshi.orchestrator.ledger import port, statements
from keshi.orchestrator.ledger.answers import ExportRow
from keshi.orchestrator.ledger.asked import register
from keshi.orchestrator.ledger.migrate import LOCK_SPACE, check_schema
from keshi.orchestrator.ledger.reading import CycleReading, Guarded, ReaderReading, Reading
from keshi.orchestrator.ledger.sections import moment, plain, sections
from keshi.runtime.sealing import WrappedKey
from keshi.runtime.settings import ConfigurationError
from keshi.schemas.closure import GENESIS

_PASSING_STATES = ("08", "40", "53", "57", "25P03", "25P04", "55P03")
"""SQLSTATE classes and codes that may pass: connection, rollback, resources, operator, time-outs, locks."""
_UNIQUE_VIOLATION = "23505"


_BOUNDS = "-c idle_in_transaction_session_timeout=4000 -c lock_timeout=8000 -c statement_timeout=20000"
"""A frozen process must not keep others waiting: the server ends its transaction, its locks go free."""
_BY_INDEX = "-c enable_seqscan=off -c enable_hashjoin=off -c enable_mergejoin=off -c jit=off"
"""Every read here is of a few rows by their keys. Without statistics the planner would scan whole tables for them."""


def connect(url: str, *, pool_size: int = 8) -> Engine:
    """An engine for the ledger's database. Connects at first use.

    Raises:
        ConfigurationError: the URL is none of PostgreSQL's.
    """
    try:
        parsed = make_url(url)
    except SQLAlchemyError:
        raise ConfigurationError("KESHI_LEDGER_URL: expected postgresql://user:password@host:port/database") from None
    if not parsed.drivername.startswith("postgresql"):
        raise ConfigurationError("KESHI_LEDGER_URL: this version keeps its ledger on PostgreSQL (postgresql://…)")
    engine = create_engine(
        parsed.set(drivername="postgresql+psycopg"),
        pool_size=pool_size,
        max_overflow=4,
        pool_timeout=10,
        hide_parameters=True,
        connect_args={
            "connect_timeout": 5,
            "application_name": "keshi",
            "options": f"{_BOUNDS} {_BY_INDEX}",
            "keepalives_idle": 5,
            "keepalives_interval": 2,
            "keepalives_count": 3,
        },
    )
    event.listen(engine, "connect", _utc)
    return engine


def _utc(connection: Any, _: Any) -> None:
    connection.execute("SET TIME ZONE 'UTC'")
    connection.commit()


@contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except DBAPIError as e:
        state = getattr(e.orig, "sqlstate", None)
        if state == _UNIQUE_VIOLATION:
            raise port.Raced("two transactions wrote the same thing: read again") from None
        if state is None and isinstance(e, DataError):
            raise port.Lasting("the database's driver refused the data") from None
        if state is None or state.startswith(_PASSING_STATES):
            raise port.Passing(f"the ledger's database: {type(e.orig).__name__}") from None
        if state.startswith(("22", "23")):
            raise port.Lasting(f"the ledger's database refuses these data: SQLSTATE {state}") from None
        raise port.Unusable(f"the ledger's database cannot be used: SQLSTATE {state}") from None
    except SQLAlchemyError as e:
        raise port.Passing(f"the ledger's database: {type(e).__name__}") from None


class PostgresLedger:
    """`Ledger` on PostgreSQL 14 or later."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def close(self) -> None:
        self._engine.dispose()

    def on_duty(self) -> bool:
        return True

    def check(self) -> None:
        with _errors(), self._engine.connect() as connection:
            check_schema(connection)

    def partitions(self, wanted: int) -> int:
        return int(self._meta("partitions", str(wanted)))

    def secret(self, propose: port.KeyRow) -> port.KeyRow:
        value = json.dumps({"kek_id": propose.key.kek_id, "wrapped": propose.key.wrapped.hex()})
        found = json.loads(self._meta("secret", value))
        return port.KeyRow(propose.owner, WrappedKey(found["kek_id"], bytes.fromhex(found["wrapped"])))

    def rewrap(self, secret: port.KeyRow) -> None:
        value = json.dumps({"kek_id": secret.key.kek_id, "wrapped": secret.key.wrapped.hex()})
        with _errors(), self._engine.begin() as c:
            c.execute(text("UPDATE meta SET value = :v WHERE name = 'secret'"), {"v": value})

    def _meta(self, name: str, value: str) -> str:
        with _errors(), self._engine.begin() as c:
            c.execute(
                text("INSERT INTO meta VALUES (:n, :v) ON CONFLICT (name) DO NOTHING"),
                {"n": name, "v": value},
            )
            return str(c.execute(text("SELECT value FROM meta WHERE name = :n"), {"n": name}).scalar_one())

    def take(self, stage: port.Stage, partition: int, topic_id: str | None, start: int) -> port.Position:
        statement = text(
            "INSERT INTO lanes (stage, partition, epoch, next, topic_id, chain_head) "
            "VALUES (:s, :p, 1, :n, :t, :g) ON CONFLICT (stage, partition) "
            "DO UPDATE SET epoch = lanes.epoch + 1, topic_id = coalesce(lanes.topic_id, excluded.topic_id) "
            "RETURNING epoch, next, topic_id"
        )
        with _errors(), self._engine.begin() as c:
            row = c.execute(statement, {"s": stage, "p": partition, "n": start, "t": topic_id, "g": GENESIS}).one()
        return port.Position(stage, partition, row.epoch, row.next, row.topic_id)

    def jump(self, position: port.Position, to: int) -> port.Position:
        with self.cycle(position, to):
            pass
        return port.Position(position.stage, position.partition, position.epoch, to, position.topic_id)

    @contextmanager
    def cycle(self, position: port.Position, to: int, home: port.Position | None = None) -> Iterator["PostgresCycle"]:
        with _errors(), self._engine.begin() as connection:
            now = _swap(connection, position, to, home)
            yield PostgresCycle(connection, position, now)

    @contextmanager
    def begins(self, partition: int) -> Iterator["PostgresBegins"]:
        with _errors(), self._engine.begin() as connection:
            # A statement of its own: one that waits for a lock still reads with the snapshot from before the wait.
            row = connection.execute(_LOCK_SHARED, {"space": LOCK_SPACE, "p": partition}).one()
            yield PostgresBegins(connection, row.now.astimezone(UTC))

    def register(self, export: ExportRow) -> int:
        with _errors(), self._engine.begin() as c:
            return register(c, export, _clock(c), statements)

    @contextmanager
    def reader(self) -> Iterator["PostgresReader"]:
        with _errors(), self._engine.begin() as connection:
            connection.execute(text("SET TRANSACTION READ ONLY"))
            yield PostgresReader(connection, _clock(connection))

    def outbox(self, stage: port.Stage, partition: int, limit: int) -> Sequence[port.OutboxRow]:
        statement = text(
            "SELECT id, topic, value, key, to_partition FROM outbox WHERE stage = :s AND partition = :p "
            "ORDER BY id LIMIT :n"
        )
        with _errors(), self._engine.begin() as c:
            rows = c.execute(statement, {"s": stage, "p": partition, "n": limit})
            return [port.OutboxRow(r.id, r.topic, r.value, r.key, r.to_partition) for r in rows]

    def waiting(self, partitions: Collection[int]) -> Collection[int]:
        with _errors(), self._engine.begin() as c:
            return c.execute(statements.WAITING, {"ps": json.dumps(sorted(partitions))}).scalars().all()


# The clock is read behind the wait: a target list is worked from left to right.
_LOCK_SHARED = text("SELECT pg_advisory_xact_lock_shared(:space, :p), clock_timestamp() AS now")
_LOCK = text("SELECT pg_advisory_xact_lock(:space, :p)")
_SWAP = text(
    "UPDATE lanes SET next = :to WHERE stage = :s AND partition = :p AND next = :expected AND epoch = :epoch "
    "RETURNING clock_timestamp() AS now"
)
# Locked as an update would lock it: who takes the lane waits for the end, and a lane that was taken is not found.
_SWAP_AT_HOME = text(
    "WITH home AS (SELECT 1 FROM lanes WHERE stage = :hs AND partition = :hp AND epoch = :home FOR NO KEY UPDATE) "
    "UPDATE lanes SET next = :to WHERE stage = :s AND partition = :p AND next = :expected AND epoch = :epoch "
    "AND EXISTS (SELECT 1 FROM home) RETURNING clock_timestamp() AS now"
)
_STANDS = text("SELECT epoch, next FROM lanes WHERE stage = :s AND partition = :p")


def _clock(connection: Connection) -> datetime:
    found: datetime = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
    return found.astimezone(UTC)


def _swap(connection: Connection, position: port.Position, to: int, home: port.Position | None) -> datetime:
    """The first line of every cycle: an old owner fails here and has changed nothing."""
    key = {"s": position.stage, "p": position.partition}
    given = {**key, "to": to, "expected": position.next, "epoch": position.epoch}
    if home is None:
        row = connection.execute(_SWAP, given).one_or_none()
    else:
        given |= {"hs": home.stage, "hp": home.partition, "home": home.epoch}
        row = connection.execute(_SWAP_AT_HOME, given).one_or_none()
    if row is not None:
        now: datetime = row.now
        return now.astimezone(UTC)
    found = connection.execute(_STANDS, key).one_or_none()
    if found is None or found.epoch != position.epoch:
        raise port.NotOwner(f"{position.stage}/{position.partition}")
    if found.next != position.next or home is None:
        raise port.WrongOffset(found.next)
    raise port.NotOwner(f"{home.stage}/{home.partition}")


def _guarded(connection: Connection) -> Guarded:
    return Guarded(connection, _errors)


class PostgresCycle(CycleReading):
    """`Cycle` on PostgreSQL."""

    def __init__(self, connection: Connection, position: port.Position, now: datetime) -> None:
        super().__init__(_guarded(connection), statements, now, position)

    def lock_partition(self) -> None:
        self._c.execute(_LOCK, {"space": LOCK_SPACE, "p": self._p})

    def lock_holders(self, holders: Collection[str]) -> None:
        if holders:
            self._c.execute(statements.LOCK_HOLDERS, self._ids(holders))

    def write(self, batch: port.Batch) -> None:
        found = sections(batch, self._position)
        if not found:
            return
        given = {name: _document(rows) for name, rows in found.items()}
        self._c.execute(_write_statement(tuple(found)), {**given, "now": self.now})


@cache
def _write_statement(names: tuple[str, ...]) -> Any:
    return statements.write(names)


def _document(rows: Any) -> str:
    try:
        return orjson.dumps(rows).decode()
    except TypeError:
        raise port.Lasting("the data cannot be written as JSON") from None


class PostgresBegins(Reading):
    """`Begins` on PostgreSQL."""

    def __init__(self, connection: Connection, now: datetime) -> None:
        super().__init__(_guarded(connection), statements, now)

    def insert(self, evidence: Sequence[port.EvidenceRow], leases: Sequence[port.LeaseRow]) -> None:
        if not evidence and not leases:
            return
        given = {
            "evidence": _document([plain(e) for e in evidence]),
            "leases": _document([{**plain(x), "until": moment(x.until)} for x in leases]),
        }
        self._c.execute(statements.INSERT_BEGINS, {**given, "now": self.now})


class PostgresReader(ReaderReading):
    """`Reader` on PostgreSQL."""

    def __init__(self, connection: Connection, now: datetime) -> None:
        super().__init__(_guarded(connection), statements, now)
