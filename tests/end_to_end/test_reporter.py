"""The reporter on a real broker: each report arrives, and its task ends once it has."""

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial

import pytest
from kafka import KafkaConsumer, TopicPartition

from keshi.handlers.worker import reporter
from keshi.handlers.worker.reporter import Outbound, Reporter
from keshi.runtime.kafka import new_consumer
from keshi.runtime.settings import KafkaSettings
from keshi.runtime.topics import TopicOptions, apply, wanted

SECONDS = 40.0


class Desk:
    """Hands in numbered reports, and reads what came of them."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self.reporter = Reporter(kafka)
        self.ended: Counter[int] = Counter()
        self.consumer: KafkaConsumer = new_consumer(kafka, None)
        self.consumer.assign([TopicPartition(kafka.topic("reports"), 0)])
        self.consumer.seek_to_beginning()
        self._lock = threading.Lock()

    def hand_in(self, *numbers: int) -> None:
        self.reporter.put([Outbound(0, "files", b"%d" % n, partial(self._end, n)) for n in numbers])

    def _end(self, number: int) -> None:
        with self._lock:
            self.ended[number] += 1

    def messages(self, reports: int) -> list[list[int]]:
        """The first messages, until so many reports have come."""
        found: list[list[int]] = []
        end = time.monotonic() + SECONDS
        while sum(map(len, found)) < reports and time.monotonic() < end:
            for records in self.consumer.poll(timeout_ms=100).values():
                found += [json.loads(r.value)["data"]["reports"] for r in records]
        return found


@pytest.fixture
def desk(kafka_bootstrap: str, topic_prefix: str) -> Iterator[Desk]:
    kafka = KafkaSettings(bootstrap=kafka_bootstrap, prefix=topic_prefix)
    options = TopicOptions(partitions=1, commands_partitions=1)
    apply(kafka, wanted(kafka, ["files"], options), options)
    made = Desk(kafka)
    yield made
    made.reporter.close(1)
    made.consumer.close()


def test_the_reports_of_a_list_are_one_message(desk: Desk) -> None:
    desk.hand_in(*range(20))
    assert desk.messages(20) == [list(range(20))]
    assert desk.reporter.close(SECONDS)
    assert desk.ended == Counter(range(20))


def test_what_many_threads_report_arrives_once_each_and_travels_together(desk: Desk) -> None:
    def work(first: int) -> None:
        for n in range(first, first + 100):
            desk.hand_in(n)

    threads = [threading.Thread(target=work, args=(n * 100,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    messages = desk.messages(800)
    assert sorted(n for some in messages for n in some) == list(range(800))
    assert len(messages) < 400
    assert desk.reporter.close(SECONDS)
    assert desk.ended == Counter(range(800))


def test_what_a_producer_did_not_send_another_one_does(desk: Desk) -> None:
    desk.hand_in(1)
    assert desk.messages(1) == [[1]]
    assert desk.reporter._producer is not None
    desk.reporter._producer.close()  # as one that has lost a message: it sends nothing any more
    desk.hand_in(2, 3)
    desk.hand_in(4)
    assert [n for some in desk.messages(3) for n in some] == [2, 3, 4]
    assert desk.reporter.close(SECONDS)
    assert desk.ended == Counter((1, 2, 3, 4))
    assert desk.reporter.alive() is False


def test_a_batch_of_which_nothing_is_heard_goes_out_again(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may arrive twice, and its tasks end all the same: receivers drop repeats."""
    monkeypatch.setattr(reporter, "SEND_SECONDS", -1.0)
    monkeypatch.setattr(reporter, "LOOK_SECONDS", 0.001)
    for n in range(50):
        desk.hand_in(n)
    monkeypatch.setattr(reporter, "SEND_SECONDS", SECONDS)
    assert desk.reporter.close(SECONDS)
    assert set(desk.ended) == set(range(50))
    assert {n for some in desk.messages(50) for n in some} == set(range(50))


def test_a_defect_at_the_end_of_a_task_is_seen(desk: Desk) -> None:
    def broken() -> None:
        raise RuntimeError

    desk.reporter.put([Outbound(0, "files", b"1", broken)])
    assert desk.messages(1) == [[1]]
    end = time.monotonic() + SECONDS
    while desk.reporter.alive() and time.monotonic() < end:
        time.sleep(0.01)
    assert not desk.reporter.alive()
