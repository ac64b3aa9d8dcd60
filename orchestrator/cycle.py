"""What one cycle of a partition decides: inputs in order, each seeing what the one before it did.

Reads through the open transaction, decides in memory, and leaves one batch to write. Nothing here produces to
Kafka or knows of offsets.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

import structlog

from keshi.orchestrator import admission, closure, completion, deadlines, effects
from keshi.orchestrator import events as ev
from keshi.orchestrator.begin import unite
from keshi.orchestrator.context import Context, Leases, Policy
from keshi.orchestrator.dispatch import lists, task_message
from keshi.orchestrator.finding import notes
from keshi.orchestrator.keys import Keys
from keshi.orchestrator.ledger.port import (
    Arrival,
    Batch,
    Claim,
    ClosureRow,
    Cycle,
    EventRow,
    InboxRow,
    KeyRow,
    ObligationRow,
)
from keshi.orchestrator.remembered import RememberedStates
from keshi.orchestrator.request import State, TaskProgress
from keshi.orchestrator.turn import Turn
from keshi.runtime.kafka import partition_of
from keshi.runtime.sealing import WrappedKey
from keshi.schemas.base import canonical
from keshi.schemas.commands import Action
from keshi.schemas.inventory import Plan
from keshi.schemas.outcomes import Outcome
from keshi.schemas.reports import Failed, Report
from keshi.schemas.requests import TaskStatus
from keshi.schemas.writing import whole

log = structlog.get_logger()

_LEASE_MARGIN = timedelta(seconds=6)
"""A lease with more left cannot be followed by another while a cycle lives that did not take `begin`'s lock: the engine
gives up such a cycle after `UNLOCKED_SECONDS`, and the database ends one that stands still after four more."""
_NO_LEASES = Leases()
_AT_ONCE = timedelta(milliseconds=50)
_REVIEW = timedelta(days=365)
"""A suspension in force has no end: somebody looks at it after a year."""
_REMIND = timedelta(days=1)
"""An obligation that is late says so again after a day."""
_CASE_CHANGED = frozenset({ev.RequestAccepted, ev.TaskIdentified})
_LIFTED = frozenset({Outcome.RESUMED, Outcome.NOT_FOUND, Outcome.ERASED, Outcome.ANONYMISED, Outcome.RETAINED_BY_LAW})


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all cycles of a process share."""

    keys: Keys
    policy: Policy
    partitions: int
    plan: Callable[[Cycle, str], Plan]
    passed: Callable[[tuple[str, str, int], int], bool]
    texts: dict[str, bytes] = field(default_factory=dict)

    def plan_text(self, tx: Cycle, digest: str) -> bytes:
        """A plan as canonical JSON."""
        if digest not in self.texts:
            if len(self.texts) > 1000:  # noqa: PLR2004 - a bound
                self.texts.clear()
            self.texts[digest] = canonical(self.plan(tx, digest))
        return self.texts[digest]


@dataclass(frozen=True, slots=True)
class Inputs:
    """What one cycle takes in: reports in order, then messages (of the inbox: with the row's id), then due moments."""

    reports: Sequence[Report] = ()
    inbox: Sequence[tuple[int | None, Any]] = ()
    due: Sequence[str] = ()
    obligations: Sequence[ObligationRow] = ()

    @property
    def empty(self) -> bool:
        return not (self.reports or self.inbox or self.due or self.obligations)


@dataclass(slots=True)
class Decided:
    """What a cycle leaves: rows to write, and messages to produce once they are written."""

    batch: Batch = field(default_factory=Batch)
    tasks: list[Any] = field(default_factory=list)
    answers: list[tuple[str, bytes]] = field(default_factory=list)
    not_authentic: list[Report] = field(default_factory=list)
    locked: bool = False
    happened: list[tuple[State, list[Any]]] = field(default_factory=list)


class CycleDecision:
    """One cycle of one partition."""

    def __init__(
        self, tx: Cycle, partition: int, around: Surroundings, known: RememberedStates, *, lock: bool = False
    ) -> None:
        self._tx = tx
        self._lock = lock
        self._partition = partition
        self._around = around
        self._known = known
        self._states: dict[str, State] = {}
        self._leases: Mapping[str, Leases] = {}
        self._claims: list[Claim] = []
        self._happened: dict[str, list[Any]] = {}
        self._records: dict[str, str] = {}
        self.out = Decided()

    def decide(self, inputs: Inputs) -> Decided:
        """Decide all inputs. Raises what a decider raises: the engine then finds the one that did it."""
        self._load(inputs)
        for report in inputs.reports:
            self._report(report)
        for row_id, message in inputs.inbox:
            self._message(message)
            if row_id is not None:
                self.out.batch.inbox_done.append(row_id)
        for request_id in inputs.due:
            self._due(request_id)
        for row in inputs.obligations:
            self._obligation_due(row)
        self._close()
        self._collect()
        return self.out

    # --- reading

    def _load(self, inputs: Inputs) -> None:
        tx, messages = self._tx, [m for _, m in inputs.inbox]
        submits = [m for m in messages if isinstance(m, admission.Submit)]
        stops = [m for m in messages if isinstance(m, admission.Withdraw | admission.Decide | admission.Supersede)]
        wanted = {
            *(r.request_id for r in inputs.reports),
            *(m.request_id for m in messages if not isinstance(m, admission.Met)),
            *inputs.due,
        }
        # Whatever stops, re-attempts or holds takes begin's lock first and only then reads: a go is seen, or not given.
        self.out.locked = bool(self._lock or stops or inputs.due)
        if self.out.locked:
            tx.lock_partition()
        self._states = self._known.known(wanted)
        self._states |= tx.states(wanted - self._states.keys())
        leased = {*(r.request_id for r in inputs.reports), *(m.request_id for m in stops), *inputs.due}
        # A report is about its own system; whatever stops or holds a request looks at all of it.
        systems = set() if stops or inputs.due else {r.system for r in inputs.reports}
        self._leases = tx.leases(leased, systems)
        if not self.out.locked and self._may_be_followed(inputs.reports):
            tx.lock_partition()
            self.out.locked = True
            self._leases = tx.leases(leased, systems)
        holders = {h for m in submits for h in m.case.subject} | {
            h for s in self._states.values() if s.waits_for and s.case for h in s.case.subject
        }
        tx.lock_holders(holders)
        # Numbers are drawn under the locks: of two requests for one person the later one sees the elder's claim.
        new = sum(1 for m in submits if m.request_id not in self._states or self._states[m.request_id].case is None)
        self._numbers = tx.numbers(new)
        self._claims = list(tx.claims(holders))
        self._obligations = list(tx.in_force(holders))

    def _may_be_followed(self, reports: Iterable[Report]) -> bool:
        """Whether a task could be begun again while this cycle ends it: its lease is (nearly) over."""
        soon = self._tx.now + _LEASE_MARGIN
        for report in reports:
            if isinstance(report, Failed) or report.request_id not in self._leases:
                continue
            lease = self._leases[report.request_id].newest(report.system)
            if lease is not None and not lease.alive(soon):
                return True
        return False

    def _turn(self, request_id: str, **others: Any) -> Turn:
        """One input at a request. `others` is what there is besides for the same person, where it may matter."""
        return Turn(
            self._states.get(request_id) or State(request_id=request_id, partition=self._partition),
            self._tx.now,
            Context(
                policy=self._around.policy,
                plan=self._plan,
                lease_secret=self._around.keys.lease_secret,
                leases=self._leases.get(request_id, _NO_LEASES),
                **others,
            ),
        )

    def _others(self, request_id: str, submitted: ev.Case | None = None) -> dict[str, Any]:
        """Earlier requests of the same people, and what is owed to them."""
        state = self._states.get(request_id)
        case, number = (state.case, state.number) if state else (None, None)
        case = submitted or case
        known = case.subject if case else ()
        elders = sorted(
            {
                (c.number, c.request_id)
                for c in self._claims
                if c.holder in known and c.request_id != request_id and (number is None or c.number < number)
            }
        )
        return {
            "elders": tuple(r for _, r in elders),
            "suspensions": self._in_force(case),
            "number": lambda: next(self._numbers),
        }

    def _plan(self, digest: str) -> Plan:
        return self._around.plan(self._tx, digest)

    def _took(self, turn: Turn) -> None:
        if turn.events:
            self._states[turn.state.request_id] = turn.state
            self._happened.setdefault(turn.state.request_id, []).extend(turn.events)

    # --- deciding

    def _report(self, report: Report) -> None:
        turn = self._turn(report.request_id)
        try:
            completion.report(turn, report)
        except completion.NotAuthentic:
            self.out.not_authentic.append(report)
            return
        self._took(turn)

    def _message(self, message: Any) -> None:
        if isinstance(message, admission.Met):
            self._met(message)
            return
        submitted = message.case if isinstance(message, admission.Submit) else None
        turn = self._turn(message.request_id, **self._others(message.request_id, submitted))
        admission.HANDLERS[type(message)](turn, message)
        self._took(turn)
        if isinstance(message, admission.Routed):
            self._arrived(message, turn.events)
        if isinstance(message, admission.Submit) and any(isinstance(e, ev.RequestAccepted) for e in turn.events):
            self._keep(message, turn.state)
            self._supersede(turn)

    def _in_force(self, case: ev.Case | None) -> dict[str, tuple[str, ...]]:
        """What is owed to the person and would be met by this request, by system: all of it by an erasure."""
        linked: dict[str, tuple[str, ...]] = {}
        if case is not None and case.action in {Action.RESUME_USE, Action.ERASE}:
            for holder, system, obligation, kind in self._obligations:
                meets = kind == "suspension" or case.action is Action.ERASE
                if meets and holder in case.subject and obligation not in linked.get(system, ()):
                    linked[system] = (*linked.get(system, ()), obligation)
        return linked

    def _keep(self, message: admission.Submit, state: State) -> None:
        """The request's key and its claims on the people it speaks of."""
        batch = self.out.batch
        batch.keys.append(KeyRow(message.request_id, WrappedKey(message.kek_id, bytes.fromhex(message.wrapped_key))))
        assert state.number is not None
        case, number = message.case, state.number
        mine = [Claim(h, case.request_id, self._partition, number, case.action.value) for h in case.subject]
        self._claims.extend(mine)
        batch.claims.extend(mine)

    def _supersede(self, turn: Turn) -> None:
        """Ask earlier suspensions of the same person to give way. What does not is waited for."""
        case = turn.state.accepted
        if not turn.state.waits_for or not admission.supersedes(case):
            return
        elders = set(turn.ctx.elders)
        suspensions = {c for c in self._claims if c.request_id in elders and c.action == Action.SUSPEND_USE}
        for elder, partition in sorted({(c.request_id, c.partition) for c in suspensions}):
            asked = admission.Supersede(
                request_id=elder, by=turn.state.request_id, plan_hash=case.plan_hash, subject=case.subject
            )
            self._tell(partition, elder, asked)

    def _arrived(self, message: admission.Routed, happened: Sequence[Any]) -> None:
        rejected = next((e for e in happened if isinstance(e, ev.CommandRejected)), None)
        repeated = any(isinstance(e, ev.CommandRepeated) for e in happened)
        command = _command(message)
        self.out.batch.arrivals.append(
            Arrival(
                topic_id=message.log,
                partition=command.partition,
                offset=command.offset,
                result="rejected" if rejected else "duplicate" if repeated else "accepted",
                request_id=message.request_id,  # type: ignore[attr-defined] # every routed message has one
                code=rejected.code if rejected else None,
            )
        )

    def _due(self, request_id: str) -> None:
        state = self._states.get(request_id)
        if state is None:
            return
        silent = frozenset(
            (t.system, t.attempt)
            for t in state.tasks.values()
            if t.status is TaskStatus.OPEN
            and t.next_at is not None
            and t.next_at <= self._tx.now
            and self._around.passed((request_id, t.system, t.attempt), self._partition)
        )
        turn = self._turn(request_id, passed=silent, **self._others(request_id))
        deadlines.due(turn)
        self._took(turn)
        if not turn.events:
            if silent_or_held(state, self._tx.now):
                log.warning("late", request_id=request_id, partition=self._partition)
            self.out.batch.due_moved.append((request_id, self._next_due(state) or self._tx.now + _REVIEW))

    def _met(self, message: admission.Met) -> None:
        row = self._tx.obligations([message.obligation_id]).get(message.obligation_id)
        if row is None or row.state != "open":
            return
        batch = self.out.batch
        batch.events.append(_event(row.obligation_id, row.sequence + 1, ev.ObligationMet(by=message.by)))
        batch.obligations_met.append((row.obligation_id, row.sequence + 1))
        batch.keys_destroyed.append(row.obligation_id)

    def _obligation_due(self, row: ObligationRow) -> None:
        assert row.due is not None
        log.warning("obligation_late", obligation_id=row.obligation_id, request_id=row.request_id, system=row.system)
        batch, number = self.out.batch, row.sequence + 1
        batch.events.append(_event(row.obligation_id, number, ev.ObligationDue(passed=row.due)))
        batch.obligations_due.append((row.obligation_id, number, self._tx.now + _REMIND))

    # --- closing

    def _close(self) -> None:
        ready = [s for s in (self._states[r] for r in self._happened) if s.all_ended and not s.closed and s.case]
        if not ready:
            return
        tx = self._tx
        subjects = {h for s in ready for h in s.accepted.subject}
        tx.lock_holders(subjects)
        named = [s.request_id for s in ready if closure.needs_references(s)]
        manifests, keys = tx.manifests(named), tx.keys(named)
        chain = tx.chain()
        for state in ready:
            key = keys.get(state.request_id)
            unions = self._unions(state, manifests, key) if key else {}
            closed = closure.close(
                state,
                self._plan(state.accepted.plan_hash),
                unions,
                chain,
                tx.now,
                plan_text=self._around.plan_text(tx, state.accepted.plan_hash),
                commands_days=self._around.policy.commands_days,
            )
            chain = closed.chain
            turn = self._turn(state.request_id)
            turn.add(closed.event)
            self._took(turn)
            self._records[state.request_id] = closed.text
            self._seal(state, closed)
        self.out.batch.chain = chain
        self._free(ready, subjects)

    def _unions(
        self, state: State, manifests: Mapping[tuple[str, str], Sequence[str]], wrapped: WrappedKey
    ) -> dict[str, Any]:
        keys = self._around.keys
        key = keys.open(wrapped, state.request_id)
        return {
            system: unite(keys.open_manifest(key, system, m) for m in manifests.get((state.request_id, system), ()))
            for system in state.tasks
        }

    def _seal(self, state: State, closed: closure.Closed) -> None:
        batch, keys, record = self.out.batch, self._around.keys, closed.record
        batch.closures.append(
            ClosureRow(
                state.request_id,
                self._partition,
                record.number,
                record.hash,
                closed.text,
            )
        )
        batch.keys_destroyed.append(state.request_id)
        for o in closed.obligations:
            r = o.record
            key, wrapped = keys.new(r.obligation_id)
            opened = o.opened(state.request_id)
            batch.keys.append(KeyRow(r.obligation_id, wrapped))
            batch.events.append(_event(r.obligation_id, 1, opened))
            due = _day_after(r.until) if r.until else self._tx.now + _REVIEW
            batch.obligations.append(
                ObligationRow(
                    obligation_id=r.obligation_id,
                    request_id=state.request_id,
                    partition=self._partition,
                    system=r.system,
                    kind=r.kind,
                    state="open",
                    due=due,
                    sealed=keys.seal_manifest(key, r.system, o.refs),
                    data=whole(opened).decode(),
                )
            )
            batch.remembered.extend((h, r.obligation_id, r.system) for h in state.accepted.subject)

    def _free(self, ready: Sequence[State], subjects: Collection[str]) -> None:
        """Let younger requests of these people begin, and tell suspensions that were lifted."""
        batch, closed = self.out.batch, {s.request_id for s in ready}
        batch.claims_ended.extend(sorted(closed))
        waiting = {
            (c.request_id, c.partition)
            for c in [*self._tx.claims(subjects), *self._claims]
            if c.holder in subjects and c.request_id not in closed
        }
        elder = ready[-1].request_id
        for request_id, partition in sorted(waiting):
            self._tell(partition, request_id, admission.ElderOver(request_id=request_id, elder=elder))
        for state in ready:
            lifted = [
                o
                for system, obligations in state.suspensions.items()
                if system in state.tasks and {c.outcome for c in state.tasks[system].outcomes} <= _LIFTED
                for o in obligations
            ]
            for row in self._tx.obligations(lifted).values():
                met = admission.Met(request_id=state.request_id, obligation_id=row.obligation_id, by=state.request_id)
                self._tell(row.partition, state.request_id, met)

    def _tell(self, partition: int, request_id: str, message: Any) -> None:
        self.out.batch.inbox.append(InboxRow(partition, request_id, whole(message).decode()))

    # --- what is left behind

    def _collect(self) -> None:
        now, out = self._tx.now, self.out
        self._answer_repeats()
        sendable: list[Any] = []
        for request_id, happened in self._happened.items():
            state = self._states[request_id]
            out.happened.append((state, happened))
            first = state.sequence - len(happened)
            out.batch.events.extend(_event(request_id, first + n, e) for n, e in enumerate(happened, start=1))
            out.batch.states.append((state, self._next_due(state)))
            kinds = {type(e) for e in happened}
            if kinds.isdisjoint(_CASE_CHANGED):
                out.batch.as_accepted.add(request_id)
            noted = notes(state, happened, self._plan)
            if noted is not None:
                out.batch.notes.append(noted)
            for answer in effects.answers(state, happened, self._records.get(request_id), now):
                out.answers.append((request_id, answer))
            if ev.TaskDispatched in kinds:
                plan = self._plan(state.accepted.plan_hash)
                attempts = {e.system: e.attempt for e in happened if isinstance(e, ev.TaskDispatched)}
                sendable += [
                    task_message(state, plan, system, now)
                    for system, attempt in attempts.items()
                    if state.tasks[system].status is TaskStatus.OPEN and state.tasks[system].attempt == attempt
                ]
        out.tasks = lists(sendable, self._partition)

    def _answer_repeats(self) -> None:
        repeated = [
            r
            for r, happened in self._happened.items()
            if r not in self._records
            and self._states[r].closed
            and any(isinstance(e, ev.CommandRepeated) for e in happened)
        ]
        self._records |= self._tx.closures(repeated)

    def _next_due(self, state: State) -> datetime | None:
        """When to look at this request again; a moment that has passed without effect is moved on."""
        if state.closed or state.case is None:
            return None
        now = self._tx.now
        # A legal date that had passed before the command came is told at the next moment, not never.
        moments = [max(min(state.alarms_left), now + _AT_ONCE)] if state.alarms_left else []
        if state.waits_for is not None:
            moments.append(now + timedelta(seconds=self._around.policy.recheck_seconds))
        moments += [
            task.next_at if task.next_at > now else self._recheck(state, task)
            for task in state.tasks.values()
            if task.next_at is not None and not task.ended
        ]
        return min(moments, default=None)

    def _recheck(self, state: State, task: TaskProgress) -> datetime:
        """When to look again at a task whose moment has passed without effect."""
        now, policy = self._tx.now, self._around.policy
        held = task.status is TaskStatus.HELD
        recheck = now + timedelta(seconds=policy.held_reminder_seconds if held else policy.recheck_seconds)
        lease = self._leases.get(state.request_id, _NO_LEASES).newest(task.system)
        return min(recheck, lease.until) if lease and lease.until and lease.alive(now) else recheck


def _day_after(until: date) -> datetime:
    """`until` is the last day of the period."""
    return datetime(until.year, until.month, until.day, tzinfo=UTC) + timedelta(days=1)


def silent_or_held(state: State, now: datetime) -> bool:
    """Whether a task is late: a worker is silent, or a person has not decided."""
    return state.waits_for is None and any(
        t.status in {TaskStatus.OPEN, TaskStatus.HELD} and t.next_at is not None and t.next_at <= now
        for t in state.tasks.values()
    )


def _event(stream: str, sequence: int, event: Any) -> EventRow:
    return EventRow(stream, sequence, event.kind, whole(event).decode())


def _command(message: admission.Routed) -> Any:
    if isinstance(message, admission.Submit):
        return message.case.command
    if isinstance(message, admission.Decide):
        return message.decided.command
    if isinstance(message, admission.Notice):
        return message.recorded.command
    return message.command  # type: ignore[attr-defined] # a withdrawal


def belongs_here(request_id: str, partition: int, partitions: int) -> bool:
    """Whether a report came by the partition of its request."""
    return partition_of(request_id, partitions) == partition
