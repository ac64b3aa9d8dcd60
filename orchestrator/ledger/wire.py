"""The wire to PostgreSQL: prepared statements, kept until somebody wants to know, then sent and answered together.

What a small transaction costs is going there and back. libpq's pipeline lets statements follow each other without
waiting; the server works them in order, and after one that fails none of those behind it.
"""

import re
import struct
from collections import deque, namedtuple
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from select import POLLIN, poll
from threading import BoundedSemaphore
from typing import Any, Final

import psycopg
from psycopg import pq
from psycopg.adapt import Transformer
from psycopg.errors import error_from_result

from keshi.orchestrator.ledger.port import LedgerError, Passing

ANSWER_SECONDS: Final = 30.0
"""Longer than any statement may take by the server's own bound."""
POOL_SECONDS: Final = 10.0
_PARAMETER: Final = re.compile(r"(?<![:\w]):([a-z_]+)")
_TEXT: Final = 0
_BINARY: Final = 1
_DONE: Final = (pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK)
_NOTHING: Final[Mapping[str, Any]] = {}
_COUNT: Final = count()
Named = Callable[[BaseException], LedgerError]
"""What an error of the driver means."""


# --- values

_HEAD: Final = struct.Struct("!iiIii").pack
_LENGTH: Final = struct.Struct("!i").pack
_INTEGER: Final = struct.Struct("!ii").pack
_BIG: Final = struct.Struct("!iq").pack
_NULL: Final = b"\xff\xff\xff\xff"
_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def texts(values: Sequence[str | None]) -> bytes:
    """An array of text as PostgreSQL sends it.

    Raises:
        UnicodeEncodeError: one is no Unicode.
    """
    given = [None if v is None else v.encode() for v in values]
    parts = [part for v in given for part in ((_NULL,) if v is None else (_LENGTH(len(v)), v))]
    return _HEAD(1, 1, 25, len(given), 1) + b"".join(parts)


def integers(values: Sequence[int | None]) -> bytes:
    """An array of integer."""
    return _HEAD(1, 1, 23, len(values), 1) + b"".join([_NULL if v is None else _INTEGER(4, v) for v in values])


def bigs(values: Sequence[int | None]) -> bytes:
    """An array of bigint."""
    return _HEAD(1, 1, 20, len(values), 1) + b"".join([_NULL if v is None else _BIG(8, v) for v in values])


def moments(values: Sequence[datetime | None]) -> bytes:
    """An array of timestamptz."""
    found = [_NULL if v is None else _BIG(8, (v - _EPOCH) // _MICROSECOND) for v in values]
    return _HEAD(1, 1, 1184, len(values), 1) + b"".join(found)


ARRAYS: Final[Mapping[str, Callable[[Sequence[Any]], bytes]]] = {
    "text": texts,
    "integer": integers,
    "bigint": bigs,
    "timestamptz": moments,
}


def _parameter(value: Any) -> bytes | None:
    """Text and arrays travel in binary form: its length is told, and a NUL in it is refused and not the end."""
    if value is None or isinstance(value, bytes):
        return value
    return str(value.isoformat() if isinstance(value, datetime) else value).encode()


# --- statements and answers


class Statement:
    """SQL with parameters named `:like_this`. Each connection prepares it once.

    It lives as long as the program: their number has to be bounded.
    """

    __slots__ = ("make", "name", "names", "sql")

    def __init__(self, sql: str) -> None:
        self.names = tuple(dict.fromkeys(_PARAMETER.findall(sql)))
        places = {name: f"${n}" for n, name in enumerate(self.names, start=1)}
        self.sql = _PARAMETER.sub(lambda found: places[found[1]], sql).encode()
        self.name = b"keshi_%d" % next(_COUNT)
        self.make: Any = None

    def rows(self, transformer: Any, result: Any) -> list[Any]:
        """The rows of a result, with their columns by name."""
        if self.make is None:
            names = [(result.fname(n) or b"").decode() for n in range(result.nfields)]
            row = namedtuple("Row", names)  # type: ignore[misc] # noqa: PYI024 - the server tells its names
            self.make = row._make
        transformer.set_pgresult(result)
        found: list[Any] = transformer.load_rows(0, result.ntuples, self.make)
        return found


BEGIN: Final = Statement("BEGIN")
BEGIN_READ_ONLY: Final = Statement("BEGIN READ ONLY")
COMMIT: Final = Statement("COMMIT")
ROLLBACK: Final = Statement("ROLLBACK")


class Answer:
    """Rows, once they are there. Whoever looks waits, and learns what went wrong up to here."""

    __slots__ = ("_rows", "_session", "statement")

    def __init__(self, session: "Session", statement: Statement) -> None:
        self._session = session
        self.statement = statement
        self._rows: list[Any] | None = None

    def rows(self) -> list[Any]:
        if self._rows is None:
            self._session.wait()
        if self._rows is None:
            raise Passing("the ledger's database: a statement before it has failed")
        return self._rows

    def came(self, rows: list[Any]) -> None:
        self._rows = rows

    def __iter__(self) -> Iterator[Any]:
        return iter(self.rows())


class Session:
    """One connection. For one thread at a time.

    What is executed is kept until somebody waits, and then sent in one go with the mark that ends it: behind that mark
    the server counts a transaction as idle, and ends it in time should this process stand still. In the middle of a
    pipeline it does not.
    """

    def __init__(self, connection: psycopg.Connection[Any], named: Named) -> None:
        self._connection = connection
        self._named = named
        self._pg = connection.pgconn
        self._transformer = Transformer(connection)
        self._poll = poll()
        self._poll.register(self._pg.socket, POLLIN)
        self._prepared: set[bytes] = set()
        self._kept: list[tuple[Answer, list[bytes | None], list[int]]] = []
        self._ahead: dict[tuple[Any, ...], Answer] = {}
        self._broken = False
        self._pg.enter_pipeline_mode()

    @property
    def usable(self) -> bool:
        """Whether nothing is left on it that the next one could stumble over."""
        idle = self._pg.transaction_status == pq.TransactionStatus.IDLE
        return idle and not self._kept and not self._broken

    def close(self) -> None:
        self._broken = True
        self._connection.close()

    def execute(self, statement: Statement, values: Mapping[str, Any] = _NOTHING) -> Answer:
        """Have a statement executed behind those before it.

        Args:
            statement: What to do.
            values: Text, numbers, moments, or what the functions of this module make of a list.

        Raises:
            LedgerError: the values cannot be sent. Nothing has happened.
        """
        given = [values[name] for name in statement.names]
        if self._ahead and (known := self._ahead.pop((statement, *given), None)) is not None:
            return known
        try:
            raw = [_parameter(v) for v in given]
        except UnicodeEncodeError as e:
            raise self._named(e) from None
        answer = Answer(self, statement)
        self._kept.append((answer, raw, [_BINARY if isinstance(v, bytes | str) else _TEXT for v in given]))
        return answer

    def ahead(self, statement: Statement, values: Mapping[str, Any]) -> None:
        """Have executed what will be asked for next. It goes with what is executed now, and is answered once."""
        self._ahead[(statement, *(values[name] for name in statement.names))] = self.execute(statement, values)

    def forget_ahead(self) -> None:
        """What was executed ahead is no longer so."""
        self._ahead.clear()

    def wait(self) -> None:
        """Wait for all that was executed.

        Raises:
            LedgerError: the first thing that went wrong. What was to be done behind it has not been done.
        """
        kept, self._kept = self._kept, []
        if not kept:
            return
        failed: BaseException | None = None
        broken, self._broken = self._broken, True  # until the last answer is there
        try:
            asked = self._send(kept)
            for result in self._results():
                one = asked.popleft()
                if result.status in _DONE:
                    if isinstance(one, Answer):
                        one.came(one.statement.rows(self._transformer, result) if result.nfields else [])
                    continue
                if isinstance(one, bytes):
                    self._prepared.discard(one)
                if failed is None and result.status != pq.ExecStatus.PIPELINE_ABORTED:
                    failed = error_from_result(result)
        except psycopg.Error as e:
            # What the server said last says more than that it has hung up.
            raise self._named(failed or e) from None
        self._broken = broken
        if failed is not None:
            raise self._named(failed)

    def _send(self, kept: Iterable[tuple[Answer, list[bytes | None], list[int]]]) -> deque[Answer | bytes]:
        """Send it all, and return what the results to come belong to: names of what is prepared, and answers."""
        asked: deque[Answer | bytes] = deque()
        for answer, raw, formats in kept:
            statement = answer.statement
            if statement.name not in self._prepared:
                self._pg.send_prepare(statement.name, statement.sql)
                self._prepared.add(statement.name)
                asked.append(statement.name)
            self._pg.send_query_prepared(statement.name, raw, formats, result_format=_BINARY)
            asked.append(answer)
        self._pg.pipeline_sync()
        self._pg.flush()
        return asked

    def _results(self) -> Iterator[Any]:
        """One result for each thing that was sent, up to the mark."""
        pg, answered = self._pg, self._poll.poll
        while True:
            while pg.is_busy():
                if not answered(ANSWER_SECONDS * 1000):
                    raise psycopg.OperationalError("no answer in time")
                pg.consume_input()
            result = pg.get_result()
            if result is None:  # the end of what one statement gave
                continue
            if result.status == pq.ExecStatus.PIPELINE_SYNC:
                return
            yield result

    def roll_back(self) -> None:
        """End the transaction, whatever state it is in. A connection on which that fails is not used again."""
        self._kept = []
        try:
            if not self._broken and self._pg.transaction_status != pq.TransactionStatus.IDLE:
                self.execute(ROLLBACK)
                self.wait()
        except LedgerError:
            self._broken = True


class Wire:
    """Connections, so many at most, and transactions over them. For several threads."""

    def __init__(self, connect: Callable[[], psycopg.Connection[Any]], named: Named, size: int) -> None:
        self._connect = connect
        self._named = named
        self._free = BoundedSemaphore(size)
        self._idle: deque[Session] = deque()

    def close(self) -> None:
        """Close what is idle. Whoever still has one closes it when he gives it back."""
        while self._idle:
            self._idle.pop().close()

    @contextmanager
    def session(self) -> Iterator[Session]:
        """A connection, for statements that are a transaction each."""
        if not self._free.acquire(timeout=POOL_SECONDS):
            raise Passing("all connections to the ledger's database are in use")
        try:
            session = self._take()
            try:
                yield session
            finally:
                self._give_back(session)
        finally:
            self._free.release()

    def _take(self) -> Session:
        try:
            return self._idle.pop()
        except IndexError:
            return Session(self._connect(), self._named)

    def _give_back(self, session: Session) -> None:
        if session.usable:
            self._idle.append(session)
            return
        session.close()
        # Where one was cut off the others most likely were, too.
        self.close()

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """All that is executed, or nothing. What was not waited for is when it is committed."""
        with self.session() as session:
            try:
                session.execute(BEGIN)
                yield session
                session.execute(COMMIT)
                session.wait()
            except BaseException:
                session.roll_back()
                raise
            finally:
                session.forget_ahead()

    def read(self, statement: Statement, values: Mapping[str, Any]) -> list[Any]:
        """The rows of one statement that cannot write, in one exchange."""
        with self.session() as session:
            try:
                session.execute(BEGIN_READ_ONLY)
                answer = session.execute(statement, values)
                session.execute(COMMIT)
                return answer.rows()
            except BaseException:
                session.roll_back()
                raise


def columns(rows: Iterable[Sequence[Any]], kinds: Sequence[str]) -> list[bytes]:
    """Rows as arrays, one for each column of these types."""
    return [ARRAYS[kind](column) for kind, column in zip(kinds, zip(*rows, strict=True), strict=True)]
