"""The stream as processes on a real broker: whatever happens, each offset is processed once, in order."""

import os
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaProducer

from end_to_end.stream_group import SESSION_SECONDS, Group, Load, Member, wait_for
from keshi.dev.broker import Broker, BrokerOptions
from keshi.orchestrator.stream.host import EXIT_FAILED, EXIT_LOG_MISMATCH, EXIT_NO_BROKER, EXIT_OK

TAKEN = 30.0
DONE = 40.0

MakeGroup = Callable[..., Group]


@pytest.fixture
def make_group(kafka_bootstrap: str, topic_prefix: str, tmp_path: Path) -> Iterator[MakeGroup]:
    groups: list[Group] = []

    def make(**options: Any) -> Group:
        group = Group(kafka_bootstrap, topic_prefix, tmp_path, **options)
        groups.append(group)
        return group

    yield make
    for group in groups:
        group.end()


def started(group: Group, count: int = 1) -> list[Member]:
    members = [group.start() for _ in range(count)]
    wait_for("every lane is owned", TAKEN, lambda: group.all_owned_by(*members))
    return members


def test_topics_of_unlike_partition_counts_are_owned_whole_by_one_and_by_two(make_group: MakeGroup) -> None:
    """Three of commands and four of reports, empty at first; the second leaves, the first has all."""
    group = make_group()
    (first,) = started(group)
    second = group.start()
    wait_for("both have lanes", TAKEN, lambda: group.all_owned_by(first, second))
    for stage in ("commands", "reports"):
        group.send(stage, 100)
    wait_for("all is done", DONE, group.all_done)
    group.check_once_and_in_order()

    second.signal(signal.SIGTERM)
    assert second.ends(15) == EXIT_OK
    # It left the group: nobody waits for its session to time out.
    wait_for("the first has all", SESSION_SECONDS - 1, lambda: group.all_owned_by(first))
    wait_for("idle over all lanes", 5, lambda: group.db.execute(
        "SELECT 1 FROM idle WHERE pid = ? AND lanes = 7", (first.pid,)).fetchone())  # fmt: skip
    assert first.answer("/healthz") == first.answer("/readyz") == 200


def test_killed_under_load_its_lanes_are_taken_over_and_nothing_is_lost_or_doubled(
    make_group: MakeGroup,
) -> None:
    group = make_group(options={"delay": 0.01})
    with Load(group, 400):
        first, second = started(group, 2)
        wait_for("both work", DONE, lambda: group.done() > 300)
        second.signal(signal.SIGKILL)
        wait_for("the first has all", SESSION_SECONDS + 10, lambda: group.all_owned_by(first))
        third = group.start()
        wait_for("the third has some", TAKEN, lambda: group.all_owned_by(first, third))
    wait_for("all is done", DONE, group.all_done)
    group.check_once_and_in_order()


def test_frozen_past_its_session_it_wakes_up_and_changes_nothing(make_group: MakeGroup) -> None:
    group = make_group(options={"delay": 0.01})
    with Load(group, 400):
        first, second = started(group, 2)
        wait_for("both work", DONE, lambda: group.done() > 300)
        second.signal(signal.SIGSTOP)
        wait_for("the first has all", SESSION_SECONDS + 10, lambda: group.all_owned_by(first))
        work_goes_on(group, 200)
        second.signal(signal.SIGCONT)
        wait_for("the woken one is back", TAKEN, lambda: group.all_owned_by(first, second))
    wait_for("all is done", DONE, group.all_done)
    group.check_once_and_in_order()
    assert first.answer("/healthz") == second.answer("/healthz") == 200


def test_members_that_come_and_go_under_load(make_group: MakeGroup) -> None:
    """A rebalance every few seconds, at moments that a seed chooses."""
    seed = random.randrange(10_000)  # noqa: S311 - no secret
    print(f"repeat with random.Random({seed})")  # noqa: T201 - shown by pytest when it fails
    chance = random.Random(seed)  # noqa: S311 - no secret
    group = make_group(options={"delay": 0.005})
    with Load(group, 600):
        members = started(group, 1)
        for _ in range(2):
            members.append(group.start())
            wait_for("the new one has lanes", TAKEN, lambda: group.all_owned_by(*members))
            work_goes_on(group, chance.randrange(50, 400))
            leaver = members.pop(chance.randrange(len(members)))
            leaver.signal(signal.SIGTERM)
            assert leaver.ends(15) == EXIT_OK
    wait_for("all is done", DONE, group.all_done)
    group.check_once_and_in_order()


def work_goes_on(group: Group, count: int) -> None:
    goal = group.done() + count
    wait_for("work goes on", DONE, lambda: group.done() > goal)


def test_an_engine_that_stalls_turns_health_bad_and_back(make_group: MakeGroup) -> None:
    group = make_group(options={"settings": {"stall_seconds": 2, "watch_seconds": 0.5}})
    (member,) = started(group)
    stall = group.books.with_suffix(".stall")
    stall.touch()
    group.send("reports", 1)
    wait_for("not healthy", 10, lambda: member.answer("/healthz") == 503)
    assert member.process.poll() is None
    stall.unlink()
    wait_for("healthy again", 10, lambda: member.answer("/healthz") == 200)
    wait_for("all is done", DONE, group.all_done)


def test_an_engine_that_fails_ends_the_process_and_its_words_are_not_logged(make_group: MakeGroup) -> None:
    group = make_group()
    (member,) = started(group)
    group.books.with_suffix(".fail").touch()
    group.send("commands", 1)
    assert member.ends(20) == EXIT_FAILED
    written = (group.directory / "members.log").read_text()
    assert "ValueError" in written
    assert "secret" not in written


def test_offsets_without_records_are_accepted_when_two_readers_agree(make_group: MakeGroup) -> None:
    """A transaction that was taken back, its marker, one that counts, its marker, and an empty value."""
    group = make_group(partitions={"commands": 1, "reports": 1}, options={"settings": {"watch_seconds": 0.5}})
    (member,) = started(group)
    topic = f"{group.prefix}commands"
    sender = KafkaProducer(bootstrap_servers=group.bootstrap, transactional_id=group.prefix)
    sender.init_transactions()
    for value, keep in ((b"taken back", False), (b"meant", True)):
        sender.begin_transaction()
        sender.send(topic, value)
        sender.flush()
        (sender.commit_transaction if keep else sender.abort_transaction)()
    sender.begin_transaction()
    sender.send(topic, None, key=b"empty")
    sender.commit_transaction()
    sender.close()

    def values() -> list[Any]:
        return list(group.db.execute("SELECT at, value FROM done ORDER BY at"))

    wait_for("both records are done", DONE, lambda: len(values()) == 2)
    assert values() == [(2, b"meant"), (4, None)]
    assert group.db.execute("SELECT expected, seen FROM gap").fetchall() == [(0, 2), (3, 4)]
    wait_for("the marker at the end is no lag", 5, lambda: member.answer("/healthz") == 200)


def test_a_broker_that_is_killed_and_started_again_is_read_on_from(tmp_path: Path, topic_prefix: str) -> None:
    broker = Broker(BrokerOptions(tmp_path / "broker", heap_mb=256, owner=os.getpid()))
    broker.start()
    group = Group(broker.bootstrap, topic_prefix, tmp_path)
    try:
        members = started(group, 2)
        group.send("commands", 50)
        wait_for("all is done", DONE, group.all_done)
        broker.kill()
        wait_for("they see it", 30, lambda: "aiokafka" in (tmp_path / "members.log").read_text())
        assert [member.answer("/healthz") for member in members] == [200, 200]
        broker.start()
        for stage in ("commands", "reports"):
            group.send(stage, 50)
        wait_for("all is done", DONE, group.all_done)
        group.check_once_and_in_order()
    finally:
        group.end()
        broker.stop()


def test_topics_made_anew_stop_the_process(make_group: MakeGroup) -> None:
    """Everything in the new topic would lie below the ledger's next offset, and be dropped as a repeat."""
    group = make_group(options={"settings": {"watch_seconds": 0.5}})
    (member,) = started(group)
    group.send("commands", 30)
    wait_for("all is done", DONE, group.all_done)
    group.delete_topics()
    wait_for("the topics are made anew", 20, lambda: made_anew(group))
    assert member.ends(TAKEN) in {EXIT_FAILED, EXIT_LOG_MISMATCH}
    assert group.start().ends(TAKEN) == EXIT_LOG_MISMATCH


def made_anew(group: Group) -> bool:
    try:
        group.make_topics()
    except Exception:  # noqa: BLE001 - the broker has not done with the old ones
        return False
    return True


def test_without_broker_or_topics_it_says_so_and_ends(make_group: MakeGroup) -> None:
    group = make_group(options={"settings": {"connect_seconds": 1}})
    assert group.start(bootstrap="127.0.0.1:1").ends(TAKEN) == EXIT_NO_BROKER
    assert group.start(prefix="none.").ends(TAKEN) == EXIT_NO_BROKER
    written = (group.directory / "members.log").read_text()
    assert "KESHI_KAFKA_BOOTSTRAP" in written
    assert "keshi topics apply" in written
