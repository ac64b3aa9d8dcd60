"""The engine: one writer per partition, one transaction per cycle. It satisfies the stream's port.

`commands` lanes run intake: read, validate, seal, and put into the inbox of the request's partition, or, where the
command came by that partition and its requests are ours, decide at once. `reports` lanes run the cycle over reports,
inbox rows and due moments. Both move their offset in the transaction that justifies it.
"""

import json
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, TypeVar

import structlog
from kafka import KafkaProducer

from keshi.orchestrator import admission, effects
from keshi.orchestrator.context import Policy
from keshi.orchestrator.cycle import CycleDecision, Decided, Inputs, Surroundings
from keshi.orchestrator.flow import OnTheWay
from keshi.orchestrator.incoming import BadPart, read_reports, whole
from keshi.orchestrator.intake import Intake, Routable
from keshi.orchestrator.keys import Keys
from keshi.orchestrator.ledger.port import (
    Arrival,
    Batch,
    Cycle,
    InboxRow,
    Lasting,
    Ledger,
    LedgerError,
    OutboxRow,
    Passing,
    Position,
    QuarantineRow,
    Raced,
    WrongOffset,
)
from keshi.orchestrator.ledger.port import NotOwner as LaneLost
from keshi.orchestrator.remembered import RememberedStates
from keshi.orchestrator.sender import Sender
from keshi.orchestrator.silence import Silence
from keshi.orchestrator.stream.port import Gap, Lane, LogBounds, LogMismatch, NotOwner, Processed, Record
from keshi.orchestrator.telling import tell_cycle
from keshi.runtime.failpoints import hit
from keshi.runtime.kafka import partition_of
from keshi.runtime.settings import ConfigurationError, KafkaSettings
from keshi.runtime.telemetry import OFF, Metric, Stage, Telemetry
from keshi.schemas.envelope import wrap
from keshi.schemas.inventory import Plan
from keshi.schemas.requests import Coordinates, Quarantined, RequestRejected

log = structlog.get_logger()
T = TypeVar("T")

INBOX_A_CYCLE = 200
DUE_A_CYCLE = 100
OUTBOX_AT_TAKE = 10_000
PLANS_KEPT = 1_000
COLLISIONS = 5
"""How often in a row two transactions may write the same thing before the data are to blame."""
UNLOCKED_SECONDS = 1.0
"""How long a cycle over reports may live without `begin`'s lock; one that is slower is done again with it."""
_SETTLE_SECONDS = 0.25
_PROBE_SECONDS = 0.05
_BACKOFF_SECONDS = (0.02, 0.1, 0.3, 1.0, 2.0)


@dataclass(frozen=True, slots=True)
class Parts:
    """What an engine is made of."""

    ledger: Ledger
    keys: Keys
    intake: Intake
    policy: Policy
    producer: KafkaProducer
    kafka: KafkaSettings
    partitions: int
    silence: Silence
    telemetry: Telemetry = OFF


@dataclass(slots=True)
class _Owned:
    """A lane of ours."""

    lane: Lane
    position: Position
    sender: Sender
    states: RememberedStates = field(default_factory=RememberedStates)
    on_the_way: OnTheWay = field(default_factory=OnTheWay)
    numbered: int = 0
    reload: bool = False
    settled: float = field(default_factory=time.monotonic)

    def row(self, topic: str, value: bytes, key: str | None = None, to: int | None = None) -> OutboxRow:
        """The next message of this lane. Its id sorts by the order of sending."""
        self.numbered += 1
        p = self.position
        name = f"{self.lane.stage}-{self.lane.partition:05d}-{p.epoch:010d}-{self.numbered:012d}"
        return OutboxRow(name, topic, value.decode(), key, to)


class OrchestratorEngine:
    """See the module. Not for use by several threads: the stream calls it from one."""

    def __init__(self, parts: Parts) -> None:
        self._ = parts
        self._owned: dict[Lane, _Owned] = {}
        self._hot: set[int] = set()
        self._plans: dict[str, Plan] = {}
        self._plans_stored: set[str] = set()
        self._probed = 0.0
        self._due: dict[int, datetime | None] = {}
        self._inventory_stored = False
        self._around = Surroundings(
            keys=parts.keys,
            policy=parts.policy,
            partitions=parts.partitions,
            plan=self._plan,
            passed=parts.silence.passed,
        )

    # --- lanes

    def take(self, lanes: Mapping[Lane, LogBounds]) -> Mapping[Lane, int]:
        """See `Engine.take`."""
        for lane, bounds in lanes.items():
            position = self._patiently(
                lambda lane=lane, b=bounds: self._.ledger.take(lane.stage, lane.partition, b.topic_id, b.start)  # type: ignore[misc] # mypy cannot see a lambda's defaults
            )
            _check_bounds(lane, position, bounds)
            owned = _Owned(lane, position, Sender(self._.producer))
            self._owned[lane] = owned
            self._resend(owned)
            self._hot.add(lane.partition)
            log.info("lane_taken", lane=str(lane), epoch=position.epoch, next_offset=position.next)
        return {lane: self._owned[lane].position.next for lane in lanes}

    def release(self, lanes: Collection[Lane]) -> None:
        """See `Engine.release`."""
        for lane in lanes:
            self._owned.pop(lane, None)

    def accept_gap(self, lane: Lane, expected: int, seen: int) -> None:
        """See `Engine.accept_gap`."""
        owned = self._mine(lane)
        log.warning("gap_accepted", lane=str(lane), expected=expected, seen=seen)
        owned.position = self._owning(lane, lambda: self._.ledger.jump(owned.position, seen))

    def _mine(self, lane: Lane) -> _Owned:
        if lane not in self._owned:
            raise NotOwner(lane)
        return self._owned[lane]

    def _resend(self, owned: _Owned) -> None:
        """Send what the ledger still holds for this lane, also what a former owner left."""
        rows = self._patiently(lambda: self._.ledger.outbox(owned.lane.stage, owned.lane.partition, OUTBOX_AT_TAKE))
        owned.sender.send(rows)
        owned.reload = len(rows) == OUTBOX_AT_TAKE

    # --- work

    def process(self, lane: Lane, records: Sequence[Record]) -> Processed:
        """See `Engine.process`."""
        owned = self._mine(lane)
        while fresh := [r for r in records if r.offset >= owned.position.next]:
            if fresh[0].offset > owned.position.next:
                raise Gap(lane, owned.position.next)
            run = _consecutive(fresh)
            if lane.stage == "commands":
                self._bisect(owned, run[:INBOX_A_CYCLE], self._intake)
            else:
                self._bisect(owned, run, self._reports)
        home = self._owned.get(Lane("reports", lane.partition))
        on_the_way = home.on_the_way.count(time.monotonic()) if home else 0
        return Processed(owned.position.next, more=bool(self._hot), on_the_way=on_the_way)

    def idle(self, lanes: Collection[Lane]) -> float:
        """See `Engine.idle`."""
        mine = [self._owned[lane] for lane in lanes if lane in self._owned]
        reports = {o.lane.partition: o for o in mine if o.lane.stage == "reports"}
        self._probe(reports)
        for partition in [p for p in self._hot if p in reports]:
            self._hot.discard(partition)
            self._waiting(reports[partition])
        self._hot &= set(reports)
        for owned in mine:
            self._settle(owned)
        return 0.01 if self._hot else _PROBE_SECONDS

    def _probe(self, reports: Mapping[int, _Owned]) -> None:
        """Ask, in one statement for all partitions, where inbox rows or due moments are."""
        now = time.monotonic()
        if not reports or now - self._probed < _PROBE_SECONDS:
            return
        self._hot |= set(self._patiently(lambda: self._.ledger.waiting(reports)))
        self._probed = now

    # --- one transaction

    def _bisect(
        self, owned: _Owned, records: Sequence[Record], cycle: Callable[[_Owned, Sequence[Record]], None]
    ) -> None:
        """Run a cycle over these records; a lasting failure is narrowed down to the record that causes it."""
        try:
            cycle(owned, records)
        except (Lasting, Undecidable) as e:
            fresh = [r for r in records if r.offset >= owned.position.next]
            if len(fresh) > 1:
                middle = len(fresh) // 2
                self._bisect(owned, fresh[:middle], cycle)
                self._bisect(owned, fresh[middle:], cycle)
            elif fresh:
                log.exception("record_quarantined", lane=str(owned.lane), offset=fresh[0].offset)
                bad = BadPart("refused_by_ledger" if isinstance(e, Lasting) else "decider_raised", None, b"")
                self._quarantine_one(owned, fresh[0], replace(bad, payload=whole(fresh[0])))

    def _intake(self, owned: _Owned, records: Sequence[Record]) -> None:
        """Take commands in. What belongs to this very partition is decided at once, the rest goes by the inbox."""
        self._forget_plans()
        topic_id = owned.position.topic_id or "unknown"
        batch = Batch()
        home = self._home(owned)
        mine: list[tuple[int | None, Any]] = []
        routed: set[int] = set()
        traced: list[tuple[str, str | None, int]] = []
        telemetry = self._.telemetry
        for record in records:
            began = time.time_ns()
            at = Coordinates(topic="commands", partition=record.lane.partition, offset=record.offset)
            with _deciding():
                found = self._.intake.read(record.value, at, topic_id, record.headers)
            if isinstance(found, Routable):
                target = partition_of(found.message.request_id, self._.partitions)
                if home is not None and target == home.lane.partition:
                    mine.append((None, found.message))
                else:
                    batch.inbox.append(InboxRow(target, found.message.request_id, found.message.model_dump_json()))
                    routed.add(target)
                if telemetry.on and isinstance(found.message, admission.Submit):
                    traced.append((found.message.request_id, found.message.case.traceparent, began))
                if found.plan:
                    self._note_plan(batch, *found.plan)
            elif isinstance(found, RequestRejected):
                self._reject(owned, batch, found, topic_id)
            else:
                self._quarantine(owned, batch, record, BadPart(found.reason, found.field, whole(record)))
        if batch.plans and not self._inventory_stored:
            intake = self._.intake
            batch.inventories[intake.inventory_hash] = intake.inventory.model_dump_json()
        if home is not None and mine:
            self._decide_at_home(owned, home, records[-1].offset + 1, Inputs(inbox=mine), batch)
        else:
            self._commit(owned, records[-1].offset + 1, lambda _: (batch, ()))
            hit("orchestrator.after_intake_commit")
            owned.sender.send(batch.outbox)
        self._plans_stored.update(batch.plans)
        self._inventory_stored = self._inventory_stored or bool(batch.inventories)
        self._hot |= routed
        for request_id, trace, began in traced:
            telemetry.span(Stage.INTAKE, trace, began, request_id=request_id, partition=owned.lane.partition)

    def _home(self, owned: _Owned) -> _Owned | None:
        """The lane of `reports` that decides the requests of this lane's partition; None where others come first.

        A lane of another process, or one with rows in its inbox: those came before.
        """
        partition = owned.lane.partition
        return None if partition in self._hot else self._owned.get(Lane("reports", partition))

    def _note_plan(self, batch: Batch, digest: str, body: str) -> None:
        """Have a plan at hand, and in the ledger."""
        if digest not in self._plans_stored:
            batch.plans[digest] = body
        self._remember_plan(digest, body)

    def _decide_at_home(self, owned: _Owned, home: _Owned, to: int, inputs: Inputs, batch: Batch) -> None:
        """Decide commands in the transaction that moves their offset: no inbox, and no second transaction."""
        made: list[Decided] = []
        wall = time.time_ns()

        def decide(tx: Cycle) -> tuple[Batch, Sequence[OutboxRow]]:
            decided = self._decided(tx, owned, home, inputs)
            decided.batch.add(batch)
            made[:] = [decided]
            hit("orchestrator.mid_cycle")
            return decided.batch, decided.batch.outbox

        self._commit(owned, to, decide, home=home)
        hit("orchestrator.after_intake_commit")
        self._sent(owned, home, made, (), wall)

    def _decided(self, tx: Cycle, owned: _Owned, home: _Owned, inputs: Inputs | None, *, lock: bool = False) -> Decided:
        """Decide what came in for the requests of `home`; `owned` is the lane that sends what it causes.

        Args:
            tx: The transaction.
            owned: Its lane.
            home: The lane of `reports` whose requests they are.
            inputs: None takes what waits in the ledger.
            lock: Keep `begin` out from the start.
        """
        with _deciding():
            taken = _taken(tx) if inputs is None else inputs
            decided = CycleDecision(tx, home.lane.partition, self._around, home.states, lock=lock).decide(taken)
        decided.batch.outbox.extend(self._messages(owned, decided, tx.now))
        if inputs is None and (len(taken.inbox) == INBOX_A_CYCLE or len(taken.due) == DUE_A_CYCLE):
            self._hot.add(owned.lane.partition)
        return decided

    def _sent(self, owned: _Owned, home: _Owned, made: Sequence[Decided], reports: Sequence[Any], began: int) -> None:
        """Produce what a committed cycle caused, and tell of it."""
        hit("orchestrator.after_cycle_commit")
        home.on_the_way.reported(len(reports))
        home.on_the_way.sent(sum(len(some.tasks) for decided in made for some in decided.tasks), time.monotonic())
        batch = made[0].batch if made else Batch()
        owned.sender.send(batch.outbox)
        if batch.outbox:
            hit("orchestrator.after_produce")
        self._hot |= {row.partition for row in batch.inbox}
        if self._.telemetry.on and made:
            tell_cycle(self._.telemetry, made[0].happened, reports, began)

    def _reports(self, owned: _Owned, records: Sequence[Record]) -> None:
        reports: list[Any] = []
        bad: list[tuple[Record, BadPart]] = []
        for record in records:
            good, problems = read_reports(record.value, owned.lane.partition, self._.partitions)
            reports.extend(good)
            bad.extend((record, p) for p in problems)
        self._cycle(owned, records[-1].offset + 1, Inputs(reports=reports), bad, records[-1])

    def _waiting(self, owned: _Owned) -> None:
        """Inbox rows and due moments of a partition. One that cannot be decided does not keep the others."""
        try:
            self._cycle(owned, owned.position.next, None, (), None)
        except (Lasting, Undecidable):
            log.exception("cycle_failed", lane=str(owned.lane))
            self._one_by_one(owned)

    def _cycle(
        self,
        owned: _Owned,
        to: int,
        inputs: Inputs | None,
        bad: Iterable[tuple[Record, BadPart]],
        last: Record | None,
    ) -> None:
        self._forget_plans()
        made: list[Decided] = []
        wall = time.time_ns()
        began = [0.0]
        slow = [False]

        def decide(tx: Cycle) -> tuple[Batch, Sequence[OutboxRow]]:
            began[0] = time.monotonic()
            decided = self._decided(tx, owned, owned, inputs, lock=slow[0])
            made[:] = [decided]
            for record, part in bad:
                self._quarantine(owned, decided.batch, record, part)
            for report in decided.not_authentic:
                assert last is not None
                part = BadPart("report_not_authentic", None, report.model_dump_json().encode())
                self._quarantine(owned, decided.batch, last, part)
            hit("orchestrator.mid_cycle")
            return decided.batch, decided.batch.outbox

        def in_time(tx: Cycle) -> None:
            if not (inputs and inputs.reports) or made[0].locked:
                return
            tx.written()  # it may have waited for others
            if time.monotonic() - began[0] > UNLOCKED_SECONDS:
                slow[0] = True
                raise Passing("a cycle without begin's lock took too long: again with it")

        self._commit(owned, to, decide, in_time)
        self._sent(owned, owned, made, inputs.reports if inputs else (), wall)

    def _messages(self, owned: _Owned, decided: Decided, now: datetime) -> list[OutboxRow]:
        kafka = self._.kafka
        rows = [
            owned.row(kafka.topic(f"tasks.{t.system}"), effects.list_message(t, now), to=owned.lane.partition)
            for t in decided.tasks
        ]
        requests = kafka.topic("requests")
        return rows + [owned.row(requests, value, key=request_id) for request_id, value in decided.answers]

    def _one_by_one(self, owned: _Owned) -> None:
        """Find the inbox row or the due request that cannot be decided, and put it aside where it is seen."""

        def look(tx: Cycle) -> tuple[Batch, Sequence[OutboxRow]]:
            found.extend(tx.inbox(INBOX_A_CYCLE))
            due.extend(tx.due(DUE_A_CYCLE))
            return Batch(), ()

        found: list[InboxRow] = []
        due: list[str] = []
        self._commit(owned, owned.position.next, look)
        for row in found:
            try:
                self._cycle(owned, owned.position.next, _single(row), (), None)
            except (Lasting, Undecidable):
                log.exception("inbox_row_quarantined", lane=str(owned.lane), request_id=row.request_id)
                self._put_aside(owned, row)
        for request_id in due:
            try:
                self._cycle(owned, owned.position.next, Inputs(due=[request_id]), (), None)
            except (Lasting, Undecidable):
                log.exception("due_failed", lane=str(owned.lane), request_id=request_id)
                self._postpone(owned, request_id)

    def _put_aside(self, owned: _Owned, row: InboxRow) -> None:
        at = _coordinates(json.loads(row.data)) or Coordinates(topic="commands", partition=row.partition, offset=row.id)
        record = Record(Lane("commands", at.partition), at.offset, row.data.encode(), None, (), 0)
        batch = Batch(inbox_done=[row.id])
        self._quarantine(owned, batch, record, BadPart("decider_raised", None, row.data.encode()))
        self._commit(owned, owned.position.next, lambda _: (batch, ()))
        owned.sender.send(batch.outbox)

    def _postpone(self, owned: _Owned, request_id: str) -> None:
        def later(tx: Cycle) -> tuple[Batch, Sequence[OutboxRow]]:
            moment = datetime.fromtimestamp(tx.now.timestamp() + 600, UTC)
            return Batch(due_moved=[(request_id, moment)]), ()

        self._commit(owned, owned.position.next, later)

    def _commit(
        self,
        owned: _Owned,
        to: int,
        decide: Callable[[Cycle], tuple[Batch, Sequence[OutboxRow]]],
        in_time: Callable[[Cycle], None] = lambda _: None,
        home: _Owned | None = None,
    ) -> None:
        """One transaction, tried again in place while its failure may pass.

        Args:
            owned: The lane.
            to: Its next offset afterwards.
            decide: What to write.
            in_time: Called right before the commit; raises `Passing` where it comes too late.
            home: The lane of `reports` whose requests are decided, where it is not `owned` itself.
        """
        states = (home or owned).states
        at_home = home.position if home is not None else None
        for attempt in range(1_000_000):
            done = owned.sender.settle()
            try:
                with self._.ledger.cycle(owned.position, to, at_home) as tx:
                    batch, _ = decide(tx)
                    batch.outbox_done.extend(done)
                    tx.write(batch)
                    in_time(tx)
            except Passing as e:
                if isinstance(e, Raced) and attempt >= COLLISIONS:
                    raise Lasting(str(e)) from None
                # The commit may have been lost on its way back: what it put into the outbox is read again.
                owned.reload = True
                states.forget()
                log.warning("ledger_passing", lane=str(owned.lane), reason=str(e), attempt=attempt)
                time.sleep(_BACKOFF_SECONDS[min(attempt, len(_BACKOFF_SECONDS) - 1)])
            except WrongOffset as e:
                if e.next_offset != to:
                    raise NotOwner(owned.lane) from None
                # Ours, committed, and its answer lost.
                states.forget()
                owned.position = replace(owned.position, next=to)
                self._resend(owned)
                return
            except LaneLost:
                # Of two lanes either may be lost: one that is still ours is taken again.
                for lane in {owned.lane, (home or owned).lane}:
                    self._owned.pop(lane, None)
                raise NotOwner(owned.lane) from None
            else:
                owned.position = replace(owned.position, next=to)
                states.keep(state for state, _ in batch.states)
                owned.sender.forget(done)
                if owned.reload:
                    self._resend(owned)
                return

    def _settle(self, owned: _Owned) -> None:
        """Delete from the outbox what has arrived, where no other transaction does it."""
        now = time.monotonic()
        if not owned.sender.busy or now - owned.settled < _SETTLE_SECONDS:
            return
        owned.settled = now
        if owned.sender.settle():
            self._commit(owned, owned.position.next, lambda _: (Batch(), ()))

    # --- what could not be taken

    def _reject(self, owned: _Owned, batch: Batch, answer: RequestRejected, topic_id: str) -> None:
        self._.telemetry.count(Metric.COMMANDS, result="rejected", code=answer.code.value)
        value = effects.rejection(answer, datetime.now(UTC))
        batch.outbox.append(owned.row(self._.kafka.topic("requests"), value, key=answer.request_id))
        where = answer.command
        batch.arrivals.append(
            Arrival(topic_id, where.partition, where.offset, "rejected", answer.request_id, answer.code.value)
        )

    def _quarantine(self, owned: _Owned, batch: Batch, record: Record, part: BadPart) -> None:
        stage, partition = record.lane.stage, record.lane.partition
        self._.telemetry.count(Metric.QUARANTINED, stage=stage, code=part.reason)
        log.warning("quarantined", lane=str(record.lane), offset=record.offset, reason=part.reason)
        sealed = self._.keys.seal_payload(part.payload[:MAX_KEPT_BYTES])
        size = len(record.value or b"")
        batch.quarantine.append(QuarantineRow(stage, partition, record.offset, part.reason, part.field, size, sealed))
        if stage == "commands":
            topic_id = owned.position.topic_id or "unknown"
            batch.arrivals.append(Arrival(topic_id, partition, record.offset, "quarantined", code=part.reason))
        note = Quarantined(
            reason=part.reason,
            field=part.field,
            size=size,
            message=Coordinates(topic=stage, partition=partition, offset=record.offset),
            at=datetime.now(UTC),
        )
        name = f"{stage}/{partition}/{record.offset}/{part.reason}"
        value = wrap(note, kind="Quarantined", id=name, source=effects.SOURCE)
        batch.outbox.append(owned.row(self._.kafka.topic("quarantine"), value))

    def _quarantine_one(self, owned: _Owned, record: Record, part: BadPart) -> None:
        batch = Batch()
        self._quarantine(owned, batch, record, part)
        self._commit(owned, record.offset + 1, lambda _: (batch, ()))
        owned.sender.send(batch.outbox)

    # --- helpers

    def _plan(self, tx: Cycle, digest: str) -> Plan:
        if digest not in self._plans:
            self._remember_plan(digest, tx.plans([digest])[digest])
        return self._plans[digest]

    def _remember_plan(self, digest: str, body: str) -> None:
        if digest not in self._plans:
            self._plans[digest] = Plan.model_validate_json(body)

    def _forget_plans(self) -> None:
        """Keep a bounded number. Between transactions: within one a plan may be known here alone."""
        if len(self._plans) > PLANS_KEPT:
            self._plans.clear()
            self._plans_stored.clear()

    def _owning(self, lane: Lane, ask: Callable[[], T]) -> T:
        try:
            return self._patiently(ask)
        except LaneLost:
            self._owned.pop(lane, None)
            raise NotOwner(lane) from None

    def _patiently(self, ask: Callable[[], T]) -> T:
        for attempt in range(1_000_000):
            try:
                return ask()
            except Passing as e:
                log.warning("ledger_passing", reason=str(e), attempt=attempt)
                time.sleep(_BACKOFF_SECONDS[min(attempt, len(_BACKOFF_SECONDS) - 1)])
        raise AssertionError


MAX_KEPT_BYTES = 65_536
"""How much of a quarantined payload is kept, sealed."""


class Undecidable(Exception):  # noqa: N818 - names the finding
    """A decider raised over these data: they, and only they, are put aside."""


@contextmanager
def _deciding() -> Iterator[None]:
    """Tell failures over data from failures of what is around us: only the former may put a record aside."""
    try:
        yield
    except (LedgerError, ConfigurationError, MemoryError):
        raise
    except Exception as e:
        log.exception("decider_raised")
        raise Undecidable(type(e).__name__) from e


def _single(row: InboxRow) -> Inputs:
    with _deciding():
        return Inputs(inbox=[(row.id, admission.INBOUND.validate_json(row.data))])


def _coordinates(tree: Any) -> Coordinates | None:
    """Where the command of an inbox row stood, whatever else is wrong with the row."""
    for part in (tree, tree.get("case"), tree.get("decided"), tree.get("recorded")):
        if isinstance(part, dict) and isinstance(part.get("command"), dict):
            return Coordinates.model_validate(part["command"])
    return None


def _taken(tx: Cycle) -> Inputs:
    rows = tx.inbox(INBOX_A_CYCLE)
    return Inputs(
        inbox=[(r.id, admission.INBOUND.validate_json(r.data)) for r in rows],
        due=tx.due(DUE_A_CYCLE),
        obligations=tx.due_obligations(DUE_A_CYCLE),
    )


def _consecutive(records: Sequence[Record]) -> Sequence[Record]:
    """The records up to the first hole."""
    for n, record in enumerate(records):
        if record.offset != records[0].offset + n:
            return records[:n]
    return records


def _check_bounds(lane: Lane, position: Position, bounds: LogBounds) -> None:
    """Whether the broker's log can be the one that the ledger has read."""
    if position.topic_id and bounds.topic_id and position.topic_id != bounds.topic_id:
        raise LogMismatch(f"{lane}: the topic was made anew; its offsets are not those that the ledger knows")
    if bounds.end < position.next:
        raise LogMismatch(f"{lane}: the log ends at {bounds.end}, the ledger has read up to {position.next}")
    if bounds.start > position.next:
        raise LogMismatch(f"{lane}: the log begins at {bounds.start}, the ledger expects {position.next}")
