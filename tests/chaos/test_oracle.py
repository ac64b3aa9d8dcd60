"""The oracle finds each kind of wrong. Stores and records here are made by hand, the systems' rules included."""

import copy
import hashlib
import json
from datetime import date
from typing import Any

import pytest

from chaos.model import Asked
from chaos.oracle import Evidence, Judgement, Sent, judge
from chaos.stores import Stores

TODAY = date(2026, 5, 1)
TABLES = {"billing": ("customers", "invoices", "payments", "usage"), "crm": ("contacts", "cards", "activities")}


def invoice(number: int, customer: str, issued: str) -> dict[str, Any]:
    return {"id": number, "customer_id": customer, "issued_on": issued, "restricted": False} | _free()


def payment(number: int, customer: str, of: int) -> dict[str, Any]:
    return {"id": number, "customer_id": customer, "invoice_id": of, "restricted": False} | _free()


def contact(key: str, email: str, duplicate_of: str | None = None) -> dict[str, Any]:
    row = {"id": key, "email": email, "phone": None, "customer_id": None, "duplicate_of": duplicate_of}
    return row | {"status": "active", "suspended_by": None}


def _free() -> dict[str, Any]:
    return {"suspended_by": None, "suspended_at": None}


def stores() -> Stores:
    """Two people: hers is everything of `hanako`, his is there to stay as it is."""
    billing = {
        ("customers", c): {"customer_id": c, "email": e, "phone": None} | _free()
        for c, e in (("C-1", "Hanako@mail.example"), ("C-2", "taro@mail.example"))
    }
    for row in (invoice(11, "C-1", "2012-01-01"), invoice(12, "C-1", "2024-03-01"), invoice(13, "C-2", "2024-03-01")):
        billing["invoices", str(row["id"])] = row
    for row in (payment(21, "C-1", 11), payment(22, "C-1", 12), payment(23, "C-2", 13)):
        billing["payments", str(row["id"])] = row
    crm = {
        ("contacts", "P-1"): contact("P-1", "hanako@mail.example"),
        ("contacts", "P-2"): contact("P-2", "moved@office.example", "P-1"),
        ("contacts", "P-3"): contact("P-3", "taro@mail.example"),
    }
    crm["cards", "B-1"] = {"id": "B-1", "contact_id": "P-2", "status": "active", "suspended_by": None}
    return Stores(billing, crm)


def erased() -> Stores:
    after = stores()
    for ref in (("customers", "C-1"), ("invoices", "11"), ("payments", "21")):
        del after.billing[ref]
    for ref in (("invoices", "12"), ("payments", "22")):
        after.billing[ref]["restricted"] = True
    for ref in (("contacts", "P-1"), ("contacts", "P-2"), ("cards", "B-1")):
        del after.crm[ref]
    return after


UNTIL = "2031-02-28"
ERASED = {
    "billing": {
        "customers": {"erased": 1},
        "invoices": {"erased": 1, "retained_by_law": 1},
        "payments": {"erased": 1, "retained_by_law": 1},
        "usage": {"not_found": 0},
    },
    "crm": {"contacts": {"erased": 2}, "cards": {"erased": 1}, "activities": {"not_found": 0}},
}
NOTHING = {system: {c: {"not_started": 0} for c in names} for system, names in TABLES.items()}


def seal(record: dict[str, Any]) -> dict[str, Any]:
    body = {name: value for name, value in record.items() if name != "hash"}
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return body | {"hash": hashlib.sha256(text.encode()).hexdigest()}


def record(
    request_id: str, outcomes: dict[str, dict[str, dict[str, int]]], verdict: str, **change: Any
) -> dict[str, Any]:
    systems = []
    for system, categories in outcomes.items():
        listed = [
            {"category": c, "outcome": o, "count": n, "decided_by": "worker"}
            | ({"until": UNTIL} if o == "retained_by_law" else {})
            for c, counts in categories.items()
            for o, n in counts.items()
        ]
        begun = any(o["outcome"] != "not_started" or o["count"] for o in listed)
        counts = {c: sum(n.values()) for c, n in categories.items() if sum(n.values())}
        checked = {"checked_at": "2026-05-01T00:00:00Z"} if begun else {}
        systems.append({"system": system, "outcomes": listed, "located": {"counts": counts}} | checked)
    body = {
        "request_id": request_id,
        "action": "erase",
        "withdrawn": False,
        "systems": systems,
        "verdict": verdict,
        "clocks": {"closed": "2026-05-01T00:00:00Z"},
        "partition": 0,
        "number": 1,
        "previous": "0" * 64,
    }
    return seal(body | change)


def closed(*records: dict[str, Any]) -> list[dict[str, Any]]:
    accepted = [{"type": "keshi.RequestAccepted.v1", "data": {"state": {"request_id": "r1"}}}]
    return accepted + [{"type": "keshi.RequestClosed.v1", "data": {"closure": r}} for r in records]


def asked(action: str = "erase", request_id: str = "r1") -> Asked:
    return Asked(request_id, action, ({"type": "email", "value": "hanako@mail.example"},))


def judged(after: Stores, messages: list[dict[str, Any]], *sent: Sent, held: frozenset[str] = frozenset()) -> Judgement:
    return judge(Evidence(stores(), after, sent or (Sent(asked()),), messages, held, TODAY))


RIGHT = record("r1", ERASED, "fulfilled_with_exceptions")


def test_a_right_erasure_is_right_also_when_its_record_is_repeated() -> None:
    found = judged(erased(), closed(RIGHT, RIGHT))
    assert found.ok, found.notes
    assert found.as_json() == {
        "requests": 1,
        "closed": 1,
        "lost": 0,
        "false": 0,
        "double": 0,
        "wrong_counts": 0,
        "decided_by_person": 0,
    }


def test_an_accepted_request_without_a_record_is_lost_even_if_it_was_carried_out() -> None:
    found = judged(erased(), closed())
    assert (found.lost, found.closed, found.ok) == (["r1"], 0, False)


def test_a_command_without_any_answer_and_a_rejected_one_are_lost() -> None:
    rejected = [{"type": "keshi.RequestRejected.v1", "data": {"request_id": "r1", "code": "field_invalid"}}]
    assert judged(stores(), []).lost == ["r1"]
    assert judged(stores(), rejected).lost == ["r1"]


def test_a_record_that_says_done_while_nothing_was_is_false() -> None:
    found = judged(stores(), closed(RIGHT))
    assert (found.false, found.wrong_counts) == (["r1"], [])


@pytest.mark.parametrize(
    ("system", "ref"),
    [("crm", ("contacts", "P-2")), ("billing", ("payments", "21")), ("billing", ("customers", "C-1"))],
)
def test_a_single_record_left_behind_is_found(system: str, ref: tuple[str, str]) -> None:
    after = erased()
    after.of(system)[ref] = stores().of(system)[ref]
    assert judged(after, closed(RIGHT)).false == ["r1"]


def test_a_retained_invoice_that_is_not_restricted_or_gone_is_found() -> None:
    after = erased()
    after.billing["invoices", "12"]["restricted"] = False
    assert judged(after, closed(RIGHT)).false == ["r1"]
    del after.billing["invoices", "12"]
    assert judged(after, closed(RIGHT)).false == ["r1"]


def test_two_different_records_for_one_request_are_double() -> None:
    other = record("r1", ERASED, "fulfilled_with_exceptions", clocks={"closed": "2026-05-01T00:00:09Z"}, number=2)
    assert judged(erased(), closed(RIGHT, other)).double == ["r1"]


@pytest.mark.parametrize("wrong", [{"erased": 3}, {"erased": 1}, {"erased": 1, "retained_by_law": 1}])
def test_a_wrong_count_is_found(wrong: dict[str, int]) -> None:
    outcomes = copy.deepcopy(ERASED)
    outcomes["crm"]["contacts"] = wrong
    found = judged(erased(), closed(record("r1", outcomes, "fulfilled_with_exceptions")))
    assert (found.wrong_counts, found.false) == (["r1"], [])


def test_another_end_of_the_retention_period_is_a_wrong_count() -> None:
    wrong = json.loads(json.dumps(RIGHT).replace(UNTIL, "2031-03-01"))
    assert judged(erased(), closed(seal(wrong))).wrong_counts == ["r1"]


def test_a_decision_by_a_person_and_a_held_task_are_found() -> None:
    decided = copy.deepcopy(RIGHT)
    decided["systems"][0]["outcomes"][0]["decided_by"] = "person"
    assert judged(erased(), closed(seal(decided))).decided_by_person == ["r1"]
    assert judged(erased(), closed(RIGHT), held=frozenset({"r1"})).decided_by_person == ["r1"]


@pytest.mark.parametrize("how", ["changed", "gone", "copied"])
def test_a_record_of_somebody_else_that_changed_is_found(how: str) -> None:
    after = erased()
    if how == "changed":
        after.billing["customers", "C-2"]["email"] = "other@mail.example"
    elif how == "gone":
        del after.billing["payments", "23"]
    else:
        after.billing["put_aside", "1"] = {"id": 1, "email": "hanako@mail.example"}
    found = judged(after, closed(RIGHT))
    assert (len(found.bystanders), found.false, found.ok) == (1, [], False)
    assert found.as_json()["false"] == 1


def test_a_broken_seal_and_a_broken_chain_are_false() -> None:
    assert judged(erased(), closed(RIGHT | {"verdict": "fulfilled"})).false == ["r1"]
    assert judged(erased(), closed(seal(RIGHT | {"number": 2}))).false == ["r1"]
    assert judged(erased(), closed(seal(RIGHT | {"previous": "1" * 64}))).false == ["r1"]


def test_a_false_verdict_is_found() -> None:
    assert judged(erased(), closed(record("r1", ERASED, "fulfilled"))).false == ["r1"]


# --- taken back


def withdrawn(outcomes: dict[str, dict[str, dict[str, int]]], verdict: str) -> dict[str, Any]:
    return record("r1", outcomes, verdict, withdrawn=True)


BACK = Sent(asked(), withdrawn=True)
HALF = {
    "billing": NOTHING["billing"],
    "crm": {"contacts": {"not_started": 2}, "cards": {"erased": 1}, "activities": {"not_found": 0}},
}


def half() -> Stores:
    after = stores()
    del after.crm["cards", "B-1"]
    return after


def test_a_request_taken_back_before_anything_was_done_leaves_all_as_it_was() -> None:
    found = judged(stores(), closed(withdrawn(NOTHING, "withdrawn")), BACK)
    assert found.ok, found.notes


def test_a_request_taken_back_half_way_says_what_had_gone() -> None:
    found = judged(half(), closed(withdrawn(HALF, "fulfilled_with_exceptions")), BACK)
    assert found.ok, found.notes


def test_a_request_taken_back_that_hides_what_had_gone_is_false() -> None:
    assert judged(half(), closed(withdrawn(NOTHING, "withdrawn")), BACK).false == ["r1"]


def test_a_request_taken_back_that_boasts_of_what_is_there_is_false() -> None:
    assert judged(stores(), closed(withdrawn(HALF, "fulfilled_with_exceptions")), BACK).false == ["r1"]


def test_a_request_taken_back_that_counts_wrongly_what_had_gone_is_found() -> None:
    after = half()
    del after.crm["contacts", "P-2"]
    assert judged(after, closed(withdrawn(HALF, "fulfilled_with_exceptions")), BACK).false == ["r1"]
    three = copy.deepcopy(HALF)
    three["crm"]["contacts"] = {"erased": 2}
    assert judged(after, closed(withdrawn(three, "fulfilled_with_exceptions")), BACK).wrong_counts == ["r1"]


def test_a_request_that_nobody_took_back_may_not_say_so() -> None:
    assert judged(stores(), closed(withdrawn(NOTHING, "withdrawn"))).false == ["r1"]


def test_a_withdrawal_that_came_first_may_not_be_overlooked() -> None:
    first = Sent(asked(), withdrawn=True, untouched=True)
    assert judged(stores(), closed(withdrawn(NOTHING, "withdrawn")), first).ok
    assert judged(erased(), closed(RIGHT), first).false == ["r1"]


# --- one after another


def suspended() -> dict[str, dict[str, dict[str, int]]]:
    def all_of_it(counts: dict[str, int]) -> dict[str, int]:
        return {"suspended": sum(counts.values())} if sum(counts.values()) else counts

    return {s: {c: all_of_it(counts) for c, counts in e.items()} for s, e in ERASED.items()}


def test_a_resumption_brings_back_what_was_and_only_what_keshi_suspended() -> None:
    resumed = json.loads(json.dumps(suspended()).replace("suspended", "resumed"))
    first = record("r1", suspended(), "fulfilled", action="suspend_use")
    clocks = {"closed": "2026-05-01T00:00:05Z"}
    second = record("r2", resumed, "fulfilled", action="resume_use", clocks=clocks, number=2, previous=first["hash"])
    both = Sent(asked("suspend_use")), Sent(asked("resume_use", "r2"))
    assert judged(stores(), closed(first, second), *both).ok
    left = stores()
    left.crm["contacts", "P-1"] |= {"status": "suspended", "suspended_by": "keshi:r1"}
    assert judged(left, closed(first, second), *both).false == ["r2"]


def test_a_suspension_with_a_strange_mark_is_false() -> None:
    after = stores()
    for system, theirs in (("billing", {"C-2", "13", "23"}), ("crm", {"P-3"})):
        since = {"status": "suspended"} if system == "crm" else {"suspended_at": "2026-05-01T00:00:00Z"}
        for (_, key), row in after.of(system).items():
            row.update({"suspended_by": "keshi:r1"} | since if key not in theirs else {})
    messages = closed(record("r1", suspended(), "fulfilled", action="suspend_use"))
    assert judged(after, messages, Sent(asked("suspend_use"))).ok
    after.crm["cards", "B-1"]["suspended_by"] = "keshi:r9"
    assert judged(after, messages, Sent(asked("suspend_use"))).false == ["r1"]
