"""Reports to the topic `reports`: sent at once, grouped while others are on their way, until they are on the broker."""

import hashlib
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

import structlog
from kafka.errors import KafkaError

from keshi.handlers.contract import boot_time
from keshi.runtime import failpoints
from keshi.runtime.kafka import Outgoing, close_producer, new_producer, send
from keshi.runtime.settings import ConfigurationError, KafkaSettings
from keshi.schemas.envelope import enveloped
from keshi.schemas.reports import MAX_REPORTS

if TYPE_CHECKING:
    from kafka import KafkaProducer

MAX_BYTES: Final = 262_144
"""Of one message of several reports. A report alone may be as large as a message may be."""
MAX_REPORT_BYTES: Final = 900_000
SEND_SECONDS: Final = 15.0
"""A batch of which the broker says nothing for so long goes out again, by another producer."""
LOOK_SECONDS: Final = 1.0
"""How often the one on its way is looked at for that."""
_BACKOFF: Final = (0.2, 0.5, 1.0, 2.0, 5.0)

log = structlog.get_logger()


class Outbound(NamedTuple):
    """One report on its way; `done` is called once it is on the broker."""

    partition: int
    system: str
    text: bytes
    """JSON."""
    done: Callable[[], None]


class _Flight:
    """A batch on its way. While there is one, what else is to be reported waits and follows as a batch itself."""

    def __init__(self, batch: Iterable[Outbound]) -> None:
        self.aloft = dict(enumerate(messages_of(batch)))
        """Messages of which the broker has said nothing yet, by number."""
        self.left: list[Outbound] = []
        """What has to be sent again."""
        self._until = boot_time() + SEND_SECONDS

    def look(self) -> None:
        """Give up what takes too long. It may arrive all the same: receivers drop repeats."""
        if boot_time() > self._until:
            for some in self.aloft.values():
                self.left.extend(some)
            self.aloft.clear()


class Reporter:
    """One producer, for all systems of a process.

    Who has something to report sends it, if nothing is on its way: a lone report is handed to no other thread and
    waits for no further ones. The reporter's own thread sends what gathered meanwhile, and does all the waiting when
    the broker is away.

    Args:
        settings: Of Kafka.

    Raises:
        ConfigurationError: no broker answers.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._topic = settings.topic("reports")
        self._producer: KafkaProducer | None = self._new()
        self._queue: deque[Outbound] = deque()
        self._lock = threading.Lock()
        self._turn = threading.Condition(self._lock)
        """Of the thread."""
        self._idle = threading.Condition(self._lock)
        self._flight: _Flight | None = None
        self._failures = 0
        self._ended = self._broken = False
        self._thread = threading.Thread(target=self._run, name="reporter", daemon=True)
        self._thread.start()

    def put(self, outbounds: Sequence[Outbound]) -> None:
        """Send these reports, sooner or later."""
        with self._lock:
            self._queue.extend(outbounds)
            if self._flight or self._ended or not self._queue:
                return
            flight = self._begin()
        self._launch(flight)

    def alive(self) -> bool:
        """Whether reports can still be sent."""
        return self._thread.is_alive() and not self._broken

    def close(self, seconds: float) -> bool:
        """Send what is left, for at most this time.

        Returns:
            Whether all of it is on the broker.
        """
        end = boot_time() + seconds
        with self._lock:
            clean = self._idle.wait_for(lambda: not self._queue and not self._flight, timeout=seconds)
            self._ended = True
            self._turn.notify_all()
        self._thread.join(max(0.1, end - boot_time()))
        if self._producer:
            close_producer(self._producer, 2)
        return clean

    # --- one batch

    def _begin(self) -> _Flight:
        """All that is queued, as the batch that is on its way. Who calls this launches it; needs the lock."""
        self._flight = flight = _Flight(self._queue)
        self._queue.clear()
        return flight

    def _launch(self, flight: _Flight) -> None:
        for number, some in list(flight.aloft.items()):
            landed = partial(self._landed, flight, number)
            try:
                if self._producer is None:
                    self._producer = self._new()
                future = send(self._producer, Outgoing(self._topic, _value(some), partition=some[0].partition))
            except (ConfigurationError, KafkaError):
                landed(None, sent=False)
            except Exception:  # a defect must not keep a batch on its way for ever
                log.exception("reports_send_defect", count=len(some))
                landed(None, sent=False)
            else:
                future.add_callback(landed, sent=True)
                future.add_errback(landed, sent=False)

    def _landed(self, flight: _Flight, number: int, _: object, *, sent: bool) -> None:
        """What became of one message. The producer's thread comes by here: it must not wait for anything."""
        some = flight.aloft.get(number)
        if some is None:
            return  # given up, and sent again
        if sent:
            failpoints.hit("worker.after_report")
            self._done(some)
        with self._lock:
            if flight.aloft.pop(number, None) is None:
                return
            if sent:
                self._failures = 0
            else:
                flight.left.extend(some)
            if flight.aloft:
                return
            if flight.left or self._queue:
                self._turn.notify()
            else:
                self._flight = None
                self._idle.notify_all()

    def _done(self, some: Iterable[Outbound]) -> None:
        try:
            for outbound in some:
                outbound.done()
        except Exception:
            log.exception("report_done_defect")
            self._broken = True

    # --- what waits

    def _run(self) -> None:
        while True:
            with self._lock:
                while not self._ended and (self._flight is None or self._flight.aloft):
                    self._turn.wait(LOOK_SECONDS)
                    if self._flight:
                        self._flight.look()
                if self._ended or self._flight is None:
                    return
                left = self._flight.left
                self._queue.extendleft(reversed(left))
            if left:
                log.warning("reports_not_sent", count=len(left))
                self._renew()
            with self._lock:
                if left:
                    self._failures += 1
                    pause = _BACKOFF[min(self._failures, len(_BACKOFF)) - 1]
                    self._turn.wait_for(lambda: self._ended, timeout=pause)
                if self._ended:
                    return
                flight = self._begin()
            self._launch(flight)

    def _new(self) -> "KafkaProducer":
        return new_producer(self._settings, "keshi-worker", linger_ms=0)  # they are grouped already

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
