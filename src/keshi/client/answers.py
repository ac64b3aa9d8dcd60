"""What keshi answers on `requests`, read from a place on. Nothing is trusted that cannot be read whole."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, Self, TypeAlias

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from keshi.client.errors import KafkaRefusedError, NotOverError, UnreadableAnswerError
from keshi.runtime.kafka import new_consumer
from keshi.runtime.settings import ConfigurationError, KafkaSettings
from keshi.schemas.reading import Unreadable, read
from keshi.schemas.requests import (
    EVENTS,
    RejectionCode,
    RequestAccepted,
    RequestClosed,
    RequestOverdue,
    RequestRejected,
)

MAX_ANSWER_BYTES: Final = 1_048_576
CLOSE_MS: Final = 5_000
_POLL_MS: Final = 200

Answer: TypeAlias = RequestAccepted | RequestRejected | RequestClosed | RequestOverdue
"""A message on `requests`. All but a rejection carry the request's whole state."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A place on `requests`: the next offset of each partition.

    Take one before sending, to miss no answer; keep the one of the last message you have dealt with, to go on from
    there (`str(mark)` and `Mark.parse`).
    """

    offsets: Mapping[int, int]

    def __str__(self) -> str:
        return json.dumps({str(p): o for p, o in sorted(self.offsets.items())}, separators=(",", ":"))

    @classmethod
    def parse(cls, text: str) -> Self:
        """The mark that `str` made a text of.

        Raises:
            ValueError: it is none.
        """
        try:
            found = {int(p): o for p, o in json.loads(text).items()}
        except (ValueError, AttributeError, RecursionError):
            raise ValueError('this is no mark: it looks like {"0":17,"1":4}') from None
        if not all(type(n) is int and n >= 0 for pair in found.items() for n in pair):
            raise ValueError("this is no mark: partitions and offsets are whole numbers")
        return cls(found)


@dataclass(frozen=True, slots=True, order=True)
class Submitted:
    """Where a command stands on `commands`."""

    partition: int
    offset: int


def mark(settings: KafkaSettings) -> Mark:
    """The end of `requests` now."""
    consumer, partitions = assigned(settings)
    try:
        return Mark({p.partition: o for p, o in consumer.end_offsets(partitions).items()})
    finally:
        consumer.close(autocommit=False, timeout_ms=CLOSE_MS)


def wait_for(
    settings: KafkaSettings,
    request_id: str,
    seconds: float,
    *,
    until: Literal["accepted", "closed"],
    since: Mark | None = None,
    command: Submitted | None = None,
    heard: Callable[[Answer], None] | None = None,
) -> Answer:
    """Listen until a request is accepted or closed, or a command of it rejected.

    Args:
        settings: Where the broker is.
        request_id: In its canonical form.
        seconds: How long, at most.
        until: What to wait for. What is closed was accepted.
        since: From here on; None reads all that the broker still has.
        command: Only its rejection counts. None takes the newest answer that there is.
        heard: Called with each answer to this request that does not end the waiting.

    Raises:
        NotOverError: neither came in time.
        UnreadableAnswerError: an answer to this request cannot be read.
        KafkaRefusedError: the topic must not be read.
    """
    end = time.monotonic() + seconds
    consumer, partitions = assigned(settings)
    try:
        go_to(consumer, partitions, since)
        behind = consumer.end_offsets(partitions)
        so_far = _Heard(request_id, until, command, heard)
        while time.monotonic() < end:
            for record in polled(consumer):
                final = so_far.take(record)
                if final:
                    return final
            if so_far.rejected and all(consumer.position(p) >= behind[p] for p in partitions):
                return so_far.rejected
        raise NotOverError(f"not {until} within {seconds:g} s: it goes on, `keshi status` shows how far it is")
    finally:
        consumer.close(autocommit=False, timeout_ms=CLOSE_MS)


@dataclass(slots=True)
class _Heard:
    """What was said of one request so far."""

    request_id: str
    until: Literal["accepted", "closed"]
    command: Submitted | None
    heard: Callable[[Answer], None] | None = None
    rejected: RequestRejected | None = None

    def take(self, record: Any) -> Answer | None:
        """Listen to one record; the answer, if nothing that comes later could change it."""
        if record.key != self.request_id.encode():
            return None
        answer = answer_of(record.value)
        if isinstance(answer, RequestClosed):
            return answer
        if isinstance(answer, RequestRejected):
            if self.command and place_of(answer) == self.command:
                return answer
            self.rejected = None if self.command else answer
        elif answer is not None:
            self.rejected = None  # what was refused before was sent again, and rightly
            if self.until == "accepted":
                return answer
            if self.heard:
                self.heard(answer)
        return None


def place_of(rejected: RequestRejected) -> Submitted:
    """Where the command stood that was rejected."""
    return Submitted(rejected.command.partition, rejected.command.offset)


def go_to(consumer: KafkaConsumer, partitions: list[TopicPartition], since: Mark | None) -> None:
    """Read on from a mark; from the beginning where it says nothing."""
    for p in partitions:
        if since is not None and p.partition in since.offsets:
            consumer.seek(p, since.offsets[p.partition])
        else:
            consumer.seek_to_beginning(p)


def assigned(settings: KafkaSettings) -> tuple[KafkaConsumer, list[TopicPartition]]:
    """A consumer of all of `requests`, outside of any group.

    Raises:
        ConfigurationError: no broker answers, or the topic is missing.
    """
    topic = settings.topic("requests")
    consumer = new_consumer(settings, None)
    partitions = [TopicPartition(topic, p) for p in sorted(consumer.partitions_for_topic(topic) or ())]
    if not partitions:
        consumer.close(autocommit=False, timeout_ms=CLOSE_MS)
        raise missing(topic)
    consumer.assign(partitions)
    return consumer, partitions


def missing(topic: str) -> ConfigurationError:
    """The one line for a topic that is not there."""
    return ConfigurationError(f"topic {topic} is missing: run `keshi topics apply`")


def polled(consumer: KafkaConsumer, wait_ms: int = _POLL_MS) -> list[Any]:
    """What has come; waits so long at most for something. A broker that is away is waited for.

    Raises:
        KafkaRefusedError: the topic must not be read.
    """
    try:
        return [record for records in consumer.poll(timeout_ms=wait_ms).values() for record in records]
    except KafkaError as e:
        if e.retriable:
            time.sleep(wait_ms / 1000)  # as poll would have
            return []
        raise KafkaRefusedError(
            f"Kafka refuses reading ({type(e).__name__}): give this user the right to read topic `requests` and to use "
            f"its consumer group"
        ) from None


def answer_of(raw: bytes | None) -> Answer | None:
    """The message; None for a type that is newer than this client.

    Raises:
        UnreadableAnswerError: it is none.
    """
    try:
        found = read(raw, EVENTS, limit=MAX_ANSWER_BYTES)[1]
    except Unreadable as e:
        if e.reason == RejectionCode.TYPE_UNKNOWN:
            return None
        raise UnreadableAnswerError(
            f"a message on requests cannot be read ({e.reason}): upgrade keshi here, and listen again"
        ) from None
    return found if isinstance(found, RequestAccepted | RequestRejected | RequestClosed | RequestOverdue) else None
