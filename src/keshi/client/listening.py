"""Listening to everything on `requests`, once each: for a DSAR system that tells people what came of their request."""

import time
from collections import OrderedDict
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from kafka import KafkaConsumer
from kafka.errors import KafkaError

from keshi.client.answers import CLOSE_MS, Answer, Mark, answer_of, assigned, go_to, missing, place_of, polled
from keshi.runtime.kafka import new_consumer
from keshi.runtime.settings import KafkaSettings
from keshi.schemas.requests import RequestRejected

REMEMBERED: Final = 100_000
"""Requests whose newest sequence is kept in memory, so that repeats can be dropped (some 20 MB)."""


@dataclass(frozen=True, slots=True)
class Heard:
    """One message on `requests`.

    Attributes:
        answer: What it says.
        mark: The place behind it. Store it with what you did about the answer, and go on from there after a restart.
    """

    answer: Answer
    mark: Mark

    @property
    def request_id(self) -> str:
        """Of the request it is about."""
        return self.answer.request_id if isinstance(self.answer, RequestRejected) else self.answer.state.request_id


@dataclass(slots=True)
class Repeats:
    """Remembers how far each request has come. What is not newer is a repeat."""

    limit: int = REMEMBERED
    _seen: OrderedDict[str, int] = field(default_factory=OrderedDict)

    def is_new(self, answer: Answer) -> bool:
        """Whether it says anything that an earlier message did not; from now on it does not.

        A state with a higher sequence contains what a lower one said. A rejection has none: it is known by its command.
        """
        if isinstance(answer, RequestRejected):
            name, sequence = str((answer.request_id, place_of(answer))), 0
        else:
            name, sequence = answer.state.request_id, answer.state.sequence
        if self._seen.get(name, -1) >= sequence:
            return False
        self._seen[name] = sequence
        self._seen.move_to_end(name)
        if len(self._seen) > self.limit:
            self._seen.popitem(last=False)
        return True


def listen(
    settings: KafkaSettings, *, group: str | None, since: Mark | None, idle_seconds: float | None
) -> Generator[Heard, None, None]:
    """See `Client.listen`."""
    if group is not None and since is not None:
        raise ValueError("a group remembers its own place: give either group or since")
    return _in_group(settings, group, idle_seconds) if group is not None else _alone(settings, since, idle_seconds)


def _alone(settings: KafkaSettings, since: Mark | None, idle_seconds: float | None) -> Generator[Heard, None, None]:
    consumer, partitions = assigned(settings)
    try:
        go_to(consumer, partitions, since)
        ears = _Ears({p.partition: consumer.position(p) for p in partitions})
        quiet = time.monotonic()
        while idle_seconds is None or time.monotonic() - quiet < idle_seconds:
            for record in polled(consumer):
                quiet = time.monotonic()
                yield from ears.hear(record)
    finally:
        consumer.close(autocommit=False, timeout_ms=CLOSE_MS)


def _in_group(settings: KafkaSettings, group: str, idle_seconds: float | None) -> Generator[Heard, None, None]:
    topic = settings.topic("requests")
    # A group that is joined before the topic's partitions are known gets none, until metadata are asked for again.
    consumer = new_consumer(settings, group, max_poll_records=100, metadata_max_age_ms=5_000)
    try:
        if not consumer.partitions_for_topic(topic):
            raise missing(topic)
        consumer.subscribe([topic])
        ears = _Ears({})
        quiet = time.monotonic()
        dealt_with = True
        while idle_seconds is None or time.monotonic() - quiet < idle_seconds:
            for record in polled(consumer):
                quiet, dealt_with = time.monotonic(), False
                yield from ears.hear(record)
            # Only here has the caller come back for more, and so dealt with all that was read.
            dealt_with = dealt_with or _committed(consumer)
    finally:
        consumer.close(autocommit=False, timeout_ms=CLOSE_MS)


@dataclass(slots=True)
class _Ears:
    """One listener: where it is, and what it has heard."""

    at: dict[int, int]
    repeats: Repeats = field(default_factory=Repeats)

    def hear(self, record: Any) -> Iterator[Heard]:
        """What is new in one record. The place moves on with repeats, too."""
        answer = answer_of(record.value)
        self.at[record.partition] = record.offset + 1
        if answer is not None and self.repeats.is_new(answer):
            yield Heard(answer, Mark(dict(self.at)))


def _committed(consumer: KafkaConsumer) -> bool:
    """Mark what was read as dealt with. In a rebalance that fails: the next try, or somebody else, makes up for it."""
    try:
        consumer.commit()
    except KafkaError:
        return False
    return True


__all__ = ["REMEMBERED", "Heard", "Repeats", "listen"]
