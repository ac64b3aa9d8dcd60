"""Stage 1: from the bytes of a command to sealed facts, a rejection with its field, or quarantine."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from keshi.orchestrator import events as ev
from keshi.orchestrator.admission import Decide, Notice, Submit, Withdraw
from keshi.orchestrator.keys import Keys
from keshi.orchestrator.plan import NotPlannable, inventory_hash, make_plan
from keshi.runtime.sealing import Key
from keshi.runtime.telemetry import derived_trace
from keshi.schemas.admissible import NotAdmissible, check_references, ground_of, normal_identifiers
from keshi.schemas.base import canonical
from keshi.schemas.binary import Headers
from keshi.schemas.commands import (
    ACTIONS,
    COMMANDS,
    Action,
    DecideTask,
    RecordNotice,
    Scope,
    SubjectCommand,
    WithdrawRequest,
)
from keshi.schemas.envelope import MAX_COMMAND_BYTES, Envelope
from keshi.schemas.grounds import Ground, grounds
from keshi.schemas.identifiers import Identifier
from keshi.schemas.inventory import Inventory, Plan
from keshi.schemas.reading import Unreadable, read
from keshi.schemas.requests import Coordinates, RejectionCode, RequestRejected


@dataclass(frozen=True, slots=True)
class Routable:
    """An input for the request's own partition; a new request brings its plan (hash and canonical JSON)."""

    message: Submit | Withdraw | Decide | Notice
    plan: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Quarantinable:
    """Nothing that a sender could be told about."""

    reason: str
    field: str | None


class _Refused(Exception):  # noqa: N818 - an answer
    def __init__(self, code: RejectionCode, field: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.field = field
        self.detail = detail


class Intake:
    """Validates, plans and seals. Holds no state but the inventory and the keys.

    Args:
        inventory: All systems.
        keys: Of the ledger.
        traces: Give a request a trace of its own where its sender gave none.
    """

    def __init__(self, inventory: Inventory, keys: Keys, *, traces: bool = False) -> None:
        self.inventory = inventory
        self._traces = traces
        self.inventory_hash = inventory_hash(inventory)
        self._keys = keys
        self._plans: dict[Any, tuple[Plan, tuple[str, str]]] = {}

    def read(
        self, raw: bytes | None, at: Coordinates, log: str, headers: Headers = ()
    ) -> Routable | RequestRejected | Quarantinable:
        """Read one record of `commands`.

        Args:
            raw: Its value.
            at: Where it stands.
            log: UUID of the topic.
            headers: Its headers, which hold a CloudEvent's attributes in binary mode.
        """
        try:
            envelope, data = read(raw, COMMANDS, limit=MAX_COMMAND_BYTES, headers=headers)
        except Unreadable as u:
            if u.request_id is None or u.reason not in set(RejectionCode):
                return Quarantinable(str(u.reason), u.field)
            return RequestRejected(
                request_id=u.request_id, code=RejectionCode(u.reason), field=u.field, detail=u.detail, command=at
            )
        try:
            return self._route(envelope, data, at, log)
        except _Refused as r:
            return RequestRejected(
                request_id=getattr(data, "request_id", ""), code=r.code, field=r.field, detail=r.detail, command=at
            )

    def _route(self, envelope: Envelope[Any], data: Any, at: Coordinates, log: str) -> Routable:
        if isinstance(data, SubjectCommand):
            return self._submit(envelope, data, at, log)
        if isinstance(data, WithdrawRequest):
            return Routable(Withdraw(log=log, request_id=data.request_id, command=at))
        if isinstance(data, RecordNotice):
            recorded = ev.NoticeRecorded(notified_at=data.notified_at, notice=data.notice, command=at)
            return Routable(Notice(log=log, request_id=data.request_id, recorded=recorded))
        assert isinstance(data, DecideTask)
        return self._decide(data, at, log)

    def _decide(self, data: DecideTask, at: Coordinates, log: str) -> Routable:
        if self._keys.decision_signature(data.model_dump(mode="json")) != data.signature:
            raise _Refused(
                RejectionCode.SIGNATURE_INVALID,
                "data.signature",
                "decisions are made through the API, which signs them",
            )
        if data.ground is not None and not getattr(grounds().get(data.ground), "refuses", False):
            raise _Refused(RejectionCode.GROUND_UNKNOWN, "data.ground", "no rule file has this ground for a refusal")
        decided = ev.TaskDecided(
            system=data.system,
            decision=data.decision,
            person=data.person,
            at=data.decided_at,
            reason=data.reason,
            ground=data.ground,
            digest=data.manifest_digest,
            command=at,
        )
        return Routable(Decide(log=log, request_id=data.request_id, attempt=data.attempt, decided=decided))

    def _submit(self, envelope: Envelope[Any], data: SubjectCommand, at: Coordinates, log: str) -> Routable:
        action = ACTIONS[type(data)]
        try:
            ground = ground_of(data)
            identifiers = normal_identifiers(data)
            check_references(data, identifiers)
            scope = self._without_references(data.scope)
            plan, stored = self._plan(action, scope, identifiers)
        except (NotAdmissible, NotPlannable) as e:
            raise _Refused(e.code, e.field, e.detail) from None
        key, wrapped = self._keys.new(data.request_id)
        due, alarms = _clocks(data, ground)
        case = ev.Case(
            request_id=data.request_id,
            action=action,
            scope=scope,
            regime=data.regime,
            ground=data.ground,
            requested_by=data.requested_by,
            assessed=data.assessed,
            arrival=data.arrived,
            due=due,
            alarms=alarms,
            notice_language=data.notice_language,
            fingerprint=self._keys.fingerprint(action.value, data),
            subject=tuple(sorted({self._keys.holder(i) for i in identifiers})),
            plan_hash=stored[0],
            sealed=self._sealed(key, plan, identifiers),
            items=self._keys.seal_items(key, data.scope.items) if data.scope.items else None,
            traceparent=envelope.traceparent or (derived_trace(data.request_id) if self._traces else None),
            command=at,
        )
        message = Submit(
            log=log,
            request_id=data.request_id,
            case=case,
            kek_id=wrapped.kek_id,
            wrapped_key=wrapped.wrapped.hex(),
        )
        return Routable(message, stored)

    def _sealed(self, key: Key, plan: Plan, identifiers: Sequence[Identifier]) -> dict[str, tuple[str, ...]]:
        """For each system that has a part in it those that it knows, none of them where it knows none."""
        known = {t.system: [i for i in identifiers if i.type in t.identifiers] for t in plan.tasks if t.included}
        sealed = self._keys.seal_identifiers_apart(key, {s: found for s, found in known.items() if found})
        return {s: (sealed[s],) if s in sealed else () for s in known}

    def _without_references(self, scope: Scope) -> Scope:
        if scope.items is None:
            return scope
        return scope.model_copy(update={"items": tuple(self._keys.item(i) for i in scope.items)})

    def _plan(self, action: Action, scope: Scope, identifiers: Iterable[Identifier]) -> tuple[Plan, tuple[str, str]]:
        types = tuple(sorted({i.type for i in identifiers}))
        name = (action, scope, types)
        if name not in self._plans:
            plan = make_plan(self.inventory, self.inventory_hash, action, scope, types)
            body = canonical(plan).decode()
            if len(self._plans) > 1000:  # noqa: PLR2004 - scopes are the sender's: a bound, not a tuning
                self._plans.clear()
            self._plans[name] = (plan, (ev.plan_hash(body), body))
        return self._plans[name]


def _clocks(data: SubjectCommand, ground: Ground) -> tuple[datetime, tuple[datetime, ...]]:
    arrived = data.arrived.at
    due = data.due or arrived + timedelta(days=ground.due_days)
    return due, tuple(arrived + timedelta(days=d) for d in ground.alarm_days)
