"""The ledger in a file of SQLite. One process writes at a time (BEGIN IMMEDIATE), so no other lock is needed.

Of each process one connection writes; its threads wait for it in the order they came, processes for each other at
the file. What `begin`, cycles and accepting must not do at the same time they then cannot. The clock is the host's.
"""

import json
import sqlite3
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from sqlalchemy import URL, Connection, Engine, QueuePool, create_engine, event
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from keshi.orchestrator.ledger import port
from keshi.orchestrator.ledger import sqlite_statements as sql
from keshi.orchestrator.ledger.answers import ExportRow
from keshi.orchestrator.ledger.asked import Guarded, register
from keshi.orchestrator.ledger.migrate import check_database
from keshi.orchestrator.ledger.reading import CycleReading, Reached, ReaderReading, Reading
from keshi.orchestrator.ledger.sections import Rows, begun, sections
from keshi.orchestrator.ledger.sqlite_file import FileLock, check_place, path_of
from keshi.runtime.sealing import WrappedKey
from keshi.schemas.closure import GENESIS

LOCK_SECONDS: Final = 8.0
"""How long one waits for the file's one writer."""
READERS: Final = 8
_POLL_SECONDS: Final = (0.0005, 0.005)
_LOG_BYTES: Final = 64 * 1024 * 1024
"""To what size the write-ahead log is cut back once it has been carried over."""

_UNIQUE = {sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY, sqlite3.SQLITE_CONSTRAINT_ROWID}
_PASSING = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_INTERRUPT,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_SCHEMA,
}
_LASTING = {sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_RANGE, sqlite3.SQLITE_TOOBIG}


def connect(url: str) -> Engine:
    """An engine that writes, with one connection. The file is never made by it.

    Raises:
        ConfigurationError: the URL names no file, or one that a ledger cannot be kept in.
    """
    path = path_of(url)
    check_place(path)
    engine = _engine(path, 1, _ready_to_write)
    turn = FileLock(path.with_name(f"{path.name}-turn"))
    event.listen(engine, "begin", lambda connection: _begin_immediate(connection, turn))
    event.listen(engine, "engine_disposed", lambda _: turn.close())
    return engine


def _reading(path: Path) -> Engine:
    engine = _engine(path, READERS, _ready_to_read)
    event.listen(engine, "begin", _begin)
    return engine


def _engine(path: Path, connections: int, prepare: Callable[[sqlite3.Connection], None]) -> Engine:
    def opened() -> sqlite3.Connection:
        # Transactions are begun here alone; the pool lends a connection to one thread at a time.
        uri = f"{path.as_uri()}?mode=rw"
        connection = sqlite3.connect(uri, uri=True, timeout=LOCK_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    return create_engine(
        URL.create("sqlite", database=str(path)),
        creator=opened,
        poolclass=QueuePool,
        pool_size=connections,
        max_overflow=0,
        pool_timeout=LOCK_SECONDS,
        hide_parameters=True,
    )


def _ready_to_write(connection: sqlite3.Connection) -> None:
    _patiently(lambda: _logs_ahead(connection), time.monotonic() + LOCK_SECONDS)
    # A commit is on the disk when it returns; what is deleted (keys) is overwritten, not only let go; REPLACE, too,
    # meets the triggers that keep facts.
    for pragma in (
        "busy_timeout = 0",  # it waits in `_begin_immediate`
        "synchronous = FULL",
        "secure_delete = ON",
        "recursive_triggers = ON",
        f"journal_size_limit = {_LOG_BYTES}",
    ):
        connection.execute(f"PRAGMA {pragma}").close()


def _logs_ahead(connection: sqlite3.Connection) -> bool:
    """Switch the write-ahead log on. False where another is just doing that."""
    try:
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    except sqlite3.OperationalError as e:
        if _primary(e) != sqlite3.SQLITE_BUSY:
            raise
        return False
    if mode != "wal":
        raise port.Unusable("the ledger's file cannot have a write-ahead log where it lies")
    return True


def _ready_to_read(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA query_only = ON").close()


def _run(connection: Connection, statement: str) -> None:
    """Past SQLAlchemy, which would not let a transaction begin in another."""
    raw = connection.connection.dbapi_connection
    assert raw is not None
    with closing(raw.cursor()) as cursor:
        cursor.execute(statement)


def _begin(connection: Connection) -> None:
    with _errors():
        _run(connection, "BEGIN")


def _begin_immediate(connection: Connection, turn: FileLock) -> None:
    """Become the one that writes, in turn: else who writes again and again would always be quicker than who waits."""
    until = time.monotonic() + LOCK_SECONDS
    _patiently(turn.acquire, until)
    try:
        with _errors():
            _patiently(lambda: _begun(connection), until)
    finally:
        turn.release()


def _begun(connection: Connection) -> bool:
    try:
        _run(connection, "BEGIN IMMEDIATE")
    except sqlite3.OperationalError as e:
        if _primary(e) != sqlite3.SQLITE_BUSY:
            raise
        return False
    return True


def _patiently(look: Callable[[], bool], until: float) -> None:
    """Look again and again: SQLite's own wait backs off to 0.1 s between two looks.

    Raises:
        Passing: it did not become true in time.
    """
    pause = _POLL_SECONDS[0]
    while not look():
        if time.monotonic() > until:
            raise port.Passing("the ledger's file: another process writes for too long")
        time.sleep(pause)
        pause = min(2 * pause, _POLL_SECONDS[1])


def _primary(error: BaseException | None) -> int | None:
    """SQLite's result code without its extension; None where the driver itself refused."""
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


@contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except DBAPIError as e:
        raise _named(e.orig) from None
    except (sqlite3.Error, UnicodeEncodeError) as e:
        raise _named(e) from None
    except SQLAlchemyError as e:
        raise port.Passing(f"the ledger's file: {type(e).__name__}") from None


def _named(error: BaseException | None) -> port.LedgerError:
    """What an error of the driver means. Of its text nothing is repeated: it may quote data."""
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    code = _primary(error)
    if getattr(error, "sqlite_errorcode", None) in _UNIQUE:
        return port.Raced("two transactions wrote the same thing: read again")
    if code is None:
        # Text that is no Unicode, an integer past 64 bits.
        return port.Lasting(f"the ledger's driver refused the data: {name}")
    if code in _PASSING:
        return port.Passing(f"the ledger's file: {name}")
    if code in _LASTING:
        return port.Lasting(f"the ledger's file refuses these data: {name}")
    return port.Unusable(f"the ledger's file cannot be used: {name}")


def _now() -> datetime:
    return datetime.now(UTC)


class SqliteLedger:
    """`Ledger` in a file of SQLite 3.37 or later, on a local disk."""

    def __init__(self, engine: Engine) -> None:
        self._writing = engine
        path = Path(str(engine.url.database))
        self._reading = _reading(path)
        self._duty = FileLock(path.with_name(f"{path.name}-orchestrator"))

    def close(self) -> None:
        # The last connection that closes carries the log over and removes it: that takes one that may write.
        self._reading.dispose()
        self._writing.dispose()
        self._duty.close()

    def on_duty(self) -> bool:
        return self._duty.acquire()

    def check(self) -> None:
        with _errors():
            check_database(self._writing)

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        with _errors(), self._writing.begin() as connection:
            yield connection

    def partitions(self, wanted: int) -> int:
        return int(self._meta("partitions", str(wanted)))

    def secret(self, propose: port.KeyRow) -> port.KeyRow:
        found = json.loads(self._meta("secret", _wrapped(propose)))
        return port.KeyRow(propose.owner, WrappedKey(found["kek_id"], bytes.fromhex(found["wrapped"])))

    def rewrap(self, secret: port.KeyRow) -> None:
        with self._transaction() as c:
            c.execute(sql.SET_META, {"n": "secret", "v": _wrapped(secret)})

    def _meta(self, name: str, value: str) -> str:
        with self._transaction() as c:
            c.execute(sql.KEEP_META, {"n": name, "v": value})
            return str(c.execute(sql.META, {"n": name}).scalar_one())

    def take(self, stage: port.Stage, partition: int, topic_id: str | None, start: int) -> port.Position:
        given = {"s": stage, "p": partition, "n": start, "t": topic_id, "g": GENESIS}
        with self._transaction() as c:
            row = c.execute(sql.TAKE, given).one()
        return port.Position(stage, partition, row.epoch, row.next, row.topic_id)

    def jump(self, position: port.Position, to: int) -> port.Position:
        with self.cycle(position, to):
            pass
        return port.Position(position.stage, position.partition, position.epoch, to, position.topic_id)

    @contextmanager
    def cycle(self, position: port.Position, to: int, home: port.Position | None = None) -> Iterator["SqliteCycle"]:
        with self._transaction() as connection:
            _swap(connection, position, to)
            if home is not None and _stands(connection, home).epoch != home.epoch:
                raise port.NotOwner(f"{home.stage}/{home.partition}")
            yield SqliteCycle(connection, position, _now())

    @contextmanager
    def begins(self, partition: int) -> Iterator["SqliteBegins"]:  # noqa: ARG002 - one writes at a time, whatever the partition
        with self._transaction() as connection:
            yield SqliteBegins(connection, _now())

    def register(self, export: ExportRow) -> int:
        with self._transaction() as c:
            return register(c, export, _now(), sql)

    @contextmanager
    def reader(self) -> Iterator["SqliteReader"]:
        with _errors(), self._reading.begin() as connection:
            yield SqliteReader(connection, _now())

    def outbox(self, stage: port.Stage, partition: int, limit: int) -> Sequence[port.OutboxRow]:
        with _errors(), self._reading.begin() as c:
            rows = c.execute(sql.OUTBOX, {"s": stage, "p": partition, "n": limit})
            return [port.OutboxRow(r.id, r.topic, r.value, r.key, r.to_partition) for r in rows]

    def waiting(self, partitions: Collection[int]) -> Collection[int]:
        with _errors(), self._reading.begin() as c:
            return c.execute(sql.WAITING, {"ps": json.dumps(sorted(partitions)), "now": _now()}).scalars().all()


def _wrapped(row: port.KeyRow) -> str:
    return json.dumps({"kek_id": row.key.kek_id, "wrapped": row.key.wrapped.hex()})


def _swap(connection: Connection, position: port.Position, to: int) -> None:
    """The first line of every cycle: an old owner fails here and has changed nothing."""
    lane = {"s": position.stage, "p": position.partition}
    moved = {**lane, "to": to, "expected": position.next, "epoch": position.epoch}
    if connection.execute(sql.SWAP, moved).one_or_none() is not None:
        return
    found = _stands(connection, position)
    if found.epoch != position.epoch:
        raise port.NotOwner(f"{position.stage}/{position.partition}")
    raise port.WrongOffset(found.next)


def _stands(connection: Connection, lane: port.Position) -> Any:
    """Epoch and next offset of a lane that this process has owned."""
    found = connection.execute(sql.LANE, {"s": lane.stage, "p": lane.partition}).one_or_none()
    if found is None:
        raise port.NotOwner(f"{lane.stage}/{lane.partition}")
    return found


def _guarded(connection: Connection) -> Guarded:
    return Guarded(connection, _errors)


class SqliteCycle(CycleReading):
    """`Cycle` on SQLite. Who is in one is alone: there is nothing left to lock."""

    def __init__(self, connection: Connection, position: port.Position, now: datetime) -> None:
        super().__init__(_guarded(connection), sql, lambda: now, position)

    def lock_partition(self) -> None:
        """See `Cycle.lock_partition`: it is, from the start."""

    def lock_holders(self, holders: Collection[str]) -> None:
        """See `Cycle.lock_holders`: they are, from the start."""

    def numbers(self, count: int) -> Iterator[int]:
        if count:
            self._c.execute(sql.TAKE_NUMBERS, {"n": count})
        return super().numbers(count)

    def write(self, batch: port.Batch) -> None:
        _write(self._c, sections(batch), {"now": self.now, "stage": self._position.stage, "partition": self._p})

    def written(self) -> None:
        """It is."""


class SqliteBegins(Reading):
    """`Begins` on SQLite."""

    def __init__(self, connection: Connection, now: datetime) -> None:
        super().__init__(_guarded(connection), sql, lambda: now)

    def insert(self, evidence: Sequence[port.EvidenceRow], leases: Sequence[port.LeaseRow]) -> None:
        _write(self._c, begun(evidence, leases), {"now": self.now})


def _write(connection: Reached, found: Mapping[str, Rows], alike: Mapping[str, Any]) -> None:
    for name in (name for name in sql.WRITE if name in found):
        connection.execute(sql.WRITE[name], sql.rows(name, found[name], alike))


class SqliteReader(ReaderReading):
    """`Reader` on SQLite: a snapshot of the moment it first looks."""

    def __init__(self, connection: Connection, now: datetime) -> None:
        self._asking = _guarded(connection)
        super().__init__(self._asking, sql, lambda: now)
