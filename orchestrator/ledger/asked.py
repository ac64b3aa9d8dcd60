"""What read-only views answer besides, alike for every dialect. See `answers`."""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any, Final

from sqlalchemy import BigInteger, Connection, CursorResult, Executable, TextClause, bindparam, text

from keshi.orchestrator.closure import Chain
from keshi.orchestrator.finding import Hits, Place, Sought
from keshi.orchestrator.ledger.answers import ExportRow, LaneLook, QuarantineLook
from keshi.orchestrator.ledger.asking import Spelling, matching, window_end

_LATEST: Final = 2**62

_INVENTORIES: Final = text("SELECT hash, body FROM inventories WHERE hash IN :hashes").bindparams(
    bindparam("hashes", expanding=True)
)
_CHAINS: Final = text(
    "SELECT partition, chain_number, chain_head FROM lanes WHERE stage = 'reports' ORDER BY partition"
)
_CHAINED: Final = text("SELECT record FROM closures WHERE partition = :p AND number > :after ORDER BY number LIMIT :n")
_LANES: Final = text(
    "SELECT l.stage, l.partition, l.epoch, l.next, l.topic_id, "
    "(SELECT count(*) FROM inbox i WHERE l.stage = 'reports' AND i.partition = l.partition) AS inbox, "
    "(SELECT count(*) FROM outbox o WHERE o.stage = l.stage AND o.partition = l.partition) AS outbox, "
    "(SELECT min(r.next_due) FROM requests r WHERE l.stage = 'reports' AND r.partition = l.partition "
    "AND r.next_due IS NOT NULL) AS next_due FROM lanes l ORDER BY l.stage, l.partition"
)
_QUARANTINED: Final = text(
    "SELECT id, stage, partition, place, reason, field, size, at FROM quarantine WHERE id < :before "
    "ORDER BY id DESC LIMIT :n"
)
_EXPORT: Final = "person, purpose, form, filters, requests, lines, sha256"
_EXPORTS: Final = text(
    f"SELECT id, at, {_EXPORT} FROM exports WHERE id < :before ORDER BY id DESC LIMIT :n"  # noqa: S608 - names of ours
)
_REGISTER: Final = text(
    f"INSERT INTO exports (at, {_EXPORT}) "  # noqa: S608 - as above
    "VALUES (:at, :person, :purpose, :form, :filters, :requests, :lines, :sha256) RETURNING id"
)


Errors = Callable[[], AbstractContextManager[None]]
"""Makes errors of a driver the ledger's."""


class Guarded:
    """A connection whose errors are the ledger's where they arise: who decides in between must not see others."""

    def __init__(self, connection: Connection, errors: Errors) -> None:
        self._connection = connection
        self._errors = errors

    def execute(self, statement: Executable, values: Any) -> CursorResult[Any]:
        with self._errors():
            return self._connection.execute(statement, values)


class Answering:
    """`Asking`, over a connection `_asking` with a dialect `_sql` at a moment `now`."""

    _asking: Any
    _sql: Any
    now: datetime

    def find(self, sought: Sought, after: Place | None, limit: int) -> Hits:
        # One more than asked for tells whether there is another page.
        statement, values = matching(sought, after, limit + 1, self.now, self._sql)
        found = self._asking.execute(statement, values).all()
        ids = tuple(r.request_id for r in found[:limit])
        if len(found) > limit:
            return Hits(ids, Place(found[limit - 1].number, found[limit - 1].moment))
        end = self._asking.execute(*window_end(sought, after, self._sql)).one_or_none()
        return Hits(ids, Place(end.number, end.moment) if end else None)

    def inventories(self, hashes: Collection[str]) -> Mapping[str, str]:
        if not hashes:
            return {}
        return {r.hash: r.body for r in self._asking.execute(_INVENTORIES, {"hashes": sorted(hashes)})}

    def chains(self) -> Mapping[int, Chain]:
        return {r.partition: Chain(r.chain_number, r.chain_head) for r in self._asking.execute(_CHAINS, {})}

    def chained(self, partition: int, after: int, limit: int) -> Sequence[str]:
        rows = self._asking.execute(_CHAINED, {"p": partition, "after": after, "n": limit})
        return [r.record for r in rows]

    def lanes(self) -> Sequence[LaneLook]:
        rows = self._asking.execute(_with_moment(_LANES, self._sql, "next_due"), {})
        return [LaneLook(*r) for r in rows]

    def quarantined(self, limit: int, before: int | None) -> Sequence[QuarantineLook]:
        statement = _with_moment(_QUARANTINED, self._sql, "at")
        return [QuarantineLook(*r) for r in self._asking.execute(statement, {"before": before or _LATEST, "n": limit})]

    def exports(self, limit: int, before: int | None) -> Sequence[ExportRow]:
        rows = self._asking.execute(_with_moment(_EXPORTS, self._sql, "at"), {"before": before or _LATEST, "n": limit})
        return [
            ExportRow(r.person, r.purpose, r.form, r.filters, r.requests, r.lines, r.sha256, r.id, r.at) for r in rows
        ]


def register(connection: Any, row: ExportRow, now: datetime, sql: Spelling) -> int:
    """Note an export for good; returns its number."""
    statement = _REGISTER.bindparams(bindparam("at", type_=sql.AT)).columns(id=BigInteger)
    values = {
        "at": now,
        "person": row.person,
        "purpose": row.purpose,
        "form": row.form,
        "filters": row.filters,
        "requests": row.requests,
        "lines": row.lines,
        "sha256": row.sha256,
    }
    return int(connection.execute(statement, values).scalar_one())


def _with_moment(statement: TextClause, sql: Spelling, name: str) -> Any:
    return statement.columns(**{name: sql.AT})
