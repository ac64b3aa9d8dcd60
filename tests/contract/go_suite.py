"""`unwrap` and `begin` on a real ledger: what is kept before anything is destroyed, and who gets the go.

A ledger inherits `GoSuite` and gives the fixture `store`.
"""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any, Protocol
from uuid import uuid4

import pytest

from keshi.orchestrator import events as ev
from keshi.orchestrator.context import Policy
from keshi.orchestrator.go import BeginInvalid, GoService
from keshi.orchestrator.ledger.port import Batch, Ledger
from keshi.schemas.commands import Action, Decision
from keshi.schemas.identifiers import Identifier
from keshi.schemas.tasks import Begin, Found, Go, Mode, Stop, TaskRef, Wait
from kit import asking
from kit.seeding import HANAKO, PARTITIONS, WHERE, Seeder, new_keys, plan

POLICY = Policy(lease_seconds=30, max_acts=2, recheck_seconds=5)
ONE, TWO, THREE = (Found(category="invoices", ref=f"4711-{n}") for n in (1, 2, 3))


class Store(Protocol):
    """A store that is migrated, and a way past what guards it."""

    def open(self) -> Ledger: ...
    def tamper(self, table: str, change: str) -> None:
        """UPDATE a whole table of facts, as somebody could who owns the database."""


def lapse(store: Store) -> None:
    """Let every lease be over, as if time had passed."""
    store.tamper("evidence", "until = CASE WHEN lease_id IS NOT NULL THEN at END")


def question(request_id: str, *found: Found, attempt: int = 1, system: str = "billing", **more: Any) -> Begin:
    more = {"begin_id": uuid4().hex, "searched": ("email",), **more}
    return Begin(request_id=request_id, system=system, attempt=attempt, manifest=found, **more)


def ask(go: GoService, *questions: Begin, caller: str = "billing") -> tuple[Any, ...]:
    return asking.begin(go, caller, *questions)


def evidence_of(seed: Seeder, request_id: str) -> Any:
    with seed.ledger.reader() as view:
        return view.leases([request_id])[request_id]


def unwrap(go: GoService, caller: str, *refs: tuple[str, str, int]) -> Any:
    return asking.unwrap(go, caller, *(TaskRef(request_id=r, system=s, attempt=a) for r, s, a in refs))


class GoSuite:
    """The contract."""

    @pytest.fixture
    def store(self) -> Store:
        raise NotImplementedError

    @pytest.fixture
    def seed(self, store: Store) -> Seeder:
        ledger = store.open()
        return Seeder(ledger, new_keys(ledger))

    @pytest.fixture
    def go(self, seed: Seeder) -> GoService:
        return GoService(seed.ledger, seed.keys, POLICY, PARTITIONS)

    # --- unwrap

    def test_a_worker_gets_the_identifiers_that_its_system_declared(self, seed: Seeder, go: GoService) -> None:
        one, two = seed.request(partition=0), seed.request(partition=3)
        billing = unwrap(go, "billing", (one, "billing", 1), (two, "billing", 1))
        assert [t.identifiers for t in billing] == [HANAKO, HANAKO]
        (crm,) = unwrap(go, "crm", (one, "crm", 1))
        assert crm.identifiers == (HANAKO[0],)

    def test_a_worker_sees_only_own_and_open_tasks(self, seed: Seeder, go: GoService) -> None:
        one, stranger = seed.request(), str(uuid4())
        asked = unwrap(go, "billing", (one, "crm", 1), (one, "billing", 2), (stranger, "billing", 1))
        assert [(t.open, t.reason, t.identifiers) for t in asked] == [
            (False, "unknown", ()),
            (False, "other_attempt", ()),
            (False, "unknown", ()),
        ]

    def test_a_destroyed_key_reads_as_closed(self, seed: Seeder, go: GoService) -> None:
        """Also where it was opened a moment before."""
        one = seed.request()
        assert unwrap(go, "billing", (one, "billing", 1))[0].open
        with seed.cycle(0) as tx:
            tx.write(Batch(keys_destroyed=[one]))
        (asked,) = unwrap(go, "billing", (one, "billing", 1))
        assert (asked.open, asked.reason) == (False, "closed")
        assert ask(go, question(one, ONE)) == (Stop(request_id=one, system="billing", reason="closed"),)

    def test_lifting_a_suspension_lifts_what_was_suspended_and_nothing_else(self, seed: Seeder, go: GoService) -> None:
        elder = seed.request(action=Action.SUSPEND_USE)
        name = seed.suspension(elder, "billing", (ONE, TWO))
        one = seed.request(action=Action.RESUME_USE, suspensions={"billing": (name,)})
        (asked,) = unwrap(go, "billing", (one, "billing", 1))
        assert asked.remembered == (ONE, TWO)
        (answer,) = ask(go, question(one, TWO, THREE))
        assert answer.union == (TWO,)

    def test_a_lifted_suspension_is_remembered_no_more(self, seed: Seeder, go: GoService) -> None:
        elder = seed.request(action=Action.SUSPEND_USE)
        name = seed.suspension(elder, "billing", (ONE,))
        with seed.cycle(0) as tx:
            tx.write(Batch(obligations_met=[(name, 2)], keys_destroyed=[name]))
        one = seed.request(action=Action.RESUME_USE, suspensions={"billing": (name,)})
        assert unwrap(go, "billing", (one, "billing", 1))[0].remembered == ()
        assert ask(go, question(one, ONE))[0].union == ()

    # --- begin

    def test_evidence_survives(self, seed: Seeder, go: GoService) -> None:
        """What the attempt found is in the ledger, sealed, with the go that was given for it."""
        one = seed.request()
        (answer,) = ask(go, question(one, TWO, ONE))
        assert isinstance(answer, Go)
        assert answer.union == (ONE, TWO)
        assert answer.seconds == POLICY.lease_seconds
        assert answer.secret == seed.keys.lease_secret(answer.lease_id)
        lease = evidence_of(seed, one).newest("billing")
        assert (lease.lease_id, lease.digest, dict(lease.counts)) == (answer.lease_id, answer.digest, {"invoices": 2})
        assert lease.searched == ("email",)
        assert lease.until - lease.granted_at == timedelta(seconds=POLICY.lease_seconds)
        with seed.ledger.begins(0) as tx:
            sealed = tx.entries([one], "billing")[one][0].manifest
        assert "4711" not in sealed
        assert seed.keys.open_manifest(seed.of[one], "billing", sealed) == (ONE, TWO)

    def test_the_same_begin_id_gets_the_same_answer_and_renews_the_lease(self, seed: Seeder, go: GoService) -> None:
        one = seed.request()
        asked = question(one, ONE)
        (first,) = ask(go, asked)
        before = evidence_of(seed, one).newest("billing").until
        (again,) = ask(go, asked)
        (without,) = ask(go, asked.model_copy(update={"manifest": ()}))
        assert again == first == without
        found = evidence_of(seed, one)
        assert len(found.of["billing"]) == 1
        assert found.newest("billing").until > before

    def test_no_second_go_while_a_lease_lives(self, seed: Seeder, go: GoService) -> None:
        one = seed.request()
        ask(go, question(one, ONE))
        (answer,) = ask(go, question(one, TWO))
        assert isinstance(answer, Wait)
        assert (answer.reason, 0 < answer.seconds <= POLICY.lease_seconds) == ("lease_held", True)
        assert len(evidence_of(seed, one).of["billing"]) == 1, "who has to wait asks again with what it finds then"

    def test_a_later_attempt_gets_the_union_of_all_attempts(self, seed: Seeder, go: GoService, store: Store) -> None:
        """The first attempt may have deleted the row that led to the rest."""
        one = seed.request()
        (first,) = ask(go, question(one, ONE, TWO))
        lapse(store)
        seed.happen(one, seed.dispatched("billing", 2))
        (second,) = ask(go, question(one, THREE, attempt=2))
        assert second.union == (ONE, TWO, THREE)
        assert second.digest != first.digest
        assert second.lease_id != first.lease_id
        lease = evidence_of(seed, one).newest("billing")
        assert (dict(lease.counts), lease.digest) == ({"invoices": 3}, second.digest)

    def test_acts_entered_are_counted_and_what_was_found_is_kept_all_the_same(
        self, seed: Seeder, go: GoService, store: Store
    ) -> None:
        one = seed.request()
        for _ in range(POLICY.max_acts):
            assert isinstance(ask(go, question(one, ONE))[0], Go)
            lapse(store)
        asked = question(one, TWO)
        assert ask(go, asked)[0].reason == "acts_spent"
        assert ask(go, asked)[0].reason == "acts_spent"
        found = evidence_of(seed, one)
        assert [bool(x.granted_at) for x in found.of["billing"]] == [True, True, False]
        assert dict(max(found.of["billing"], key=lambda x: x.at).counts) == {"invoices": 2}

    def test_more_than_the_limit_waits_for_the_person_who_saw_these_records(self, seed: Seeder, go: GoService) -> None:
        one = seed.request(made=plan(limit=1))
        (answer,) = ask(go, question(one, ONE, TWO))
        assert answer.reason == "over_limit"
        digest = evidence_of(seed, one).newest_evidence("billing").digest
        decided = ev.TaskDecided(
            system="billing",
            decision=Decision.APPROVE,
            person="staff:kato",
            at=seed.now,
            reason="sealed",
            digest=digest,
            command=WHERE,
        )
        seed.happen(one, decided, seed.dispatched("billing", 2))
        assert isinstance(ask(go, question(one, ONE, TWO, attempt=2))[0], Go)

    def test_one_refused_task_harms_no_other_of_the_list(self, seed: Seeder, go: GoService) -> None:
        one, two, late = seed.request(partition=1), seed.request(partition=1), seed.request(partition=2)
        seed.happen(two, ev.WithdrawalRecorded(command=WHERE))
        answers = ask(go, question(two, ONE), question(one, ONE), question(late, TWO), question(one, ONE, system="crm"))
        assert [a.answer for a in answers] == ["stop", "go", "go", "stop"]
        assert [a.request_id for a in answers] == [two, one, late, one]
        assert answers[0].reason == "withdrawn"
        assert answers[3].reason == "unknown"

    def test_evidence_that_cannot_be_opened_stops_its_own_task_alone(
        self, seed: Seeder, go: GoService, store: Store
    ) -> None:
        one, two = seed.request(), seed.request()
        ask(go, question(one, ONE))
        store.tamper("evidence", "manifest = 'x.y.z'")
        answers = ask(go, question(one, TWO), question(two, ONE))
        assert [(a.answer, getattr(a, "reason", None)) for a in answers] == [("wait", "unreadable"), ("go", None)]

    def test_a_begin_id_that_belongs_to_another_task_is_not_recorded(self, seed: Seeder, go: GoService) -> None:
        """Two tasks cannot share one, also not at different times; the other task of the list gets its go."""
        one, two, three = seed.request(), seed.request(), seed.request()
        asked = question(one, ONE)
        ask(go, asked)
        stolen = question(two, ONE, begin_id=asked.begin_id)
        answers = ask(go, stolen, question(three, ONE))
        assert [(a.answer, getattr(a, "reason", None)) for a in answers] == [("wait", "not_recorded"), ("go", None)]

    def test_questions_that_contradict_themselves_or_the_plan_are_refused_by_field(
        self, seed: Seeder, go: GoService
    ) -> None:
        one, two = seed.request(), seed.request()
        with pytest.raises(BeginInvalid) as twice:
            ask(go, question(one), question(one))
        assert twice.value.field == "tasks.1.request_id"
        with pytest.raises(BeginInvalid) as shared:
            ask(go, question(one, begin_id="a" * 32), question(two, begin_id="a" * 32))
        assert shared.value.field == "tasks.1.begin_id"
        with pytest.raises(BeginInvalid) as category:
            ask(go, question(one, ONE), question(two, ONE, Found(category="contacts", ref="1")))
        assert category.value.field == "tasks.1.manifest.1.category"
        with seed.ledger.reader() as view:
            assert not view.leases([one, two])

    def test_identifiers_learned_are_sealed_anew_for_each_system_that_is_searched_by_them(
        self, seed: Seeder, go: GoService
    ) -> None:
        one = seed.request(made=plan(identify=True), mode=Mode.IDENTIFY, systems=("crm",))
        phone = Identifier(type="phone", value="+81312345678")
        asked = question(one, system="crm", mode=Mode.IDENTIFY, learned=(phone, HANAKO[1]))
        (answer,) = ask(go, asked, caller="crm")
        assert isinstance(answer, Go)
        learned = evidence_of(seed, one).newest("crm").learned
        assert set(learned) == {"recordings"}, "not for the source itself, nor for who does not know the type"
        assert "312345678" not in json.dumps(dict(learned))
        seed.happen(
            one,
            ev.TaskIdentified(system="crm", attempt=1, learned=dict(learned)),
            seed.dispatched("recordings", 1),
        )
        (unwrapped,) = unwrap(go, "recordings", (one, "recordings", 1))
        assert unwrapped.identifiers == (phone,)

    def test_of_workers_that_ask_at_once_one_gets_the_go(self, seed: Seeder, go: GoService) -> None:
        requests = [seed.request() for _ in range(3)]
        gate = threading.Barrier(4)

        def one_worker(_: int) -> tuple[Any, ...]:
            questions = [question(r, ONE, TWO) for r in requests]
            gate.wait(timeout=10)
            return ask(go, *questions)

        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(one_worker, range(4)))
        for place, request_id in enumerate(requests):
            said = sorted(a[place].answer for a in answers)
            assert said == ["go", "wait", "wait", "wait"]
            assert len([x for x in evidence_of(seed, request_id).of["billing"] if x.granted_at]) == 1
