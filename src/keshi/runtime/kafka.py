"""kafka-python as keshi uses it: the same security everywhere, and every send future looked at."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.errors import KafkaError
from kafka.partitioner.default import murmur2
from kafka.producer.transaction_manager import TransactionManager, TransactionState

from keshi.runtime.kafka_security import NotLetInError, client, sasl_login, tls_context
from keshi.runtime.settings import ConfigurationError, KafkaSettings

MAX_MESSAGE_BYTES = 1_000_000
LINGER_MS = 0
"""So long a producer waits for more to send with it: what there is much of comes in lists, and a lone message has
nothing to wait for."""
BATCH_BYTES = 256 * 1024
"""Of one partition in one request, which the next one waits for. An answer takes up to ten kilobytes: with
kafka-python's own sixteen a cycle's answers left two by two."""
_HEADERS = [("content-type", b"application/cloudevents+json; charset=UTF-8")]


def client_config(settings: KafkaSettings) -> dict[str, Any]:
    """What every client of kafka-python gets.

    Raises:
        ConfigurationError: what the security protocol needs is not set, or is no such file.
    """
    config: dict[str, Any] = {
        "bootstrap_servers": settings.bootstrap.split(","),
        "security_protocol": settings.security_protocol,
        "kafka_client": client,
    }
    login = sasl_login(settings)
    if login:
        config |= {
            "sasl_mechanism": settings.sasl_mechanism,
            "sasl_plain_username": login[0],
            "sasl_plain_password": login[1],
        }
    tls_context(settings)  # kafka-python reads the files for each connection, and passes over what is wrong with them
    for name in ("ssl_cafile", "ssl_certfile", "ssl_keyfile"):
        path = getattr(settings, name)
        if path:
            config[name] = str(path)
    return config


def unreachable(settings: KafkaSettings, error: BaseException) -> ConfigurationError:
    """The one line for a broker that does not answer, or does not let us in."""
    if isinstance(error, NotLetInError):
        return ConfigurationError(str(error.args[0]))
    return ConfigurationError(
        f"no Kafka broker answers at {settings.bootstrap}: start one (`keshi dev up`) or set KESHI_KAFKA_BOOTSTRAP"
    )


def new_producer(settings: KafkaSettings, client_id: str = "keshi", linger_ms: int = LINGER_MS) -> KafkaProducer:
    """An idempotent producer with acks=all.

    Raises:
        ConfigurationError: no broker answers, or none lets us in.
    """
    try:
        producer = KafkaProducer(
            **client_config(settings),
            client_id=client_id,
            acks="all",
            enable_idempotence=True,
            linger_ms=linger_ms,
            batch_size=BATCH_BYTES,
            max_request_size=MAX_MESSAGE_BYTES,
            delivery_timeout_ms=30_000,
            request_timeout_ms=10_000,
            max_block_ms=15_000,
            bootstrap_timeout_ms=10_000,
            reconnect_backoff_max_ms=1_000,
            allow_auto_create_topics=False,
            metrics_enabled=False,  # nobody reads them, and each message pays for a dozen
        )
    except KafkaError as e:
        raise unreachable(settings, e) from None
    producer._transaction_manager.__class__ = _Identity  # noqa: SLF001 - kafka-python makes it itself
    return producer


class _Identity(TransactionManager):  # type: ignore[misc] # kafka-python is untyped
    """The id under which a producer sends, asked for anew once it was given up.

    kafka-python 3.0.12 gives it up when a message that was on its way has run out of time, stays `READY`, and asks for
    one only where it is `UNINITIALIZED`: such a producer sends nothing more, and fails nothing either. Kafka's own
    client goes back to `UNINITIALIZED` (KAFKA-7737).
    """

    def reset_producer_id(self) -> None:
        with self._lock:
            super().reset_producer_id()
            self._current_state = TransactionState.UNINITIALIZED


def close_producer(producer: KafkaProducer, seconds: float) -> None:
    """Close a producer, also one whose messages are not on the broker: what is left after this time is given up.

    kafka-python's own `close` raises then, and its thread goes on sending.
    """
    try:
        producer.close(timeout=seconds)
    except KafkaError:
        sender = getattr(producer, "_sender", None)
        if sender is not None:
            sender.force_close()  # ends what is on its way, so that there is nothing to wait for any more
            sender.join(1)
        with suppress(KafkaError):
            producer.close(timeout=1)


def new_consumer(settings: KafkaSettings, group: str | None, **more: Any) -> KafkaConsumer:
    """A consumer that commits only when told to and never jumps over anything by itself.

    Raises:
        ConfigurationError: no broker answers, or none lets us in.
    """
    config = {
        **client_config(settings),
        "client_id": "keshi",
        "group_id": group,
        "enable_auto_commit": False,
        "auto_offset_reset": "earliest",
        "session_timeout_ms": int(settings.session_timeout_seconds * 1000),
        "heartbeat_interval_ms": int(settings.session_timeout_seconds * 300),
        "fetch_max_wait_ms": 500,  # while there is nothing; the broker answers at once when there is something
        "bootstrap_timeout_ms": 10_000,
        "reconnect_backoff_max_ms": 1_000,
        "allow_auto_create_topics": False,
        "metrics_enabled": False,
        **more,
    }
    try:
        return KafkaConsumer(**config)
    except KafkaError as e:
        raise unreachable(settings, e) from None


def new_admin(settings: KafkaSettings) -> KafkaAdminClient:
    """An administrative client.

    Raises:
        ConfigurationError: no broker answers, or none lets us in.
    """
    try:
        return KafkaAdminClient(**client_config(settings), client_id="keshi-admin", bootstrap_timeout_ms=10_000)
    except KafkaError as e:
        raise unreachable(settings, e) from None


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One message to send. `topic` is the full name."""

    topic: str
    value: bytes
    key: bytes | None = None
    partition: int | None = None


@dataclass(frozen=True, slots=True)
class Sent:
    """Where a message stands on the broker."""

    partition: int
    offset: int


def send(producer: KafkaProducer, message: Outgoing) -> Any:
    """Send one message.

    Returns:
        The future of kafka-python: ends with where the message stands, or with why it does not.

    Raises:
        KafkaError: nothing was sent.
    """
    return producer.send(
        message.topic, value=message.value, key=message.key, partition=message.partition, headers=_HEADERS
    )


def send_all(producer: KafkaProducer, messages: Sequence[Outgoing], seconds: float = 30) -> list[Sent | None]:
    """Send messages and wait for each one's own future: `flush` does not raise for a message that failed.

    Returns:
        For each message where it stands, or None where its future failed or did not end in time.
    """
    futures = []
    for message in messages:
        try:
            futures.append(send(producer, message))
        except KafkaError:
            futures.append(None)
    done: list[Sent | None] = []
    for future in futures:
        try:
            meta = future.get(timeout=seconds) if future else None
        except KafkaError:
            meta = None
        done.append(Sent(meta.partition, meta.offset) if meta else None)
    return done


@lru_cache(maxsize=10_000)  # a request is asked about a dozen times, and murmur2 is written in Python
def partition_of(request_id: str, partitions: int) -> int:
    """The partition a request belongs to for life: murmur2 of its id, as Kafka's own partitioner does."""
    return int((murmur2(request_id.encode()) & 0x7FFFFFFF) % partitions)


def handler_group(settings: KafkaSettings, system: str) -> str:
    """The consumer group of a system's workers."""
    return f"{settings.prefix}handlers.{system}"
