"""The account of one request: all that is known of it, from its state or its record, in one form. Pure."""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime

from pydantic import Field

from keshi.orchestrator.request import State, TaskProgress
from keshi.orchestrator.views import ObligationView
from keshi.schemas.base import Code, Count, Digest, FreeText, Model, Moment, Name, Reference, RuleId
from keshi.schemas.closure import AttemptRecord, ClosureRecord, DecisionRecord, SystemRecord
from keshi.schemas.commands import Arrival, Assessment, Decision, Regime, Requester, Scope
from keshi.schemas.identifiers import IdentifierType
from keshi.schemas.inventory import Inventory, Plan, PlannedTask, System
from keshi.schemas.outcomes import CategoryOutcome, Residue
from keshi.schemas.reports import HandlerVersion
from keshi.schemas.requests import RequestState, TaskStatus


class DecisionView(Model):
    """What a person decided, with their words opened; None where they cannot be opened."""

    decision: Decision
    person: Reference
    at: Moment
    ground: RuleId | None = None
    words: FreeText | None = None


class Standing(Model):
    """One system of the plan: what has become of its task so far.

    `after` names those that it still waits for; `left` are categories that are known not to be done.
    """

    system: Name
    status: TaskStatus
    attempt: Count = 0
    reason: Code | None = None
    since: Moment | None = None
    next_at: Moment | None = None
    late: bool = False
    left: tuple[Name, ...] = ()
    after: tuple[Name, ...] = ()
    found: dict[Name, Count] = Field(default_factory=dict)
    searched: tuple[IdentifierType, ...] = ()
    checked_at: Moment | None = None
    handler: HandlerVersion | None = None
    outcomes: tuple[CategoryOutcome, ...] = ()
    residue: tuple[Residue, ...] = ()
    attempts: tuple[AttemptRecord, ...] = ()
    decisions: tuple[DecisionView, ...] = ()

    @property
    def ended(self) -> bool:
        """Whether there is nothing more to do."""
        return self.status is TaskStatus.ENDED


class Account(Model):
    """See the module. `systems` stand in the order of the plan; `inventory` tells how people call them."""

    number: Count
    as_of: Moment
    request: RequestState
    scope: Scope
    regime: Regime
    ground: RuleId
    requested_by: Requester
    assessed: Assessment
    arrival: Arrival
    company: str | None = None
    inventory: tuple[System, ...] = ()
    systems: tuple[Standing, ...]
    obligations: tuple[ObligationView, ...] = ()
    own_residue: tuple[Residue, ...] = ()
    notified_at: Moment | None = None
    place: tuple[Count, Count] | None = None
    """Of its record: chain and number."""
    hash: Digest | None = None


class AccountView(Model):
    """The account of a request, and its closure record as it was sealed, if it is closed."""

    account: Account
    closure: ClosureRecord | None


Opened = Callable[[str], str | None]
"""Opens a person's sealed words."""


def account(  # noqa: PLR0913, PLR0917 - all that an account is made of
    state: State,
    plan: Plan,
    inventory: Inventory | None,
    record: ClosureRecord | None,
    obligations: Iterable[ObligationView],
    opened: Opened,
    found: Mapping[str, Mapping[str, int]],
    now: datetime,
) -> Account:
    """Put together what is known of a request.

    Args:
        state: It was accepted.
        plan: Its plan.
        inventory: The one that the plan was made of, where the ledger has it.
        record: Its closure record, if it is closed: what stands in there counts.
        obligations: What was left to do, as it stands now.
        opened: Opens a person's sealed words.
        found: By system, how many records of each category were found so far, where its task has not ended.
        now: By the database's clock.
    """
    case = state.accepted
    sealed = {s.system: s for s in record.systems} if record else {}
    planned = {t.system for t in plan.tasks}
    return Account(
        number=state.number or 0,
        as_of=now,
        request=state.public(now),
        scope=case.scope,
        regime=case.regime,
        ground=case.ground,
        requested_by=case.requested_by,
        assessed=case.assessed,
        arrival=case.arrival,
        company=inventory.company if inventory else None,
        inventory=tuple(s for s in inventory.systems if s.name in planned) if inventory else (),
        systems=tuple(
            _sealed(sealed[t.system], opened) if t.system in sealed else _standing(state, plan, t, opened, found, now)
            for t in plan.tasks
        ),
        obligations=tuple(obligations),
        own_residue=record.own_residue if record else (),
        notified_at=state.notified_at,
        place=(record.partition, record.number) if record else None,
        hash=record.hash if record else None,
    )


def _sealed(record: SystemRecord, opened: Opened) -> Standing:
    return Standing(
        system=record.system,
        status=TaskStatus.ENDED,
        attempt=len(record.attempts),
        found=record.located.counts,
        searched=record.searched,
        checked_at=record.checked_at,
        handler=record.handler,
        outcomes=record.outcomes,
        residue=record.residue,
        attempts=record.attempts,
        decisions=_decisions(record.decisions, opened),
    )


def _standing(
    state: State,
    plan: Plan,
    planned: PlannedTask,
    opened: Opened,
    found: Mapping[str, Mapping[str, int]],
    now: datetime,
) -> Standing:
    task = state.tasks.get(planned.system)
    if task is None:
        return Standing(system=planned.system, status=TaskStatus.ENDED, outcomes=planned.known)
    return Standing(
        system=planned.system,
        status=task.status,
        attempt=task.attempt,
        reason=task.reason,
        since=_since(task),
        next_at=task.next_at,
        late=task.is_late(now),
        left=task.left,
        after=_still_before(state.tasks, plan, planned),
        found=dict(task.counts or found.get(planned.system, {})),
        searched=task.searched,
        checked_at=task.checked_at,
        handler=task.handler,
        outcomes=(*task.outcomes, *planned.known),
        residue=task.residue,
        attempts=task.attempts,
        decisions=_decisions(task.decisions, opened),
    )


def _since(task: TaskProgress) -> datetime | None:
    """When it came to stand as it does."""
    if not task.attempts:
        return None
    last = task.attempts[-1]
    return last.started if task.status is TaskStatus.OPEN else last.ended


def _still_before(tasks: Mapping[str, TaskProgress], plan: Plan, planned: PlannedTask) -> tuple[str, ...]:
    """Systems that have to end first, or to tell by what the person is known there."""
    if tasks[planned.system].status is not TaskStatus.WAITING:
        return ()
    sources = [t.system for t in plan.tasks if t.identify and not tasks[t.system].identified]
    elders = [s for s in planned.after if s in tasks and not tasks[s].ended]
    return tuple(dict.fromkeys(s for s in (*sources, *elders) if s != planned.system))


def _decisions(decisions: Iterable[DecisionRecord], opened: Opened) -> tuple[DecisionView, ...]:
    return tuple(
        DecisionView(decision=d.decision, person=d.person, at=d.at, ground=d.ground, words=opened(d.reason) or None)
        for d in decisions
    )
