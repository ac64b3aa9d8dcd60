"""The invariants, each by its name. Breaking one is the worst defect there is."""

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from kafka import OffsetAndMetadata, TopicPartition
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from keshi.orchestrator import admission
from keshi.orchestrator.door import write_door
from keshi.orchestrator.events import EVENTS
from keshi.orchestrator.ledger.postgres import PostgresCycle
from keshi.orchestrator.request import replay
from keshi.orchestrator.stream.port import Lane, LogBounds, NotOwner, Record
from keshi.runtime.kafka import handler_group, new_consumer, partition_of
from keshi.schemas.closure import GENESIS, ClosureRecord, record_hash
from keshi.schemas.outcomes import CategoryOutcome, Outcome, Verdict
from keshi.schemas.reports import Intent
from keshi.schemas.requests import RequestStatus, TaskStatus
from keshi.schemas.tasks import Go, Mode
from kit.marks import Mark
from kit.samples import cloudevent, command, inventory
from kit.world import World, lasting_policy


@pytest.fixture
def world(kafka_bootstrap: str, topic_prefix: str, database: str) -> Iterator[World]:
    world = World(kafka_bootstrap, topic_prefix, database, inventory())
    yield world
    world.close()


@pytest.fixture
def shop(kafka_bootstrap: str, topic_prefix: str, database: str) -> Iterator[World]:
    """One system alone: a request is one task."""
    world = World(kafka_bootstrap, topic_prefix, database, inventory(mail={"actions": None}))
    yield world
    world.close()


def begun(world: World, found: list[tuple[str, str]]) -> tuple[str, Any, Go]:
    data = command()
    rid = data["request_id"]
    world.send(cloudevent(data))
    task = world.task(rid, "shop")
    go = world.begin(task, found)
    assert isinstance(go, Go)
    return rid, task, go


def rows(world: World, statement: str, **values: Any) -> list[Any]:
    with world.db.connect() as connection:
        return list(connection.execute(text(statement), values))


BAD: dict[str, tuple[bytes | None, str, str | None]] = {
    "empty": (None, "quarantined", "empty"),
    "not json": (b"{", "quarantined", "not_json"),
    "json of another kind": (b"[1,2]", "quarantined", "not_a_cloudevent"),
    "not a cloudevent": (b'{"hello": "there"}', "quarantined", "not_a_cloudevent"),
    "deep": (b"[" * 200_000, "quarantined", "not_json"),
    "1 MB": (b'{"specversion":"1.0","x":"' + b"x" * 1_000_000 + b'"}', "quarantined", "too_large"),
    "unknown type": (cloudevent(command(), "EatSubject"), "rejected", "type_unknown"),
    "unknown version": (
        cloudevent(command()).replace(b"EraseSubject.v1", b"EraseSubject.v9"),
        "rejected",
        "type_unknown",
    ),
    "missing field": (
        cloudevent({k: v for k, v in command().items() if k != "regime"}),
        "rejected",
        "field_missing",
    ),
    "unknown field": (cloudevent({**command(), "nickname": "x"}), "rejected", "field_unknown"),
    "no identifiers": (cloudevent(command(identifiers=[])), "rejected", "identifier_invalid"),
    "empty identifier": (
        cloudevent(command(identifiers=[{"type": "email", "value": ""}])),
        "rejected",
        "identifier_invalid",
    ),
    "malformed phone": (
        cloudevent(command(identifiers=[{"type": "phone", "value": "090-1234"}])),
        "rejected",
        "identifier_invalid",
    ),
    "NUL": (
        cloudevent(command(identifiers=[{"type": "customer_id", "value": "a\x00b"}])),
        "rejected",
        "text_invalid",
    ),
    "lone surrogate": (
        cloudevent(command(identifiers=[{"type": "customer_id", "value": "a\ud800b"}])),
        "rejected",
        "text_invalid",
    ),
    "integer past 2^53": (cloudevent({**command(), "due": 2**53}), "rejected", "number_too_large"),
    "bad request id": (cloudevent(command(request_id="one")), "quarantined", "field_invalid"),
    "naive time": (cloudevent(command(due="2026-12-01T00:00:00")), "rejected", "field_invalid"),
    "unknown ground": (cloudevent(command(ground="appi.99")), "rejected", "ground_unknown"),
    "ground of another action": (cloudevent(command(ground="appi.35-3")), "rejected", "ground_not_for_action"),
    "identifier in a reference": (
        cloudevent(command(assessed={"by": "staff:C-000007", "at": "2026-11-02T09:00:00Z"})),
        "rejected",
        "identifier_in_reference",
    ),
    "action no system can do": (
        cloudevent(command("StopProvision", ground="appi.35-3"), "StopProvision"),
        "rejected",
        "action_not_possible",
    ),
    "scope by purpose": (cloudevent(command(scope={"purposes": ["ads"]})), "rejected", "purpose_unknown"),
    "scope by item": (cloudevent(command(scope={"items": ["letters:1"]})), "rejected", "category_unknown"),
    "unknown category": (cloudevent(command(scope={"categories": ["moods"]})), "rejected", "category_unknown"),
    "nothing searchable": (
        cloudevent(command(identifiers=[{"type": "cookie_id", "value": "abc-1"}])),
        "rejected",
        "nothing_searchable",
    ),
    "notice for an unknown request": (
        cloudevent(
            {"request_id": command()["request_id"], "notified_at": "2026-11-02T09:00:00Z", "notice": "mail:1"},
            "RecordNotice",
        ),
        "rejected",
        "request_unknown",
    ),
}


def test_no_lost_command(world: World) -> None:
    """Every offset is in the ledger as accepted, duplicate, rejected or quarantined; who can be told is told."""
    good = command()
    values = [raw for raw, _, _ in BAD.values()]
    first = world.send(*values, cloudevent(good), cloudevent(good))
    world.answer(good["request_id"], "RequestAccepted")
    found = {r.place: r for r in rows(world, "SELECT place, result, code, request_id FROM arrivals")}
    assert set(found) == set(range(first, first + len(values) + 2))
    for n, (name, (_, result, code)) in enumerate(BAD.items()):
        assert (found[first + n].result, found[first + n].code) == (result, code), name
    assert [found[first + len(values) + n].result for n in (0, 1)] == ["accepted", "duplicate"]
    told = [r.request_id for r in found.values() if r.result == "rejected"]
    for request_id in told:
        answer = world.answer(request_id, "RequestRejected")
        assert "nickname" not in json.dumps(answer)
    noted = world.until(lambda: [m for t, m in world.messages if t == "quarantine"])
    assert len(noted) == sum(r == "quarantined" for _, r, _ in BAD.values())


def test_no_lost_command_by_its_own_partition_is_decided_at_once(world: World) -> None:
    """No inbox and no second transaction, where the partition is the request's own and its requests are ours."""
    data = command()
    home = partition_of(data["request_id"], 2)
    world.turn()  # what waited when the lanes were taken
    values = [cloudevent(data), cloudevent(command()), b"{", cloudevent({**command(), "regime": "moon"})]
    world.engine.process(
        Lane("commands", home), [Record(Lane("commands", home), n, v, None, (), 0) for n, v in enumerate(values)]
    )
    assert world.state(data["request_id"]).status is RequestStatus.OPEN
    assert not [r for r in rows(world, "SELECT partition FROM inbox") if r.partition == home]
    world.turn()
    results = [r.result for r in rows(world, "SELECT result FROM arrivals ORDER BY place")]
    assert results == ["accepted", "accepted", "quarantined", "rejected"]
    world.task(data["request_id"], "shop")


def test_no_lost_command_when_its_partitions_requests_are_anothers(world: World) -> None:
    """Of two lanes of one partition the other process owns one: nothing is decided here, and nothing is passed over."""
    data = command()
    home = partition_of(data["request_id"], 2)
    commands, reports = Lane("commands", home), Lane("reports", home)
    record = Record(commands, 0, cloudevent(data), None, (), 0)
    world.turn()  # what waited when the lanes were taken
    with world.db.begin() as connection:
        connection.execute(
            text("UPDATE lanes SET epoch = epoch + 1 WHERE stage = 'reports' AND partition = :p"), {"p": home}
        )
    with pytest.raises(NotOwner):
        world.engine.process(commands, [record])
    assert not rows(world, "SELECT 1 FROM requests")
    assert not rows(world, "SELECT 1 FROM arrivals")
    assert world.engine.take({commands: LogBounds(0, 10**9, "topic-uuid")})[commands] == 0
    world.engine.process(commands, [record])  # by the inbox of whoever owns its requests
    assert [r.partition for r in rows(world, "SELECT partition FROM inbox")] == [home]
    world.engine.take({reports: LogBounds(0, 10**9, "topic-uuid")})
    world.turn()
    assert world.state(data["request_id"]).status is RequestStatus.OPEN


def test_no_lost_command_when_a_decider_raises(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record that cannot be decided is put aside with its offset; what stands around it goes on."""
    poison, before, after = command(), command(person=8), command(person=9)
    for data in (before, after):
        while partition_of(data["request_id"], 2) != partition_of(poison["request_id"], 2):
            data["request_id"] = command()["request_id"]
    submit = admission.HANDLERS[admission.Submit]

    def raising(turn: Any, message: Any) -> None:
        if message.request_id == poison["request_id"]:
            raise ZeroDivisionError
        submit(turn, message)

    handlers: dict[Any, Any] = {**admission.HANDLERS, admission.Submit: raising}
    monkeypatch.setattr(admission, "HANDLERS", handlers)
    world.send(cloudevent(before), cloudevent(poison), cloudevent(after))
    for data in (before, after):
        world.answer(data["request_id"], "RequestAccepted")
    found = rows(world, "SELECT place, result FROM arrivals ORDER BY place")
    assert [r.result for r in found] == ["accepted", "quarantined", "accepted"]
    assert rows(world, "SELECT count(*) AS n FROM inbox")[0].n == 0


def test_no_false_closure_by_a_report_that_is_not_authentic(shop: World) -> None:
    rid, task, go = begun(shop, [("profile", "p1")])
    shop.report(shop.completed(task, go).model_copy(update={"hmac": "0" * 64}))
    noted = shop.until(lambda: [m for t, m in shop.messages if t == "quarantine"])
    assert noted[0]["data"]["reason"] == "report_not_authentic"
    assert shop.state(rid).tasks["shop"].status is TaskStatus.OPEN
    shop.report(shop.completed(task, go))
    assert shop.state(rid).closed


@pytest.mark.parametrize(
    ("why", "outcomes"),
    [
        ("counts_differ", [("profile", "erased", 1), ("orders", "not_found", 0)]),
        ("category_missing", [("profile", "erased", 2)]),
        ("outcome_not_legal", [("profile", "suspended", 2), ("orders", "not_found", 0)]),
        ("outcome_not_legal", [("profile", "impossible", 2), ("orders", "not_found", 0)]),
        ("category_not_planned", [("profile", "erased", 2), ("orders", "not_found", 0), ("secrets", "erased", 1)]),
    ],
)
def test_no_false_closure_by_a_report_that_cannot_be_true(
    shop: World, why: str, outcomes: list[tuple[str, str, int]]
) -> None:
    """Signed, but it does not fit the union that the ledger has: the task is tried again."""
    rid, task, go = begun(shop, [("profile", "p1"), ("profile", "p2")])
    said = tuple(
        CategoryOutcome(category=c, outcome=Outcome(o), count=n, reason="x" if o == "impossible" else None)
        for c, o, n in outcomes
    )
    shop.report(shop.completed(task, go, outcomes=said))
    assert shop.state(rid).tasks["shop"].reason == why
    assert not shop.state(rid).closed


def test_no_false_closure_by_a_lease_that_is_not_the_newest(shop: World) -> None:
    rid, task, old = begun(shop, [("profile", "p1")])
    new = shop.until(lambda: _go(shop.begin(task, [("profile", "p1"), ("profile", "p2")])))
    shop.report(shop.completed(task, old))
    assert not shop.state(rid).closed
    shop.report(shop.completed(task, new))
    assert shop.record(rid).systems[0].located.counts == {"profile": 2}


def test_no_false_closure_over_less_than_everything_that_was_found(
    kafka_bootstrap: str, topic_prefix: str, database: str
) -> None:
    """An attempt that got no go found more: a report that does not speak of it does not count."""
    systems = inventory(mail={"actions": None}, shop={"record_limit": 1})
    slow = lasting_policy(retry_schedule=(60,), silence_seconds=60)  # nothing else happens meanwhile
    world = World(kafka_bootstrap, topic_prefix, database, systems, slow)
    try:
        rid, task, go = begun(world, [("profile", "p1")])
        refused = world.until(lambda: (a := world.begin(task, [("profile", "p2")])).answer == "stop" and a)
        assert refused.reason == "over_limit"
        world.report(world.completed(task, go))
        assert not world.state(rid).closed
        assert world.state(rid).tasks["shop"].reason == "more_found_since"
    finally:
        world.close()


def test_no_false_closure_by_a_cycle_that_is_slow(shop: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without begin's lock another lease could follow while it lasts: it is done again, with the lock."""
    rid, task, go = begun(shop, [("profile", "p1")])
    shop.report(shop.failed(task, "not_this_attempt", lease_id="0" * 32))
    locks: list[int] = []
    lock = PostgresCycle.lock_partition

    def counted(tx: PostgresCycle) -> None:
        locks.append(1)
        lock(tx)

    monkeypatch.setattr(PostgresCycle, "lock_partition", counted)
    monkeypatch.setattr("keshi.orchestrator.deciding.UNLOCKED_SECONDS", -1.0)
    monkeypatch.setattr("keshi.orchestrator.cycle._LEASE_MARGIN", timedelta(0))
    shop.report(shop.completed(task, go))
    assert shop.state(rid).closed
    assert len(locks) == 1, "the first try took no lock and was given up"


def _go(answer: Any) -> Go | None:
    return answer if isinstance(answer, Go) else None


def test_one_closure(shop: World) -> None:
    """However often reports and commands come again, and whoever sends what is left, there is one record."""
    rid, task, go = begun(shop, [("profile", "p1")])
    report = shop.completed(task, go)
    shop.report(report)
    hash_before = shop.record(rid).hash
    shop.engine = shop.new_engine()
    shop.report(report)
    shop.report(report)
    assert [r.hash for r in rows(shop, "SELECT hash FROM closures")] == [hash_before]
    ids = {m["id"] for t, m in shop.messages if t == "requests" and m["type"] == "keshi.RequestClosed.v1"}
    shop.answer(rid, "RequestClosed")
    ids |= {m["id"] for t, m in shop.messages if t == "requests" and m["type"] == "keshi.RequestClosed.v1"}
    assert len(ids) == 1, "what is sent again has the same id"


def test_one_closure_in_an_unbroken_chain(shop: World) -> None:
    for n in range(6):
        data = command(person=100 + n)
        shop.send(cloudevent(data))
        shop.work(data["request_id"], "shop", [])
    for partition in range(2):
        previous = GENESIS
        found = rows(shop, "SELECT record FROM closures WHERE partition = :p ORDER BY number", p=partition)
        for number, row in enumerate(found, start=1):
            record = ClosureRecord.model_validate_json(row.record)
            assert (record.previous, record.number) == (previous, number)
            assert record_hash(record) == record.hash
            previous = record.hash


def test_one_closure_when_an_old_owner_wakes_up(shop: World) -> None:
    """Its first line is refused, and it has changed nothing."""
    old = shop.engine
    rid, task, go = begun(shop, [("profile", "p1")])
    shop.engine = shop.new_engine()
    lane = Lane("reports", partition_of(rid, 2))
    before = rows(shop, "SELECT count(*) AS n FROM events")[0].n
    with pytest.raises(NotOwner):
        old.process(lane, [Record(lane, shop.offsets.get(lane, 0), b"{}", None, (), 0)])
    assert rows(shop, "SELECT count(*) AS n FROM events")[0].n == before
    shop.report(shop.completed(task, go))
    assert shop.state(rid).closed


def test_one_closure_when_what_was_committed_was_not_sent(shop: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next owner sends what the ledger still holds."""
    monkeypatch.setattr("keshi.orchestrator.sender.Sender.send", lambda *_: None)
    data = command()
    shop.send(cloudevent(data))
    shop.poll()
    assert not shop.messages
    monkeypatch.undo()
    shop.engine = shop.new_engine()
    shop.work(data["request_id"], "shop", [])
    shop.answer(data["request_id"], "RequestClosed")
    shop.until(lambda: rows(shop, "SELECT count(*) AS n FROM outbox")[0].n == 0)


def test_evidence_survives(shop: World) -> None:
    """A crash between destroying and reporting never turns "5 records erased" into "nothing found"."""
    found = [("profile", "p1"), *(("orders", f"o{n}") for n in range(4))]
    rid, task, _ = begun(shop, found)
    # The worker erased all five and died. Another finds nothing any more.
    go = shop.until(lambda: _go(shop.begin(task, [])))
    assert len(go.union) == 5
    shop.report(shop.completed(task, go))
    record = shop.record(rid)
    assert record.done()[Outcome.ERASED] == 5
    assert record.systems[0].located.counts == {"profile": 1, "orders": 4}
    assert record.systems[0].attempts[0].acts_entered == 2


def test_no_act_without_go(shop: World) -> None:
    """None for what is unknown, another's, of another attempt or mode, held, withdrawn or closed."""
    rid, task, go = begun(shop, [("profile", "p1")])
    assert shop.begin(task, []).answer == "wait", "somebody else may be acting"
    for change, reason in (
        ({"attempt": 2}, "other_attempt"),
        ({"system": "mail"}, "unknown"),
        ({"request_id": command()["request_id"]}, "unknown"),
    ):
        assert shop.begin(task.model_copy(update=change), []).reason == reason
    assert shop.begin(task, [], mode=Mode.CHECK).reason == "other_mode"
    shop.report(shop.completed(task, go))
    assert shop.begin(task, []).reason == "closed"

    rid, task, _ = begun(shop, [])
    shop.send(cloudevent({"request_id": rid}, "WithdrawRequest"))
    assert shop.begin(task, []).reason == "withdrawn"


def test_no_act_without_go_once_acts_are_spent(kafka_bootstrap: str, topic_prefix: str, database: str) -> None:
    policy = lasting_policy(max_acts=2, lease_seconds=1)
    world = World(kafka_bootstrap, topic_prefix, database, inventory(mail={"actions": None}), policy)
    try:
        rid, task, _ = begun(world, [("profile", "p1")])
        world.until(lambda: _go(world.begin(task, [])))
        refused = world.until(lambda: (a := world.begin(task, [])).answer == "stop" and a)
        assert refused.reason in {"acts_spent", "held"}
        world.until(lambda: world.state(rid).tasks["shop"].status is TaskStatus.HELD)
        assert world.state(rid).tasks["shop"].reason == "acts_spent"
        world.decide(rid, "shop", "retry")
        world.work(rid, "shop", [], attempt=2)
        assert world.record(rid).done()[Outcome.ERASED] == 1
    finally:
        world.close()


def test_no_act_without_go_a_withdrawal_before_its_command(shop: World) -> None:
    """By another partition, and first: nothing is touched."""
    data = command()
    rid = data["request_id"]
    shop.send(cloudevent({"request_id": rid}, "WithdrawRequest"), partition=1)
    assert shop.state(rid).withdrawn
    shop.send(cloudevent(data), partition=0)
    shop.answer(rid, "RequestClosed")
    assert shop.record(rid).verdict is Verdict.WITHDRAWN
    assert not shop.tasks_sent(rid)


def test_no_act_without_go_a_withdrawal_while_somebody_may_act(shop: World) -> None:
    """The task is looked at when the lease is over, and the record says what had already gone."""
    found = [("orders", "o1"), ("orders", "o2"), ("orders", "o3")]
    rid, _, _ = begun(shop, found)
    shop.send(cloudevent({"request_id": rid}, "WithdrawRequest"))
    assert not shop.state(rid).closed
    check = shop.task(rid, "shop", 2)
    assert check.mode is Mode.CHECK
    assert shop.begin(check, [("orders", "o3")], mode=Mode.ACT).reason == "other_mode"
    go = shop.begin(check, [("orders", "o3")])
    assert len(go.union) == 3
    outcomes = (
        CategoryOutcome(category="profile", outcome=Outcome.NOT_FOUND),
        CategoryOutcome(category="orders", outcome=Outcome.ERASED, count=2, items=(0, 1)),
        CategoryOutcome(category="orders", outcome=Outcome.NOT_STARTED, count=1, items=(2,), reason="withdrawn"),
    )
    shop.report(shop.completed(check, go, outcomes=outcomes))
    record = shop.record(rid)
    assert record.withdrawn
    assert record.verdict is Verdict.FULFILLED_WITH_EXCEPTIONS
    assert record.done() == {Outcome.NOT_FOUND: 0, Outcome.ERASED: 2, Outcome.NOT_STARTED: 1}


def test_nothing_waits_silently(world: World) -> None:
    """Every open request has a next moment in the ledger, whatever it waits for; a due date that passes is told."""
    silent, waiting, failing, asking = (command(person=n) for n in (1, 1, 2, 3))
    late = command(person=4, due=(datetime.now(UTC) + timedelta(seconds=2)).isoformat())
    world.send(*(cloudevent(d) for d in (silent, waiting, failing, asking, late)))
    world.report(world.failed(world.task(failing["request_id"], "shop")))
    world.report(world.failed(world.task(asking["request_id"], "shop"), "ambiguous", Intent.PERSON))
    assert world.answer(late["request_id"], "RequestOverdue")["state"]["overdue"]
    found = rows(world, "SELECT next_due FROM requests WHERE status <> 'closed'")
    assert len(found) == 5
    assert all(r.next_due is not None for r in found)


def test_nothing_waits_silently_in_a_system_that_lost_its_message(shop: World) -> None:
    """A task whose worker's group has passed its message without a report is sent again."""
    shop.engine._.silence.start()
    try:
        data = command()
        rid = data["request_id"]
        shop.send(cloudevent(data))
        shop.task(rid, "shop")
        _commit_everything(shop, "shop")
        shop.until(lambda: len(shop.tasks_sent(rid)) > 1, seconds=40)
        assert set(shop.tasks_sent(rid)) == {("shop", 1, "act")}
    finally:
        shop.engine._.silence.close()


def _commit_everything(world: World, system: str) -> None:
    consumer = new_consumer(world.kafka, handler_group(world.kafka, system))
    places = [TopicPartition(world.kafka.topic(f"tasks.{system}"), p) for p in range(2)]
    consumer.assign(places)
    ends = consumer.end_offsets(places)
    consumer.commit({p: OffsetAndMetadata(o, "", -1) for p, o in ends.items()})
    consumer.close(autocommit=False)


def test_no_plain_identifier(world: World, capfd: pytest.CaptureFixture[str]) -> None:
    """Past intake, marked identifiers stand in no ledger table, no message and no log, in no usual writing."""
    mark = Mark()
    data = command(identifiers=mark.identifiers())
    rid = data["request_id"]
    bad = cloudevent({**command(identifiers=mark.identifiers()), "extra": mark.email})
    world.send(cloudevent(data), bad, b"{" + mark.email.encode(), cloudevent({**data, "due": None}))
    world.work(rid, "shop", [("profile", mark.customer_id)])
    world.work(rid, "mail", [("contacts", mark.email)])
    world.answer(rid, "RequestClosed")
    dump = _dump(world)
    assert len(dump) > 5_000
    sent = json.dumps(world.messages, ensure_ascii=False)
    written = capfd.readouterr()
    for place in (dump, sent, written.out, written.err):
        assert mark.found_in(place.encode()) == []


def test_no_plain_identifier_would_be_seen_if_it_leaked(world: World) -> None:
    mark = Mark()
    with world.db.begin() as connection:
        connection.execute(text("INSERT INTO meta VALUES ('leak', :v)"), {"v": mark.email.upper().encode().hex()})
    assert mark.found_in(_dump(world).encode())


def _dump(world: World) -> str:
    tables = rows(world, "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")
    return "\n".join(
        str(tuple(row)) for t in tables for row in rows(world, f'SELECT t::text FROM "{t.tablename}" AS t')
    )


def test_append_only(world: World) -> None:
    """What happened cannot be changed, and what stands is what it leads to."""
    rid, _, _ = begun(world, [("profile", "p1")])
    world.work(rid, "mail", [])
    world.send(cloudevent({"request_id": rid}, "WithdrawRequest"))
    tables = ("events", "arrivals", "evidence", "renewals", "closures", "quarantine", "plans", "inventories")
    for table in tables:
        for statement in (f"DELETE FROM {table}", f"TRUNCATE {table}", f"UPDATE {table} SET {_column(world, table)}"):
            with world.db.begin() as connection, pytest.raises(DBAPIError, match="append-only"):
                connection.execute(text(statement))
    for row in rows(world, "SELECT request_id, partition, door::text AS door FROM requests"):
        history = rows(
            world, "SELECT at, data::text AS data FROM events WHERE stream = :s ORDER BY sequence", s=row.request_id
        )
        happened = [(EVENTS.validate_json(e.data), e.at) for e in history]
        state = replay(row.request_id, row.partition, happened)
        assert state == world.state(row.request_id)
        assert row.door == write_door(state)


def _column(world: World, table: str) -> str:
    found = rows(world, "SELECT column_name AS c FROM information_schema.columns WHERE table_name = :t", t=table)
    return f"{found[-1].c} = {found[-1].c}"


def test_waiting_requests_begin_when_a_recheck_finds_the_elder_gone(shop: World) -> None:
    """Also when the message that says so was lost."""
    elder, younger = command(), command()
    shop.send(cloudevent(elder))
    shop.answer(elder["request_id"], "RequestAccepted")
    shop.send(cloudevent(younger))
    shop.until(lambda: shop.state(younger["request_id"]).waits_for)
    with shop.db.begin() as connection:
        connection.execute(text("DELETE FROM claims WHERE request_id = :r"), {"r": elder["request_id"]})
    shop.until(lambda: shop.state(younger["request_id"]).status is RequestStatus.OPEN)


def test_nothing_waits_silently_after_the_closure(shop: World) -> None:
    """An obligation whose period has ended is late, and says so in the ledger."""
    rid, task, go = begun(shop, [("orders", "o1")])
    kept = CategoryOutcome(
        category="orders",
        outcome=Outcome.RETAINED_BY_LAW,
        count=1,
        items=(0,),
        ground="jp.tax-records",
        until=date(2033, 3, 31),
    )
    nothing = CategoryOutcome(category="profile", outcome=Outcome.NOT_FOUND)
    shop.report(shop.completed(task, go, outcomes=(kept, nothing)))
    [obligation] = shop.record(rid).obligations
    moment = rows(shop, "SELECT due FROM obligations")[0].due
    assert moment.date() == date(2033, 4, 1), "the day after the last day of the period"
    with shop.db.begin() as connection:
        connection.execute(text("UPDATE obligations SET due = now()"))
    statement = "SELECT kind, data::text AS data FROM events WHERE stream = :s ORDER BY sequence"
    shop.until(lambda: len(rows(shop, statement, s=obligation.obligation_id)) == 2)
    late = rows(shop, statement, s=obligation.obligation_id)[1]
    assert late.kind == "obligation_due"
    assert rows(shop, "SELECT due > now() AS later, state FROM obligations") == [(True, "open")]
