"""A system that works on by itself: waited for while it is in time, late when it is not, never taken for done. Pure."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from keshi.handlers.contract import Accepted as GoesOn
from keshi.handlers.contract import Active, Declined, Gone, NotHeld, NotSearchable, State, UnderWay
from keshi.handlers.errors import GiveToPerson
from keshi.handlers.worker.judge import Case, NotVerified, goes_on, judge, left
from keshi.orchestrator import admission, completion, deadlines
from keshi.orchestrator import events as ev
from keshi.orchestrator.context import Context, Lease, Leases, Policy
from keshi.orchestrator.plan import inventory_hash, make_plan
from keshi.orchestrator.request import State as Request
from keshi.orchestrator.request import TaskProgress
from keshi.orchestrator.turn import Turn
from keshi.schemas.commands import Action, Arrival, Assessment, Decision, Regime, Requester, Scope
from keshi.schemas.outcomes import CategoryOutcome, Outcome
from keshi.schemas.reports import UNSIGNED, Accepted, Completed, Failed, HandlerVersion, Intent, Left, signed
from keshi.schemas.requests import Coordinates, TaskStatus
from keshi.schemas.tasks import Found, Mode
from kit.samples import inventory

NOW = datetime(2026, 11, 2, tzinfo=UTC)
AT = Coordinates(topic="commands", partition=0, offset=0)
RID = "01J00000000000000000000001"
INVENTORY = inventory(mail={"actions": None})
PLAN = make_plan(INVENTORY, inventory_hash(INVENTORY), Action.ERASE, Scope(), ["email"])
SECRET = "5" * 64
HANDLER = HandlerVersion(name="model", version="1")
SAID: dict[str, Any] = {"request_id": RID, "system": "shop", "handler": HANDLER, "at": NOW}

# --- what a worker makes of states


def case(*states: State, mode: Mode = Mode.ACT) -> Case:
    union = tuple(Found(category=f"c{n}", ref="r") for n in range(len(states)))
    return Case(Action.ERASE, mode, tuple(f.category for f in union), ("email",), union, states)


def outcomes(*states: State, mode: Mode = Mode.ACT) -> list[tuple[str, str | None]]:
    return [(o.outcome.value, o.reason) for o in judge(case(*states, mode=mode))]


def test_an_act_goes_on_only_where_all_else_is_done() -> None:
    assert goes_on(case(Gone(), UnderWay(30), UnderWay(7))) == GoesOn(7, ("c1", "c2"))
    assert goes_on(case(Gone(), NotHeld())) is None
    for other in (Active(), Declined("declined")):
        assert goes_on(case(UnderWay(7), other)) is None


def test_what_is_under_way_or_declined_is_never_done() -> None:
    with pytest.raises(NotVerified):
        judge(case(UnderWay(7), Active()))
    with pytest.raises(GiveToPerson) as failure:
        judge(case(Gone(), Declined("said_no")))
    assert failure.value.code == "said_no"
    told = outcomes(UnderWay(7), Declined("said_no"), mode=Mode.CHECK)
    assert told == [("not_started", "withdrawn")] * 2


def test_who_holds_nothing_and_who_knows_no_identifier_have_outcomes_of_their_own() -> None:
    for mode in (Mode.ACT, Mode.CHECK):
        told = outcomes(NotHeld("said_so"), NotSearchable(), Gone("said_so"), Gone(), mode=mode)
        assert told == [("not_found", "said_so"), ("not_searchable", None), ("erased", "said_so"), ("erased", None)]


@pytest.mark.parametrize(
    ("states", "said"),
    [
        ([Gone(), Active()], None),
        ([UnderWay(30), UnderWay(7)], Left(check_after_seconds=7)),
        ([UnderWay(30), UnderWay(7, late=True)], Left(check_after_seconds=7, late=True)),
        ([Declined("said_no"), Gone()], Left(asks="said_no")),
        ([Declined("said_no"), UnderWay(7)], Left(check_after_seconds=7, asks="said_no")),
    ],
)
def test_a_check_says_what_the_system_said(states: list[State], said: Left | None) -> None:
    assert left(states) == said


# --- what a request makes of it


class Story:
    """One request for a shop with two categories, of which `profile` is done and `orders` is not."""

    def __init__(self) -> None:
        self.state = Request(request_id=RID, partition=0)
        self.now = NOW
        self.leases: list[Lease] = []
        self.policy = Policy(max_attempts=3, retry_schedule=(60, 300))
        self.turn(admission.submit, admission.Submit(log="l", request_id=RID, case=_case(), kek_id="k", wrapped_key=""))

    def turn(self, decide: Any, *inputs: Any) -> None:
        context = Context(
            policy=self.policy,
            plan=lambda _: PLAN,
            lease_secret=lambda _: SECRET,
            leases=Leases({"shop": tuple(self.leases)}),
            number=lambda: 1,
        )
        turn = Turn(self.state, self.now, context)
        decide(turn, *inputs)
        self.state = turn.state

    @property
    def task(self) -> TaskProgress:
        return self.state.tasks["shop"]

    def due(self) -> None:
        assert self.task.next_at is not None
        self.now = max(self.now, self.task.next_at)
        self.turn(deadlines.due)

    def lease(self) -> Lease:
        name = f"{len(self.leases):032x}"
        found = Lease(
            begin_id=name, lease_id=name, system="shop", attempt=self.task.attempt, mode=self.task.mode, at=self.now,
            granted_at=self.now, until=self.now, digest="d" * 64, counts={"profile": 1, "orders": 1},
        )  # fmt: skip
        self.leases.append(found)
        return found

    def accepted(self) -> None:
        lease = self.lease()
        message = Accepted(
            **SAID, attempt=lease.attempt, lease_id=lease.lease_id, digest=lease.digest, check_after_seconds=10,
            hmac=UNSIGNED,
        )  # fmt: skip
        self.turn(completion.report, signed(message, SECRET))

    def checked(self, says: Left | None, outcome: Outcome = Outcome.NOT_STARTED) -> None:
        """A check comes back: `profile` is erased; of `orders` the system says this."""
        if self.task.status is TaskStatus.SCHEDULED:
            self.due()
        lease = self.lease()
        reason = "withdrawn" if outcome is Outcome.NOT_STARTED else None
        message = Completed(
            **SAID, attempt=lease.attempt, lease_id=lease.lease_id, digest=lease.digest, mode=lease.mode, searched=(),
            outcomes=(
                CategoryOutcome(category="profile", outcome=Outcome.ERASED, count=1),
                CategoryOutcome(category="orders", outcome=outcome, count=1, reason=reason),
            ),
            left=says, checked_at=self.now, hmac=UNSIGNED,
        )  # fmt: skip
        self.turn(completion.report, signed(message, SECRET))

    def failed(self, *left: str, intent: Intent = Intent.RETRY) -> None:
        """The attempt fails, and the worker names these as not done."""
        if self.task.status is TaskStatus.SCHEDULED:
            self.due()
        message = Failed(
            **SAID, attempt=self.task.attempt, error="read_timeout", intent=intent, lease_id=self.lease().lease_id,
            left=left or None,
        )  # fmt: skip
        self.turn(completion.report, message)

    def decided(self, decision: Decision) -> None:
        ground = "own.not-this-person" if decision is Decision.REFUSE else None
        decided = ev.TaskDecided(
            system="shop", decision=decision, person="staff:kato", at=self.now, reason="x", ground=ground, command=AT
        )
        message = admission.Decide(log="l", request_id=RID, attempt=self.task.attempt, decided=decided)
        self.turn(admission.decide, message)

    def ended(self) -> dict[str, str]:
        assert self.task.status is TaskStatus.ENDED
        return {o.category: o.outcome.value for o in self.task.outcomes}


def _case() -> ev.Case:
    return ev.Case(
        request_id=RID, action=Action.ERASE, scope=Scope(), regime=Regime.APPI, ground="appi.35-5",
        requested_by=Requester(kind="person"), assessed=Assessment(by="staff:aoi", at=NOW),
        arrival=Arrival(at=NOW, channel="web:form"), due=NOW + timedelta(days=400), alarms=(), notice_language="ja",
        fingerprint="f" * 64, subject=("1" * 64,), plan_hash="9" * 64, sealed={"shop": ("x",)}, command=AT,
    )  # fmt: skip


IN_TIME = Left(check_after_seconds=600)
LATE = Left(check_after_seconds=5, late=True)


@pytest.fixture
def story() -> Story:
    made = Story()
    made.accepted()
    return made


def test_in_time_it_is_waited_for_patiently_and_costs_no_attempt(story: Story) -> None:
    for _ in range(40):
        story.checked(IN_TIME)
        assert story.task.status is TaskStatus.SCHEDULED
        assert story.task.next_at == story.now + timedelta(seconds=600)
        assert (story.task.spent, story.task.reason, story.task.left) == (0, "under_way", ("orders",))
        assert not story.task.is_late(story.now)
    story.checked(None, Outcome.ERASED)
    assert story.ended() == {"profile": "erased", "orders": "erased"}


def test_past_its_date_it_is_late_and_not_done_and_a_person_is_asked_in_the_end(story: Story) -> None:
    story.checked(LATE)
    assert story.task.status.value == "scheduled"
    assert story.task.next_at == story.now + timedelta(seconds=60), "by the ledger's own schedule"
    assert (story.task.reason, story.task.left) == ("overdue_there", ("orders",))
    shown = story.state.public(story.now).tasks[0]
    assert (shown.late, shown.left) == (True, ("orders",))
    story.due()
    assert story.task.is_late(story.now), "it stays late while it is being looked at"
    while story.task.status is not TaskStatus.HELD:
        story.checked(LATE)
        assert story.task.is_late(story.now)
        assert story.task.attempt < 10
    assert story.task.reason == "attempts_spent"
    assert story.task.left == ("orders",)


def test_nothing_waits_silently_for_a_worker_that_is_not_there(story: Story) -> None:
    """Whoever asks sees it late at the moment it should have been heard of, whatever has been written since."""
    moment = story.now + timedelta(seconds=60)
    sent = story.task.model_copy(update={"status": TaskStatus.OPEN, "attempt": 1, "next_at": moment, "reason": None})
    state = story.state.model_copy(update={"tasks": {"shop": sent}})
    told = state.public(moment - timedelta(seconds=1)).tasks[0]
    assert told.late is None
    assert told.reason != "silent"
    told = state.public(moment).tasks[0]
    assert (told.late, told.reason) == (True, "silent")


def test_a_look_that_is_over_is_in_nobodys_way(story: Story) -> None:
    """Its lease may live on for seconds; nobody acts under it."""
    story.checked(IN_TIME)
    looked = story.leases.pop()
    story.leases.append(replace(looked, until=story.now + timedelta(hours=1)))
    story.due()
    assert story.task.status is TaskStatus.OPEN
    assert story.task.attempt == looked.attempt + 1


def test_an_act_that_may_go_on_is_waited_for(story: Story) -> None:
    acting = story.leases.pop()
    story.leases.append(replace(acting, until=story.now + timedelta(hours=1)))
    story.due()
    assert story.task.status is TaskStatus.SCHEDULED


def test_what_is_late_may_still_be_done(story: Story) -> None:
    story.checked(LATE)
    story.checked(None, Outcome.NOT_FOUND)
    assert story.ended() == {"profile": "erased", "orders": "not_found"}
    assert not story.task.late


def test_a_new_date_in_time_is_late_no_longer(story: Story) -> None:
    story.checked(LATE)
    story.checked(IN_TIME)
    assert not story.task.is_late(story.now)
    assert story.task.reason == "under_way"


def test_who_puts_its_date_off_again_and_again_is_late_too(story: Story) -> None:
    story.state = story.state.model_copy(
        update={"tasks": {"shop": story.task.model_copy(update={"attempt": completion.PATIENCE})}}
    )
    story.checked(IN_TIME)
    assert story.task.is_late(story.now)
    assert story.task.reason == "overdue_there"


def test_what_is_declined_goes_to_a_person_and_nothing_of_the_rest_is_lost(story: Story) -> None:
    story.checked(Left(asks="said_no"))
    assert story.task.status is TaskStatus.HELD
    assert (story.task.reason, story.task.left) == ("handler_asks", ("orders",))
    assert story.task.attempts[-1].error == "said_no"
    story.decided(Decision.REFUSE)
    assert story.task.mode is Mode.CHECK
    story.checked(Left(asks="said_no"))
    assert story.ended() == {"profile": "erased", "orders": "refused"}


def test_what_is_declined_is_asked_for_anew_where_a_person_says_so(story: Story) -> None:
    story.checked(Left(asks="said_no"))
    story.decided(Decision.RETRY)
    assert story.task.mode is Mode.ACT


def test_what_is_declined_shows_while_the_rest_is_under_way(story: Story) -> None:
    story.checked(Left(check_after_seconds=600, asks="said_no"))
    assert story.task.status is TaskStatus.SCHEDULED
    assert story.task.reason == "said_no"
    assert story.task.is_late(story.now)


def test_a_person_may_give_up_what_is_late(story: Story) -> None:
    while story.task.status is not TaskStatus.HELD:
        story.checked(LATE)
    story.decided(Decision.REFUSE)
    story.checked(LATE)
    assert story.ended() == {"profile": "erased", "orders": "refused"}


def test_after_a_withdrawal_what_is_under_way_is_waited_for_all_the_same(story: Story) -> None:
    """It may yet be erased: nothing may say that it was not begun."""
    story.turn(admission.withdraw, admission.Withdraw(log="l", request_id=RID, command=AT))
    story.checked(IN_TIME)
    assert story.task.status is TaskStatus.SCHEDULED
    story.checked(None)
    assert story.ended() == {"profile": "erased", "orders": "not_started"}


def test_a_report_of_before_changes_nothing_for_what_is_held(story: Story) -> None:
    story.checked(Left(asks="said_no"))
    held = story.task
    story.checked(IN_TIME)
    assert story.task == held


def test_what_a_check_finds_left_without_a_word_is_acted_on_again(story: Story) -> None:
    """A job that failed, or said that it was done: to look again and again would change nothing."""
    story.checked(None)
    assert (story.task.mode, story.task.status, story.task.reason) == (Mode.CHECK, TaskStatus.SCHEDULED, "not_done_yet")
    story.due()
    assert story.task.mode is Mode.ACT


def test_what_is_taken_back_meanwhile_is_not_acted_on_again(story: Story) -> None:
    story.checked(None)
    story.turn(admission.withdraw, admission.Withdraw(log="l", request_id=RID, command=AT))
    assert story.task.mode is Mode.CHECK


def test_who_is_not_done_is_named_while_attempts_fail_and_is_not_late_by_that(story: Story) -> None:
    story.failed("orders")
    shown = story.state.public(story.now).tasks[0]
    assert (shown.status, shown.reason, shown.left) == (TaskStatus.SCHEDULED, "read_timeout", ("orders",))
    assert shown.late is None
    story.due()
    assert story.task.left == ("orders",), "also while the next attempt is under way"
    assert not story.task.is_late(story.now)


def test_who_is_not_done_is_named_also_while_an_act_is_tried_again() -> None:
    story = Story()
    story.failed("orders")
    story.due()
    assert (story.task.mode, story.task.status) == (Mode.ACT, TaskStatus.OPEN)
    assert (story.task.left, story.task.late) == (("orders",), False)


def test_names_that_are_not_of_the_task_are_dropped(story: Story) -> None:
    story.failed("orders", "somebody_else")
    assert story.task.left == ("orders",)


def test_a_failure_that_names_nobody_leaves_what_was_known(story: Story) -> None:
    story.failed("orders")
    story.failed()
    assert story.task.left == ("orders",)


def test_the_person_who_is_asked_in_the_end_sees_who_it_was(story: Story) -> None:
    while story.task.status is not TaskStatus.HELD:
        assert story.task.attempt < 10
        story.failed("orders")
    assert (story.task.reason, story.task.left) == ("attempts_spent", ("orders",))


def test_a_handler_that_asks_a_person_may_name_whom_it_is_about(story: Story) -> None:
    story.failed("orders", intent=Intent.PERSON)
    assert (story.task.status, story.task.reason, story.task.left) == (TaskStatus.HELD, "handler_asks", ("orders",))


def test_what_was_late_stays_late_when_a_look_fails(story: Story) -> None:
    story.checked(LATE)
    story.failed("orders")
    assert story.task.is_late(story.now)
