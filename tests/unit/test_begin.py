"""The rules of the go, each on its own: no database, no clock."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keshi.orchestrator.begin import Given, Later, Refused, answer, closed_door, counts, unite
from keshi.orchestrator.context import Lease, Leases, Policy
from keshi.orchestrator.request import State, TaskProgress
from keshi.schemas.inventory import PlannedTask
from keshi.schemas.requests import RequestStatus, TaskStatus
from keshi.schemas.tasks import Begin, Found, Mode, StopReason
from kit.seeding import plan, request_in

NOW = datetime(2026, 4, 1, 12, tzinfo=UTC)
POLICY = Policy(lease_seconds=10, max_acts=3)
REQUEST = request_in(0)
RECORDS = tuple(Found(category="invoices", ref=str(n)) for n in range(3))


def state(status: TaskStatus = TaskStatus.OPEN, mode: Mode = Mode.ACT, **update: Any) -> State:
    task = TaskProgress(system="billing", status=status, attempt=2, mode=mode, **update.pop("task", {}))
    whole = {"status": RequestStatus.OPEN, "case": CASE, "tasks": {"billing": task}, **update}
    return State(request_id=REQUEST, partition=0).model_copy(update=whole)


CASE: Any = object()  # nothing here looks into it
PLANNED: PlannedTask = plan(limit=3).task("billing")


def question(begin_id: str = "a" * 32, attempt: int = 2, mode: Mode = Mode.ACT) -> Begin:
    return Begin(request_id=REQUEST, system="billing", attempt=attempt, begin_id=begin_id, mode=mode)


def lease(begin: str, seconds: float | None, *, at: float = -60, mode: Mode = Mode.ACT) -> Lease:
    granted = None if seconds is None else NOW + timedelta(seconds=at)
    return Lease(
        begin_id=begin * 32,
        lease_id=begin * 32,
        system="billing",
        attempt=2,
        mode=mode,
        at=NOW + timedelta(seconds=at),
        granted_at=granted,
        until=None if seconds is None else NOW + timedelta(seconds=seconds),
        digest="0" * 64,
        counts={},
    )


def ask(s: State, *known: Lease, begin: Begin | None = None, union: tuple[Found, ...] = RECORDS) -> Any:
    return answer(s, PLANNED, Leases({"billing": known}), begin or question(), union, "d" * 64, NOW, POLICY)


def test_an_open_task_gets_the_go() -> None:
    assert ask(state()) == Given()


@pytest.mark.parametrize(
    ("s", "reason"),
    [
        (None, StopReason.UNKNOWN),
        (State(request_id=REQUEST, partition=0, withdrawn=True), StopReason.UNKNOWN),
        (state(status=TaskStatus.ENDED), StopReason.CLOSED),
        (state().model_copy(update={"status": RequestStatus.CLOSED}), StopReason.CLOSED),
        (state(withdrawn=True), StopReason.WITHDRAWN),
        (state(status=TaskStatus.HELD), StopReason.HELD),
        (state(status=TaskStatus.SCHEDULED), StopReason.NOT_OPEN),
        (state(status=TaskStatus.WAITING), StopReason.NOT_OPEN),
    ],
)
def test_no_act_without_go(s: State | None, reason: StopReason) -> None:
    """Nothing is given for what is unknown, closed, withdrawn, held or not out with a worker."""
    assert closed_door(s, "billing", 2) is reason


def test_another_system_or_attempt_or_mode_is_not_this_task() -> None:
    assert closed_door(state(), "crm", 2) is StopReason.UNKNOWN
    assert closed_door(state(), "billing", 1) is StopReason.OTHER_ATTEMPT
    assert ask(state(), begin=question(mode=Mode.CHECK)) == Refused(StopReason.OTHER_MODE)


def test_what_is_withdrawn_may_still_be_checked() -> None:
    checked = state(mode=Mode.CHECK, withdrawn=True)
    assert ask(checked, begin=question(mode=Mode.CHECK)) == Given()


def test_no_second_go_while_one_lives() -> None:
    assert ask(state(), lease("b", 4)) == Later("lease_held", NOW + timedelta(seconds=4))
    assert ask(state(), lease("b", -1)) == Given()


def test_the_same_begin_id_gets_the_same_lease_until_another_got_one() -> None:
    assert ask(state(), lease("a", 4)) == Given(renews="a" * 32)
    assert ask(state(), lease("a", -1)) == Given(renews="a" * 32)
    assert ask(state(), lease("a", -5), lease("b", -1)) == Refused(StopReason.OTHER_ATTEMPT)


def test_an_act_entered_three_times_without_a_report_waits_for_a_person() -> None:
    entered = [lease(x, -50 + n, at=-60 + n) for n, x in enumerate("bcd")]
    assert ask(state(), *entered) == Refused(StopReason.ACTS_SPENT, evidence=True)
    decided = state(task={"decided_at": NOW - timedelta(seconds=30)})
    assert ask(decided, *entered) == Given()
    assert ask(state(mode=Mode.CHECK), *entered, begin=question(mode=Mode.CHECK)) == Given()


def test_acts_that_failed_and_said_so_are_no_acts_without_a_report() -> None:
    """Each ended its attempt: how often that is tried is another limit."""
    entered = [replace(lease(x, -50 + n, at=-60 + n), attempt=1) for n, x in enumerate("bcdef")]
    assert ask(state(), *entered) == Given()


def test_more_records_than_the_limit_wait_for_a_person_who_saw_exactly_these() -> None:
    many = (*RECORDS, Found(category="customers", ref="9"))
    assert ask(state(), union=many) == Refused(StopReason.OVER_LIMIT, evidence=True)
    assert ask(state(task={"approved_digest": "d" * 64}), union=many) == Given()
    assert ask(state(task={"approved_digest": "e" * 64}), union=many) == Refused(StopReason.OVER_LIMIT, evidence=True)


_found = st.builds(
    Found,
    category=st.sampled_from(["invoices", "customers"]),
    ref=st.sampled_from([str(n) for n in range(6)]),
    was=st.sampled_from(["active", "suspended"]),
)
_manifests = st.lists(st.lists(_found, max_size=8), max_size=5)


@given(_manifests)
def test_a_union_has_every_record_once_in_one_order(manifests: list[list[Found]]) -> None:
    union = unite(manifests)
    names = [(f.category, f.ref) for f in union]
    assert names == sorted({(f.category, f.ref) for m in manifests for f in m})
    assert sum(counts(union).values()) == len(union)
    assert unite([union, *manifests]) == union


@given(_manifests)
def test_what_a_record_was_is_what_the_first_attempt_saw(manifests: list[list[Found]]) -> None:
    """A later attempt may see as suspended what an earlier one has suspended itself."""
    first: dict[tuple[str, str], str] = {}
    for f in (f for m in manifests for f in m):
        first.setdefault((f.category, f.ref), f.was)
    assert {(f.category, f.ref): f.was for f in unite(manifests)} == first
