"""Whether a silent task's worker has passed the message that asked for it.

A task is sent again only then; else a dead system's topic would fill with copies. A list that was sent before now
stands below the topic's end of now: when the group has committed up to that end, it has passed the list.
"""

import threading
import time

import structlog
from kafka import TopicPartition
from kafka.errors import KafkaError

from keshi.runtime.kafka import handler_group, new_consumer
from keshi.runtime.settings import ConfigurationError, KafkaSettings

log = structlog.get_logger()
_FORGET_SECONDS = 600
"""Nobody asks about a task that has answered since."""
_WATCHED = 10_000
Silent = tuple[str, str, int]
"""Request, system, attempt."""


class Silence:
    """Watches topics for silent tasks in a thread of its own: the cycle only asks what is known."""

    def __init__(self, settings: KafkaSettings, seconds: float = 2) -> None:
        self._settings = settings
        self._seconds = seconds
        self._lock = threading.Lock()
        self._ends: dict[Silent, tuple[int, int | None]] = {}
        self._asked: dict[Silent, float] = {}
        self._committed: dict[tuple[str, int], int] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="silence", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=10)

    def passed(self, silent: Silent, partition: int) -> bool:
        """Whether the worker has passed it. The first question only starts the watch."""
        with self._lock:
            _, end = self._ends.setdefault(silent, (partition, None))
            self._asked[silent] = time.monotonic()
            if end is None or self._committed.get((silent[1], partition), -1) < end:
                return False
            self._forget(silent)
            return True

    def _forget(self, *silent: Silent) -> None:
        for one in silent:
            self._ends.pop(one, None)
            self._asked.pop(one, None)

    def _run(self) -> None:
        while not self._stop.wait(self._seconds):
            with self._lock:
                before = time.monotonic() - _FORGET_SECONDS
                self._forget(*[s for s, asked in self._asked.items() if asked < before])
                asked = {(s[1], p) for s, (p, _) in self._ends.items()}
            for system in {s for s, _ in asked}:
                try:
                    self._look(system, {p for s, p in asked if s == system})
                except (KafkaError, ConfigurationError) as e:
                    log.warning("silence_unknown", system=system, exception_class=type(e).__name__)
                except Exception:
                    # Without this thread silent tasks would wait for ever: it goes on, and says so.
                    log.exception("silence_failed", system=system)

    def _look(self, system: str, partitions: set[int]) -> None:
        topic = self._settings.topic(f"tasks.{system}")
        places = [TopicPartition(topic, p) for p in sorted(partitions)]
        consumer = new_consumer(self._settings, handler_group(self._settings, system))
        try:
            ends: dict[TopicPartition, int] = consumer.end_offsets(places)
            committed = {p: consumer.committed(p) for p in places}
        finally:
            consumer.close(autocommit=False)
        with self._lock:
            for place, offset in committed.items():
                self._committed[system, place.partition] = offset if offset is not None else 0
            for silent, (partition, end) in list(self._ends.items()):
                found = ends.get(TopicPartition(topic, partition))
                # One that was asked about while we looked has to wait for the next look.
                if silent[1] == system and end is None and found is not None:
                    self._ends[silent] = (partition, found)
            if len(self._ends) > _WATCHED:
                self._forget(*list(self._ends))  # the watch starts again
