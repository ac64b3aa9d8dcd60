"""A second pair of eyes on the broker, by a client that has nothing to do with Faust's.

It says what the log holds when Faust and the ledger disagree, and notices a topic that was made anew.
"""

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka.errors import KafkaError, OffsetOutOfRangeError

from keshi.orchestrator.stream.port import Lane, LogBounds
from keshi.orchestrator.stream.settings import StreamSettings
from keshi.runtime.kafka import client_config, unreachable
from keshi.runtime.settings import ConfigurationError

_CALL_MS = 5_000
_PAUSE_SECONDS = 0.3


@dataclass(frozen=True, slots=True)
class Sight:
    """What a reader put on an offset saw: the first record's offset, or None if there is none up to `end`."""

    first: int | None
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Shape:
    """A topic's UUID (as far as the broker has one) and number of partitions."""

    topic_id: str | None
    partitions: int


class BrokerView:
    """Looks, and never takes part in a group. Blocking; used by one thread at a time."""

    def __init__(self, settings: StreamSettings) -> None:
        self._settings = settings
        self._consumer: Any = None
        self._admin: Any = None

    def wait_for_topics(self) -> Mapping[str, Shape]:
        """Wait, for a bounded time, until the broker answers and has the topics.

        Returns:
            What it has.

        Raises:
            ConfigurationError: With what to do.
        """
        deadline = time.monotonic() + self._settings.connect_seconds
        while True:
            try:
                shapes = self.topics()
            except (KafkaError, OSError) as e:
                problem = unreachable(self._settings.kafka, e)
            else:
                missing = [topic for topic, shape in shapes.items() if not shape.partitions]
                if not missing:
                    return shapes
                names = ", ".join(missing)
                problem = ConfigurationError(f"Kafka has no topic {names}: make it with `keshi topics apply`")
            if time.monotonic() >= deadline:
                raise problem
            time.sleep(_PAUSE_SECONDS)

    def bounds(self, lanes: Collection[Lane]) -> dict[Lane, LogBounds]:
        """Start, end and topic id of the log of each lane.

        Raises:
            KafkaError: The broker does not say (in time).
        """
        spots = {lane: TopicPartition(self._settings.topic_of(lane), lane.partition) for lane in lanes}
        if not spots:
            return {}
        try:
            reader = self._reader()
            starts = reader.beginning_offsets(list(spots.values()), timeout_ms=_CALL_MS)
            ends = reader.end_offsets(list(spots.values()), timeout_ms=_CALL_MS)
            shapes = self.topics()
        except (KafkaError, OSError):
            self.close()
            raise
        return {lane: LogBounds(starts[tp], ends[tp], shapes[tp.topic].topic_id) for lane, tp in spots.items()}

    def look(self, lane: Lane, offset: int, wait_seconds: float = 5.0) -> Sight:
        """Read from an offset and say what comes first.

        Raises:
            KafkaError: The broker does not say (in time).
        """
        spot = TopicPartition(self._settings.topic_of(lane), lane.partition)
        try:
            reader = self._reader()
            start = reader.beginning_offsets([spot], timeout_ms=_CALL_MS)[spot]
            end = reader.end_offsets([spot], timeout_ms=_CALL_MS)[spot]
            first = self._first(reader, spot, offset, end, time.monotonic() + wait_seconds) if start <= offset else None
        except (KafkaError, OSError):
            self.close()
            raise
        return Sight(first, start, end)

    def topics(self) -> Mapping[str, Shape]:
        """What there is of each topic; no partitions where it is not there.

        Raises:
            KafkaError: The broker does not say (in time).
        """
        shapes = dict.fromkeys(sorted(self._settings.topics.values()), Shape(None, 0))
        try:
            for topic in self._describe():
                if not topic["error_code"]:
                    topic_id = topic.get("topic_id")
                    shapes[topic["name"]] = Shape(topic_id and str(topic_id), len(topic["partitions"]))
        except (KafkaError, OSError):
            self.close()
            raise
        return shapes

    def close(self) -> None:
        """Let go of the connections; the next call makes new ones."""
        consumer, self._consumer = self._consumer, None
        admin, self._admin = self._admin, None
        for client in (consumer, admin):
            if client is not None:
                try:
                    client.close()
                except (KafkaError, OSError):
                    continue

    @staticmethod
    def _first(reader: Any, spot: TopicPartition, offset: int, end: int, deadline: float) -> int | None:
        """The first record at or after `offset` and below `end`."""
        reader.assign([spot])
        reader.seek(spot, offset)
        try:
            while time.monotonic() < deadline and reader.position(spot) < end:
                for records in reader.poll(timeout_ms=500, max_records=1).values():
                    for record in records:
                        return int(record.offset)
        except OffsetOutOfRangeError:
            return None
        finally:
            reader.assign([])
        return None

    def _reader(self) -> Any:
        if self._consumer is None:
            self._consumer = KafkaConsumer(
                **client_config(self._settings.kafka),
                group_id=None,
                enable_auto_commit=False,
                auto_offset_reset="none",
                # What a sender took back must not be carried out, and a marker is no record.
                isolation_level="read_committed",
                allow_auto_create_topics=False,
                **self._limits(),
                metrics_enabled=False,
            )
        return self._consumer

    def _describe(self) -> list[Any]:
        if self._admin is None:
            self._admin = KafkaAdminClient(**client_config(self._settings.kafka), **self._limits())
        return list(self._admin.describe_topics(sorted(self._settings.topics.values())))

    def _limits(self) -> dict[str, int]:
        bootstrap = min(_CALL_MS, round(self._settings.connect_seconds * 1000))
        return {
            "request_timeout_ms": _CALL_MS, "bootstrap_timeout_ms": bootstrap, "reconnect_backoff_max_ms": 1000,
        }  # fmt: skip
