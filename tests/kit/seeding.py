"""Puts requests into a ledger as the engine would have: events, states, keys and plans in one cycle."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from keshi.orchestrator import events as ev
from keshi.orchestrator.finding import notes
from keshi.orchestrator.keys import Keys
from keshi.orchestrator.ledger.port import Batch, EventRow, KeyRow, Ledger, ObligationRow
from keshi.orchestrator.request import State, evolve
from keshi.runtime.kafka import partition_of
from keshi.runtime.sealing import Key, KeyRing
from keshi.schemas.base import canonical
from keshi.schemas.commands import Action, Arrival, Assessment, Regime, Requester, Scope
from keshi.schemas.identifiers import Identifier
from keshi.schemas.inventory import Plan, PlannedTask
from keshi.schemas.requests import Coordinates
from keshi.schemas.tasks import Found, Mode

ARRIVED = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)
PARTITIONS = 4
WHERE = Coordinates(topic="commands", partition=0, offset=7)
HANAKO = (
    Identifier(type="email", value="hanako.sample@mail.example"),
    Identifier(type="customer_id", value="C-000417"),
)


def new_keys(ledger: Ledger) -> Keys:
    return Keys.of(KeyRing("k1", {"k1": Key(b"\x07" * 32)}), ledger)


def request_in(partition: int, partitions: int = PARTITIONS) -> str:
    """A new request id that belongs to this partition."""
    while partition_of(request_id := str(uuid4()), partitions) != partition:
        pass
    return request_id


def plan(action: Action = Action.ERASE, *, limit: int = 1000, identify: bool = False) -> Plan:
    """Billing and a CRM; with `identify` the CRM first says by which phone number recordings are found."""
    tasks = [
        PlannedTask(
            system="billing",
            categories=("customers", "invoices"),
            identifiers=("email", "customer_id"),
            record_limit=limit,
        ),
        PlannedTask(
            system="crm",
            categories=("contacts",),
            identifiers=("email", "phone"),
            record_limit=limit,
            identify=identify,
            learns=("phone",) if identify else (),
        ),
        PlannedTask(system="recordings", categories=("calls",), identifiers=("phone",), record_limit=limit),
    ]
    return Plan(inventory="0" * 64, action=action, scope=Scope(), tasks=tuple(tasks))


@dataclass
class Seeder:
    """Writes into one ledger, as the owner of each lane that it touches."""

    ledger: Ledger
    keys: Keys
    of: dict[str, Key] = field(default_factory=dict)
    now: datetime = field(default_factory=lambda: datetime.now(UTC))

    @contextmanager
    def cycle(self, partition: int) -> Iterator[Any]:
        position = self.ledger.take("reports", partition, None, 0)
        with self.ledger.cycle(position, position.next + 1) as tx:
            yield tx

    def request(
        self,
        *,
        partition: int = 0,
        action: Action = Action.ERASE,
        mode: Mode = Mode.ACT,
        made: Plan | None = None,
        suspensions: Mapping[str, tuple[str, ...]] | None = None,
        systems: tuple[str, ...] = ("billing", "crm"),
    ) -> str:
        """An accepted request whose tasks are out for their first attempt."""
        request_id = request_in(partition)
        made = made or plan(action)
        body = canonical(made).decode()
        key, wrapped = self.keys.new(request_id)
        self.of[request_id] = key
        case = ev.Case(
            request_id=request_id,
            action=action,
            scope=Scope(),
            regime=Regime.APPI,
            ground="appi.35-5",
            requested_by=Requester(kind="person"),
            assessed=Assessment(by="staff:kato", at=ARRIVED),
            arrival=Arrival(at=ARRIVED, channel="form:web"),
            due=ARRIVED + timedelta(days=3650),
            notice_language="ja",
            fingerprint="f" * 64,
            subject=tuple(sorted(self.keys.holder(i) for i in HANAKO)),
            plan_hash=ev.plan_hash(body),
            sealed={
                t.system: tuple(Keys.seal_identifiers(key, t.system, [i]) for i in HANAKO if i.type in t.identifiers)
                for t in made.tasks
            },
            command=WHERE,
        )
        with self.cycle(partition) as tx:
            happened = [
                ev.RequestAccepted(case=case, number=next(iter(tx.numbers(1))), suspensions=dict(suspensions or {})),
                *(self.dispatched(s, 1, mode) for s in systems),
            ]
            batch = Batch(keys=[KeyRow(request_id, wrapped)], plans={case.plan_hash: body})
            self._write(tx, State(request_id=request_id, partition=partition), happened, batch)
        return request_id

    def dispatched(self, system: str, attempt: int, mode: Mode = Mode.ACT) -> ev.TaskDispatched:
        return ev.TaskDispatched(system=system, attempt=attempt, mode=mode, next_at=self.now + timedelta(seconds=60))

    def happen(self, request_id: str, *happened: Any) -> State:
        """Let events happen to a request that exists."""
        with self.cycle(partition_of(request_id, PARTITIONS)) as tx:
            return self._write(tx, tx.states([request_id])[request_id], happened, Batch())

    def suspension(self, request_id: str, system: str, refs: tuple[Found, ...]) -> str:
        """An obligation that remembers what was suspended."""
        name = uuid4().hex
        key, wrapped = self.keys.new(name)
        opened = ev.ObligationOpened(
            request_id=request_id, system=system, category=refs[0].category, what="suspension", count=len(refs)
        )
        partition = partition_of(request_id, PARTITIONS)
        row = ObligationRow(
            obligation_id=name,
            request_id=request_id,
            partition=partition,
            system=system,
            kind="suspension",
            state="open",
            due=self.now,
            sealed=Keys.seal_manifest(key, system, refs),
            data=opened.model_dump_json(),
        )
        with self.cycle(partition) as tx:
            tx.write(Batch(keys=[KeyRow(name, wrapped)], obligations=[row]))
        return name

    def state(self, request_id: str) -> State:
        with self.ledger.reader() as view:
            found: State = view.states([request_id])[request_id]
            return found

    def _write(self, tx: Any, state: State, happened: Any, batch: Batch) -> State:
        for event in happened:
            state = evolve(state, event, tx.now)
            batch.events.append(EventRow(state.request_id, state.sequence, event.kind, event.model_dump_json()))
        batch.states.append((state, state.next_due()))
        noted = notes(state, happened, lambda _: Plan.model_validate_json(next(iter(batch.plans.values()))))
        if noted is not None:
            batch.notes.append(noted)
        tx.write(batch)
        return state
