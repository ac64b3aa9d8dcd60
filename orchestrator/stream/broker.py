"""A second pair of eyes on the broker, by a client that has nothing to do with Faust's.

It says what the log holds when Faust and the ledger disagree, and notices a topic that was made anew.
"""

import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka.errors import KafkaError, OffsetOutOfRangeError

from keshi.orchestrator.stream.port import Lane, LogBounds
from keshi.orchestrator.stream.settings import StreamSettings
from keshi.runtime.kafka import client_config, unreachable
from keshi.runtime.settings import ConfigurationError

_CALL_MS = 10_000


@dataclass(frozen=True, slots=True)
class Sight:
    """What a reader put on an offset saw: the first record's offset, or None if there is none up to `end`."""

    first: int | None
    start: int
    end: int


class BrokerView:
    """Looks, and never takes part in a group. Blocking; used by one thread at a time."""

    def __init__(self, settings: StreamSettings) -> None:
        self._settings = settings
        self._consumer: Any = None
        self._admin: Any = None

    def wait_for_topics(self) -> Mapping[str, int]:
        """Wait, for a bounded time, until the broker answers and has the topics.

        Returns:
            Topic to number of partitions.

        Raises:
            ConfigurationError: With what to do.
        """
        deadline = time.monotonic() + self._settings.connect_seconds
        while True:
            try:
                return self._partitions()
            except (KafkaError, OSError):
                self.close()
                if time.monotonic() >= deadline:
                    raise unreachable(self._settings.kafka) from None
            except ConfigurationError:
                if time.monotonic() >= deadline:
                    raise
            time.sleep(0.3)

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
            ids = self._topic_ids({spot.topic for spot in spots.values()})
        except (KafkaError, OSError):
            self.close()
            raise
        return {lane: LogBounds(starts[tp], ends[tp], ids.get(tp.topic)) for lane, tp in spots.items()}

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
            first = (
                self._first(reader, spot, offset, end, time.monotonic() + wait_seconds)
                if start <= offset
                else None
            )
        except (KafkaError, OSError):
            self.close()
            raise
        return Sight(first, start, end)

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
                request_timeout_ms=_CALL_MS,
                bootstrap_timeout_ms=_CALL_MS,
                metrics_enabled=False,
            )
        return self._consumer

    def _describe(self, topics: Iterable[str]) -> list[Any]:
        if self._admin is None:
            self._admin = KafkaAdminClient(
                **client_config(self._settings.kafka),
                request_timeout_ms=_CALL_MS,
                bootstrap_timeout_ms=_CALL_MS,
            )
        return list(self._admin.describe_topics(sorted(topics)))

    def _topic_ids(self, topics: Iterable[str]) -> dict[str, str]:
        described = self._describe(topics)
        return {
            topic["name"]: str(topic["topic_id"]) for topic in described if topic.get("topic_id") is not None
        }

    def _partitions(self) -> dict[str, int]:
        wanted = set(self._settings.topics.values())
        counts = {t["name"]: len(t["partitions"]) for t in self._describe(wanted) if not t["error_code"]}
        if missing := sorted(wanted - {name for name, count in counts.items() if count}):
            raise BrokerUnavailable(
                f"Kafka has no topic {', '.join(missing)}: make it with `keshi topics apply`"
            )
        return counts
