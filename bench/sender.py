"""Whoever sends commands and listens to `requests` for what became of them: one thread, one clock."""

import time
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Protocol, Self

from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from bench.progress import BenchError, Progress
from keshi.runtime.kafka import close_producer, new_consumer, new_producer
from keshi.runtime.settings import KafkaSettings

SILENCE_SECONDS = 60.0
"""When nothing was closed for so long, the bench has failed."""
HEADERS = [("content-type", b"application/cloudevents+json; charset=UTF-8")]
_POLL_MS = 50
_PAUSE_SECONDS = 0.02
"""Whoever keeps hundreds in flight looks fifty times a second: to look for each answer by itself costs the most."""
_RECORDS = 5_000


class Wire(Protocol):
    """What the messages look like."""

    def ask(self, person: int) -> tuple[str, bytes]:
        """The id of a new request, and its command."""

    def closed(self, raw: bytes) -> str | None:
        """The id of the request that this answer closes; None where it closes none.

        Raises:
            BenchError: it says that something went otherwise than it should.
        """


class Sender:
    """One producer, and one consumer at the end of `requests`.

    Args:
        settings: Of Kafka.
        wire: What the messages look like.
        progress: Told how many were closed.
        linger_ms: Of the producer.

    Attributes:
        sent: commands.
        latencies: of each closure, in their order: seconds from the call that sent its command to its receipt.
    """

    def __init__(self, settings: KafkaSettings, wire: Wire, progress: Progress, linger_ms: int) -> None:
        self._wire = wire
        self._progress = progress
        self._topic = settings.topic("commands")
        self._producer: KafkaProducer = new_producer(settings, "keshi-bench", linger_ms=linger_ms)
        self._consumer: KafkaConsumer = new_consumer(settings, None, max_poll_records=_RECORDS)
        topic = settings.topic("requests")
        places = [TopicPartition(topic, p) for p in self._consumer.partitions_for_topic(topic) or ()]
        self._consumer.assign(places)
        self._consumer.seek_to_end(*places)
        for place in places:
            self._consumer.position(place)  # a seek is carried out when it is first asked for
        self._open: dict[str, float] = {}
        self._last = time.monotonic()
        self.sent = 0
        self.latencies: list[float] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._consumer.close(autocommit=False)
        close_producer(self._producer, 10)

    @property
    def closed(self) -> int:
        """How many closures came."""
        return len(self.latencies)

    def send(self, persons: Iterable[int]) -> None:
        """Ask for each of them."""
        for person in persons:
            request_id, value = self._wire.ask(person)
            now = time.monotonic()
            if not self._open:
                self._last = now
            self._open[request_id] = now
            self._producer.send(self._topic, value=value, key=request_id.encode(), headers=HEADERS)
            self.sent += 1

    def poll(self, milliseconds: int = _POLL_MS) -> None:
        """Read what was answered.

        Raises:
            BenchError: a request was closed twice, or otherwise than it should, or nothing comes any more.
        """
        before = self.closed
        for batch in self._consumer.poll(timeout_ms=milliseconds).values():
            now = time.monotonic()
            for message in batch:
                request_id = self._wire.closed(message.value)
                if request_id is not None:
                    self._close(request_id, now)
        if self.closed > before:
            self._last = time.monotonic()
        elif self._open and time.monotonic() - self._last > SILENCE_SECONDS:
            raise BenchError(f"{len(self._open)} requests are open, and none was closed for {SILENCE_SECONDS:.0f} s")
        self._progress.at(self.closed)

    def _close(self, request_id: str, now: float) -> None:
        sent_at = self._open.pop(request_id, None)
        if sent_at is None:
            raise BenchError("a request was closed that is not open: twice, or nobody's")
        self.latencies.append(now - sent_at)

    def keep(self, persons: Iterator[int], in_flight: int, seconds: float) -> None:
        """Keep so many requests open for so long; each closure lets the next command go."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.send(islice(persons, in_flight - len(self._open)))
            if not self._open:
                raise BenchError("there are no people left to ask for: make more of them")
            self.poll()
            time.sleep(_PAUSE_SECONDS)

    def pace(self, persons: Iterator[int], per_second: float, seconds: float) -> None:
        """Send at fixed moments, however fast the answers come."""
        began = time.monotonic()
        for number in range(int(per_second * seconds)):
            due = began + number / per_second
            while (left := due - time.monotonic()) > 0:
                self.poll(max(1, int(left * 1000)))
            self.send(islice(persons, 1))

    def at_once(self, persons: Iterator[int], number: int) -> None:
        """Send so many as fast as they go."""
        for begun in range(0, number, _RECORDS // 10):
            self.send(islice(persons, min(_RECORDS // 10, number - begun)))
            self.poll(0)

    def drain(self) -> None:
        """Listen until nothing is open, and a little longer for what should not come."""
        while self._open:
            self.poll()
        self.poll(200)
