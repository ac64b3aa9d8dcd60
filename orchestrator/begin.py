"""The go before each act: one question of a worker, answered from state, leases and evidence. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from keshi.orchestrator.context import Leases, Policy
from keshi.orchestrator.door import Door
from keshi.orchestrator.request import State
from keshi.schemas.inventory import PlannedTask
from keshi.schemas.requests import RequestStatus, TaskStatus
from keshi.schemas.tasks import Begin, Found, Mode, StopReason


@dataclass(frozen=True, slots=True)
class Given:
    """A go. `renews` names the lease that goes on; None makes a new one."""

    renews: str | None = None


@dataclass(frozen=True, slots=True)
class Later:
    """Not yet: somebody else may be acting until then."""

    reason: str
    until: datetime


@dataclass(frozen=True, slots=True)
class Refused:
    """No go. With `evidence` what was found is kept all the same."""

    reason: StopReason
    evidence: bool = False


def closed_door(state: Door | State | None, system: str, attempt: int) -> StopReason | None:  # noqa: PLR0911 - a table of guards
    """Why a task is not open to this attempt; None where it is."""
    if state is None or system not in state.tasks:
        return StopReason.UNKNOWN
    task = state.tasks[system]
    if state.status is RequestStatus.CLOSED or task.ended:
        return StopReason.CLOSED
    if state.called_off and not (task.mode is Mode.CHECK and task.status is TaskStatus.OPEN):
        return state.called_off
    if task.status is TaskStatus.HELD:
        return StopReason.HELD
    if task.status is not TaskStatus.OPEN:
        return StopReason.NOT_OPEN
    if task.attempt != attempt:
        return StopReason.OTHER_ATTEMPT
    return None


def answer(  # noqa: PLR0911, PLR0913, PLR0917 - a table of guards over all that a go depends on
    state: Door | State | None,
    planned: PlannedTask | None,
    leases: Leases,
    begin: Begin,
    union: Sequence[Found],
    digest: str,
    now: datetime,
    policy: Policy,
) -> Given | Later | Refused:
    """May this worker act?

    Args:
        state: The request, as committed under the partition's lock.
        planned: Its planned task.
        leases: All leases and evidence of the request.
        begin: The question.
        union: What all attempts and this one found.
        digest: The keyed digest of that union.
        now: By the database's clock.
        policy: Limits.
    """
    reason = closed_door(state, begin.system, begin.attempt)
    if reason or state is None or planned is None:
        return Refused(reason or StopReason.UNKNOWN)
    task = state.tasks[begin.system]
    if begin.mode is not task.mode:
        return Refused(StopReason.OTHER_MODE)
    known = leases.of.get(begin.system)
    if known:
        newest = leases.newest(begin.system)
        if newest is not None and newest.begin_id == begin.begin_id:
            return Given(renews=newest.lease_id)
        if any(x.begin_id == begin.begin_id and x.granted_at for x in known):
            return Refused(StopReason.OTHER_ATTEMPT)  # another worker got the go after this one's lease was over
        if newest is not None and newest.until is not None and newest.in_the_way(begin.attempt, now):
            return Later("lease_held", newest.until)
    if begin.mode is not Mode.ACT:
        return Given()
    if leases.unreported(begin.system, begin.attempt, task.decided_at) >= policy.max_acts:
        return Refused(StopReason.ACTS_SPENT, evidence=True)
    if len(union) > planned.record_limit and task.approved_digest != digest:
        return Refused(StopReason.OVER_LIMIT, evidence=True)
    return Given()


def unite(manifests: Iterable[Sequence[Found]]) -> tuple[Found, ...]:
    """The union of manifests in its canonical order.

    Of two that name one record the earlier counts: a later attempt may see as suspended what an earlier one has
    suspended itself.
    """
    found: dict[tuple[str, str], Found] = {}
    for manifest in manifests:
        for item in manifest:
            found.setdefault((item.category, item.ref), item)
    return tuple([found[key] for key in sorted(found)])


def counts(union: Iterable[Found]) -> Mapping[str, int]:
    """Records by category."""
    found: dict[str, int] = {}
    for item in union:
        found[item.category] = found.get(item.category, 0) + 1
    return found
