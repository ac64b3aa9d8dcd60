"""A later erasure takes the place of an open suspension of the same person, and of nothing else."""

from collections.abc import Iterator
from typing import Any

import pytest

from keshi.runtime.kafka import partition_of
from keshi.schemas.outcomes import DecidedBy, Outcome, Verdict
from keshi.schemas.requests import RequestStatus, TaskStatus
from keshi.schemas.tasks import Stop
from kit.samples import cloudevent, command, inventory
from kit.world import World


@pytest.fixture
def world(kafka_bootstrap: str, topic_prefix: str, database: str) -> Iterator[World]:
    world = World(kafka_bootstrap, topic_prefix, database, inventory())
    yield world
    world.close()


def apart(elder: dict[str, Any], **change: Any) -> dict[str, Any]:
    """An erasure of the same person that another partition decides."""
    while partition_of((younger := command(**change))["request_id"], 2) == partition_of(elder["request_id"], 2):
        pass
    return younger


def suspended(world: World) -> str:
    data = command("SuspendUse")
    world.send(cloudevent(data, "SuspendUse"))
    world.answer(data["request_id"], "RequestAccepted")
    return str(data["request_id"])


def erasing(world: World, elder: str, **change: Any) -> str:
    data = apart({"request_id": elder}, **change)
    world.send(cloudevent(data))
    assert world.answer(data["request_id"], "RequestAccepted")["state"]["waits_for"] == elder
    return str(data["request_id"])


def erased(world: World, request_id: str) -> None:
    world.work(request_id, "shop", [("profile", "p1")])
    world.work(request_id, "mail", [])
    assert world.answer(request_id, "RequestClosed")["closure"]["verdict"] == "fulfilled"


def test_an_erasure_takes_the_place_of_a_suspension_that_has_not_begun(world: World) -> None:
    elder = suspended(world)
    stale = world.task(elder, "shop")
    younger = erasing(world, elder)
    closed = world.answer(elder, "RequestClosed")
    assert (closed["state"]["verdict"], closed["state"]["superseded_by"]) == ("superseded", younger)
    record = world.record(elder)
    assert (record.verdict, record.superseded_by, record.withdrawn) == (Verdict.SUPERSEDED, younger, False)
    said = {(o.outcome, o.decided_by, o.reason) for s in record.systems for o in s.outcomes}
    assert said == {(Outcome.NOT_STARTED, DecidedBy.SUPERSESSION, "superseded")}
    refused = world.begin(stale, [("profile", "p1")])
    assert isinstance(refused, Stop)
    erased(world, younger)


def test_what_was_suspended_before_an_erasure_took_over_is_told_and_met_by_it(world: World) -> None:
    elder = suspended(world)
    world.work(elder, "shop", [("profile", "p1")])
    younger = erasing(world, elder)
    world.answer(elder, "RequestClosed")
    record = world.record(elder)
    assert record.verdict is Verdict.FULFILLED_WITH_EXCEPTIONS
    assert record.done()[Outcome.SUSPENDED] == 1
    assert [o.kind for o in record.obligations] == ["suspension"]
    erased(world, younger)

    def met() -> bool:
        with world.ledger.reader() as reader:
            return [o.state for o in reader.obligations_of(elder)] == ["met"]

    world.until(met)


def test_no_act_without_go_what_is_superseded_is_looked_at_before_it_closes(world: World) -> None:
    """A worker had the go: until its lease is over and a check has looked, neither request goes on."""
    elder = suspended(world)
    task = world.task(elder, "shop")
    world.begin(task, [("profile", "p1")])
    younger = erasing(world, elder)
    waiting = world.until(lambda: (s := world.state(elder)).superseded_by and s)
    assert waiting.tasks["shop"].status is TaskStatus.SCHEDULED
    assert waiting.tasks["mail"].status is TaskStatus.ENDED
    assert world.begin(task, [("profile", "p1")]).reason == "superseded"
    check = world.task(elder, "shop", attempt=2)
    assert (check.mode, world.state(younger).status) == ("check", RequestStatus.WAITING)
    go = world.begin(check, [("profile", "p1")])
    world.report(world.completed(check, go, Outcome.SUSPENDED))
    world.answer(elder, "RequestClosed")
    assert world.record(elder).done()[Outcome.SUSPENDED] == 1
    erased(world, younger)


def test_a_suspension_that_waits_for_a_person_does_not_keep_an_erasure_waiting(world: World) -> None:
    elder = suspended(world)
    task = world.task(elder, "shop")
    found = [("orders", f"o{n}") for n in range(60)]
    assert world.begin(task, found).reason == "over_limit"
    world.report(world.failed(task, "over_limit"))
    world.until(lambda: world.state(elder).tasks["shop"].status is TaskStatus.HELD)
    younger = erasing(world, elder)
    assert world.answer(elder, "RequestClosed")["closure"]["verdict"] == "superseded"
    world.task(younger, "shop")


def test_a_superseded_request_can_still_be_withdrawn_and_closes_once(world: World) -> None:
    elder = suspended(world)
    task = world.task(elder, "shop")
    world.begin(task, [("profile", "p1")])
    erasing(world, elder)
    world.until(lambda: world.state(elder).superseded_by)
    world.send(cloudevent({"request_id": elder}, "WithdrawRequest"))
    check = world.task(elder, "shop", attempt=2)
    go = world.begin(check, [])
    world.report(world.completed(check, go, Outcome.SUSPENDED))
    world.answer(elder, "RequestClosed")
    assert [a[:2] for a in world.tasks_sent(elder) if a[0] == "shop"] == [("shop", 1), ("shop", 2)]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param({}, {"requested_by": {"kind": "retention_sweep"}, "ground": "appi.22"}, id="a retention sweep"),
        pytest.param({}, {"scope": {"categories": ["profile"]}}, id="a narrower scope"),
        pytest.param({}, {"scope": {"items": ["profile:p1"]}}, id="single items"),
        pytest.param({}, {"identifiers": command()["identifiers"][:1]}, id="fewer identifiers"),
        pytest.param({"kind": "EraseSubject"}, {}, id="an erasure before it"),
        pytest.param({}, {"kind": "ResumeUse"}, id="a lifting after it"),
    ],
)
def test_what_is_not_plainly_meant_waits(world: World, before: dict[str, Any], after: dict[str, Any]) -> None:
    kind = before.pop("kind", "SuspendUse")
    elder = command(kind, **before)
    world.send(cloudevent(elder, kind))
    world.answer(elder["request_id"], "RequestAccepted")
    kind = after.pop("kind", "EraseSubject")
    younger = command(kind, **after)
    world.send(cloudevent(younger, kind))
    assert world.answer(younger["request_id"], "RequestAccepted")["state"]["waits_for"] == elder["request_id"]
    world.turn()
    assert not world.state(elder["request_id"]).superseded_by
    world.work(elder["request_id"], "shop", [])
    world.work(elder["request_id"], "mail", [])
    assert world.answer(elder["request_id"], "RequestClosed")["closure"]["verdict"] == "no_data_held"
