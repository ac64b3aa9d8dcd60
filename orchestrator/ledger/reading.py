"""What transactions read, alike for every dialect: rows become what the port promises. The SQL is the dialect's."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cached_property, lru_cache
from typing import Any, Final, Protocol

import orjson

from keshi.orchestrator.closure import Chain
from keshi.orchestrator.context import Lease, Leases
from keshi.orchestrator.door import read_door
from keshi.orchestrator.events import Case
from keshi.orchestrator.ledger import port
from keshi.orchestrator.ledger.asked import Answering
from keshi.orchestrator.request import State
from keshi.runtime.sealing import WrappedKey
from keshi.schemas.tasks import Mode

_MODES: Final = {mode.value: mode for mode in Mode}
_NOTHING: Final = "{}"


class Statements(Protocol):
    """A dialect's SELECTs. `:ids` is what `listed` makes of a list; moments come back as `datetime` with a zone."""

    def listed(self, ids: Collection[str]) -> Any: ...

    STATES: Any
    DOORS: Any
    DOORS_SEALED: Any
    ENTRIES: Any
    LEASES: Any
    LEASES_IN: Any
    MANIFESTS: Any
    KEYS: Any
    PLANS: Any
    CLOSURES: Any
    OBLIGATIONS: Any
    CLAIMS: Any
    IN_FORCE: Any
    INBOX: Any
    DUE: Any
    DUE_OBLIGATIONS: Any
    CHAIN: Any
    NUMBERS: Any
    HISTORY: Any
    OLDEST: Any
    OBLIGATIONS_OF: Any
    AT: Any
    HAS_TASK: str
    HAS_HELD: str
    HAS_OPEN: str
    HAS_LATE: str


class Reached(Protocol):
    """A store as a transaction reaches it. Its errors are the ledger's."""

    def execute(self, statement: Any, values: Any, /) -> Iterable[Any]:
        """Rows that have their columns by name, and in order."""


class Reading:
    """What all transactions can read."""

    def __init__(self, reached: Reached, sql: Statements, clock: Callable[[], datetime]) -> None:
        self._c = reached
        self._sql = sql
        self._clock = clock

    @cached_property
    def now(self) -> datetime:
        return self._clock()

    def _ids(self, values: Collection[str]) -> dict[str, Any]:
        """A list as the one parameter that it travels in."""
        return {"ids": self._sql.listed(values)}

    def states(self, request_ids: Collection[str]) -> Mapping[str, State]:
        if not request_ids:
            return {}
        rows = self._c.execute(self._sql.STATES, self._ids(request_ids))
        return {r.request_id: whole_state(r) for r in rows}

    def doors(self, request_ids: Collection[str], system: str, *, sealed: bool = False) -> Mapping[str, port.DoorRow]:
        if not request_ids:
            return {}
        if sealed:
            rows = self._c.execute(self._sql.DOORS_SEALED, self._ids(request_ids))
        else:
            rows = self._c.execute(self._sql.DOORS, self._ids(request_ids))
        return {r[0]: _door(r, system) for r in rows}

    def entries(self, request_ids: Collection[str], system: str) -> Mapping[str, Sequence[port.Entry]]:
        found: dict[str, list[port.Entry]] = {}
        if request_ids:
            for r in self._c.execute(self._sql.ENTRIES, {**self._ids(request_ids), "system": system}):
                found.setdefault(r.request_id, []).append(port.Entry(_lease(r), r.manifest))
        return found

    def leases(self, request_ids: Collection[str], systems: Collection[str] = ()) -> Mapping[str, Leases]:
        found: dict[str, dict[str, list[Lease]]] = {}
        if not request_ids:
            return {}
        if systems:
            rows = self._c.execute(
                self._sql.LEASES_IN, {**self._ids(request_ids), "systems": self._sql.listed(systems)}
            )
        else:
            rows = self._c.execute(self._sql.LEASES, self._ids(request_ids))
        for r in rows:
            found.setdefault(r.request_id, {}).setdefault(r.system, []).append(_lease(r))
        return {i: Leases({s: tuple(x) for s, x in by.items()}) for i, by in found.items()}

    def manifests(self, request_ids: Collection[str]) -> Mapping[tuple[str, str], Sequence[str]]:
        found: dict[tuple[str, str], list[str]] = {}
        if not request_ids:
            return found
        for r in self._c.execute(self._sql.MANIFESTS, self._ids(request_ids)):
            found.setdefault((r.request_id, r.system), []).append(r.manifest)
        return found

    def keys(self, owners: Collection[str]) -> Mapping[str, WrappedKey]:
        if not owners:
            return {}
        rows = self._c.execute(self._sql.KEYS, self._ids(owners))
        return {r.owner: WrappedKey(r.kek_id, bytes.fromhex(r.wrapped)) for r in rows}

    def plans(self, hashes: Collection[str]) -> Mapping[str, str]:
        if not hashes:
            return {}
        return {r.hash: r.body for r in self._c.execute(self._sql.PLANS, self._ids(hashes))}

    def closures(self, request_ids: Collection[str]) -> Mapping[str, str]:
        if not request_ids:
            return {}
        return {r.request_id: r.record for r in self._c.execute(self._sql.CLOSURES, self._ids(request_ids))}

    def obligations(self, names: Collection[str]) -> Mapping[str, port.ObligationRow]:
        if not names:
            return {}
        return {r.obligation_id: _obligation(r) for r in self._c.execute(self._sql.OBLIGATIONS, self._ids(names))}


def whole_state(r: Any) -> State:
    """A state from its columns: the case, which hardly ever changes, stands beside what does."""
    state = State.model_validate_json(r.state)
    if r.accepted is None:
        return state
    return state.model_copy(update={"case": Case.model_validate_json(r.accepted)})


def _door(row: Any, system: str) -> port.DoorRow:
    _, partition, door, kek_id, wrapped, accepted = row
    return port.DoorRow(
        partition,
        read_door(door, system),
        None if kek_id is None else WrappedKey(kek_id, bytes.fromhex(wrapped)),
        # Taken out here: a database reads through the document just the same, and takes five times as long.
        tuple(orjson.loads(accepted)["sealed"].get(system, ())) if accepted else (),
    )


def _lease(r: Any) -> Lease:
    return Lease(
        begin_id=r.begin_id,
        lease_id=r.lease_id or "",
        system=r.system,
        attempt=r.attempt,
        mode=_MODES[r.mode],
        at=r.at,
        granted_at=r.granted_at,
        until=r.until,
        digest=r.digest,
        counts=orjson.loads(r.counts),
        searched=_searched(r.searched),
        learned={s: tuple(t) for s, t in orjson.loads(r.learned).items()} if r.learned != _NOTHING else {},
    )


@lru_cache(maxsize=1_000)  # the same few types again and again
def _searched(text: str) -> tuple[str, ...]:
    return tuple(orjson.loads(text))


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


class CycleReading(Reading):
    """What the owner of a lane can read besides."""

    def __init__(
        self, reached: Reached, sql: Statements, clock: Callable[[], datetime], position: port.Position
    ) -> None:
        super().__init__(reached, sql, clock)
        self._position = position

    @property
    def _p(self) -> int:
        return self._position.partition

    def claims(self, holders: Collection[str]) -> Sequence[port.Claim]:
        if not holders:
            return []
        rows = self._c.execute(self._sql.CLAIMS, self._ids(holders))
        return [port.Claim(r.holder, r.request_id, r.partition, r.number, r.action) for r in rows]

    def in_force(self, holders: Collection[str]) -> Sequence[tuple[str, str, str, str]]:
        if not holders:
            return []
        rows = self._c.execute(self._sql.IN_FORCE, self._ids(holders))
        return [(r.holder, r.system, r.obligation_id, r.kind) for r in rows]

    def inbox(self, limit: int) -> Sequence[port.InboxRow]:
        rows = self._c.execute(self._sql.INBOX, {"p": self._p, "n": limit})
        return [port.InboxRow(self._p, r.request_id, r.data, r.id) for r in rows]

    def due(self, limit: int) -> Sequence[str]:
        rows = self._c.execute(self._sql.DUE, {"p": self._p, "now": self.now, "n": limit})
        return [r.request_id for r in rows]

    def due_obligations(self, limit: int) -> Sequence[port.ObligationRow]:
        rows = self._c.execute(self._sql.DUE_OBLIGATIONS, {"p": self._p, "now": self.now, "n": limit})
        return [_obligation(r) for r in rows]

    def chain(self) -> Chain:
        (row,) = self._c.execute(self._sql.CHAIN, {"p": self._p})
        return Chain(row.chain_number, row.chain_head)

    def numbers(self, count: int) -> Iterator[int]:
        if not count:
            return iter(())
        return iter([r.n for r in self._c.execute(self._sql.NUMBERS, {"n": count})])


class ReaderReading(Answering, Reading):
    """What queries can read besides."""

    def history(self, stream: str) -> Sequence[tuple[datetime, port.EventRow]]:
        rows = self._c.execute(self._sql.HISTORY, {"s": stream})
        return [(r.at, port.EventRow(stream, r.sequence, r.kind, r.data)) for r in rows]

    def oldest(self) -> Mapping[str, datetime]:
        return {r.system: r.accepted_at for r in self._c.execute(self._sql.OLDEST, {})}

    def obligations_of(self, request_id: str) -> Sequence[port.ObligationRow]:
        return [_obligation(r) for r in self._c.execute(self._sql.OBLIGATIONS_OF, {"r": request_id})]
