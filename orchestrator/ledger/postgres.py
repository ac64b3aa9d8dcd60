"""The ledger on PostgreSQL. What happens all the time goes by the wire, what is rare or asked for by SQLAlchemy."""

import json
import struct
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import psycopg
from sqlalchemy import Connection, Engine, QueuePool, create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from keshi.orchestrator.ledger import port, statements
from keshi.orchestrator.ledger.answers import ExportRow
from keshi.orchestrator.ledger.asked import Guarded, register
from keshi.orchestrator.ledger.migrate import LOCK_SPACE, check_schema
from keshi.orchestrator.ledger.reading import CycleReading, ReaderReading, Reading
from keshi.orchestrator.ledger.sections import Rows, begun, sections
from keshi.orchestrator.ledger.wire import Session, Statement, Wire, integers
from keshi.runtime.postgres import refusal
from keshi.runtime.sealing import WrappedKey
from keshi.runtime.settings import ConfigurationError
from keshi.schemas.closure import GENESIS

_PASSING_STATES = ("08", "40", "53", "57", "25P03", "25P04", "55P03")
"""SQLSTATE classes and codes that may pass: connection, rollback, resources, operator, time-outs, locks."""
_UNIQUE_VIOLATION = "23505"


_MORE_CONNECTIONS = 4
"""Beyond the size of the pool, where there is much to do."""
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
        max_overflow=_MORE_CONNECTIONS,
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
        raise _named(e.orig) from None
    except psycopg.Error as e:
        raise _named(e) from None
    except SQLAlchemyError as e:
        raise port.Passing(f"the ledger's database: {type(e).__name__}") from None


def _named(error: BaseException | None) -> port.LedgerError:
    """What an error of the driver means. Of its text nothing is repeated: it may quote data."""
    state = getattr(error, "sqlstate", None)
    if state == _UNIQUE_VIOLATION:
        return port.Raced("two transactions wrote the same thing: read again")
    if state is None and isinstance(error, psycopg.DataError | UnicodeEncodeError):
        return port.Lasting("the database's driver refused the data")
    if state is None and (why := refusal(error)):
        return port.NotLetIn(f"the ledger's database does not let us in, {why}: see KESHI_LEDGER_URL")
    if state is None or state.startswith(_PASSING_STATES):
        return port.Passing(f"the ledger's database: {type(error).__name__}")
    if state.startswith(("22", "23")):
        return port.Lasting(f"the ledger's database refuses these data: SQLSTATE {state}")
    return port.Unusable(f"the ledger's database cannot be used: SQLSTATE {state}")


class PostgresLedger:
    """`Ledger` on PostgreSQL 14 or later."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        assert isinstance(engine.pool, QueuePool)
        self._wire = Wire(self._connected, _named, engine.pool.size() + _MORE_CONNECTIONS)

    def _connected(self) -> psycopg.Connection[Any]:
        """A connection made as the engine makes them, and no longer the engine's."""
        with _errors():
            pooled = self._engine.raw_connection()
            connection: Any = pooled.dbapi_connection
            pooled.detach()
            assert isinstance(connection, psycopg.Connection)
            # No list of ids is worth a plan of its own: each is looked up in its index.
            connection.execute("SET plan_cache_mode = force_generic_plan")
            connection.commit()
        return connection

    def close(self) -> None:
        self._wire.close()
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
        with self._wire.transaction() as session:
            yield PostgresCycle(session, position, _swap(session, position, to, home))

    @contextmanager
    def begins(self, partition: int) -> Iterator["PostgresBegins"]:
        with self._wire.transaction() as session:
            # A statement of its own: one that waits for a lock still reads with the snapshot from before the wait.
            locked = session.execute(statements.LOCK_SHARED, {"space": LOCK_SPACE, "p": partition})
            yield PostgresBegins(session, lambda: _the_one(locked))

    def register(self, export: ExportRow) -> int:
        with _errors(), self._engine.begin() as c:
            return register(c, export, _clock(c), statements)

    @contextmanager
    def reader(self) -> Iterator["PostgresReader"]:
        with ExitStack() as asked:
            yield PostgresReader(self._wire, lambda: asked.enter_context(self._asking()))

    @contextmanager
    def _asking(self) -> Iterator[Connection]:
        """What answers those who ask: statements of too many kinds to prepare each."""
        with _errors(), self._engine.begin() as connection:
            connection.execute(text("SET TRANSACTION READ ONLY"))
            yield connection

    def outbox(self, stage: port.Stage, partition: int, limit: int) -> Sequence[port.OutboxRow]:
        rows = self._wire.read(statements.OUTBOX, {"s": stage, "p": partition, "n": limit})
        return [port.OutboxRow(r.id, r.topic, r.value, r.key, r.to_partition) for r in rows]

    def waiting(self, partitions: Collection[int]) -> Collection[int]:
        return [r.p for r in self._wire.read(statements.WAITING, {"ps": integers(sorted(partitions))})]


def _clock(connection: Connection) -> datetime:
    found: datetime = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
    return found.astimezone(UTC)


def _the_one(answer: Iterable[Any]) -> datetime:
    """The moment in the one row of an answer."""
    (row,) = answer
    now: datetime = row.now
    return now.astimezone(UTC)


def _swap(session: Session, position: port.Position, to: int, home: port.Position | None) -> datetime:
    """The first line of every cycle: an old owner fails here and has changed nothing."""
    key = {"s": position.stage, "p": position.partition}
    given = {**key, "to": to, "expected": position.next, "epoch": position.epoch}
    if home is None:
        moved = session.execute(statements.SWAP, given)
    else:
        at_home = {"hs": home.stage, "hp": home.partition, "home": home.epoch}
        moved = session.execute(statements.SWAP_AT_HOME, given | at_home)
    if moved.rows():
        return _the_one(moved)
    found = next(iter(session.execute(statements.STANDS, key)), None)
    if found is None or found.epoch != position.epoch:
        raise port.NotOwner(f"{position.stage}/{position.partition}")
    if found.next != position.next or home is None:
        raise port.WrongOffset(found.next)
    raise port.NotOwner(f"{home.stage}/{home.partition}")


class PostgresCycle(CycleReading):
    """`Cycle` on PostgreSQL. It does not wait for people's locks and what it writes: what it reads comes behind."""

    def __init__(self, session: Session, position: port.Position, now: datetime) -> None:
        super().__init__(session, statements, lambda: now, position)
        self._session = session

    def lock_partition(self) -> None:
        self._session.execute(statements.LOCK, {"space": LOCK_SPACE, "p": self._p}).rows()

    def lock_holders(self, holders: Collection[str]) -> None:
        if not holders:
            return
        self._session.execute(statements.LOCK_HOLDERS, self._ids(holders))
        # Whoever locks people looks at once for what is open about them.
        self._session.ahead(statements.CLAIMS, self._ids(holders))
        self._session.ahead(statements.IN_FORCE, self._ids(holders))

    def numbers(self, count: int) -> Iterator[int]:
        return _numbers(self._session.execute(statements.NUMBERS, {"n": count})) if count else iter(())

    def write(self, batch: port.Batch) -> None:
        found = sections(batch)
        if found:
            alike = {"now": self.now, "stage": self._position.stage, "partition": self._p}
            _write(self._session, found, alike)

    def written(self) -> None:
        self._session.wait()


def _numbers(answer: Iterable[Any]) -> Iterator[int]:
    """Waits for them only when the first is wanted."""
    for row in answer:
        yield row.n


class PostgresBegins(Reading):
    """`Begins` on PostgreSQL."""

    def __init__(self, session: Session, clock: Callable[[], datetime]) -> None:
        super().__init__(session, statements, clock)
        self._session = session

    def doors(self, request_ids: Collection[str], system: str, *, sealed: bool = False) -> Mapping[str, port.DoorRow]:
        if request_ids:
            # Whoever is to give a go looks at once for those that were given.
            self._session.ahead(statements.ENTRIES, {**self._ids(request_ids), "system": system})
        return super().doors(request_ids, system, sealed=sealed)

    def insert(self, evidence: Sequence[port.EvidenceRow], leases: Sequence[port.LeaseRow]) -> None:
        found = begun(evidence, leases)
        if found:
            _write(self._session, found, {"now": self.now})


def _write(session: Session, found: Mapping[str, Rows], alike: Mapping[str, Any]) -> None:
    try:
        statement, values = statements.write(found)
    except (UnicodeEncodeError, struct.error):  # text that is no Unicode, a number too large for its column
        raise port.Lasting("these data cannot be written") from None
    session.forget_ahead()
    session.execute(statement, {**values, **alike})


class _Reached:
    """Each statement a transaction of its own, which cannot write."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def execute(self, statement: Statement, values: Mapping[str, Any]) -> Sequence[Any]:
        return self._wire.read(statement, values)


class PostgresReader(ReaderReading):
    """`Reader` on PostgreSQL: every statement sees what is there at its moment."""

    def __init__(self, wire: Wire, asking: Callable[[], Connection]) -> None:
        super().__init__(_Reached(wire), statements, lambda: _the_one(wire.read(statements.CLOCK, {})))
        self._open = asking

    @cached_property
    def _asking(self) -> Guarded:
        return Guarded(self._open(), _errors)
