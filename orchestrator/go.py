"""The service behind `unwrap` and `begin`: opens what is sealed, takes evidence in, gives the go. Knows no framework.

Evidence and lease are one transaction under the partition's shared lock. Who asks twice at once loses the race for
the task's next lease, reads again and sees the other's.
"""

import hashlib
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple, TypeVar

import orjson
import structlog
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, stop_before_delay, wait_random_exponential

from keshi.orchestrator.begin import Later, Refused, answer, closed_door, counts, unite
from keshi.orchestrator.context import Lease, Leases, Policy
from keshi.orchestrator.door import Door
from keshi.orchestrator.keys import Keys, Manifests, OpenKeys
from keshi.orchestrator.ledger.port import (
    Begins,
    DoorRow,
    Entry,
    EvidenceRow,
    Lasting,
    LeaseRow,
    Ledger,
    ObligationRow,
    Passing,
    Raced,
    Reader,
)
from keshi.runtime.failpoints import hit
from keshi.runtime.kafka import partition_of
from keshi.runtime.sealing import Key, SealBroken, WrappedKey
from keshi.runtime.telemetry import OFF, Metric, Stage, Telemetry
from keshi.schemas.commands import Action
from keshi.schemas.inventory import Plan, PlannedTask
from keshi.schemas.tasks import Begin, BeginRequest, Found, Mode, StopReason, TaskRef, UnwrapRequest
from keshi.schemas.writing import whole

log = structlog.get_logger()

TRIES: Final = 6
TRY_SECONDS: Final = 1.5
"""Less than a client waits for its answer."""
MAX_PLANS: Final = 512
UNREADABLE: Final = "unreadable"
NOT_RECORDED: Final = "not_recorded"
_NO_LEASES: Final = Leases()

T = TypeVar("T")
_Said = dict[str, Any]
"""The answer about one task, as JSON has it: to make a model of it first costs more than all else about it."""


class BeginInvalid(ValueError):  # noqa: N818 - it is an answer to the worker
    """A question that contradicts the plan or itself: `field` names the place, `detail` says what is wrong there."""

    def __init__(self, field: str, detail: str) -> None:
        super().__init__(detail)
        self.field = field
        self.detail = detail


@dataclass(frozen=True, slots=True)
class _Case:
    """What the ledger has of the requests of one call. Keys are still wrapped.

    `planned` are the tasks of the system that asks, by the hash of their plan. `keys` and `obligations` are of what
    earlier requests suspended, and these resume.
    """

    doors: Mapping[str, DoorRow]
    plans: Mapping[str, Plan]
    planned: Mapping[str, PlannedTask]
    keys: Mapping[str, WrappedKey]
    obligations: Mapping[str, ObligationRow]


class _Judged(NamedTuple):
    answer: _Said
    evidence: EvidenceRow | None = None
    lease: LeaseRow | None = None


class GoService:
    """Answers workers. Serves several threads."""

    def __init__(self, ledger: Ledger, keys: Keys, policy: Policy, partitions: int, telemetry: Telemetry = OFF) -> None:
        self._telemetry = telemetry
        self._ledger = ledger
        self._keys = keys
        self._open = OpenKeys(keys).open
        self._policy = policy
        self._partitions = partitions
        self._plans: dict[str, Plan] = {}

    # --- unwrap

    def unwrap(self, caller: str, request: UnwrapRequest) -> bytes:
        """The identifiers of those tasks that are open and the caller's own.

        Args:
            caller: The system that the worker's token is for.
            request: Any tasks.

        Returns:
            An `UnwrapResponse`.

        Raises:
            Passing: the ledger does not answer.
        """
        case = _persist(lambda: self._look(caller, request.tasks))
        return _response([self._unwrapped(caller, ref, case) for ref in request.tasks])

    def _look(self, caller: str, tasks: Iterable[TaskRef]) -> _Case:
        with self._ledger.reader() as view:
            return self._case(
                view, view.doors({t.request_id for t in tasks if t.system == caller}, caller, sealed=True), caller
            )

    def _case(self, view: Begins | Reader, doors: Mapping[str, DoorRow], caller: str) -> _Case:
        links = {o for r in doors.values() if _resumes(r.door) for o in r.door.suspensions.get(caller, ())}
        plans = self._plans_of(view, {r.door.plan_hash for r in doors.values() if r.door.action is not None})
        return _Case(
            doors=doors,
            plans=plans,
            planned={h: task for h, plan in plans.items() for task in plan.tasks if task.system == caller},
            keys=view.keys(links),
            obligations=view.obligations(links),
        )

    def _plans_of(self, view: Begins | Reader, hashes: Collection[str]) -> Mapping[str, Plan]:
        """Plans are named by their content, so those once read stay right."""
        found = {h: self._plans[h] for h in hashes if h in self._plans}
        missing = [h for h in hashes if h not in found]
        if missing:
            read = {h: Plan.model_validate_json(body) for h, body in view.plans(missing).items()}
            if len(self._plans) + len(read) > MAX_PLANS:
                self._plans = {}
            self._plans |= read
            found |= read
        return found

    def _unwrapped(self, caller: str, ref: TaskRef, case: _Case) -> _Said:
        row = case.doors.get(ref.request_id) if ref.system == caller else None
        reason: str | None = closed_door(row.door if row else None, ref.system, ref.attempt)
        found: _Said = {}
        if reason is None and row is not None:
            if row.key is None:  # closed, and its key destroyed, between two statements
                reason = StopReason.CLOSED
            else:
                try:
                    found = self._opened(ref, row.door, self._open(row.key, ref.request_id), row.sealed, case)
                except SealBroken:
                    log.exception("sealed_text_unreadable", request_id=ref.request_id, system=ref.system)
                    reason = UNREADABLE
        return {
            "request_id": ref.request_id,
            "system": ref.system,
            "attempt": ref.attempt,
            "open": reason is None,
            "reason": reason,
            "identifiers": (),
            "items": None,
            "remembered": (),
            **found,
        }

    def _opened(self, ref: TaskRef, door: Door, key: Key, sealed: Iterable[str], case: _Case) -> _Said:
        return {
            "identifiers": self._keys.open_identifiers(key, ref.system, sealed),
            "items": self._items(key, door),
            "remembered": self._remembered(ref.system, door, case) if _resumes(door) else (),
        }

    def _remembered(self, system: str, door: Door, case: _Case) -> tuple[Found, ...]:
        """What earlier requests suspended here, and nobody has lifted since."""
        manifests, planned = [], case.planned[door.plan_hash]
        for name in door.suspensions.get(system, ()):
            row, wrapped = case.obligations.get(name), case.keys.get(name)
            if row is not None and wrapped is not None and row.state == "open" and row.system == system:
                manifests.append(self._keys.open_manifest(self._open(wrapped, name), system, row.sealed))
        return tuple(f for f in unite(manifests) if f.category in planned.categories)

    def _items(self, key: Key, door: Door) -> tuple[str, ...] | None:
        return None if door.items is None else self._keys.open_items(key, door.items)

    # --- begin

    def begin(self, caller: str, request: BeginRequest) -> bytes:
        """Take evidence in and give the go, or say why not. Answers stand in the order of the questions.

        Args:
            caller: The system that the worker's token is for.
            request: Each task once. Those of one partition are one transaction.

        Returns:
            A `BeginResponse`.

        Raises:
            BeginInvalid: a question contradicts the plan or itself. Of its partition nothing was recorded.
            Passing: the ledger does not answer. Asked again, the same begin-ids get the same answers.
        """
        _distinct(request.tasks)
        groups: dict[int, list[tuple[int, Begin]]] = {}
        answers: dict[int, _Said] = {}
        for place, question in enumerate(request.tasks):
            if question.system == caller:
                partition = partition_of(question.request_id, self._partitions)
                groups.setdefault(partition, []).append((place, question))
            else:
                answers[place] = _stop(question, StopReason.UNKNOWN)
        for partition, group in sorted(groups.items()):
            answers |= self._begin_group(partition, caller, group)
        return _response([answers[n] for n in range(len(request.tasks))])

    def _begin_group(self, partition: int, caller: str, group: Sequence[tuple[int, Begin]]) -> dict[int, _Said]:
        """One transaction; where the database refuses it, one for each task, so that one harms no other."""
        try:
            return _persist(lambda: self._transaction(partition, caller, group))
        except (Raced, Lasting):
            if len(group) > 1:
                found: dict[int, _Said] = {}
                for one in group:
                    found |= self._begin_group(partition, caller, [one])
                return found
            place, question = group[0]
            log.exception(
                "begin_not_recorded",
                request_id=question.request_id,
                system=question.system,
                begin_id=question.begin_id,
            )
            with self._ledger.reader() as view:
                return {place: _wait(question, NOT_RECORDED, view.now, self._policy.recheck_seconds)}

    def _transaction(self, partition: int, caller: str, group: Sequence[tuple[int, Begin]]) -> dict[int, _Said]:
        ids, began = {q.request_id for _, q in group}, time.time_ns()
        with self._ledger.begins(partition) as tx:
            case = self._case(tx, tx.doors(ids, caller), caller)
            entries = tx.entries(ids, caller)
            judged = {place: self._judge(place, q, case, entries.get(q.request_id, ()), tx.now) for place, q in group}
            evidence = [j.evidence for j in judged.values() if j.evidence]
            given = [j.lease for j in judged.values() if j.lease]
            if evidence or given:
                tx.insert(
                    sorted(evidence, key=lambda e: e.begin_id),
                    sorted(given, key=lambda x: (x.request_id, x.system)),
                )
                hit("api.mid_begin")
        if self._telemetry.on:
            self._tell(group, judged, case, began)
        return {place: j.answer for place, j in judged.items()}

    def _tell(self, group: Iterable[tuple[int, Begin]], judged: Mapping[int, _Judged], case: _Case, began: int) -> None:
        for place, q in group:
            answer, row = judged[place].answer, case.doors.get(q.request_id)
            system, said, code = q.system, answer["answer"], answer.get("reason")
            self._telemetry.count(Metric.BEGINS, system=system, result=said, code=code)
            if row is not None:
                self._telemetry.span(
                    Stage.BEGIN,
                    row.door.trace,
                    began,
                    request_id=q.request_id,
                    system=system,
                    attempt=q.attempt,
                    mode=q.mode.value,
                    result=said,
                    code=code,
                )

    def _judge(self, place: int, question: Begin, case: _Case, entries: Sequence[Entry], now: datetime) -> _Judged:
        row = case.doors.get(question.request_id)
        reason = closed_door(row.door if row else None, question.system, question.attempt)
        if reason or row is None or row.key is None:
            return _Judged(_stop(question, reason or StopReason.CLOSED))
        door = row.door
        planned = case.planned[door.plan_hash]
        for n, found in enumerate(question.manifest):
            if found.category not in planned.categories:
                raise BeginInvalid(f"tasks.{place}.manifest.{n}.category", "the plan has no such category here")
        try:
            key = self._open(row.key, question.request_id)
            manifests = self._keys.manifests(key, question.system)
            in_order = sorted(entries, key=lambda e: (e.lease.at, e.lease.begin_id))
            earlier = [manifests.open(e.manifest) for e in in_order]
            mine = self._within(question, door, key, case)
        except SealBroken:
            log.exception("sealed_text_unreadable", request_id=question.request_id, system=question.system)
            return _Judged(_wait(question, UNREADABLE, now, self._policy.recheck_seconds))
        known = [e.lease for e in entries]
        return self._answered(_Question(question, row, planned, known, key, manifests, now), case, earlier, mine)

    def _within(self, q: Begin, door: Door, key: Key, case: _Case) -> tuple[Found, ...]:
        """What was found, as far as the request is about it."""
        mine: Sequence[Found] = q.manifest
        if _resumes(door):
            allowed = {(f.category, f.ref) for f in self._remembered(q.system, door, case)}
            mine = [f for f in mine if (f.category, f.ref) in allowed]
        items = self._items(key, door)
        if items is not None:
            mine = [f for f in mine if f"{f.category}:{f.ref}" in items]
        return unite([mine])

    def _answered(
        self, asked: "_Question", case: _Case, earlier: Sequence[Sequence[Found]], mine: tuple[Found, ...]
    ) -> _Judged:
        q, now = asked.begin, asked.now
        union = unite([*earlier, mine]) if earlier else mine
        digest = self._keys.commitment(q.request_id, q.system, union)
        leases = Leases({q.system: tuple(asked.known)}) if asked.known else _NO_LEASES
        said = answer(asked.row.door, asked.planned, leases, q, union, digest, now, self._policy)
        if isinstance(said, Later):
            return _Judged(_wait(q, said.reason, now, (said.until - now).total_seconds()))
        if isinstance(said, Refused):
            evidence = self._evidence(asked, case, mine, union, digest) if said.evidence else None
            return _Judged(_stop(q, said.reason), evidence)
        if said.renews:
            return self._renewed(asked, said.renews, earlier)
        if any(x.begin_id == q.begin_id for x in asked.known):
            return _Judged(_stop(q, StopReason.OTHER_ATTEMPT))  # its evidence was taken, and got another answer
        name, ordinal = lease_id(q), 1 + len([x for x in asked.known if x.granted_at])
        return _Judged(
            self._go(q, name, union, digest),
            self._evidence(asked, case, mine, union, digest),
            self._lease(asked, name, ordinal),
        )

    def _renewed(self, asked: "_Question", name: str, earlier: Sequence[Sequence[Found]]) -> _Judged:
        """The same answer as the first time: its union is what the ledger had then."""
        known = sorted(asked.known, key=lambda x: (x.at, x.begin_id))
        place, lease = next((n, x) for n, x in enumerate(known, start=1) if x.lease_id == name)
        again = self._go(asked.begin, name, unite(earlier[:place]), lease.digest)
        return _Judged(again, lease=self._lease(asked, name, ordinal=0))

    def _go(self, q: Begin, name: str, union: tuple[Found, ...], digest: str) -> _Said:
        return {
            "answer": "go",
            "request_id": q.request_id,
            "system": q.system,
            "lease_id": name,
            "secret": self._keys.lease_secret(name),
            "seconds": self._policy.lease_seconds,
            "union": union,
            "digest": digest,
        }

    def _lease(self, asked: "_Question", name: str, ordinal: int) -> LeaseRow:
        q = asked.begin
        until = asked.now + timedelta(seconds=self._policy.lease_seconds)
        return LeaseRow(name, q.begin_id, q.request_id, q.system, ordinal, until)

    def _evidence(
        self, asked: "_Question", case: _Case, mine: Sequence[Found], union: tuple[Found, ...], digest: str
    ) -> EvidenceRow:
        q = asked.begin
        return EvidenceRow(
            begin_id=q.begin_id,
            request_id=q.request_id,
            partition=asked.row.partition,
            system=q.system,
            attempt=q.attempt,
            mode=q.mode.value,
            manifest=asked.manifests.seal(mine),
            digest=digest,
            counts=_text(counts(union)),
            searched=_text(list(dict.fromkeys(q.searched))),
            learned=_text(self._learned(asked, case)) if q.mode is Mode.IDENTIFY else "{}",
        )

    def _learned(self, asked: "_Question", case: _Case) -> dict[str, list[str]]:
        """What the source learned, sealed anew for each system that is searched by it."""
        q, plan = asked.begin, case.plans[asked.row.door.plan_hash]
        learned = dict.fromkeys(i.normal() for i in q.learned if i.type in asked.planned.learns)
        others = [t for t in plan.tasks if t.categories and t.system != q.system]
        chosen = {t.system: [i for i in learned if i.type in t.identifiers] for t in others}
        sealed = self._keys.seal_identifiers_apart(asked.key, {s: found for s, found in chosen.items() if found})
        return {system: [text] for system, text in sealed.items()}


class _Question(NamedTuple):
    """A question with all that it is judged by."""

    begin: Begin
    row: DoorRow
    planned: PlannedTask
    known: Sequence[Lease]
    key: Key
    manifests: Manifests
    now: datetime


def lease_id(q: Begin) -> str:
    """Names the lease that a begin-id can get: the same each time it is asked for."""
    return hashlib.sha256(f"lease/{q.request_id}/{q.system}/{q.begin_id}".encode()).hexdigest()[:32]


def _persist(work: Callable[[], T]) -> T:
    """Do it again while the error may pass: nothing was written, and the ledger is read anew."""
    with suppress(Passing):
        return work()  # nearly always all there is to do: what counts the tries is made for those that need it
    retrying = Retrying(
        retry=retry_if_exception_type(Passing),
        stop=stop_after_attempt(TRIES - 1) | stop_before_delay(TRY_SECONDS),
        wait=wait_random_exponential(multiplier=0.02, max=0.5),
        reraise=True,
    )
    return retrying(work)


def _distinct(tasks: Sequence[Begin]) -> None:
    seen: set[object] = set()
    for n, task in enumerate(tasks):
        if (task.request_id, task.system) in seen:
            raise BeginInvalid(f"tasks.{n}.request_id", "a task may be asked for once in a call")
        if task.begin_id in seen:
            raise BeginInvalid(f"tasks.{n}.begin_id", "a begin-id belongs to one task")
        seen |= {(task.request_id, task.system), task.begin_id}


def _resumes(door: Door) -> bool:
    return door.action is Action.RESUME_USE


def _stop(q: Begin, reason: StopReason) -> _Said:
    return {"answer": "stop", "request_id": q.request_id, "system": q.system, "reason": reason.value}


def _wait(q: Begin, reason: str, now: datetime, seconds: float) -> _Said:
    seconds = min(max(seconds, 0.0), 86_400.0)
    return {
        "answer": "wait",
        "request_id": q.request_id,
        "system": q.system,
        "reason": reason,
        "seconds": seconds,
        "until": now + timedelta(seconds=seconds),
    }


def _response(tasks: Sequence[_Said]) -> bytes:
    return whole({"tasks": tasks})


def _text(data: Any) -> str:
    return orjson.dumps(data).decode()
