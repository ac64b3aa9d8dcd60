"""The ledger on PostgreSQL. One JSON parameter a transaction: passing arrays costs more than all the rest."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from typing import Any

from sqlalchemy import Connection, CursorResult, Engine, Executable, create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DataError, DBAPIError, SQLAlchemyError

from keshi.orchestrator.closure import Chain
from keshi.orchestrator.context import Lease, Leases
from keshi.orchestrator.ledger import port, statements
from keshi.orchestrator.ledger.migrate import LOCK_SPACE, check_schema
from keshi.orchestrator.request import State
from keshi.runtime.sealing import WrappedKey
from keshi.runtime.settings import ConfigurationError
from keshi.schemas.closure import GENESIS
from keshi.schemas.tasks import Mode

_PASSING_STATES = ("08", "40", "53", "57", "25P03", "25P04", "55P03")
"""SQLSTATE classes and codes that may pass: connection, rollback, resources, operator, time-outs, locks."""
_UNIQUE_VIOLATION = "23505"


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
            # A frozen process must not keep others waiting: the server ends its transaction, its locks go free.
            "options": "-c idle_in_transaction_session_timeout=4000 -c lock_timeout=8000 -c statement_timeout=20000",
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
    def cycle(self, position: port.Position, to: int) -> Iterator["PostgresCycle"]:
        with _errors(), self._engine.begin() as connection:
            now = _swap(connection, position, to)
            yield PostgresCycle(connection, position, now)

    @contextmanager
    def begins(self, partition: int) -> Iterator["PostgresBegins"]:
        with _errors(), self._engine.begin() as connection:
            # A statement of its own: one that waits for a lock still reads with the snapshot from before the wait.
            row = connection.execute(_LOCK_SHARED, {"space": LOCK_SPACE, "p": partition}).one()
            yield PostgresBegins(connection, row.now.astimezone(UTC))

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


def _clock(connection: Connection) -> datetime:
    found: datetime = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
    return found.astimezone(UTC)


def _swap(connection: Connection, position: port.Position, to: int) -> datetime:
    """The first line of every cycle: an old owner fails here and has changed nothing."""
    key = {"s": position.stage, "p": position.partition}
    row = connection.execute(_SWAP, {**key, "to": to, "expected": position.next, "epoch": position.epoch}).one_or_none()
    if row is not None:
        now: datetime = row.now
        return now.astimezone(UTC)
    found = connection.execute(
        text("SELECT epoch, next FROM lanes WHERE stage = :s AND partition = :p"), key
    ).one_or_none()
    if found is None or found.epoch != position.epoch:
        raise port.NotOwner(f"{position.stage}/{position.partition}")
    raise port.WrongOffset(found.next)


def _ids(values: Collection[str]) -> dict[str, str]:
    return {"ids": json.dumps(sorted(values))}


class _Guarded:
    """A connection whose errors are the ledger's where they arise: who decides in between must not see others."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def execute(self, statement: Executable, parameters: Mapping[str, Any]) -> CursorResult[Any]:
        with _errors():
            return self._connection.execute(statement, parameters)


class _Reading:
    """What all transactions can read."""

    def __init__(self, connection: Connection, now: datetime) -> None:
        self._c = _Guarded(connection)
        self.now = now

    def states(self, request_ids: Collection[str]) -> Mapping[str, State]:
        if not request_ids:
            return {}
        rows = self._c.execute(statements.STATES, _ids(request_ids))
        return {r.request_id: State.model_validate_json(r.state) for r in rows}

    def leases(self, request_ids: Collection[str]) -> Mapping[str, Leases]:
        found: dict[str, dict[str, list[Lease]]] = {}
        if not request_ids:
            return {}
        for r in self._c.execute(statements.LEASES, _ids(request_ids)):
            lease = Lease(
                begin_id=r.begin_id,
                lease_id=r.lease_id or "",
                system=r.system,
                attempt=r.attempt,
                mode=Mode(r.mode),
                at=r.at,
                granted_at=r.granted_at,
                until=r.until,
                digest=r.digest,
                counts=json.loads(r.counts),
                searched=tuple(json.loads(r.searched)),
                learned={s: tuple(t) for s, t in json.loads(r.learned).items()},
            )
            found.setdefault(r.request_id, {}).setdefault(r.system, []).append(lease)
        return {i: Leases({s: tuple(x) for s, x in by.items()}) for i, by in found.items()}

    def manifests(self, request_ids: Collection[str]) -> Mapping[tuple[str, str], Sequence[str]]:
        found: dict[tuple[str, str], list[str]] = {}
        if not request_ids:
            return found
        for r in self._c.execute(statements.MANIFESTS, _ids(request_ids)):
            found.setdefault((r.request_id, r.system), []).append(r.manifest)
        return found

    def keys(self, owners: Collection[str]) -> Mapping[str, WrappedKey]:
        if not owners:
            return {}
        rows = self._c.execute(statements.KEYS, _ids(owners))
        return {r.owner: WrappedKey(r.kek_id, bytes.fromhex(r.wrapped)) for r in rows}

    def plans(self, hashes: Collection[str]) -> Mapping[str, str]:
        if not hashes:
            return {}
        return {r.hash: r.body for r in self._c.execute(statements.PLANS, _ids(hashes))}

    def closures(self, request_ids: Collection[str]) -> Mapping[str, str]:
        if not request_ids:
            return {}
        return {r.request_id: r.record for r in self._c.execute(statements.CLOSURES, _ids(request_ids))}

    def obligations(self, ids: Collection[str]) -> Mapping[str, port.ObligationRow]:
        if not ids:
            return {}
        return {r.obligation_id: _obligation(r) for r in self._c.execute(statements.OBLIGATIONS, _ids(ids))}


def _obligation(r: Any) -> port.ObligationRow:
    return port.ObligationRow(
        r.obligation_id,
        r.request_id,
        r.partition,
        r.system,
        r.kind,
        r.state,
        r.due,
        r.sealed,
        r.data,
        r.sequence,
    )


class PostgresCycle(_Reading):
    """`Cycle` on PostgreSQL."""

    def __init__(self, connection: Connection, position: port.Position, now: datetime) -> None:
        super().__init__(connection, now)
        self._position = position

    @property
    def _p(self) -> int:
        return self._position.partition

    def lock_partition(self) -> None:
        self._c.execute(_LOCK, {"space": LOCK_SPACE, "p": self._p})

    def lock_holders(self, holders: Collection[str]) -> None:
        if holders:
            self._c.execute(statements.LOCK_HOLDERS, _ids(holders))

    def claims(self, holders: Collection[str]) -> Sequence[port.Claim]:
        if not holders:
            return []
        rows = self._c.execute(statements.CLAIMS, _ids(holders))
        return [port.Claim(r.holder, r.request_id, r.partition, r.number) for r in rows]

    def in_force(self, holders: Collection[str]) -> Sequence[tuple[str, str, str, str]]:
        if not holders:
            return []
        rows = self._c.execute(statements.IN_FORCE, _ids(holders))
        return [(r.holder, r.system, r.obligation_id, r.kind) for r in rows]

    def inbox(self, limit: int) -> Sequence[port.InboxRow]:
        rows = self._c.execute(statements.INBOX, {"p": self._p, "n": limit})
        return [port.InboxRow(self._p, r.request_id, r.data, r.id) for r in rows]

    def due(self, limit: int) -> Sequence[str]:
        rows = self._c.execute(statements.DUE, {"p": self._p, "now": self.now, "n": limit})
        return [r.request_id for r in rows]

    def due_obligations(self, limit: int) -> Sequence[port.ObligationRow]:
        rows = self._c.execute(statements.DUE_OBLIGATIONS, {"p": self._p, "now": self.now, "n": limit})
        return [_obligation(r) for r in rows]

    def chain(self) -> Chain:
        row = self._c.execute(statements.CHAIN, {"p": self._p}).one()
        return Chain(row.chain_number, row.chain_head)

    def numbers(self, count: int) -> Iterator[int]:
        if not count:
            return iter(())
        return iter(self._c.execute(statements.NUMBERS, {"n": count}).scalars().all())

    def write(self, batch: port.Batch) -> None:
        sections = statements.sections(batch, self._position)
        if not sections:
            return
        names = tuple(sections)
        self._c.execute(_write_statement(names), {"batch": json.dumps(sections), "now": self.now})


@cache
def _write_statement(names: tuple[str, ...]) -> Any:
    return statements.write(names)


class PostgresBegins(_Reading):
    """`Begins` on PostgreSQL."""

    def insert(self, evidence: Sequence[port.EvidenceRow], leases: Sequence[port.LeaseRow]) -> None:
        if not evidence and not leases:
            return
        batch = json.dumps(
            {
                "evidence": [statements.plain(e) for e in evidence],
                "leases": [{**statements.plain(x), "until": x.until.isoformat()} for x in leases],
            }
        )
        self._c.execute(statements.INSERT_BEGINS, {"batch": batch, "now": self.now})


class PostgresReader(_Reading):
    """`Reader` on PostgreSQL."""

    def recent(self, limit: int, before: int | None, *, open_only: bool) -> Sequence[State]:
        rows = self._c.execute(statements.RECENT, {"n": limit, "before": before or 2**62, "all": not open_only})
        return [State.model_validate_json(r.state) for r in rows]

    def history(self, stream: str) -> Sequence[tuple[datetime, port.EventRow]]:
        rows = self._c.execute(statements.HISTORY, {"s": stream})
        return [(r.at, port.EventRow(stream, r.sequence, r.kind, r.data)) for r in rows]

    def obligations_of(self, request_id: str) -> Sequence[port.ObligationRow]:
        return [_obligation(r) for r in self._c.execute(statements.OBLIGATIONS_OF, {"r": request_id})]
