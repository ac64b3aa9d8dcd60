"""How many messages went by each topic."""

from collections.abc import Sequence
from typing import Self

from kafka import TopicPartition

from keshi.runtime.kafka import new_consumer
from keshi.runtime.settings import KafkaSettings


class Traffic:
    """Counts from the moment it is entered, by the ends of the topics.

    Args:
        kafka: Where they are.
        systems: Whose tasks count as one topic.
    """

    def __init__(self, kafka: KafkaSettings, systems: Sequence[str]) -> None:
        self._consumer = new_consumer(kafka, None)
        self._topics = {name: [kafka.topic(name)] for name in ("commands", "reports", "requests")}
        self._topics["tasks"] = [kafka.topic(f"tasks.{system}") for system in systems]
        self._before: dict[str, int] = {}

    def __enter__(self) -> Self:
        self._before = self._ends()
        return self

    def __exit__(self, *_: object) -> None:
        self._consumer.close(autocommit=False)

    def since(self) -> dict[str, int]:
        """Messages by topic since then."""
        return {topic: end - self._before[topic] for topic, end in self._ends().items()}

    def _ends(self) -> dict[str, int]:
        places = {
            topic: [TopicPartition(n, p) for n in names for p in self._consumer.partitions_for_topic(n) or ()]
            for topic, names in self._topics.items()
        }
        ends = self._consumer.end_offsets([place for some in places.values() for place in some])
        return {topic: sum(ends[place] for place in some) for topic, some in places.items()}
