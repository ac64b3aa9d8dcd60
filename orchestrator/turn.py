"""One input at one request: the events it causes, each seen by the next decision."""

from datetime import datetime, timedelta
from typing import Any

from keshi.orchestrator import events as ev
from keshi.orchestrator.context import Context
from keshi.orchestrator.dispatch import first, startable, waiting
from keshi.orchestrator.request import CALLED_OFF_BY, State, TaskProgress, evolve
from keshi.schemas.inventory import Plan
from keshi.schemas.outcomes import CategoryOutcome, Outcome
from keshi.schemas.tasks import Mode


class Turn:
    """Collects events and evolves the state by each. Pure: it holds plain data and touches nothing else."""

    def __init__(self, state: State, now: datetime, ctx: Context) -> None:
        self.state = state
        self.now = now
        self.ctx = ctx
        self.events: list[Any] = []

    def add(self, *events: Any) -> None:
        """Record events in order."""
        for event in events:
            self.state = evolve(self.state, event, self.now)
            self.events.append(event)

    @property
    def plan(self) -> Plan:
        return self.ctx.plan(self.state.accepted.plan_hash)

    def task(self, system: str) -> TaskProgress | None:
        return self.state.tasks.get(system)

    def later(self, seconds: float) -> datetime:
        return self.now + timedelta(seconds=seconds)

    def start(self) -> None:
        """Start every task that nothing holds back any more. Called after every input."""
        while waiting(self.state):
            found = startable(self.state, self.plan, self.now, self.ctx)
            if not found:
                return
            self.add(*found)

    def dispatch(self, task: TaskProgress, mode: Mode) -> None:
        """Send the next attempt at a task."""
        self.add(first(task, mode, self.now, self.ctx))

    def hold(
        self,
        task: TaskProgress,
        reason: str,
        error: str | None = None,
        *,
        over_limit: bool = False,
        left: tuple[str, ...] = (),
    ) -> None:
        """Ask a person."""
        evidence = self.ctx.leases.newest_evidence(task.system)
        self.add(
            ev.TaskHeld(
                system=task.system,
                attempt=task.attempt,
                reason=reason,
                error=error,
                count=sum(evidence.counts.values()) if evidence else None,
                digest=evidence.digest if evidence and over_limit else None,
                next_at=self.later(self.ctx.policy.held_reminder_seconds),
                left=left,
            )
        )

    def not_started(self, task: TaskProgress) -> None:
        """End a task in which nothing was begun, of a request that was called off."""
        why = self.state.called_off
        assert why is not None
        by = CALLED_OFF_BY[why]
        self.add(
            ev.TaskEnded(
                system=task.system,
                outcomes=tuple(
                    CategoryOutcome(category=c, outcome=Outcome.NOT_STARTED, decided_by=by, reason=why.value)
                    for c in self.plan.task(task.system).categories
                ),
            )
        )
