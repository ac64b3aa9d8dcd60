"""SQL on PostgreSQL for handlers: one statement, one short transaction, within the time of the task.

Nothing is written in a system after the time to act is over, also by a process that was frozen: the server itself
ends a transaction that outlives its task. Errors leave here as those of `keshi.handlers.errors`, without their
message, which may quote a row.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, LiteralString, Self
from weakref import WeakKeyDictionary

import psycopg
import structlog
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import DictRow, dict_row
from psycopg_pool import ConnectionPool

from keshi.handlers.contract import MIN_TIME_LEFT, Work, boot_time
from keshi.handlers.errors import GiveToPerson, HandlerError, LeaseEnded, Retry, slug
from keshi.runtime.postgres import refusal
from keshi.runtime.settings import ConfigurationError

log = structlog.get_logger()

CONNECT_SECONDS: Final = 5
"""Time to wait for a connection; a task never waits longer than it has."""
READY_SECONDS: Final = 1
FRESH_SECONDS: Final = 1.0
"""A connection that was in use so short a time ago is not asked whether it lives."""

# In one piece, as psycopg's own BEGIN would be a journey of its own. The values are bound by psycopg.
_BEGIN: Final[LiteralString] = (
    "BEGIN; SET LOCAL statement_timeout = %(ms)s; SET LOCAL lock_timeout = %(ms)s;"
    " SET LOCAL idle_in_transaction_session_timeout = %(ms)s"
)
# A peer that is gone without a word is noticed in seconds (libpq, "Parameter Key Words").
_LIVELY: Final = {
    "connect_timeout": CONNECT_SECONDS,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}

Query = LiteralString | sql.SQL | sql.Composed


@dataclass(frozen=True, slots=True)
class Result:
    """What a statement gave. Its representation shows no row."""

    rows: tuple[DictRow, ...]
    count: int
    """Rows read or changed."""

    def __repr__(self) -> str:
        return f"Result({self.count})"


class Database:
    """Connections to one database, shared by the threads of a worker.

    Args:
        dsn: A connection string of PostgreSQL.
        setting: The name of the setting that holds it, for the message.
        connections: At most so many at a time.

    Raises:
        ConfigurationError: `dsn` is none.
    """

    def __init__(self, dsn: str, *, setting: str, connections: int = 8) -> None:
        try:
            known = conninfo_to_dict(dsn)
        except psycopg.ProgrammingError:
            known = {}
        if not known:
            raise ConfigurationError(f"{setting} is not set to a connection string: postgresql://user@host:5432/name")

        class Connection(_Connection):
            named_by = setting

        self._pool: ConnectionPool[psycopg.Connection[DictRow]] = ConnectionPool(
            dsn,
            connection_class=Connection,
            kwargs={"autocommit": True, "row_factory": dict_row, "application_name": "keshi", **_LIVELY},
            min_size=0,
            max_size=connections,
            check=self._check,
            open=True,  # makes no connection yet
        )
        self._used: WeakKeyDictionary[psycopg.Connection[DictRow], float] = WeakKeyDictionary()

    def _check(self, connection: psycopg.Connection[DictRow]) -> None:
        """Raises where the pool is to take another one."""
        now = boot_time()
        if now - self._used.get(connection, float("-inf")) > FRESH_SECONDS:
            ConnectionPool.check_connection(connection)
        self._used[connection] = now

    def run(self, task: Work, query: Query, values: Mapping[str, Any]) -> Result:
        """Run one statement in a transaction of its own, and commit it.

        Args:
            task: Whose time it takes.
            query: The statement. Values never become part of its text.
            values: Its `%(name)s` parameters.

        Raises:
            LeaseEnded: the time is over, and nothing was changed.
            Retry: passing trouble, or something that operations can set right: a grant, a missing table.
            GiveToPerson: the database refuses these very rows.
        """
        try:
            return self._once(task, query, values)
        except _StaleError:
            self._used.clear()  # others may have ended with it: each is asked
        except psycopg.Error as error:
            raise _failure(error, task) from None
        try:
            return self._once(task, query, values)
        except (_StaleError, psycopg.Error) as error:
            raise _failure(error, task) from None

    def _once(self, task: Work, query: Query, values: Mapping[str, Any]) -> Result:
        with self._pool.connection(timeout=min(task.time_left(), CONNECT_SECONDS)) as connection:
            try:
                psycopg.ClientCursor(connection).execute(_BEGIN, {"ms": max(1, int(task.time_left() * 1000))})
            except psycopg.OperationalError:
                if connection.closed:
                    raise _StaleError from None
                raise
            cursor = connection.execute(query, values)
            rows = tuple(cursor.fetchall()) if cursor.description else ()
            task.time_left()  # leaving the block commits, an exception rolls back
            return Result(rows, cursor.rowcount)

    def ready(self) -> bool:
        """Whether the database answers."""
        try:
            with self._pool.connection(timeout=READY_SECONDS):
                return True
        except psycopg.Error:
            return False

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()


class _Connection(psycopg.Connection[DictRow]):
    """One that says why it cannot be made: of what the pool sees of it, it tells its own log alone."""

    named_by: ClassVar[str]

    @classmethod
    def connect(cls, conninfo: str = "", **options: Any) -> Self:
        try:
            return super().connect(conninfo, **options)
        except psycopg.OperationalError as e:
            if why := refusal(e):
                log.warning("database_lets_nobody_in", field=cls.named_by, reason=why)
            raise


class _StaleError(psycopg.OperationalError):
    """The connection had ended before anything was asked of it."""


def _failure(error: psycopg.Error, task: Work) -> HandlerError:
    if task.limit.left() < MIN_TIME_LEFT:
        return LeaseEnded()
    if isinstance(error, psycopg.errors.ForeignKeyViolation):
        return Retry("still_referenced")  # a new row refers to it: the next attempt locates that one, too
    if isinstance(error, psycopg.DataError | psycopg.IntegrityError | psycopg.NotSupportedError):
        return GiveToPerson(slug(type(error).__name__))
    return Retry(slug(type(error).__name__))
