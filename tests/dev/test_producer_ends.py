"""A producer whose messages do not reach the broker can be let go of."""

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from keshi.dev.broker import Broker, BrokerOptions
from keshi.dev.places import run_directory
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


def test_closing_gives_up_what_a_frozen_broker_did_not_take(broker: Broker) -> None:
    settings = KafkaSettings(bootstrap=broker.bootstrap)
    admin = new_admin(settings)
    admin.create_topics({"a": {"num_partitions": 1, "replication_factor": 1}}, wait_for_metadata=True)
    admin.close()
    before = threading.active_count()
    producer = new_producer(settings)
    assert send_all(producer, [Outgoing("a", b"1")]) != [None]
    os.kill(broker.pid, signal.SIGSTOP)
    assert send_all(producer, [Outgoing("a", b"2")], seconds=0.5) == [None]
    close_producer(producer, 0)
    sender = producer._sender
    assert sender is None or not sender.is_alive(), "nothing goes on sending"
    assert threading.active_count() <= before
