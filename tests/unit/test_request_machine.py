"""A request under any sequence of inputs, played against a model of one system. Pure: no clock, no I/O."""

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from keshi.orchestrator import admission, closure, completion, deadlines
from keshi.orchestrator import events as ev
from keshi.orchestrator.begin import Given, Later, Refused, answer, counts, unite
from keshi.orchestrator.context import Context, Lease, Leases, Policy
from keshi.orchestrator.dispatch import lists, task_message
from keshi.orchestrator.plan import inventory_hash, make_plan
from keshi.orchestrator.request import State, replay
from keshi.orchestrator.turn import Turn
from keshi.schemas.base import canonical
from keshi.schemas.closure import GENESIS, ClosureRecord
from keshi.schemas.commands import Action, Arrival, Assessment, Decision, Regime, Requester, Scope
from keshi.schemas.outcomes import CategoryOutcome, Outcome
from keshi.schemas.reports import UNSIGNED, Completed, Failed, HandlerVersion, Intent, Left, signed
from keshi.schemas.requests import Coordinates, RequestState, RequestStatus, TaskStatus
from keshi.schemas.tasks import Begin, Found, Mode, PerformTasks
from keshi.schemas.writing import sent, whole
from kit.samples import inventory

START = datetime(2026, 11, 2, tzinfo=UTC)
AT = Coordinates(topic="commands", partition=0, offset=0)
RID = "01J00000000000000000000001"
INVENTORY = inventory(mail={"actions": None}, shop={"record_limit": 4})
PLANS = {
    action: make_plan(INVENTORY, inventory_hash(INVENTORY), action, Scope(), ["email"])
    for action in (Action.ERASE, Action.SUSPEND_USE)
}
HASHES = {Action.ERASE: "9" * 64, Action.SUSPEND_USE: "8" * 64}
WORDS = {Action.ERASE: Outcome.ERASED, Action.SUSPEND_USE: Outcome.SUSPENDED}
LATER = "01J00000000000000000000002"
SECRET = "5" * 64
HANDLER = HandlerVersion(name="model", version="1")
SAYS = (
    Left(check_after_seconds=5),
    Left(check_after_seconds=5, late=True),
    Left(asks="declined"),
    Left(check_after_seconds=5, asks="declined"),
)


def case(action: Action) -> ev.Case:
    return ev.Case(
        request_id=RID,
        action=action,
        scope=Scope(),
        regime=Regime.APPI,
        ground="appi.35-5",
        requested_by=Requester(kind="person"),
        assessed=Assessment(by="staff:aoi", at=START),
        arrival=Arrival(at=START, channel="web:form"),
        due=START + timedelta(days=14),
        alarms=(START + timedelta(days=3),),
        notice_language="ja",
        fingerprint="f" * 64,
        subject=("1" * 64,),
        plan_hash=HASHES[action],
        sealed={"shop": ("x",)},
        command=AT,
    )


class Machine(RuleBasedStateMachine):
    """One request for a shop: to erase, or to suspend. The shop's records are a set, without those with which it was
    done; the model knows what was ever done.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = START
        self.state = State(request_id=RID, partition=0)
        self.history: list[tuple[Any, datetime]] = []
        self.leases: list[Lease] = []
        self.manifests: list[tuple[Found, ...]] = []
        self.unions: dict[str, tuple[Found, ...]] = {}
        self.asked: dict[str, Mode] = {}
        self.destroyed: set[str] = set()
        self.record: Any = None
        self.policy = Policy(lease_seconds=10, max_attempts=3, max_acts=3, retry_schedule=(60,))

    @initialize(
        records=st.sets(st.sampled_from([f"r{n}" for n in range(6)]), max_size=6), action=st.sampled_from([*PLANS])
    )
    def stock(self, records: set[str], action: Action) -> None:
        self.shop = set(records)
        self.action = action
        self.plan = PLANS[action]

    # --- helpers

    def context(self) -> Context:
        return Context(
            policy=self.policy,
            plan=lambda name: next(PLANS[a] for a, h in HASHES.items() if h == name),
            lease_secret=lambda _: SECRET,
            leases=Leases({"shop": tuple(self.leases)}),
            number=lambda: 1,
            passed=frozenset({("shop", self.state.tasks["shop"].attempt)} if self.state.tasks else ()),
        )

    def turn(self, decide: Any, *inputs: Any) -> Turn:
        turn = Turn(self.state, self.now, self.context())
        decide(turn, *inputs)
        if turn.state.all_ended and not turn.state.closed:
            chain = closure.Chain(0, GENESIS)
            unions = {"shop": unite(self.manifests)}
            closed = closure.close(turn.state, self.plan, unions, chain, self.now, plan_text=canonical(self.plan))
            turn.add(closed.event)
            assert ClosureRecord.model_validate_json(closed.text) == closed.record
            self.record = closed.record
        self.state = turn.state
        self.history.extend((e, self.now) for e in turn.events)
        return turn

    @property
    def task(self) -> Any:
        return self.state.tasks.get("shop")

    # --- inputs

    @rule()
    def submit(self) -> None:
        before = self.state
        turn = self.turn(
            admission.submit,
            admission.Submit(log="l", request_id=RID, case=case(self.action), kek_id="k", wrapped_key="00"),
        )
        if before.case is not None:
            assert [type(e) for e in turn.events] == [ev.CommandRepeated]

    @rule()
    def withdraw(self) -> None:
        self.turn(admission.withdraw, admission.Withdraw(log="l", request_id=RID, command=AT))

    @rule(known=st.booleans())
    def supersede(self, known: bool) -> None:
        """An erasure of the same person, named by all that this request names them by, or by something else."""
        before = self.state
        asked = admission.Supersede(
            request_id=RID, by=LATER, plan_hash=HASHES[Action.ERASE], subject=(("1" if known else "2") * 64,)
        )
        self.turn(admission.supersede, asked)
        gives_way = known and before.case is not None and self.action is Action.SUSPEND_USE
        if not gives_way or before.closed or before.withdrawn:
            assert self.state.superseded_by == before.superseded_by

    @rule(seconds=st.sampled_from([1, 5, 11, 61, 90_000, 400_000]))
    def time_passes(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)
        self.turn(deadlines.due)

    @precondition(lambda self: self.task is not None)
    @rule(mode=st.sampled_from(Mode), stale=st.booleans())
    def begin(self, mode: Mode, stale: bool) -> None:
        attempt = max(1, self.task.attempt - stale)
        found = tuple(Found(category="profile", ref=r) for r in sorted(self.shop))
        question = Begin(
            request_id=RID,
            system="shop",
            attempt=attempt,
            begin_id=f"{len(self.asked):032x}",
            mode=mode,
            manifest=found,
        )
        self.asked[question.begin_id] = mode
        union = unite([*self.manifests, found])
        got = answer(
            self.state,
            self.plan.task("shop"),
            Leases({"shop": tuple(self.leases)}),
            question,
            union,
            _digest(union),
            self.now,
            self.policy,
        )
        if isinstance(got, Later):
            assert any(x.alive(self.now) for x in self.leases)
            return
        granted = isinstance(got, Given)
        if granted:
            self._may_be_given(mode)
        if granted or (isinstance(got, Refused) and got.evidence):
            self.manifests.append(found)
            self.unions[question.begin_id] = union
            self.leases.append(
                Lease(
                    begin_id=question.begin_id,
                    lease_id=question.begin_id if granted else "",
                    system="shop",
                    attempt=attempt,
                    mode=mode,
                    at=self.now,
                    granted_at=self.now if granted else None,
                    until=self.now + timedelta(seconds=10) if granted else None,
                    digest=_digest(union),
                    counts=counts(union),
                )
            )

    def _may_be_given(self, mode: Mode) -> None:
        """no-act-without-go: what the model says about it."""
        assert self.state.status is RequestStatus.OPEN
        assert self.task.status is TaskStatus.OPEN
        assert not any(x.alive(self.now) and x.mode is Mode.ACT for x in self.leases)
        if mode is Mode.ACT:
            assert not self.state.withdrawn
            assert not self.state.superseded_by
            assert self.task.refusal is None

    @precondition(lambda self: bool(self.leases))
    @rule(n=st.integers(0, 20), much=st.integers(0, 6))
    def act(self, n: int, much: int) -> None:
        """Somebody acts under a lease that lives, perhaps only on a part."""
        lease = self.leases[n % len(self.leases)]
        if lease.mode is Mode.ACT and lease.alive(self.now):
            for item in self.unions[lease.begin_id][:much]:
                self.shop.discard(item.ref)
                self.destroyed.add(item.ref)

    @precondition(lambda self: bool(self.leases))
    @rule(n=st.integers(0, 20), says=st.sampled_from([None, *SAYS]))
    def complete(self, n: int, says: Left | None) -> None:
        """An honest worker reports what it sees of its union, and what the shop says of that which is not done."""
        lease = self.leases[n % len(self.leases)]
        if not lease.granted_at:
            return
        union = self.unions[lease.begin_id]
        left = [i for i, f in enumerate(union) if f.ref in self.shop]
        if left and lease.mode is not Mode.CHECK:
            return
        gone = [i for i in range(len(union)) if i not in left]
        said = [CategoryOutcome(category="orders", outcome=Outcome.NOT_FOUND)]
        if gone or not left:
            word = WORDS[self.action] if gone else Outcome.NOT_FOUND
            said.append(CategoryOutcome(category="profile", outcome=word, count=len(gone), items=tuple(gone)))
        if left:
            said.append(
                CategoryOutcome(
                    category="profile",
                    outcome=Outcome.NOT_STARTED,
                    count=len(left),
                    items=tuple(left),
                    reason="withdrawn",
                )
            )
        report = Completed(
            request_id=RID, system="shop", attempt=lease.attempt, handler=HANDLER, at=self.now, mode=lease.mode,
            lease_id=lease.lease_id, digest=lease.digest, searched=(), outcomes=tuple(said), checked_at=self.now,
            left=says if left else None, hmac=UNSIGNED,
        )  # fmt: skip
        self.turn(completion.report, signed(report, SECRET))

    @precondition(lambda self: self.task is not None)
    @rule(error=st.sampled_from(["unavailable", "over_limit", "acts_spent", "ambiguous"]))
    def fail(self, error: str) -> None:
        intent = Intent.RETRY if error == "unavailable" else Intent.PERSON
        self.turn(
            completion.report,
            Failed(
                request_id=RID, system="shop", attempt=max(1, self.task.attempt), handler=HANDLER, at=self.now,
                error=error, intent=intent,
            ),
        )  # fmt: skip

    @precondition(lambda self: self.task is not None and self.task.status is TaskStatus.HELD)
    @rule(decision=st.sampled_from(Decision))
    def decide(self, decision: Decision) -> None:
        decided = ev.TaskDecided(
            system="shop", decision=decision, person="staff:kato", at=self.now, reason="x",
            ground="own.not-this-person" if decision is Decision.REFUSE else None,
            digest=self.task.held_digest, command=AT,
        )  # fmt: skip
        self.turn(
            admission.decide, admission.Decide(log="l", request_id=RID, attempt=self.task.attempt, decided=decided)
        )

    # --- what always holds

    @invariant()
    def the_projection_is_what_the_events_lead_to(self) -> None:
        assert replay(RID, 0, self.history) == self.state
        assert self.state.sequence == len(self.history)

    @invariant()
    def what_is_kept_can_be_read_again(self) -> None:
        if self.history:
            assert [ev.EVENTS.validate_json(whole(e)) for e, _ in self.history[-3:]] == [
                e for e, _ in self.history[-3:]
            ]
        assert State.model_validate_json(self.state.stored()) == self.state.model_copy(update={"case": None})

    @invariant()
    def what_is_told_is_what_was_published(self) -> None:
        if self.state.case is not None:
            said = self.state.public(self.now)
            assert RequestState.model_validate_json(sent(said)) == said
            open_tasks = [t.system for t in self.state.tasks.values() if t.status is TaskStatus.OPEN]
            for told in lists([task_message(self.state, self.plan, s, self.now) for s in open_tasks], 0):
                assert PerformTasks.model_validate_json(sent(told)) == told

    @invariant()
    def nothing_waits_silently(self) -> None:
        if self.state.case is not None and not self.state.closed:
            assert self.state.next_due() is not None
            assert self.task.ended or self.task.next_at is not None

    @invariant()
    def one_closure_and_no_false_one(self) -> None:
        closings = [e for e, _ in self.history if isinstance(e, ev.RequestClosed)]
        assert len(closings) <= 1
        if self.record is None:
            return
        said = self.record.done()
        assert said.get(WORDS[self.action], 0) == len(self.destroyed), "what was done is what the record says"
        assert self.record.superseded_by == self.state.superseded_by

    @invariant()
    def nothing_is_destroyed_that_is_no_evidence(self) -> None:
        assert self.destroyed <= {f.ref for m in self.manifests for f in m}


def _digest(union: tuple[Found, ...]) -> str:
    return f"{abs(hash(tuple((f.category, f.ref) for f in union))):064x}"[-64:]


Machine.TestCase.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
TestRequest = Machine.TestCase
