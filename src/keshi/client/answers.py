"""Listening to `requests`: what keshi answers. Nothing is trusted that cannot be read whole."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from keshi.client.errors import NotOverError, UnreadableAnswerError
from keshi.runtime.kafka import new_consumer
from keshi.runtime.settings import ConfigurationError, KafkaSettings
from keshi.schemas.base import Model
from keshi.schemas.reading import Unreadable, read
from keshi.schemas.requests import EVENTS, RejectionCode, RequestAccepted, RequestClosed, RequestRejected

MAX_ANSWER_BYTES: Final = 1_048_576
_POLL_MS: Final = 200


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment on `requests`: the next offset of each partition. Take it before sending, to miss nothing after."""

    offsets: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Submitted:
    """Where a command stands on `commands`."""

    partition: int
    offset: int


def mark(settings: KafkaSettings) -> Mark:
    """The end of `requests` now."""
    consumer, partitions = _assigned(settings)
    try:
        return Mark({p.partition: o for p, o in consumer.end_offsets(partitions).items()})
    finally:
        consumer.close(autocommit=False)


def wait_for(
    settings: KafkaSettings,
    request_id: str,
    seconds: float,
    *,
    since: Mark | None = None,
    command: Submitted | None = None,
) -> RequestClosed | RequestRejected:
    """Listen until a request is closed, or a command of it rejected.

    Args:
        settings: Where the broker is.
        request_id: In its canonical form.
        seconds: How long, at most.
        since: From here on; None reads all that the broker still has.
        command: Only its rejection counts. None takes the newest answer that there is.

    Raises:
        NotOverError: neither came in time.
        UnreadableAnswerError: an answer to this request cannot be read.
    """
    end = time.monotonic() + seconds
    consumer, partitions = _assigned(settings)
    try:
        _begin(consumer, partitions, since)
        behind = consumer.end_offsets(partitions)
        heard = _Heard(request_id, command)
        while time.monotonic() < end:
            for record in _polled(consumer):
                final = heard.take(record)
                if final:
                    return final
            if heard.rejected and all(consumer.position(p) >= behind[p] for p in partitions):
                return heard.rejected
        raise NotOverError(f"not closed within {seconds:g} s: it goes on, `keshi status` shows how far it is")
    finally:
        consumer.close(autocommit=False)


@dataclass(slots=True)
class _Heard:
    """What was said of one request so far."""

    request_id: str
    command: Submitted | None
    rejected: RequestRejected | None = None

    def take(self, record: Any) -> RequestClosed | RequestRejected | None:
        """Listen to one record; the answer, if nothing that comes later could change it."""
        if record.key != self.request_id.encode():
            return None
        answer = _answer(record.value)
        if isinstance(answer, RequestClosed):
            return answer
        if isinstance(answer, RequestRejected):
            if self.command and Submitted(answer.command.partition, answer.command.offset) == self.command:
                return answer
            self.rejected = None if self.command else answer
        elif isinstance(answer, RequestAccepted):
            self.rejected = None  # what was refused before was sent again, and rightly
        return None


def _begin(consumer: KafkaConsumer, partitions: list[TopicPartition], since: Mark | None) -> None:
    for p in partitions:
        if since is not None and p.partition in since.offsets:
            consumer.seek(p, since.offsets[p.partition])
        else:
            consumer.seek_to_beginning(p)


def closures(settings: KafkaSettings, group: str, idle_seconds: float | None) -> Iterator[RequestClosed]:
    """See `Client.closures`."""
    topic = settings.topic("requests")
    # A group that is joined before the topic's partitions are known gets none, until metadata are asked for again.
    consumer = new_consumer(settings, group, max_poll_records=100, metadata_max_age_ms=5_000)
    try:
        if not consumer.partitions_for_topic(topic):
            raise _missing(topic)
        consumer.subscribe([topic])
        quiet = time.monotonic()
        dealt_with = True
        while idle_seconds is None or time.monotonic() - quiet < idle_seconds:
            for record in _polled(consumer):
                quiet, dealt_with = time.monotonic(), False
                answer = _answer(record.value)
                if isinstance(answer, RequestClosed):
                    yield answer
            # Only here has the caller come back for more, and so dealt with all that was read.
            dealt_with = dealt_with or _committed(consumer)
    finally:
        consumer.close(autocommit=False)


def _assigned(settings: KafkaSettings) -> tuple[KafkaConsumer, list[TopicPartition]]:
    topic = settings.topic("requests")
    consumer = new_consumer(settings, None)
    partitions = [TopicPartition(topic, p) for p in sorted(consumer.partitions_for_topic(topic))]
    if not partitions:
        consumer.close(autocommit=False)
        raise _missing(topic)
    consumer.assign(partitions)
    return consumer, partitions


def _committed(consumer: KafkaConsumer) -> bool:
    """Mark what was read as dealt with. In a rebalance that fails: the next try, or somebody else, makes up for it."""
    try:
        consumer.commit()
    except KafkaError:
        return False
    return True


def _missing(topic: str) -> ConfigurationError:
    return ConfigurationError(f"topic {topic} is missing: run `keshi topics apply`")


def _polled(consumer: KafkaConsumer) -> list[Any]:
    return [record for records in consumer.poll(timeout_ms=_POLL_MS).values() for record in records]


def _answer(raw: bytes | None) -> Model | None:
    """The message; None for a type that is newer than this client."""
    try:
        return read(raw, EVENTS, limit=MAX_ANSWER_BYTES)[1]
    except Unreadable as e:
        if e.reason == RejectionCode.TYPE_UNKNOWN:
            return None
        raise UnreadableAnswerError(f"a message on requests cannot be read: {e.reason}") from None
