"""The fixtures that other tests stand on."""

import psycopg
import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.admin import NewTopic


def test_a_message_comes_back_from_the_shared_broker(kafka_bootstrap: str, topic_prefix: str) -> None:
    topic = f"{topic_prefix}echo"
    admin = KafkaAdminClient(bootstrap_servers=kafka_bootstrap)
    admin.create_topics([NewTopic(topic, num_partitions=1, replication_factor=1)])
    admin.close()
    producer = KafkaProducer(bootstrap_servers=kafka_bootstrap, acks="all")
    producer.send(topic, b"hello").get(timeout=20)
    producer.close()
    consumer = KafkaConsumer(
        topic, bootstrap_servers=kafka_bootstrap, auto_offset_reset="earliest", consumer_timeout_ms=20_000
    )
    assert next(iter(consumer)).value == b"hello"
    consumer.close()


@pytest.mark.parametrize("turn", [1, 2])
def test_each_test_has_an_empty_database_of_its_own(database: str, turn: int) -> None:
    with psycopg.connect(database) as connection:
        connection.execute("CREATE TABLE only_mine (turn integer)")
        connection.execute("INSERT INTO only_mine VALUES (%s)", (turn,))
        assert connection.execute("SELECT turn FROM only_mine").fetchall() == [(turn,)]
