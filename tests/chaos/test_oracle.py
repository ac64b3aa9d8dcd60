"""The oracle finds each kind of wrong. Stores and records here are made by hand, the systems' rules included."""

import copy
import hashlib
import json
from collections.abc import Callable
from datetime import date
from typing import Any

import pytest

from chaos.affiliates import request_there
from chaos.model import RULES
from chaos.oracle import Evidence, Judgement, Sent, judge
from chaos.rules import Asked
from chaos.stores import Ref, Row, Rows, Stores

TODAY = date(2026, 5, 1)
TABLES = {system: rules.categories for system, rules in RULES.items()}
SYSTEMS = tuple(TABLES)
HOME, OFFICE, HIS = "+819000000001", "+819009000001", "+819000000003"
FOLDER = "calls/2026/02/T-1/"


def invoice(number: int, customer: str, issued: str) -> Row:
    return {"id": number, "customer_id": customer, "issued_on": issued, "restricted": False} | _free()


def payment(number: int, customer: str, of: int) -> Row:
    return {"id": number, "customer_id": customer, "invoice_id": of, "restricted": False} | _free()


def contact(key: str, email: str, phone: str | None = None, duplicate_of: str | None = None) -> Row:
    row = {"id": key, "email": email, "phone": phone, "customer_id": None, "duplicate_of": duplicate_of}
    return row | {"status": "active", "suspended_by": None}


def call(key: str, phone: str, recording: str | None) -> Row:
    row = {"id": key, "phone": phone, "started_at": "2026-02-03T01:00:00+00:00", "transcript_key": None}
    return row | {"recording_key": recording} | _free()


def heard(key: str, versions: int, *, deleted: bool = False) -> Row:
    """An object with its versions, and with a delete marker on top."""

    def version(content: str | None) -> Row:
        return {"marker": content is None, "content": content, "tags": {}, "suspended_by": None}

    found = {f"v{n}": version(f"{key}{n}") for n in range(versions)}
    return {"key": key, "versions": found | ({"top": version(None)} if deleted else {})}


def _free() -> Row:
    return {"suspended_by": None, "suspended_at": None}


def stores() -> Stores:
    """Two people: hers is everything of `hanako`, his is there to stay. Her office's number only the CRM knows."""
    return Stores({s: make() for s, make in zip(SYSTEMS, (_billing, _crm, _calls, _ma_tool, _affiliates), strict=True)})


def _billing() -> Rows:
    rows: Rows = {
        ("customers", c): {"customer_id": c, "email": e, "phone": None} | _free()
        for c, e in (("C-1", "Hanako@mail.example"), ("C-2", "taro@mail.example"))
    }
    for row in (invoice(11, "C-1", "2012-01-01"), invoice(12, "C-1", "2024-03-01"), invoice(13, "C-2", "2024-03-01")):
        rows["invoices", str(row["id"])] = row
    for row in (payment(21, "C-1", 11), payment(22, "C-1", 12), payment(23, "C-2", 13)):
        rows["payments", str(row["id"])] = row
    return rows


def _crm() -> Rows:
    return {
        ("contacts", "P-1"): contact("P-1", "hanako@mail.example", HOME),
        ("contacts", "P-2"): contact("P-2", "moved@office.example", OFFICE, "P-1"),
        ("contacts", "P-3"): contact("P-3", "taro@mail.example", HIS),
        ("cards", "B-1"): {"id": "B-1", "contact_id": "P-2", "status": "active", "suspended_by": None},
    }


def _calls() -> Rows:
    """One call with an object that the index does not name, one with an object elsewhere, and his."""
    rows: Rows = {
        ("calls", "T-1"): call("T-1", HOME, f"{FOLDER}audio.ogg"),
        ("calls", "T-2"): call("T-2", OFFICE, "archive/T-2.ogg"),
        ("calls", "T-3"): call("T-3", HIS, "archive/T-3.ogg"),
    }
    objects = (
        heard(f"{FOLDER}audio.ogg", 3, deleted=True),
        heard(f"{FOLDER}talk.txt", 1),
        heard("archive/T-2.ogg", 1),
        heard("archive/T-3.ogg", 2),
    )
    return rows | {("objects", o["key"]): o for o in objects}


def _ma_tool() -> Rows:
    def marks(*names: str) -> Row:
        return dict.fromkeys(names)

    rows: Rows = {}
    for n, email, customer in ((1, "HANAKO@mail.example", "C-1"), (3, "taro@mail.example", "C-2")):
        owner, cookie = f"M-{n}", f"ck.{n}"
        both = marks("suppressed_by", "provision_stopped_by")
        rows["contacts", owner] = {"id": owner, "email": email, "customer_id": customer} | both
        rows["cookies", f"K-{n}"] = {"id": f"K-{n}", "cookie_id": cookie, "contact_id": owner} | both
        rows["behaviour", f"V-{n}"] = {"id": f"V-{n}", "cookie_id": cookie, "contact_id": None}
        rows["lists", f"L-{n}"] = {"id": f"L-{n}", "contact_id": owner}
        rows["mails", f"S-{n}"] = {"id": f"S-{n}", "contact_id": owner} | marks("suppressed_by")
        rows["audiences", f"X-{n}"] = {"id": f"X-{n}", "contact_id": owner, "partner": "adnet", "status": "active"}
    return rows


def _affiliates() -> Rows:
    """She is with the first of them alone, he with both."""
    rows: Rows = {}
    for company, n, email in (
        ("sakura_logistics", 1, "HANAKO@MAIL.EXAMPLE"),
        ("sakura_logistics", 3, "taro@mail.example"),
        ("oceania_loyalty", 3, "taro@mail.example"),
    ):
        rows[f"{company}.members", f"{n}"] = {"id": f"{n}", "email": email, "phone": None, "customer_id": None}
        rows[f"{company}.records", f"{n}-0"] = {"id": f"{n}-0", "member_id": f"{n}", "kind": "delivery"}
    return rows


HERS: dict[str, tuple[Ref, ...]] = {
    "billing": (("customers", "C-1"), ("invoices", "11"), ("payments", "21")),
    "crm": (("contacts", "P-1"), ("contacts", "P-2"), ("cards", "B-1")),
    "call_recordings": (
        ("calls", "T-1"),
        ("calls", "T-2"),
        ("objects", f"{FOLDER}audio.ogg"),
        ("objects", f"{FOLDER}talk.txt"),
        ("objects", "archive/T-2.ogg"),
    ),
    "ma_tool": tuple(
        (table, f"{letter}-1") for table, letter in zip((*TABLES["ma_tool"], "audiences"), "MKVLSX", strict=True)
    ),
    "affiliates": (("sakura_logistics.members", "1"), ("sakura_logistics.records", "1-0")),
}
"""What goes."""
HIS_OWN: dict[str, Ref] = {
    "billing": ("payments", "23"),
    "crm": ("contacts", "P-3"),
    "call_recordings": ("objects", "archive/T-3.ogg"),
    "ma_tool": ("mails", "S-3"),
    "affiliates": ("oceania_loyalty.records", "3-0"),
}
ASKED_THERE = {company: request_there(company, Asked("r1", "erase", ())) for company in TABLES["affiliates"]}


def note(count: int) -> Row:
    """What an affiliate keeps of a request that is over."""
    return {"status": "completed", "identities": None, "results_count": count}


def erased() -> Stores:
    after = stores()
    for system, refs in HERS.items():
        for ref in refs:
            del after.of(system)[ref]
    for ref in (("invoices", "12"), ("payments", "22")):
        after.of("billing")[ref]["restricted"] = True
    for company, count in (("sakura_logistics", 2), ("oceania_loyalty", 0)):
        after.of("affiliates")[ASKED_THERE[company]] = note(count)
    return after


UNTIL = "2031-02-28"
Outcomes = dict[str, dict[str, dict[str, int]]]
ERASED: Outcomes = {
    "billing": {
        "customers": {"erased": 1},
        "invoices": {"erased": 1, "retained_by_law": 1},
        "payments": {"erased": 1, "retained_by_law": 1},
        "usage": {"not_found": 0},
    },
    "crm": {"contacts": {"erased": 2}, "cards": {"erased": 1}, "activities": {"not_found": 0}},
    "call_recordings": {"calls": {"erased": 2}, "recordings": {"erased": 2}, "transcripts": {"erased": 1}},
    "ma_tool": {category: {"erased": 1} for category in TABLES["ma_tool"]},
    "affiliates": {"sakura_logistics": {"erased": 1}, "oceania_loyalty": {"not_found": 1}},
}
NOTHING: Outcomes = {system: {c: {"not_started": 0} for c in names} for system, names in TABLES.items()}
_NOT_BEGUN = {"not_started", "impossible", "not_searchable"}


def seal(record: dict[str, Any]) -> dict[str, Any]:
    body = {name: value for name, value in record.items() if name != "hash"}
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return body | {"hash": hashlib.sha256(text.encode()).hexdigest()}


def record(request_id: str, outcomes: Outcomes, verdict: str, **change: Any) -> dict[str, Any]:
    systems = []
    for system, categories in outcomes.items():
        listed = [
            {"category": c, "outcome": o, "count": n, "decided_by": "worker"}
            | ({"until": UNTIL} if o == "retained_by_law" else {})
            for c, counts in categories.items()
            for o, n in counts.items()
        ]
        begun = any(o["outcome"] not in _NOT_BEGUN or o["count"] for o in listed)
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


def changed(system: str, category: str, counts: dict[str, int], outcomes: Outcomes = ERASED) -> Outcomes:
    """The outcomes with those of one category put differently."""
    return {**outcomes, system: {**outcomes[system], category: counts}}


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


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_record_that_says_done_while_one_system_did_nothing_is_false(system: str) -> None:
    after = Stores({**erased().systems, system: stores().of(system)})
    assert judged(after, closed(RIGHT)).false == ["r1"]


@pytest.mark.parametrize(("system", "ref"), [(system, ref) for system, refs in HERS.items() for ref in refs])
def test_a_single_record_left_behind_is_found(system: str, ref: Ref) -> None:
    after = erased()
    after.of(system)[ref] = stores().of(system)[ref]
    assert judged(after, closed(RIGHT)).false == ["r1"]


@pytest.mark.parametrize("left", [("v0",), ("v2",), ("top",), ("v0", "v1", "v2", "top")])
def test_a_version_or_a_delete_marker_left_of_a_recording_is_found(left: tuple[str, ...]) -> None:
    after, ref = erased(), ("objects", f"{FOLDER}audio.ogg")
    versions = stores().of("call_recordings")[ref]["versions"]
    after.of("call_recordings")[ref] = {"key": ref[1], "versions": {name: versions[name] for name in left}}
    assert judged(after, closed(RIGHT)).false == ["r1"]


def test_a_job_that_still_deletes_after_the_closure_is_found() -> None:
    after = erased()
    after.of("ma_tool")["deletions", "D-1"] = {"id": "D-1", "reference": "keshi:r1", "state": "running"}
    assert judged(after, closed(RIGHT)).as_json()["false"] == 1


def test_a_behaviour_that_was_somebody_elses_and_went_is_found() -> None:
    after = erased()
    del after.of("ma_tool")["behaviour", "V-3"]
    assert judged(after, closed(RIGHT)).as_json()["false"] == 1


@pytest.mark.parametrize(
    "said",
    [
        None,  # never asked
        {"status": "pending", "identities": "{}", "results_count": None},
        {"status": "cancelled", "identities": None, "results_count": None},
        {"status": "completed", "identities": None, "results_count": 0},
        {"status": "completed", "identities": '{"email": ["hanako@mail.example"]}', "results_count": 2},
    ],
)
@pytest.mark.parametrize("company", TABLES["affiliates"])
def test_an_affiliate_that_does_not_bear_out_the_record_is_found(company: str, said: Row | None) -> None:
    after = erased()
    if said is None:
        del after.of("affiliates")[ASKED_THERE[company]]
    else:
        after.of("affiliates")[ASKED_THERE[company]] = said
    right = said == note(0) and company == "oceania_loyalty"
    assert judged(after, closed(RIGHT)).false == ([] if right else ["r1"])


def test_an_affiliate_that_was_asked_about_nobodys_request_is_found() -> None:
    after = erased()
    after.of("affiliates")["oceania_loyalty.requests", "another"] = note(0)
    assert judged(after, closed(RIGHT)).as_json()["false"] == 1


def test_a_retained_invoice_that_is_not_restricted_or_gone_is_found() -> None:
    after = erased()
    after.of("billing")["invoices", "12"]["restricted"] = False
    assert judged(after, closed(RIGHT)).false == ["r1"]
    del after.of("billing")["invoices", "12"]
    assert judged(after, closed(RIGHT)).false == ["r1"]


def test_two_different_records_for_one_request_are_double() -> None:
    other = record("r1", ERASED, "fulfilled_with_exceptions", clocks={"closed": "2026-05-01T00:00:09Z"}, number=2)
    assert judged(erased(), closed(RIGHT, other)).double == ["r1"]


@pytest.mark.parametrize("wrong", [{"erased": 3}, {"erased": 1}, {"erased": 1, "retained_by_law": 1}])
def test_a_wrong_count_is_found(wrong: dict[str, int]) -> None:
    outcomes = changed("crm", "contacts", wrong)
    found = judged(erased(), closed(record("r1", outcomes, "fulfilled_with_exceptions")))
    assert (found.wrong_counts, found.false) == (["r1"], [])


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_wrong_count_is_found_in_each_system(system: str) -> None:
    category, counts = next((c, n) for c, n in ERASED[system].items() if "erased" in n)
    for wrong in ({**counts, "erased": counts["erased"] + 1}, {"not_found": 0}, {"not_searchable": 0}):
        outcomes = changed(system, category, wrong)
        found = judged(erased(), closed(record("r1", outcomes, "fulfilled_with_exceptions")))
        assert (found.wrong_counts, found.false) == (["r1"], []), wrong
    missing = {**ERASED, system: {c: n for c, n in ERASED[system].items() if c != category}}
    assert judged(erased(), closed(record("r1", missing, "fulfilled_with_exceptions"))).wrong_counts == ["r1"]


@pytest.mark.parametrize("system", SYSTEMS)
def test_another_number_of_records_located_is_a_wrong_count(system: str) -> None:
    wrong = copy.deepcopy(RIGHT)
    located = next(s for s in wrong["systems"] if s["system"] == system)["located"]["counts"]
    located[next(iter(located))] += 1
    assert judged(erased(), closed(seal(wrong))).wrong_counts == ["r1"]


def test_another_end_of_the_retention_period_is_a_wrong_count() -> None:
    wrong = json.loads(json.dumps(RIGHT).replace(UNTIL, "2031-03-01"))
    assert judged(erased(), closed(seal(wrong))).wrong_counts == ["r1"]


def test_a_decision_by_a_person_and_a_held_task_are_found() -> None:
    decided = copy.deepcopy(RIGHT)
    decided["systems"][0]["outcomes"][0]["decided_by"] = "person"
    assert judged(erased(), closed(seal(decided))).decided_by_person == ["r1"]
    assert judged(erased(), closed(RIGHT), held=frozenset({"r1"})).decided_by_person == ["r1"]


@pytest.mark.parametrize("how", ["changed", "gone", "copied"])
@pytest.mark.parametrize("system", SYSTEMS)
def test_a_record_of_somebody_else_that_changed_is_found(system: str, how: str) -> None:
    after = erased()
    rows = after.of(system)
    if how == "changed":
        rows[HIS_OWN[system]]["suspended_by"] = "keshi:r1"
    elif how == "gone":
        del rows[HIS_OWN[system]]
    else:
        rows["put_aside", "1"] = {"id": 1, "email": "hanako@mail.example"}
    found = judged(after, closed(RIGHT))
    assert (len(found.bystanders), found.false, found.ok) == (1, [], False)
    assert found.as_json()["false"] == 1


def test_a_broken_seal_and_a_broken_chain_are_false() -> None:
    assert judged(erased(), closed(RIGHT | {"verdict": "fulfilled"})).false == ["r1"]
    assert judged(erased(), closed(seal(RIGHT | {"number": 2}))).false == ["r1"]
    assert judged(erased(), closed(seal(RIGHT | {"previous": "1" * 64}))).false == ["r1"]


def test_a_false_verdict_is_found() -> None:
    assert judged(erased(), closed(record("r1", ERASED, "fulfilled"))).false == ["r1"]


# --- what is known of the person


def test_who_is_in_no_crm_is_searched_by_what_the_command_names_alone() -> None:
    """Nobody knows her number then: her calls stay, and the record has to say that they could not be searched."""
    before, after = stores(), erased()
    for ref in HERS["crm"]:
        del before.of("crm")[ref]
    after = Stores({**after.systems, "call_recordings": stores().of("call_recordings")})
    outcomes = {
        **ERASED,
        "crm": {c: {"not_found": 0} for c in TABLES["crm"]},
        "call_recordings": {c: {"not_searchable": 0} for c in TABLES["call_recordings"]},
    }
    right = record("r1", outcomes, "fulfilled_with_exceptions")

    def found(said: dict[str, Any], after: Stores) -> Judgement:
        return judge(Evidence(before, after, (Sent(asked()),), closed(said), frozenset(), TODAY))

    assert found(right, after).ok, found(right, after).notes
    nothing = {**outcomes, "call_recordings": {c: {"not_found": 0} for c in TABLES["call_recordings"]}}
    assert found(record("r1", nothing, "fulfilled_with_exceptions"), after).wrong_counts == ["r1"]
    assert found(right, erased()).as_json()["false"] == 5


# --- taken back


def withdrawn(outcomes: Outcomes, verdict: str) -> dict[str, Any]:
    return record("r1", outcomes, verdict, withdrawn=True)


BACK = Sent(asked(), withdrawn=True)


def nothing_left(system: str) -> Outcomes:
    """One system was begun, and has done nothing yet."""
    left = {
        c: {"not_started": n} if (n := sum(counts.values())) else {"not_found": 0}
        for c, counts in ERASED[system].items()
    }
    return {**NOTHING, system: left}


def half(system: str) -> tuple[Stores, Outcomes]:
    """One system is half done."""
    after, outcomes = stores(), nothing_left(system)
    if system == "affiliates":
        for ref in HERS[system]:
            del after.of(system)[ref]
        after.of(system)[ASKED_THERE["sakura_logistics"]] = note(2)
        return after, changed(system, "sakura_logistics", {"erased": 1}, outcomes)
    ref, category, counts = {
        "billing": (("payments", "21"), "payments", {"erased": 1, "not_started": 1}),
        "crm": (("cards", "B-1"), "cards", {"erased": 1}),
        "call_recordings": (("objects", f"{FOLDER}audio.ogg"), "recordings", {"erased": 1, "not_started": 1}),
        "ma_tool": (("behaviour", "V-1"), "behaviour", {"erased": 1}),
    }[system]
    del after.of(system)[ref]
    return after, changed(system, category, counts, outcomes)


def test_a_request_taken_back_before_anything_was_done_leaves_all_as_it_was() -> None:
    found = judged(stores(), closed(withdrawn(NOTHING, "withdrawn")), BACK)
    assert found.ok, found.notes


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_request_taken_back_after_a_system_had_begun_and_done_nothing_is_right(system: str) -> None:
    found = judged(stores(), closed(withdrawn(nothing_left(system), "withdrawn")), BACK)
    assert found.ok, found.notes


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_request_taken_back_half_way_says_what_had_gone(system: str) -> None:
    after, outcomes = half(system)
    found = judged(after, closed(withdrawn(outcomes, "fulfilled_with_exceptions")), BACK)
    assert found.ok, found.notes


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_request_taken_back_that_hides_what_had_gone_is_false(system: str) -> None:
    assert judged(half(system)[0], closed(withdrawn(NOTHING, "withdrawn")), BACK).false == ["r1"]
    assert judged(half(system)[0], closed(withdrawn(nothing_left(system), "withdrawn")), BACK).false == ["r1"]


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_request_taken_back_that_boasts_of_what_is_there_is_false(system: str) -> None:
    record = withdrawn(half(system)[1], "fulfilled_with_exceptions")
    assert judged(stores(), closed(record), BACK).false == ["r1"]


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_system_that_was_not_begun_and_changed_is_false(system: str) -> None:
    other = next(s for s in SYSTEMS if s != system)
    after, outcomes = half(other)
    after = Stores({**after.systems, system: half(system)[0].of(system)})
    assert judged(after, closed(withdrawn(outcomes, "fulfilled_with_exceptions")), BACK).false == ["r1"]


def test_a_recording_of_which_a_version_went_is_not_one_that_was_not_started() -> None:
    after, outcomes = half("crm")
    del after.of("call_recordings")["objects", f"{FOLDER}audio.ogg"]["versions"]["v1"]
    both = {**outcomes, "call_recordings": nothing_left("call_recordings")["call_recordings"]}
    assert judged(after, closed(withdrawn(both, "fulfilled_with_exceptions")), BACK).false == ["r1"]


def test_an_affiliate_that_was_asked_and_is_said_not_to_have_been_is_found() -> None:
    after = stores()
    after.of("affiliates")[ASKED_THERE["oceania_loyalty"]] = note(0)
    assert judged(after, closed(withdrawn(NOTHING, "withdrawn")), BACK).false == ["r1"]
    said = changed("affiliates", "oceania_loyalty", {"not_found": 1}, nothing_left("affiliates"))
    assert judged(after, closed(withdrawn(said, "withdrawn")), BACK).ok
    assert judged(stores(), closed(withdrawn(said, "withdrawn")), BACK).wrong_counts == ["r1"]


def test_a_request_taken_back_that_counts_wrongly_what_had_gone_is_found() -> None:
    after, outcomes = half("crm")
    del after.of("crm")["contacts", "P-2"]
    assert judged(after, closed(withdrawn(outcomes, "fulfilled_with_exceptions")), BACK).false == ["r1"]
    two = changed("crm", "contacts", {"erased": 2}, outcomes)
    assert judged(after, closed(withdrawn(two, "fulfilled_with_exceptions")), BACK).wrong_counts == ["r1"]


def test_a_request_that_nobody_took_back_may_not_say_so() -> None:
    assert judged(stores(), closed(withdrawn(NOTHING, "withdrawn"))).false == ["r1"]


def test_a_withdrawal_that_came_first_may_not_be_overlooked() -> None:
    first = Sent(asked(), withdrawn=True, untouched=True)
    assert judged(stores(), closed(withdrawn(NOTHING, "withdrawn")), first).ok
    assert judged(erased(), closed(RIGHT), first).false == ["r1"]
    suspension = Sent(asked("suspend_use"), withdrawn=True, untouched=True)
    impossible = {**NOTHING, "affiliates": {c: {"impossible": 0} for c in TABLES["affiliates"]}}
    right = record("r1", impossible, "withdrawn", withdrawn=True, action="suspend_use")
    assert judged(stores(), closed(right), suspension).ok


# --- one after another

MARKED = "2026-05-01T00:00:00Z"


def outcomes_of(outcome: str) -> Outcomes:
    """Of a suspension or its end; affiliates know neither."""

    def all_of_it(counts: dict[str, int]) -> dict[str, int]:
        return {outcome: sum(counts.values())} if sum(counts.values()) else counts

    done = {s: {c: all_of_it(counts) for c, counts in e.items()} for s, e in ERASED.items()}
    return {**done, "affiliates": {c: {"impossible": 0} for c in TABLES["affiliates"]}}


def suspended(mark: str = "keshi:r1") -> Stores:
    """Everything of hers out of use; in the marketing tool behaviour and lists follow the contact."""
    after = stores()
    for system in ("billing", "crm", "call_recordings", "ma_tool"):
        kept = (("invoices", "12"), ("payments", "22")) if system == "billing" else ()
        for ref in (*HERS[system], *kept):
            row = after.of(system)[ref]
            for version in row.get("versions", {}).values():
                version["suspended_by"] = None if version["marker"] else mark
            if "suppressed_by" in row:
                row["suppressed_by"] = mark
            elif "status" in row and system == "crm":
                row |= {"status": "suspended", "suspended_by": mark}
            elif "suspended_at" in row:
                row |= {"suspended_by": mark, "suspended_at": MARKED}
    return after


SUSPENDED = record("r1", outcomes_of("suspended"), "fulfilled_with_exceptions", action="suspend_use")


def test_a_suspension_is_right_and_one_with_a_strange_mark_is_false() -> None:
    found = judged(suspended(), closed(SUSPENDED), Sent(asked("suspend_use")))
    assert found.ok, found.notes
    assert judged(suspended("keshi:r9"), closed(SUSPENDED), Sent(asked("suspend_use"))).false == ["r1"]


MARKS: tuple[tuple[str, Ref], ...] = (
    ("billing", ("payments", "22")),
    ("crm", ("cards", "B-1")),
    ("call_recordings", ("calls", "T-2")),
    ("call_recordings", ("objects", f"{FOLDER}talk.txt")),
    ("ma_tool", ("contacts", "M-1")),
    ("ma_tool", ("cookies", "K-1")),
    ("ma_tool", ("mails", "S-1")),
)


@pytest.mark.parametrize(("system", "ref"), MARKS)
def test_a_record_that_is_still_in_use_is_found(system: str, ref: Ref) -> None:
    after = suspended()
    after.of(system)[ref] = stores().of(system)[ref]
    assert judged(after, closed(SUSPENDED), Sent(asked("suspend_use"))).false == ["r1"]


def test_a_version_of_a_recording_that_is_still_in_use_is_found() -> None:
    after, ref = suspended(), ("objects", f"{FOLDER}audio.ogg")
    after.of("call_recordings")[ref]["versions"]["v1"]["suspended_by"] = None
    assert judged(after, closed(SUSPENDED), Sent(asked("suspend_use"))).false == ["r1"]


def test_a_suspension_taken_back_between_two_versions_says_so() -> None:
    after, ref = stores(), ("objects", f"{FOLDER}audio.ogg")
    after.of("call_recordings")[ref]["versions"]["v0"]["suspended_by"] = "keshi:r1"
    left = {"calls": {"not_started": 2}, "transcripts": {"not_started": 1}}
    impossible = {c: {"impossible": 0} for c in TABLES["affiliates"]}

    def said(recordings: dict[str, int], verdict: str) -> dict[str, Any]:
        outcomes = {**NOTHING, "affiliates": impossible, "call_recordings": {**left, "recordings": recordings}}
        return record("r1", outcomes, verdict, withdrawn=True, action="suspend_use")

    back = Sent(asked("suspend_use"), withdrawn=True)
    right = said({"suspended": 1, "not_started": 1}, "fulfilled_with_exceptions")
    found = judged(after, closed(right), back)
    assert found.ok, found.notes
    assert judged(after, closed(said({"not_started": 2}, "withdrawn")), back).false == ["r1"]
    after.of("call_recordings")[ref]["versions"]["v0"]["suspended_by"] = "keshi:r9"
    assert judged(after, closed(right), back).false == ["r1"]


def given_way(outcomes: Outcomes, verdict: str = "superseded", by: str = "r1") -> list[dict[str, Any]]:
    """The messages: a suspension that gave way, and the erasure behind it."""
    said = {**outcomes, "affiliates": {c: {"impossible": 0} for c in TABLES["affiliates"]}}
    first = record("r0", said, verdict, superseded_by=by, action="suspend_use")
    behind = {"number": 2, "previous": first["hash"], "clocks": {"closed": "2026-05-02T00:00:00Z"}}
    return closed(first, seal(RIGHT | behind))


def marked_and_erased() -> Stores:
    """What the law keeps carries the mark of the suspension."""
    after = erased()
    for ref in (("invoices", "12"), ("payments", "22")):
        after.of("billing")[ref] |= {"suspended_by": "keshi:r0", "suspended_at": MARKED}
    return after


BEFORE = Sent(asked("suspend_use", "r0"))
IN_BILLING = {**NOTHING, "billing": outcomes_of("suspended")["billing"]}


def test_a_suspension_may_give_way_to_an_erasure_untouched_or_half_way() -> None:
    for after, messages in (
        (erased(), given_way(NOTHING)),
        (marked_and_erased(), given_way(IN_BILLING, "fulfilled_with_exceptions")),
    ):
        found = judged(after, messages, BEFORE, Sent(asked()))
        assert found.ok, found.notes
        assert sum(found.superseded.values()) == 1


def test_a_suspension_that_gave_way_and_hides_what_it_had_done_is_false() -> None:
    assert judged(marked_and_erased(), given_way(NOTHING), BEFORE, Sent(asked())).false == ["r0"]


def test_a_suspension_that_gave_way_and_counts_wrongly_is_found() -> None:
    outcomes = changed("billing", "invoices", {"suspended": 3}, IN_BILLING)
    messages = given_way(outcomes, "fulfilled_with_exceptions")
    assert judged(marked_and_erased(), messages, BEFORE, Sent(asked())).wrong_counts == ["r0"]


def test_a_suspension_gives_way_to_an_erasure_of_the_same_person_alone() -> None:
    assert judged(erased(), given_way(NOTHING, by="r9"), BEFORE, Sent(asked())).false == ["r0"]
    more = ({"type": "email", "value": "hanako@mail.example"}, {"type": "customer_id", "value": "C-1"})
    known_better = Sent(Asked("r0", "suspend_use", more))
    assert judged(erased(), given_way(NOTHING), known_better, Sent(asked())).false == ["r0"]


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_suspension_that_erases_is_false(system: str) -> None:
    after = suspended()
    del after.of(system)[HERS[system][0]]
    assert judged(after, closed(SUSPENDED), Sent(asked("suspend_use"))).as_json()["false"] == 1


def test_affiliates_cannot_suspend_and_may_not_say_so() -> None:
    for wrong in ({"suspended": 1}, {"not_found": 1}, {"erased": 1}):
        outcomes = changed("affiliates", "sakura_logistics", wrong, outcomes_of("suspended"))
        said = record("r1", outcomes, "fulfilled_with_exceptions", action="suspend_use")
        assert judged(suspended(), closed(said), Sent(asked("suspend_use"))).wrong_counts == ["r1"]


Put = Callable[[Stores], None]


def _crm_left(left: Stores) -> None:
    left.of("crm")["contacts", "P-1"] |= {"status": "suspended", "suspended_by": "keshi:r1"}


def _recording_left(left: Stores) -> None:
    left.of("call_recordings")["objects", "archive/T-2.ogg"]["versions"]["v0"]["suspended_by"] = "keshi:r1"


def _cookie_left(left: Stores) -> None:
    left.of("ma_tool")["cookies", "K-1"]["suppressed_by"] = "keshi:r1"


@pytest.mark.parametrize("put", [_crm_left, _recording_left, _cookie_left])
def test_a_resumption_brings_back_what_was_and_only_what_keshi_suspended(put: Put) -> None:
    clocks = {"closed": "2026-05-01T00:00:05Z"}
    second = record(
        "r2",
        outcomes_of("resumed"),
        "fulfilled_with_exceptions",
        action="resume_use",
        clocks=clocks,
        number=2,
        previous=SUSPENDED["hash"],
    )
    both = Sent(asked("suspend_use")), Sent(asked("resume_use", "r2"))
    found = judged(stores(), closed(SUSPENDED, second), *both)
    assert found.ok, found.notes
    left = stores()
    put(left)
    assert judged(left, closed(SUSPENDED, second), *both).false == ["r2"]


def test_what_the_companys_own_people_stopped_is_not_resumed() -> None:
    """Behaviour follows a cookie that they stopped: it was out of use before, and stays so."""
    before = stores()
    before.of("ma_tool")["cookies", "K-1"]["suppressed_by"] = "manual"
    outcomes = outcomes_of("resumed")
    for category in ("cookies", "behaviour"):
        outcomes = changed("ma_tool", category, {"not_found": 0}, outcomes)
    first = SUSPENDED
    second = record(
        "r2",
        outcomes,
        "fulfilled_with_exceptions",
        action="resume_use",
        clocks={"closed": "2026-05-01T00:00:05Z"},
        number=2,
        previous=first["hash"],
    )
    both = Sent(asked("suspend_use")), Sent(asked("resume_use", "r2"))
    after = before.copy()
    found = judge(Evidence(before, after, both, closed(first, second), frozenset(), TODAY))
    assert found.ok, found.notes
    after.of("ma_tool")["cookies", "K-1"]["suppressed_by"] = None
    found = judge(Evidence(before, after, both, closed(first, second), frozenset(), TODAY))
    assert found.false == ["r2"]
