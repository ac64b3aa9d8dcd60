"""A producer whose messages do not reach the broker can be let go of, and goes on when the broker is there again."""

import os
import signal
import threading
from collections.abc import Iterator

import pytest
from kafka import KafkaProducer

from keshi.dev.broker import Broker, BrokerOptions
from keshi.dev.places import run_directory
from keshi.runtime import kafka
from keshi.runtime.kafka import Outgoing, close_producer, new_admin, new_producer, send_all
from keshi.runtime.settings import KafkaSettings


@pytest.fixture
def broker() -> Iterator[Broker]:
    broker = Broker(BrokerOptions(run_directory("keshi-producer-")))
    try:
        broker.start()
        yield broker
    finally:
        os.kill(broker.pid, signal.SIGCONT)
        broker.stop()


@pytest.fixture
def settings(broker: Broker) -> KafkaSettings:
    """Of a broker that has the topic `a`."""
    found = KafkaSettings(bootstrap=broker.bootstrap)
    admin = new_admin(found)
    admin.create_topics({"a": {"num_partitions": 1, "replication_factor": 1}}, wait_for_metadata=True)
    admin.close()
    return found


def test_closing_gives_up_what_a_frozen_broker_did_not_take(broker: Broker, settings: KafkaSettings) -> None:
    before = threading.active_count()
    producer = new_producer(settings)
    assert send_all(producer, [Outgoing("a", b"1")]) != [None]
    os.kill(broker.pid, signal.SIGSTOP)
    assert send_all(producer, [Outgoing("a", b"2")], seconds=0.5) == [None]
    close_producer(producer, 0)
    sender = producer._sender
    assert sender is None or not sender.is_alive(), "nothing goes on sending"
    assert threading.active_count() <= before


def test_a_producer_goes_on_after_a_message_that_was_on_its_way_ran_out_of_time(
    broker: Broker, settings: KafkaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The orchestrator's is not made anew: if it stood still for ever, so would every request."""
    soon = {"delivery_timeout_ms": 4_000, "request_timeout_ms": 1_500}
    monkeypatch.setattr(kafka, "KafkaProducer", lambda **config: KafkaProducer(**config | soon))
    producer = new_producer(settings)
    try:
        assert send_all(producer, [Outgoing("a", b"1")]) != [None]
        os.kill(broker.pid, signal.SIGSTOP)
        assert send_all(producer, [Outgoing("a", b"2")], seconds=15) == [None], "it ran out of time"
        os.kill(broker.pid, signal.SIGCONT)
        assert send_all(producer, [Outgoing("a", b"3")], seconds=15) != [None]
    finally:
        close_producer(producer, 0)
