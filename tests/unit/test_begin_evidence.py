"""What reports mean in the light of all evidence, also of what came in without a go."""

from datetime import UTC, datetime, timedelta
from typing import Any

from keshi.orchestrator import completion
from keshi.orchestrator import events as ev
from keshi.orchestrator.context import Context, Lease, Leases, Policy
from keshi.orchestrator.request import State, evolve
from keshi.orchestrator.turn import Turn
from keshi.schemas.commands import Action, Arrival, Assessment, Regime, Requester, Scope
from keshi.schemas.outcomes import CategoryOutcome, Outcome
from keshi.schemas.reports import UNSIGNED, Completed, HandlerVersion, signed
from keshi.schemas.requests import TaskStatus
from keshi.schemas.tasks import Mode
from kit.seeding import ARRIVED, WHERE, plan, request_in

NOW = datetime(2026, 4, 1, 12, tzinfo=UTC)
ONE = request_in(0)
SECRET = "5" * 64
PLAN = plan(identify=True)


def evidence(letter: str, ago: float, *, go: bool = True, found: int = 2, mode: Mode = Mode.ACT) -> Lease:
    at = NOW - timedelta(seconds=ago)
    return Lease(
        begin_id=letter * 32,
        lease_id=letter * 32 if go else "",
        system="crm",
        attempt=1,
        mode=mode,
        at=at,
        granted_at=at if go else None,
        until=at + timedelta(seconds=10) if go else None,
        digest=str(found) * 64,
        counts={"contacts": found},
        learned={"recordings": ("x.y.z",)} if mode is Mode.IDENTIFY else {},
    )


def turn(mode: Mode, *known: Lease, then: tuple[Any, ...] = ()) -> Turn:
    case = ev.Case(
        request_id=ONE,
        action=Action.ERASE,
        scope=Scope(),
        regime=Regime.APPI,
        ground="appi.35-5",
        requested_by=Requester(kind="person"),
        assessed=Assessment(by="staff:kato", at=ARRIVED),
        arrival=Arrival(at=ARRIVED, channel="form:web"),
        due=NOW + timedelta(days=9),
        notice_language="ja",
        fingerprint="f" * 64,
        subject=("e" * 64,),
        plan_hash="0" * 64,
        sealed={"billing": ("a",), "crm": ("b",), "recordings": ()},
        command=WHERE,
    )
    sent = ev.TaskDispatched(system="crm", attempt=1, mode=mode, next_at=NOW)
    state = State(request_id=ONE, partition=0)
    for event in (ev.RequestAccepted(case=case, number=1), sent, *then):
        state = evolve(state, event, NOW)
    # As the ledger gives them: those with a go first, by their number.
    ordered = sorted(known, key=lambda x: (x.granted_at is None, x.at))
    ctx = Context(Policy(), lambda _: PLAN, lambda _: SECRET, Leases({"crm": tuple(ordered)}))
    return Turn(state, NOW, ctx)


def completed(lease: Lease) -> Any:
    report = Completed(
        request_id=ONE,
        system="crm",
        attempt=1,
        handler=HandlerVersion(name="model", version="1"),
        at=NOW,
        mode=lease.mode,
        lease_id=lease.lease_id,
        digest=lease.digest,
        searched=(),
        outcomes=(CategoryOutcome(category="contacts", outcome=Outcome.ERASED, count=2),),
        checked_at=NOW,
        hmac=UNSIGNED,
    )
    return signed(report, SECRET)


def test_a_check_of_everything_that_was_ever_found_ends_the_task() -> None:
    lease = evidence("a", 60)
    t = turn(Mode.ACT, lease)
    completion.report(t, completed(lease))
    assert t.state.tasks["crm"].status is TaskStatus.ENDED


def test_no_false_closure_where_an_attempt_without_a_go_has_found_more_since() -> None:
    """The report is true of its own union, and says nothing of the record that was found behind it."""
    lease = evidence("a", 60)
    t = turn(Mode.ACT, lease, evidence("b", 20, go=False, found=3))
    completion.report(t, completed(lease))
    assert t.state.tasks["crm"].status is TaskStatus.SCHEDULED


def test_a_late_report_does_not_take_a_task_from_the_person_who_was_asked() -> None:
    lease = evidence("a", 60)
    held = ev.TaskHeld(system="crm", attempt=1, reason="acts_spent", next_at=NOW)
    t = turn(Mode.ACT, lease, evidence("b", 20, go=False, found=3), then=(held,))
    completion.report(t, completed(lease))
    assert t.state.tasks["crm"].status is TaskStatus.HELD


def test_evidence_without_a_go_that_a_later_go_covers_changes_nothing() -> None:
    refused, lease = evidence("a", 60, go=False, found=1), evidence("b", 20)
    t = turn(Mode.ACT, refused, lease)
    assert t.ctx.leases.newest_evidence("crm") is lease
    completion.report(t, completed(lease))
    assert t.state.tasks["crm"].status is TaskStatus.ENDED


def test_what_a_source_learned_counts_once_however_often_it_is_said() -> None:
    lease = evidence("a", 5, mode=Mode.IDENTIFY)
    t = turn(Mode.IDENTIFY, lease)
    completion.report(t, completed(lease))
    assert t.state.accepted.sealed["recordings"] == ("x.y.z",)
    before = t.state
    completion.report(t, completed(lease))
    assert t.state == before
