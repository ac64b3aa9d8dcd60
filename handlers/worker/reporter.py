"""Reports to the topic `reports`: grouped for a few milliseconds, and sent again until they are on the broker."""

import hashlib
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog
from kafka.errors import KafkaError

from keshi.handlers.contract import boot_time
from keshi.runtime import failpoints
from keshi.runtime.kafka import Outgoing, close_producer, new_producer, send_all
from keshi.runtime.settings import ConfigurationError, KafkaSettings
from keshi.schemas.envelope import enveloped
from keshi.schemas.reports import MAX_REPORTS

if TYPE_CHECKING:
    from kafka import KafkaProducer

LINGER: Final = 0.002
"""Seconds for which the first report waits for more. The producer waits for nothing: they are grouped already."""
MAX_BYTES: Final = 262_144
"""Of one message of several reports. A report alone may be as large as a message may be."""
MAX_REPORT_BYTES: Final = 900_000
SEND_SECONDS: Final = 15.0
_BACKOFF: Final = (0.2, 0.5, 1.0, 2.0, 5.0)

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Outbound:
    """One report on its way; `done` is called once it is on the broker."""

    partition: int
    system: str
    text: bytes
    """JSON."""
    done: Callable[[], None]


class Reporter:
    """One producer and one thread, for all systems of a process.

    Args:
        settings: Of Kafka.

    Raises:
        ConfigurationError: no broker answers.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._topic = settings.topic("reports")
        self._producer: KafkaProducer | None = new_producer(settings, "keshi-worker", linger_ms=0)
        self._queue: deque[Outbound] = deque()
        self._changed = threading.Condition()
        self._ended = False
        self._sending = 0
        self._thread = threading.Thread(target=self._run, name="reporter", daemon=True)
        self._thread.start()

    def put(self, outbound: Outbound) -> None:
        """Send this report, sooner or later."""
        with self._changed:
            self._queue.append(outbound)
            if len(self._queue) in {1, MAX_REPORTS}:  # at any other length the thread is awake, or waits for more
                self._changed.notify_all()

    def alive(self) -> bool:
        """Whether its thread still runs."""
        return self._thread.is_alive()

    def close(self, seconds: float) -> bool:
        """Send what is left, for at most this time.

        Returns:
            Whether all of it is on the broker.
        """
        end = boot_time() + seconds
        with self._changed:
            self._changed.wait_for(lambda: not self._queue and not self._sending, timeout=seconds)
            clean = not self._queue and not self._sending
            self._ended = True
            self._changed.notify_all()
        self._thread.join(max(0.1, end - boot_time()))
        if self._producer:
            close_producer(self._producer, 2)
        return clean

    def _run(self) -> None:
        failures = 0
        while True:
            batch = self._take()
            if not batch:
                return
            left = self._send(batch)
            failures = failures + 1 if left else 0
            with self._changed:
                self._queue.extendleft(reversed(left))
                self._sending = 0
                self._changed.notify_all()
                if left:
                    self._changed.wait_for(lambda: self._ended, timeout=_BACKOFF[min(failures, len(_BACKOFF)) - 1])

    def _take(self) -> list[Outbound]:
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._ended)
            if self._queue and not self._ended:
                self._changed.wait_for(lambda: self._ended or len(self._queue) >= MAX_REPORTS, timeout=LINGER)
            if self._ended:
                return []
            batch = list(self._queue)
            self._queue.clear()
            self._sending = len(batch)
            return batch

    def _send(self, batch: list[Outbound]) -> list[Outbound]:
        """Send, and say what has to be sent again."""
        messages = list(messages_of(batch))
        try:
            if self._producer is None:
                self._producer = new_producer(self._settings, "keshi-worker", linger_ms=0)
            sent = send_all(
                self._producer,
                [Outgoing(self._topic, _value(some), partition=some[0].partition) for some in messages],
                SEND_SECONDS,
            )
        except (ConfigurationError, KafkaError):
            sent = [None] * len(messages)
        except Exception:  # a defect must not end the thread: nothing would be reported any more
            log.exception("reports_send_defect", count=len(batch))
            sent = [None] * len(messages)
        left: list[Outbound] = []
        for some, where in zip(messages, sent, strict=True):
            if where is None:
                left.extend(some)
                continue
            failpoints.hit("worker.after_report")
            for outbound in some:
                outbound.done()
        if left:
            log.warning("reports_not_sent", count=len(left))
            self._renew()
        return left

    def _renew(self) -> None:
        """An idempotent producer that has lost a message may not recover: the next try gets a new one."""
        producer, self._producer = self._producer, None
        if producer:
            close_producer(producer, 0)


def messages_of(batch: Iterable[Outbound]) -> Iterator[list[Outbound]]:
    """Group reports by partition and system, bounded in number and size."""
    groups: dict[tuple[int, str], list[Outbound]] = {}
    for outbound in batch:
        groups.setdefault((outbound.partition, outbound.system), []).append(outbound)
    for group in groups.values():
        some: list[Outbound] = []
        size = 0
        for outbound in group:
            if some and (len(some) >= MAX_REPORTS or size + len(outbound.text) > MAX_BYTES):
                yield some
                some, size = [], 0
            some.append(outbound)
            size += len(outbound.text)
        yield some


def _value(some: list[Outbound]) -> bytes:
    """A `TasksReported` of reports that are written down already."""
    first = some[0]
    data = b'{"partition":%d,"reports":[%b]}' % (first.partition, b",".join(o.text for o in some))
    name = hashlib.sha256(data).hexdigest()
    return enveloped(data, kind="TasksReported", id=name, source=f"keshi/handlers/{first.system}")
