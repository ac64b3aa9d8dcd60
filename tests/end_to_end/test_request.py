"""The way of a request through engine, ledger and `begin`, with a worker played step by step."""

from collections.abc import Iterator

import pytest
from kit.samples import cloudevent, command, inventory
from kit.world import World

from keshi.schemas.closure import record_hash
from keshi.schemas.outcomes import Outcome, Verdict


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
