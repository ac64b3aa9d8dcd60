"""The client against a real broker; the test answers in keshi's place, so that it can choose what comes when."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from ulid import ULID

from keshi.client import (
    Client,
    ConfigurationError,
    EraseSubject,
    Heard,
    KafkaSettings,
    Mark,
    Message,
    NotOverError,
    NotSentError,
    Reached,
    RecordNotice,
    RequestAccepted,
    RequestClosed,
    RequestOverdue,
    RequestRejected,
    Result,
    Submitted,
    WithdrawRequest,
)
from kit.answering import Keshi, answer, command, make_topics, rejection

NOW = datetime(2026, 4, 1, 9, tzinfo=UTC)


@pytest.fixture(scope="module")
def kafka(kafka_bootstrap: str) -> KafkaSettings:
    return make_topics(kafka_bootstrap)


@pytest.fixture(scope="module")
def client(kafka: KafkaSettings) -> Iterator[Client]:
    with Client(kafka) as connected:
        yield connected


@pytest.fixture(scope="module")
def running(kafka: KafkaSettings) -> Iterator[Keshi]:
    made = Keshi(kafka)
    yield made
    made.close()


@pytest.fixture
def keshi(running: Keshi) -> Keshi:
    running.from_now()
    return running


# --- one command


def test_accepted_and_closed_are_waited_for(client: Client, keshi: Keshi) -> None:
    """`wait_accepted` ends with the first state, `wait` with the closure; what is closed was accepted."""
    asked = command()
    mark = client.mark()
    sent = client.submit(asked)
    assert keshi.commands(1) == [(asked.request_id, "EraseSubject", sent)]
    with pytest.raises(NotOverError, match="not accepted within"):
        client.wait_accepted(asked.request_id, 0.5, since=mark, command=sent)
    keshi.say(rejection(asked.request_id, Submitted(0, 10**6)), answer("RequestAccepted", asked.request_id))
    assert isinstance(client.wait_accepted(asked.request_id, 30, since=mark, command=sent), RequestAccepted)
    with pytest.raises(NotOverError, match="it goes on"):
        client.wait(asked.request_id, 0.5, since=mark, command=sent)
    mark = client.mark()
    keshi.say(answer("RequestClosed", asked.request_id, 2))
    assert isinstance(client.wait_accepted(asked.request_id, 30, since=mark), RequestClosed)
    assert isinstance(client.wait(asked.request_id, 30), RequestClosed)


def test_what_cannot_be_sent_says_what_to_do(client: Client, kafka: KafkaSettings) -> None:
    """No such topic, too large: each names the way out."""
    elsewhere = KafkaSettings(bootstrap=kafka.bootstrap, prefix=f"{kafka.prefix}other.")
    with Client(elsewhere) as lost:
        with pytest.raises(ConfigurationError, match="keshi topics apply"):
            lost.mark()
        with pytest.raises(ConfigurationError, match="keshi topics apply"):
            next(lost.listen("group"))
    items = [f"invoices:{'x' * 75}{n:04}" for n in range(1000)]
    many = [{"type": "customer_id", "value": "x" * 200} for _ in range(50)]
    huge = command(scope={"items": items}, identifiers=many)
    big = EraseSubject.model_construct(**dict(huge) | {"identifiers": huge.identifiers * 25})
    with pytest.raises(NotSentError, match="262144"):
        client.submit(big)


# --- many


def results(found: list[Result]) -> dict[int, Reached]:
    assert all(r.final for r in found)
    assert len({r.index for r in found}) == len(found)
    return {r.index: r.reached for r in found}


def test_many_are_sent_in_order_and_never_more_than_the_bound_under_way(client: Client, keshi: Keshi) -> None:
    """They are taken one by one, as there is room."""
    taken: list[int] = []

    def source() -> Iterator[EraseSubject]:
        for n in range(25):
            taken.append(n)
            yield command()

    ahead = []
    found = []
    for result in client.submit_many(source(), in_flight=4):
        found.append(result)
        ahead.append(len(taken) - len(found))
    assert results(found) == dict.fromkeys(range(25), Reached.SENT)
    assert max(ahead) <= 4
    arrived = {(r, at) for r, _, at in keshi.commands(25)}
    assert {(r.request_id, r.sent) for r in found} == arrived


def test_each_hears_its_own_answer(client: Client, keshi: Keshi) -> None:
    """Accepted, closed at once, rejected, and one that nobody answers."""
    asked = [command() for _ in range(4)]
    stream = client.submit_many(asked, wait="accepted", seconds=2)
    first: list[Result] = []
    reader = threading.Thread(target=lambda: first.extend(stream))
    reader.start()
    places = {r: at for r, _, at in keshi.commands(4)}
    names = [c.request_id for c in asked]
    keshi.say(
        answer("RequestAccepted", str(ULID())),
        answer("RequestAccepted", names[0]),
        answer("RequestClosed", names[1]),
        rejection(names[2], Submitted(places[names[2]].partition, 10**6)),
        rejection(names[2], places[names[2]]),
    )
    reader.join(30)
    assert results(first) == {0: Reached.ACCEPTED, 1: Reached.CLOSED, 2: Reached.REJECTED, 3: Reached.NOT_OVER}
    by_index = {r.index: r for r in first}
    assert isinstance(by_index[2].answer, RequestRejected)
    assert isinstance(by_index[3].error, NotOverError)
    assert all(r.sent == places[r.request_id] for r in first)


def test_steps_are_told_where_asked_for(client: Client, keshi: Keshi) -> None:
    """Sent, accepted, closed: only the last is final. A withdrawal shows in the closure, a notice in nothing.

    A step that is over when it is heard of may be passed over.
    """
    asked = command()
    rest = (
        WithdrawRequest(request_id=asked.request_id),
        RecordNotice(request_id=asked.request_id, notified_at=NOW, notice="letter:1"),
    )
    said: list[Result] = []
    stream = client.submit_many([asked, *rest], wait="closed", steps=True, seconds=30)
    reader = threading.Thread(target=lambda: said.extend(stream))
    reader.start()
    assert [kind for _, kind, _ in keshi.commands(3)] == ["EraseSubject", "WithdrawRequest", "RecordNotice"]
    keshi.say(
        answer("RequestAccepted", asked.request_id, 1),
        answer("RequestOverdue", asked.request_id, 2),
        answer("RequestClosed", asked.request_id, 3),
    )
    reader.join(30)
    ways = {n: [(r.reached, r.final) for r in said if r.index == n] for n in range(3)}
    assert ways.pop(2) == [(Reached.SENT, True)]
    for way in ways.values():
        assert [w for w in way if w[0] is not Reached.ACCEPTED] == [(Reached.SENT, False), (Reached.CLOSED, True)]
        assert way[1:-1] in ([], [(Reached.ACCEPTED, False)])


def test_what_was_sent_before_is_listened_for_and_not_sent_again(client: Client, keshi: Keshi) -> None:
    asked = command()
    mark = client.mark()
    client.submit(asked)
    keshi.commands(1)
    keshi.say(answer("RequestClosed", asked.request_id))
    before = Message(asked.request_id, "EraseSubject", None)
    (found,) = client.submit_many([before], wait="closed", since=mark)
    assert (found.reached, found.sent) == (Reached.CLOSED, None)
    client.submit(last := command())
    assert [r for r, _, _ in keshi.commands(1)] == [last.request_id]


def test_one_that_cannot_be_sent_does_not_keep_the_others(client: Client, keshi: Keshi) -> None:
    too_large = Message(str(ULID()), "EraseSubject", b" " * 300_000)
    found = list(client.submit_many([command(), too_large, command()]))
    assert results(found) == {0: Reached.SENT, 1: Reached.NOT_SENT, 2: Reached.SENT}
    assert isinstance(next(r for r in found if r.index == 1).error, NotSentError)
    assert len(keshi.commands(2)) == 2


def test_a_stream_that_is_left_early_ends(client: Client) -> None:
    """Nothing before the first result is asked for; nothing more after the last."""
    taken: list[int] = []

    def source() -> Iterator[EraseSubject]:
        while True:
            taken.append(1)
            yield command()

    stream = client.submit_many(source(), in_flight=3)
    assert not taken
    next(stream)
    stream.close()
    assert len(taken) <= 6
    with pytest.raises(ValueError, match="greater than 0"):
        client.submit_many([], in_flight=0)


# --- listening


def heard(found: Any, number: int) -> list[Heard]:
    return [next(found) for _ in range(number)]


def test_everything_is_heard_once_and_goes_on_from_a_mark(client: Client, keshi: Keshi) -> None:
    """What says nothing newer is dropped; a mark that was stored as text leads on to what came behind it."""
    one, two = str(ULID()), str(ULID())
    at, begin = Submitted(0, 7), client.mark()
    keshi.say(
        answer("RequestAccepted", one, 1),
        answer("RequestAccepted", one, 1),
        answer("RequestClosed", one, 3),
        answer("RequestOverdue", one, 2),
        answer("RequestClosed", one, 3),
    )
    keshi.say(rejection(two, at), rejection(two, at), answer("RequestOverdue", two, 1))
    keshi.say(answer("RequestOverdue", one, 4))
    everything = heard(client.listen(since=begin, idle_seconds=30), 5)
    told = {n: [type(h.answer) for h in everything if h.request_id == n] for n in (one, two)}
    assert told == {one: [RequestAccepted, RequestClosed, RequestOverdue], two: [RequestRejected, RequestOverdue]}
    assert next(client.closures(since=begin, idle_seconds=30)).state.request_id == one

    stored = Mark.parse(str(everything[-1].mark))
    assert list(client.listen(since=stored, idle_seconds=1)) == []
    keshi.say(answer("RequestClosed", two, 2))
    assert next(client.closures(since=stored, idle_seconds=20)).state.request_id == two


def test_a_group_remembers_its_place(client: Client, keshi: Keshi) -> None:
    """What was dealt with does not come again; what was not, does."""
    names = [str(ULID()) for _ in range(3)]
    keshi.say(*(answer("RequestClosed", n) for n in names))
    group = f"listener-{uuid4().hex}"
    stopped = client.listen(group, idle_seconds=20)
    next(stopped)
    stopped.close()
    again: list[str] = []
    end = time.monotonic() + 60
    while not set(names) <= set(again):
        assert time.monotonic() < end, "waited in vain"
        again += [h.request_id for h in client.listen(group, idle_seconds=1)]
    assert all(again.count(n) == 1 for n in names)
    assert list(client.listen(group, idle_seconds=1)) == []
    with pytest.raises(ValueError, match="either group or since"):
        client.listen(group, since=client.mark())


def test_a_notice_has_its_moment(client: Client, keshi: Keshi) -> None:
    client.record_notice(str(ULID()), "letter:1", NOW + timedelta(days=1))
    assert keshi.commands(1)[0][1] == "RecordNotice"
    with pytest.raises(ValueError, match="kind:id"):
        client.record_notice(str(ULID()), "Dear Hanako")


LEFT = """
from keshi.client import Client, EraseSubject, Message
keshi = Client()
heard = keshi.listen(idle_seconds=60)
next(heard)
results = keshi.submit_many([Message("x", "EraseSubject", None)], wait="closed", steps=True, seconds=60)
kept = [heard, results]
kept.append(kept)  # only the collector ends it, while Python ends
{more}
print("over")
"""


@pytest.mark.parametrize("more", ["", "keshi.close()", "del keshi"])
def test_a_program_that_leaves_an_iteration_open_can_end(more: str, client: Client, keshi: Keshi) -> None:
    """kafka-python's own consumer waits for ever, when it is closed only after its thread has ended."""
    keshi.say(answer("RequestClosed", str(ULID())))
    env = os.environ | {"KESHI_KAFKA_BOOTSTRAP": keshi.kafka.bootstrap, "KESHI_KAFKA_PREFIX": keshi.kafka.prefix}
    program = [sys.executable, "-c", LEFT.format(more=more)]
    done = subprocess.run(program, env=env, capture_output=True, text=True, timeout=40, check=False)
    assert (done.returncode, done.stdout) == (0, "over\n"), done.stderr


def test_what_is_iterated_ends_with_its_client(kafka: KafkaSettings, keshi: Keshi) -> None:
    """And what is iterated keeps its client."""
    keshi.say(answer("RequestClosed", str(ULID())))
    with Client(kafka) as short:
        heard = short.listen()
        next(heard)
    assert list(heard) == []
    only = Client(kafka).listen(idle_seconds=20)
    assert next(only)
    only.close()
