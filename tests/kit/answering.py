"""Plays keshi's part on real topics: reads commands, and answers them as it is told, so that a test chooses when."""

import json
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

from kafka import TopicPartition
from ulid import ULID

from keshi.client import EraseSubject, RejectionCode, RequestRejected, Submitted
from keshi.runtime.kafka import Outgoing, new_consumer, new_producer, send_all
from keshi.runtime.settings import KafkaSettings
from keshi.runtime.topics import TopicOptions, apply, wanted
from keshi.schemas.base import Model
from keshi.schemas.envelope import wrap
from keshi.schemas.requests import EVENTS, Coordinates

EXAMPLES = Path(__file__).resolve().parents[2] / "schemas" / "published" / "examples"
OPTIONS = TopicOptions(partitions=2, commands_partitions=2)


def make_topics(bootstrap: str) -> KafkaSettings:
    """Topics of a prefix of their own."""
    settings = KafkaSettings(bootstrap=bootstrap, prefix=f"t{uuid4().hex[:12]}.")
    apply(settings, wanted(settings, [], OPTIONS), OPTIONS)
    return settings


def command(**more: Any) -> EraseSubject:
    tree = json.loads((EXAMPLES / "EraseSubject.json").read_bytes())["data"]
    return EraseSubject.model_validate_json(json.dumps(tree | {"request_id": str(ULID())} | more))


def answer(kind: str, request_id: str, sequence: int = 1) -> Any:
    """The published example of an answer, about this request."""
    tree = json.loads((EXAMPLES / f"{kind}.json").read_bytes())["data"]
    if "state" in tree:
        tree["state"] |= {"request_id": request_id, "sequence": sequence}
    return EVENTS[f"keshi.{kind}.v1"].model_validate_json(json.dumps(tree))


def rejection(request_id: str, at: Submitted, code: RejectionCode = RejectionCode.GROUND_UNKNOWN) -> RequestRejected:
    where = Coordinates(topic="commands", partition=at.partition, offset=at.offset)
    return RequestRejected(
        request_id=request_id, code=code, field="data.ground", detail="no such ground", command=where
    )


class Keshi:
    """Reads commands and answers them as it is told."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self.kafka = kafka
        self.producer = new_producer(kafka)
        self.consumer = new_consumer(kafka, None)
        self.places = [TopicPartition(kafka.topic("commands"), p) for p in range(OPTIONS.commands_partitions)]
        self.consumer.assign(self.places)
        self.from_now()

    def from_now(self) -> None:
        self.consumer.seek_to_end(*self.places)
        for place in self.places:
            self.consumer.position(place)

    def close(self) -> None:
        self.consumer.close(autocommit=False)
        self.producer.close(timeout=5)

    def say(self, *data: Model) -> None:
        topic = self.kafka.topic("requests")
        messages = []
        for one in data:
            name = one.request_id if isinstance(one, RequestRejected) else one.state.request_id  # type: ignore[attr-defined]
            value = wrap(one, kind=type(one).__name__, id=str(uuid4()), source="urn:test")
            messages.append(Outgoing(topic, value, name.encode()))
        assert None not in send_all(self.producer, messages)

    def commands(self, number: int) -> list[tuple[str, str, Submitted]]:
        """The next commands: request, kind, place."""
        found = [(r.key.decode(), json.loads(r.value), Submitted(r.partition, r.offset)) for r in self.records(number)]
        return [(name, tree["type"].split(".")[1], place) for name, tree, place in found]

    def values(self, number: int) -> list[bytes]:
        """The next commands, as they are."""
        return [r.value for r in self.records(number)]

    def records(self, number: int) -> list[Any]:
        found: list[Any] = []
        end = time.monotonic() + 30
        while len(found) < number:
            assert time.monotonic() < end, f"{len(found)} of {number} commands came"
            for records in self.consumer.poll(timeout_ms=200).values():
                found.extend(records)
        return found

    def waiting(self) -> int:
        """How many commands have come that were not read."""
        ends = self.consumer.end_offsets(self.places)
        return int(sum(ends[p] - self.consumer.position(p) for p in self.places))
