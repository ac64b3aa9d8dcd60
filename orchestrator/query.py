"""Stage 7: what readers may see of requests, held tasks, obligations and closure records. Knows no framework."""

import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from keshi.orchestrator.account import Account, account
from keshi.orchestrator.asked import Cursors, Export, Filters, Listing
from keshi.orchestrator.keys import Keys
from keshi.orchestrator.ledger.port import Ledger, ObligationRow, Reader
from keshi.orchestrator.request import State, TaskProgress
from keshi.orchestrator.views import (
    HeldTask,
    Matched,
    ObligationView,
    ReasonView,
    RequestPage,
    RequestSummary,
    RequestView,
)
from keshi.runtime.sealing import SealBroken
from keshi.schemas.closure import ClosureRecord
from keshi.schemas.commands import Decision
from keshi.schemas.inventory import Inventory, Plan
from keshi.schemas.requests import TaskStatus
from keshi.schemas.tasks import StopReason


class NotKnown(LookupError):  # noqa: N818 - names the finding
    """No command was accepted under this id."""


class NotClosed(LookupError):  # noqa: N818
    """The request is open: there is no record of it yet."""


class Queries:
    """Answers readers. Serves several threads."""

    def __init__(self, ledger: Ledger, keys: Keys) -> None:
        self._ledger = ledger
        self._keys = keys

    def requests(self, asked: Listing) -> RequestPage:
        """A page of what was asked for.

        Args:
            asked: Filters, limit and cursor; in a `Search` or `Export` also whose requests.

        Raises:
            CursorBroken: the cursor is none of ours, or of another question.
        """
        with self._ledger.reader() as view:
            states, cursor = self._found(view, asked)
            plans = self._plans(view, states) if asked.narrow() else {}
            now = view.now
        page = [_summary(s, now, asked, plans.get(s.accepted.plan_hash)) for s in states]
        return RequestPage(requests=tuple(page), next=cursor)

    def export(self, asked: Export) -> str:
        """A page of requests with their records, as JSON: `{"requests": [...], "next": ...}`. Records are verbatim.

        Raises:
            CursorBroken: as above.
        """
        with self._ledger.reader() as view:
            states, cursor = self._found(view, asked)
            records = view.closures([s.request_id for s in states])
            now = view.now
        lines = ",".join(_export_line(s, records.get(s.request_id), now) for s in states)
        return f'{{"requests":[{lines}],"next":{json.dumps(cursor)}}}'

    def _found(self, view: Reader, asked: Listing) -> tuple[list[State], str | None]:
        identifiers = getattr(asked, "identifiers", ())
        sought = asked.sought(tuple(sorted({self._keys.holder(i) for i in identifiers})))
        cursors = Cursors(self._keys)
        hits = view.find(sought, cursors.read(sought, asked.cursor) if asked.cursor else None, asked.limit)
        states = view.states(hits.request_ids)
        return [states[i] for i in hits.request_ids], cursors.write(sought, hits.next) if hits.next else None

    def _plans(self, view: Reader, states: Iterable[State]) -> Mapping[str, Plan]:
        bodies = view.plans({s.accepted.plan_hash for s in states})
        return {digest: Plan.model_validate_json(body) for digest, body in bodies.items()}

    def request(self, request_id: str) -> RequestView:
        """One request.

        Raises:
            NotKnown: no command was accepted under this id.
        """
        with self._ledger.reader() as view:
            state = _known(view, request_id)
            held = tuple(_held(view, state, t) for t in state.tasks.values() if t.status is TaskStatus.HELD)
            obligations = tuple(_obligation(row) for row in view.obligations_of(request_id))
            now = view.now
        summary = _summary(state, now)
        return RequestView(
            number=summary.number,
            state=summary.state,
            held=held,
            obligations=obligations,
            notified_at=state.notified_at,
        )

    def held(self, request_id: str, system: str) -> tuple[HeldTask | None, datetime]:
        """A task if it is held now, and the database's clock.

        Raises:
            NotKnown: no command was accepted under this id.
        """
        with self._ledger.reader() as view:
            state = _known(view, request_id)
            task = state.tasks.get(system)
            if task is None or task.status is not TaskStatus.HELD or state.closed:
                return None, view.now
            return _held(view, state, task), view.now

    def closure(self, request_id: str) -> str:
        """The closure record, byte for byte as it was sealed.

        Raises:
            NotKnown: no command was accepted under this id.
            NotClosed: the request is open.
        """
        with self._ledger.reader() as view:
            record = view.closures([request_id]).get(request_id)
            if record is None:
                _known(view, request_id)
                raise NotClosed
        return record

    def account(self, request_id: str) -> tuple[Account, str | None]:
        """All that is known of one request, and its closure record as it was sealed, if it is closed.

        Raises:
            NotKnown: no command was accepted under this id.
        """
        with self._ledger.reader() as view:
            state = _known(view, request_id)
            record = view.closures([request_id]).get(request_id)
            digest = state.accepted.plan_hash
            plan = Plan.model_validate_json(view.plans([digest])[digest])
            inventory = view.inventories([plan.inventory]).get(plan.inventory)
            obligations = [_obligation(row) for row in view.obligations_of(request_id)]
            evidence = view.leases([request_id]).get(request_id) if record is None else None
            now = view.now
        latest = {s: evidence.newest_evidence(s) for s in state.tasks} if evidence else {}
        found = account(
            state,
            plan,
            Inventory.model_validate_json(inventory) if inventory else None,
            ClosureRecord.model_validate_json(record) if record else None,
            obligations,
            lambda sealed: self._opened(request_id, sealed),
            {system: e.counts for system, e in latest.items() if e},
            now,
        )
        return found, record

    def reasons(self, record: str) -> tuple[ReasonView, ...]:
        """The opened reasons of a record's decisions; a reason that cannot be opened is left out."""
        closure = ClosureRecord.model_validate_json(record)
        return tuple(
            ReasonView(
                system=system.system,
                decision=place,
                person=decision.person,
                at=decision.at,
                reason=self._opened(closure.request_id, decision.reason),
            )
            for system in closure.systems
            for place, decision in enumerate(system.decisions)
        )

    def _opened(self, request_id: str, sealed: str) -> str | None:
        try:
            return self._keys.open_text(request_id, sealed)
        except SealBroken:
            return None


def _known(view: Reader, request_id: str) -> State:
    state = view.states([request_id]).get(request_id)
    if state is None or state.case is None:
        raise NotKnown
    return state


def _summary(state: State, now: datetime, asked: Filters | None = None, plan: Plan | None = None) -> RequestSummary:
    matched = tuple(_matched(state, asked, plan)) if asked and plan else ()
    return RequestSummary(number=state.number or 0, state=state.public(now), matched=matched)


def _matched(state: State, asked: Filters, plan: Plan) -> Iterator[Matched]:
    """The outcomes that were asked for, by workers, people and plan."""
    for planned in plan.tasks:
        task = state.tasks.get(planned.system)
        for outcome in (*(task.outcomes if task else ()), *planned.known):
            if (
                asked.system in {None, planned.system}
                and asked.outcome in {None, outcome.outcome}
                and (
                    asked.ground in {None, outcome.ground} or (asked.outcome is None and asked.ground == _ground(state))
                )
            ):
                # Places in a manifest tell readers of a list nothing.
                yield Matched(system=planned.system, **outcome.model_dump(exclude={"items"}))


def _ground(state: State) -> str:
    return state.accepted.ground


def _export_line(state: State, record: str | None, now: datetime) -> str:
    """One request with its record verbatim."""
    case = state.accepted
    facts = {
        "number": state.number or 0,
        "request": state.public(now).model_dump(mode="json"),
        "regime": case.regime.value,
        "ground": case.ground,
        "requested_by": case.requested_by.model_dump(mode="json"),
        "notified_at": state.notified_at.isoformat() if state.notified_at else None,
    }
    return f'{json.dumps(facts, ensure_ascii=False)[:-1]},"closure":{record or "null"}}}'


def _held(view: Reader, state: State, task: TaskProgress) -> HeldTask:
    """A held task with what was found last. Its digest is the one that a decision has to speak of."""
    leases = view.leases([state.request_id]).get(state.request_id)
    found = leases.of.get(task.system, ()) if leases else ()
    latest = max(found, key=lambda x: x.at, default=None)
    reason = task.reason or "unknown"
    decisions = [Decision.REFUSE, Decision.RETRY]
    if reason == StopReason.OVER_LIMIT and not state.called_off:
        decisions.insert(0, Decision.APPROVE)
    return HeldTask(
        system=task.system,
        attempt=task.attempt,
        reason=reason,
        count=sum(latest.counts.values()) if latest else None,
        digest=task.held_digest,
        decisions=tuple(decisions),
        reminder_at=task.next_at,
    )


def _obligation(row: ObligationRow) -> ObligationView:
    data: dict[str, Any] = json.loads(row.data)
    return ObligationView.model_validate(
        {
            **{name: data.get(name) for name in ("category", "count", "ground", "until")},
            "obligation_id": row.obligation_id,
            "kind": row.kind,
            "system": row.system,
            "status": row.state,
            "next_at": row.due,
            # What happens to an obligation before it is met is that its moment passes.
            "late": row.state == "open" and row.sequence > 1,
        },
        strict=False,
    )
