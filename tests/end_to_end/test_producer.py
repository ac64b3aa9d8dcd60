"""What a cycle sends leaves in few requests: counted at the producer, on a real broker."""

from collections.abc import Iterator

import pytest
from kafka import KafkaProducer

from keshi.runtime.kafka import Outgoing, close_producer, new_producer, send
from keshi.runtime.settings import KafkaSettings
from keshi.runtime.topics import TopicOptions, apply, wanted

PARTITIONS = 4
ANSWER = b"x" * 8_000
"""As long as a `RequestClosed` of five systems."""


@pytest.fixture
def kafka(kafka_bootstrap: str, topic_prefix: str) -> KafkaSettings:
    settings = KafkaSettings(bootstrap=kafka_bootstrap, prefix=topic_prefix)
    options = TopicOptions(partitions=PARTITIONS, commands_partitions=PARTITIONS)
    apply(settings, wanted(settings, [], options), options)
    return settings


@pytest.fixture
def producer(kafka: KafkaSettings) -> Iterator[KafkaProducer]:
    made = new_producer(kafka)
    one_to_each(made, kafka.topic("requests"), b"metadata, and the producer's id, are there from now on")
    yield made
    close_producer(made, 5)


def one_to_each(producer: KafkaProducer, topic: str, value: bytes) -> None:
    for future in [send(producer, Outgoing(topic, value, partition=p)) for p in range(PARTITIONS)]:
        future.get(timeout=20)


def test_what_a_cycle_answers_leaves_in_few_requests(kafka: KafkaSettings, producer: KafkaProducer) -> None:
    answers = [0]
    handle = producer._sender._handle_produce_response

    def counted(*args: object) -> None:
        answers[0] += 1
        handle(*args)

    producer._sender._handle_produce_response = counted
    futures = [send(producer, Outgoing(kafka.topic("requests"), ANSWER, partition=n % PARTITIONS)) for n in range(80)]
    assert [future.get(timeout=20).offset for future in futures] == [1 + n // PARTITIONS for n in range(80)]
    # Each partition's first may leave alone while the others are handed over. With batches of 16 KiB there are ten.
    assert answers[0] <= 1 + PARTITIONS
