"""The way of a request through engine, ledger and `begin`, with a worker played step by step."""

import json
from collections.abc import Iterator
from datetime import date
from typing import Any

import pytest

from keshi.runtime.kafka import partition_of
from keshi.schemas.closure import record_hash
from keshi.schemas.identifiers import Identifier
from keshi.schemas.outcomes import CategoryOutcome, Outcome, Verdict
from keshi.schemas.reports import Intent
from keshi.schemas.requests import TaskStatus
from keshi.schemas.tasks import Found, TaskRef
from kit.asking import unwrap
from kit.samples import cloudevent, command, inventory
from kit.world import World, lasting_policy


def outcome(category: str, **change: Any) -> CategoryOutcome:
    return CategoryOutcome.model_validate({"category": category, **change}, strict=False)


@pytest.fixture
def world(kafka_bootstrap: str, topic_prefix: str, database: str) -> Iterator[World]:
    world = World(kafka_bootstrap, topic_prefix, database, inventory())
    yield world
    world.close()


def test_a_command_ends_as_one_closure_record(world: World) -> None:
    data = command()
    rid = data["request_id"]
    world.send(cloudevent(data))
    assert world.answer(rid, "RequestAccepted")["state"]["status"] == "open"
    world.work(rid, "shop", [("profile", "p1"), ("orders", "o1"), ("orders", "o2")])
    world.work(rid, "mail", [])
    closed = world.answer(rid, "RequestClosed")
    record = world.record(rid)
    assert record.verdict is Verdict.FULFILLED
    assert record.hash == record_hash(record) == closed["closure"]["hash"]
    assert record.done() == {Outcome.ERASED: 3, Outcome.NOT_FOUND: 0}


def test_what_law_keeps_is_remembered_item_by_item_under_keys_of_their_own(world: World) -> None:
    data = command()
    rid = data["request_id"]
    world.send(cloudevent(data))
    world.work(rid, "mail", [("contacts", "k1")])
    task = world.task(rid, "shop")
    go = world.begin(task, [("orders", "o1"), ("orders", "o2"), ("orders", "o3"), ("profile", "p1")])
    kept = {"outcome": "retained_by_law", "ground": "jp.tax-records", "until": date(2033, 4, 1)}
    outcomes = (
        outcome("orders", count=1, outcome="erased", items=(1,)),
        outcome("orders", count=2, items=(0, 2), **kept),
        outcome("profile", count=1, outcome="erased"),
    )
    world.report(world.completed(task, go, outcomes=outcomes))
    world.answer(rid, "RequestClosed")
    record = world.record(rid)
    assert record.verdict is Verdict.FULFILLED_WITH_EXCEPTIONS
    assert [(o.kind, o.count, o.until) for o in record.obligations] == [("retention", 1, date(2033, 4, 1))] * 2
    ids = [o.obligation_id for o in record.obligations]
    with world.ledger.reader() as reader:
        rows = {row.obligation_id: row for row in reader.obligations_of(rid)}
        keys = reader.keys([rid, *ids])
    assert set(keys) == set(ids), "the request's own key is destroyed, each obligation has one"
    refs = {f.ref for i in ids for f in world.keys.open_manifest(world.keys.open(keys[i], i), "shop", rows[i].sealed)}
    assert refs == {"o1", "o3"}


def test_resuming_lifts_what_we_suspended_and_nothing_else(world: World) -> None:
    first = command("SuspendUse")
    world.send(cloudevent(first, "SuspendUse"))
    task = world.task(first["request_id"], "shop")
    manual = Found(category="profile", ref="p2", was="suspended")
    go = world.begin(task, [Found(category="profile", ref="p1"), manual])
    world.report(world.completed(task, go, Outcome.SUSPENDED))
    world.work(first["request_id"], "mail", [])
    world.answer(first["request_id"], "RequestClosed")

    second = command("ResumeUse")
    world.send(cloudevent(second, "ResumeUse"))
    task = world.task(second["request_id"], "shop")
    ref = TaskRef(request_id=task.request_id, system="shop", attempt=1)
    remembered = unwrap(world.go, "shop", ref)[0].remembered
    assert [f.ref for f in remembered] == ["p1"]
    go = world.begin(task, [("profile", "p1"), ("profile", "p2")])
    assert [f.ref for f in go.union] == ["p1"], "the guard on our side as well"
    world.report(world.completed(task, go, Outcome.RESUMED))
    world.work(second["request_id"], "mail", [])
    world.answer(second["request_id"], "RequestClosed")

    def met() -> bool:
        with world.ledger.reader() as reader:
            row = reader.obligations_of(first["request_id"])[0]
            return row.state == "met" and not reader.keys([row.obligation_id])

    world.until(met)


def test_resuming_waits_for_the_suspension_and_lifts_what_that_one_did(world: World) -> None:
    first, second = command("SuspendUse"), command("ResumeUse")
    world.send(cloudevent(first, "SuspendUse"))
    world.answer(first["request_id"], "RequestAccepted")
    world.send(cloudevent(second, "ResumeUse"))
    assert world.answer(second["request_id"], "RequestAccepted")["state"]["waits_for"] == first["request_id"]
    world.work(first["request_id"], "shop", [("profile", "p1")])
    world.work(first["request_id"], "mail", [])
    task = world.task(second["request_id"], "shop")
    ref = TaskRef(request_id=task.request_id, system="shop", attempt=1)
    assert [f.ref for f in unwrap(world.go, "shop", ref)[0].remembered] == ["p1"]
    world.work(second["request_id"], "shop", [("profile", "p1")])
    world.work(second["request_id"], "mail", [])
    assert world.answer(second["request_id"], "RequestClosed")["closure"]["verdict"] == "fulfilled"


def test_a_repeat_gets_the_answer_that_exists_and_other_data_under_its_id_are_a_conflict(world: World) -> None:
    data = command()
    rid = data["request_id"]
    world.send(cloudevent(data))
    world.answer(rid, "RequestAccepted")
    world.work(rid, "shop", [("profile", "p1")])
    world.work(rid, "mail", [])
    closed = world.answer(rid, "RequestClosed")
    world.send(cloudevent(data), partition=1)
    world.until(lambda: len(world.answers(rid, "RequestClosed")) == 2)
    assert world.answers(rid, "RequestClosed")[1]["closure"] == closed["closure"]
    world.send(cloudevent({**data, "ground": "appi.35-1"}))
    rejected = world.answer(rid, "RequestRejected")
    assert (rejected["code"], rejected["field"]) == ("request_id_conflict", "data.request_id")
    assert world.state(rid).closed


def test_a_later_request_for_the_same_person_waits_for_the_earlier(world: World) -> None:
    """A retention sweep, here: what the person asks for may supersede it."""
    sweep: dict[str, Any] = {"requested_by": {"kind": "retention_sweep"}, "ground": "appi.22"}
    elder, younger = command("SuspendUse"), command(**sweep)
    while partition_of(elder["request_id"], 2) == partition_of(younger["request_id"], 2):
        younger = command(**sweep)
    world.send(cloudevent(elder, "SuspendUse"))
    world.answer(elder["request_id"], "RequestAccepted")
    world.send(cloudevent(younger))
    state = world.answer(younger["request_id"], "RequestAccepted")["state"]
    assert (state["status"], state["waits_for"]) == ("waiting", elder["request_id"])
    assert not world.tasks_sent(younger["request_id"])
    world.work(elder["request_id"], "shop", [("profile", "p1")])
    world.work(elder["request_id"], "mail", [])
    world.work(younger["request_id"], "shop", [("profile", "p1")])
    world.work(younger["request_id"], "mail", [])
    world.answer(younger["request_id"], "RequestClosed")


def test_a_failed_attempt_comes_again_and_a_person_is_asked_when_they_are_spent(
    kafka_bootstrap: str, topic_prefix: str, database: str
) -> None:
    world = World(
        kafka_bootstrap, topic_prefix, database, inventory(mail={"actions": None}), lasting_policy(max_attempts=2)
    )
    try:
        data = command()
        rid = data["request_id"]
        world.send(cloudevent(data))
        for attempt in (1, 2):
            world.report(world.failed(world.task(rid, "shop", attempt)))
        held = world.until(lambda: world.state(rid).tasks["shop"].status is TaskStatus.HELD)
        assert held
        assert world.state(rid).tasks["shop"].reason == "attempts_spent"
        world.decide(rid, "shop", "retry")
        world.work(rid, "shop", [("profile", "p1")], attempt=3)
        world.answer(rid, "RequestClosed")
        system = world.record(rid).systems[0]
        assert [d.person for d in system.decisions] == ["staff:kato"]
        assert [(a.attempt, a.error) for a in system.attempts] == [(1, "unavailable"), (2, "unavailable"), (3, None)]
    finally:
        world.close()


def test_more_records_than_the_limit_need_a_person_who_saw_just_these(
    kafka_bootstrap: str, topic_prefix: str, database: str
) -> None:
    systems = inventory(mail={"actions": None}, shop={"record_limit": 2})
    world = World(kafka_bootstrap, topic_prefix, database, systems)
    try:
        data = command()
        rid = data["request_id"]
        world.send(cloudevent(data))
        found = [("profile", f"p{n}") for n in range(3)]
        task = world.task(rid, "shop")
        assert world.begin(task, found).reason == "over_limit"
        world.report(world.failed(task, "over_limit", Intent.PERSON))
        state = world.until(lambda: world.state(rid) if world.state(rid).tasks["shop"].held_digest else None)
        assert world.begin(task, found).reason == "held"
        world.decide(rid, "shop", "approve", digest="0" * 64)
        assert world.answer(rid, "RequestRejected")["code"] == "decision_not_applicable"
        world.decide(rid, "shop", "approve", digest=state.tasks["shop"].held_digest)
        second = world.task(rid, "shop", 2)
        assert world.begin(second, [*found, ("profile", "p9")]).reason == "over_limit", "not what the person saw"
        world.report(world.failed(second, "over_limit", Intent.PERSON))
        world.until(lambda: world.state(rid).tasks["shop"].status is TaskStatus.HELD)
        world.decide(rid, "shop", "approve", digest=world.state(rid).tasks["shop"].held_digest)
        world.work(rid, "shop", found, attempt=3)
        world.answer(rid, "RequestClosed")
        assert world.record(rid).systems[0].located.counts == {"profile": 4}
    finally:
        world.close()


def test_a_refusal_by_a_person_ends_a_held_task_with_its_ground(
    kafka_bootstrap: str, topic_prefix: str, database: str
) -> None:
    world = World(kafka_bootstrap, topic_prefix, database, inventory(mail={"actions": None}))
    try:
        data = command()
        rid = data["request_id"]
        world.send(cloudevent(data))
        world.report(world.failed(world.task(rid, "shop"), "ambiguous", Intent.PERSON))
        world.until(lambda: world.state(rid).tasks["shop"].status is TaskStatus.HELD)
        world.decide(rid, "shop", "refuse", ground="own.not-this-person", forged=True)
        assert world.answer(rid, "RequestRejected")["code"] == "signature_invalid"
        world.decide(rid, "shop", "refuse", ground="own.not-this-person")
        world.answer(rid, "RequestClosed")
        assert world.record(rid).verdict is Verdict.REFUSED
    finally:
        world.close()


def test_one_bad_report_in_a_list_harms_no_other(world: World) -> None:
    data = command()
    rid = data["request_id"]
    world.send(cloudevent(data))
    task = world.task(rid, "shop")
    go = world.begin(task, [("profile", "p1")])
    good = json.loads(world.completed(task, go).model_dump_json(exclude_none=True))
    whole = {
        "specversion": "1.0",
        "id": "x",
        "source": "urn:test",
        "type": "keshi.TasksReported.v1",
        "data": {"partition": 0, "reports": [{"kind": "completed", "nonsense": True}, good]},
    }
    world.feed("reports", partition_of(rid, 2), json.dumps(whole).encode())
    assert world.state(rid).tasks["shop"].ended
    noted = world.until(lambda: [m for topic, m in world.messages if topic == "quarantine"])
    assert noted[0]["data"]["reason"] == "report_invalid"


def test_a_system_that_has_to_go_first_is_waited_for(kafka_bootstrap: str, topic_prefix: str, database: str) -> None:
    world = World(kafka_bootstrap, topic_prefix, database, inventory(mail={"after": ["shop"]}))
    try:
        data = command()
        rid = data["request_id"]
        world.send(cloudevent(data))
        world.task(rid, "shop")
        assert world.tasks_sent(rid) == [("shop", 1, "act")]
        world.work(rid, "shop", [])
        world.work(rid, "mail", [])
        assert world.answer(rid, "RequestClosed")["closure"]["verdict"] == "no_data_held"
    finally:
        world.close()


def test_a_source_of_identifiers_is_asked_first_and_what_it_learned_is_sealed_for_who_needs_it(
    kafka_bootstrap: str, topic_prefix: str, database: str
) -> None:
    systems = inventory(
        mail={"learns": ["phone"], "after": ["calls"]},
        calls={
            "actions": ["erase"],
            "identifiers": ["phone"],
            "categories": [{"name": "recordings", "title": "Recordings"}],
        },
        shop={"actions": None},
    )
    world = World(kafka_bootstrap, topic_prefix, database, systems)
    try:
        data = command()
        rid = data["request_id"]
        world.send(cloudevent(data))
        task = world.task(rid, "mail")
        assert world.tasks_sent(rid) == [("mail", 1, "identify")]
        phone = Identifier(type="phone", value="+819000000017")
        go = world.begin(task, [], learned=(phone,))
        world.report(world.completed(task, go, Outcome.NOT_FOUND))
        calls = world.task(rid, "calls")
        ref = TaskRef(request_id=rid, system="calls", attempt=1)
        assert unwrap(world.go, "calls", ref)[0].identifiers == (phone,)
        world.report(world.completed(calls, world.begin(calls, [("recordings", "r1")])))
        world.work(rid, "mail", [("contacts", "k1")], attempt=2)
        world.answer(rid, "RequestClosed")
        assert world.record(rid).verdict is Verdict.FULFILLED
    finally:
        world.close()


def test_a_system_out_of_scope_is_asked_for_identifiers_and_for_nothing_else(
    kafka_bootstrap: str, topic_prefix: str, database: str
) -> None:
    systems = inventory(
        mail={"learns": ["phone"]},
        calls={
            "actions": ["erase"],
            "identifiers": ["phone"],
            "categories": [{"name": "recordings", "title": "Recordings"}],
        },
        shop={"actions": None},
    )
    world = World(kafka_bootstrap, topic_prefix, database, systems)
    try:
        data = command(scope={"categories": ["recordings"]})
        rid = data["request_id"]
        world.send(cloudevent(data))
        task = world.task(rid, "mail")
        assert world.tasks_sent(rid) == [("mail", 1, "identify")]
        phone = Identifier(type="phone", value="+819000000017")
        world.report(world.completed(task, world.begin(task, [], learned=(phone,)), Outcome.NOT_FOUND))
        world.work(rid, "calls", [("recordings", "r1")])
        world.answer(rid, "RequestClosed")
        record = world.record(rid)
        assert record.verdict is Verdict.FULFILLED_WITHIN_SCOPE
        assert [(o.category, o.outcome, o.reason) for o in record.systems[0].outcomes] == [
            ("contacts", Outcome.OUT_OF_SCOPE, "category_not_asked_for")
        ]
        assert world.tasks_sent(rid) == [("mail", 1, "identify"), ("calls", 1, "act")]
    finally:
        world.close()


def test_a_request_about_items_reaches_those_alone_and_names_them_nowhere(shop_only: World) -> None:
    world = shop_only
    data = command(scope={"items": ["orders:o-1", "orders:o-3"]})
    rid = data["request_id"]
    world.send(cloudevent(data))
    task = world.task(rid, "shop")
    ref = TaskRef(request_id=rid, system="shop", attempt=1)
    assert unwrap(world.go, "shop", ref)[0].items == ("orders:o-1", "orders:o-3")
    go = world.begin(task, [("orders", "o-1"), ("orders", "o-2")])
    assert [(f.category, f.ref) for f in go.union] == [("orders", "o-1")]
    world.report(world.completed(task, go, outcomes=(outcome("orders", outcome="erased", count=1),)))
    world.answer(rid, "RequestClosed")
    record = world.record(rid)
    assert record.verdict is Verdict.FULFILLED_WITHIN_SCOPE
    assert len(record.scope.items or ()) == 2
    assert "o-1" not in record.model_dump_json()
    assert {o.category: o.reason for o in record.systems[0].outcomes} == {
        "orders": None,
        "profile": "item_not_asked_for",
    }


def test_what_is_still_held_is_asked_for_again_and_replaces_what_was_owed(shop_only: World) -> None:
    """A later erasure finds what law kept: the new record speaks of it, the old obligation is met by it."""
    world, obligations = shop_only, []
    for _ in range(2):
        data = command()
        world.send(cloudevent(data))
        task = world.task(data["request_id"], "shop")
        go = world.begin(task, [("orders", "o1")])
        kept = {"outcome": "retained_by_law", "ground": "jp.tax-records", "until": date(2033, 4, 1), "items": (0,)}
        said = (outcome("orders", count=1, **kept), outcome("profile", outcome="not_found"))
        world.report(world.completed(task, go, outcomes=said))
        world.answer(data["request_id"], "RequestClosed")
        obligations.append(world.record(data["request_id"]).obligations[0].obligation_id)

    def states() -> list[str]:
        with world.ledger.reader() as reader:
            found = reader.obligations(obligations)
            return [found[o].state for o in obligations]

    world.until(lambda: states() == ["met", "open"])


def test_what_a_system_is_known_to_keep_stands_in_the_record_with_its_date(
    kafka_bootstrap: str, topic_prefix: str, database: str
) -> None:
    backup = {"place": "nightly_backup", "reason": "rotates_by_itself", "days": 35}
    systems = inventory(mail={"actions": None}, shop={"residue": [backup]})
    world = World(kafka_bootstrap, topic_prefix, database, systems)
    try:
        data = command()
        world.send(cloudevent(data))
        world.work(data["request_id"], "shop", [("profile", "p1")])
        world.answer(data["request_id"], "RequestClosed")
        record = world.record(data["request_id"])
        assert [r.place for r in record.systems[0].residue] == ["nightly_backup"]
        assert record.verdict is Verdict.FULFILLED_WITH_EXCEPTIONS
        assert [r.place for r in record.own_residue] == ["topic_commands"]
    finally:
        world.close()


@pytest.fixture
def shop_only(kafka_bootstrap: str, topic_prefix: str, database: str) -> Iterator[World]:
    world = World(kafka_bootstrap, topic_prefix, database, inventory(mail={"actions": None}))
    yield world
    world.close()
