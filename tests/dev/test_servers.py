"""A killed broker and a killed database server come back with their data, at the same address."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.admin import NewTopic

from keshi.dev.broker import Broker, BrokerOptions
from keshi.dev.places import port_is_free, run_directory
from keshi.dev.postgres import PostgresOptions, PostgresServer


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory that a server running as an unprivileged user can reach."""
    made = run_directory("keshi-test-")
    yield made
    shutil.rmtree(made)


def _consume(bootstrap: str, topic: str, count: int) -> list[bytes]:
    consumer = KafkaConsumer(
        topic, bootstrap_servers=bootstrap, auto_offset_reset="earliest", consumer_timeout_ms=30_000
    )
    try:
        return [message.value for _, message in zip(range(count), consumer, strict=False)]
    finally:
        consumer.close()


def test_a_killed_broker_returns_at_its_address_with_its_messages(directory: Path) -> None:
    broker = Broker(BrokerOptions(directory / "kafka"))
    try:
        broker.start()
        address, pid = broker.bootstrap, broker.pid
        admin = KafkaAdminClient(bootstrap_servers=address)
        admin.create_topics([NewTopic("kept", num_partitions=1, replication_factor=1)])
        admin.close()
        producer = KafkaProducer(bootstrap_servers=address, acks="all")
        producer.send("kept", b"before the kill").get(timeout=20)
        producer.close()

        broker.kill()
        assert not broker.running()
        assert "SIGKILL" in broker.obituary()
        broker.start()

        assert broker.bootstrap == address
        assert broker.pid != pid
        assert _consume(address, "kept", 1) == [b"before the kill"]
    finally:
        broker.stop()
    assert port_is_free(int(address.rsplit(":", 1)[1]))


def test_a_killed_database_server_returns_with_what_was_committed(directory: Path) -> None:
    server = PostgresServer(PostgresOptions(directory / "postgres"))
    try:
        server.start()
        url = server.create_database("kept")
        with psycopg.connect(url) as connection:
            assert connection.execute("SHOW fsync").fetchone() == ("on",)
            connection.execute("CREATE TABLE rows AS SELECT 1 AS one")
        uncommitted = psycopg.connect(url)
        uncommitted.execute("INSERT INTO rows VALUES (2)")

        server.kill()
        server.start()

        assert server.dsn("kept") == url
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT one FROM rows").fetchall() == [(1,)]
        with pytest.raises(psycopg.OperationalError):
            uncommitted.execute("SELECT 1")
        uncommitted.close()
    finally:
        server.stop()
    assert not server.running()


def test_a_database_server_opened_again_by_another_object_knows_its_password(directory: Path) -> None:
    first = PostgresServer(PostgresOptions(directory / "postgres", fsync=False))
    first.start()
    first.create_database("kept")
    first.stop()
    second = PostgresServer(PostgresOptions(directory / "postgres", fsync=False))
    try:
        second.start()
        with psycopg.connect(second.dsn("kept")) as connection:
            assert connection.execute("SELECT current_user").fetchone() == ("keshi",)
    finally:
        second.stop()


def test_the_database_server_lets_nobody_in_without_the_password(postgres_server: str) -> None:
    address = postgres_server.rsplit("@", 1)[1]
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(f"postgresql://keshi:guess@{address}", connect_timeout=5)


def test_the_password_is_not_in_the_servers_repr(directory: Path) -> None:
    server = PostgresServer(PostgresOptions(directory / "postgres", fsync=False))
    server.start()
    try:
        secret = server.dsn().split(":")[2].split("@")[0]
        assert secret not in repr(server)
        assert secret not in server.log.read_text(encoding="utf-8")
    finally:
        server.stop()
