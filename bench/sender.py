"""The DSAR system of the bench: sends commands, and listens to `requests` for what became of them."""

import json
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Self

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from ulid import ULID

from bench import people
from bench.progress import BenchError, Progress
from keshi.runtime.kafka import close_producer, new_consumer, new_producer
from keshi.runtime.settings import KafkaSettings
from keshi.schemas.commands import Arrival, Assessment, EraseSubject, Regime, Requester
from keshi.schemas.envelope import wrap
from keshi.schemas.identifiers import Identifier

SILENCE_SECONDS = 60.0
"""When nothing was closed for so long, the bench has failed."""
_HEADERS = [("content-type", b"application/cloudevents+json; charset=UTF-8")]
_POLL_MS = 50
_RECORDS = 5_000


class Sender:
    """One producer and one consumer at the end of `requests`, in one thread.

    Args:
        settings: Of Kafka.
        linger_ms: Of the producer.

    Attributes:
        sent: commands.
        latencies: of each closure, in their order: seconds from the call that sent its command to its receipt.
    """

    def __init__(self, settings: KafkaSettings, progress: Progress, linger_ms: int) -> None:
        self._topic = settings.topic("commands")
        self._producer: KafkaProducer = new_producer(settings, "keshi-bench", linger_ms=linger_ms)
        self._consumer: KafkaConsumer = new_consumer(settings, None, max_poll_records=_RECORDS)
        topic = settings.topic("requests")
        places = [TopicPartition(topic, p) for p in self._consumer.partitions_for_topic(topic) or ()]
        self._consumer.assign(places)
        self._consumer.seek_to_end(*places)
        for place in places:
            self._consumer.position(place)  # a seek is carried out when it is first asked for
        self._progress = progress
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
        """Ask for the erasure of each of them."""
        for person in persons:
            request_id = str(ULID())
            value = _command(request_id, person)
            if not self._open:
                self._last = time.monotonic()
            self._open[request_id] = time.monotonic()
            self._producer.send(self._topic, value=value, key=request_id.encode(), headers=_HEADERS)
            self.sent += 1

    def poll(self, milliseconds: int = _POLL_MS) -> None:
        """Read what was answered.

        Raises:
            BenchError: one was rejected, or closed twice or otherwise than fulfilled, or nothing comes any more.
        """
        before = self.closed
        for batch in self._consumer.poll(timeout_ms=milliseconds).values():
            now = time.monotonic()
            for message in batch:
                self._read(message.value, now)
        if self.closed > before:
            self._last = time.monotonic()
        elif self._open and time.monotonic() - self._last > SILENCE_SECONDS:
            raise BenchError(f"{len(self._open)} requests are open, and none was closed for {SILENCE_SECONDS:.0f} s")
        self._progress.at(self.closed)

    def keep(self, persons: Iterator[int], in_flight: int, seconds: float) -> None:
        """Keep so many requests open for so long; each closure lets the next command go."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.send(islice(persons, in_flight - len(self._open)))
            self.poll()

    def pace(self, persons: Iterator[int], per_second: float, seconds: float) -> None:
        """Send at fixed moments, however fast the answers come."""
        began = time.monotonic()
        for number in range(int(per_second * seconds)):
            due = began + number / per_second
            while (left := due - time.monotonic()) > 0:
                self.poll(max(1, int(left * 1000)))
            self.send(islice(persons, 1))

    def drain(self) -> None:
        """Listen until nothing is open, and a little longer for what should not come."""
        while self._open:
            self.poll()
        self.poll(200)

    def _read(self, raw: bytes, now: float) -> None:
        message = json.loads(raw)
        data: dict[str, Any] = message["data"]
        if message["type"] == "keshi.RequestClosed.v1":
            sent_at = self._open.pop(data["state"]["request_id"], None)
            if sent_at is None:
                raise BenchError("a request was closed that is not open: twice, or nobody's")
            verdict = data["closure"]["verdict"]
            if verdict != "fulfilled":
                raise BenchError(f"a request was closed as {verdict}, not as fulfilled")
            self.latencies.append(now - sent_at)
        elif message["type"] != "keshi.RequestAccepted.v1":
            raise BenchError(f"a request was answered by {message['type']}: {data.get('code', '')}")


def _command(request_id: str, person: int) -> bytes:
    now = datetime.now(UTC)
    command = EraseSubject(
        request_id=request_id,
        identifiers=(
            Identifier(type="email", value=people.email(person)),
            Identifier(type="customer_id", value=people.customer_id(person)),
        ),
        regime=Regime.APPI,
        ground="appi.35-5",
        requested_by=Requester(kind="person", identity_evidence=("evidence:bench-1",)),
        assessed=Assessment(by="staff:bench", at=now),
        arrived=Arrival(at=now, channel="channel:bench"),
    )
    return wrap(command, kind="EraseSubject", id=f"{request_id}/EraseSubject", source="urn:keshi:bench")
