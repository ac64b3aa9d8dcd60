"""Commands in, answers out, as a DSAR system would do it: kafka-python and plain JSON."""

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError

from .rules import Asked

KINDS = {"erase": "EraseSubject", "suspend_use": "SuspendUse", "resume_use": "ResumeUse"}
_SEND_SECONDS = 60.0
_ARRIVED = "2026-04-01T09:00:00Z"


def command(asked: Asked) -> dict[str, Any]:
    """A whole command; the same each time it is made."""
    return _event(
        KINDS[asked.action],
        {
            "request_id": asked.request_id,
            "identifiers": [dict(i) for i in asked.identifiers],
            "regime": "appi",
            "ground": "appi.35-5",
            "requested_by": {"kind": "person", "identity_evidence": ["dsar:id-check-1"]},
            "assessed": {"by": "staff:aoi", "at": _ARRIVED},
            "arrived": {"at": _ARRIVED, "channel": "web:privacy-form"},
            "due": "2046-04-01T09:00:00Z",
        },
    )


def withdrawal(request_id: str) -> dict[str, Any]:
    """The person takes the request back."""
    return _event("WithdrawRequest", {"request_id": request_id})


def _event(kind: str, data: Mapping[str, Any]) -> dict[str, Any]:
    name = f"{kind}-{data['request_id']}"
    body = {"specversion": "1.0", "id": name, "source": "urn:example:dsar", "type": f"keshi.{kind}.v1"}
    return body | {"data": dict(data)}


def request_id(random_bits: int) -> str:
    """A UUID out of a seeded source."""
    return str(UUID(int=random_bits, version=4))


class Sender:
    """Puts commands on the broker, and comes back only when it has them: also across its death."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self._bootstrap, self._topic = bootstrap, topic
        self._producer: KafkaProducer | None = None

    def send(self, events: Iterable[tuple[dict[str, Any], int]]) -> list[int]:
        """Send events, each to its partition, and return their offsets. What failed is sent again."""
        return [self._one(json.dumps(event).encode(), partition) for event, partition in events]

    def _one(self, value: bytes, partition: int) -> int:
        until = time.monotonic() + _SEND_SECONDS
        while True:
            try:
                self._producer = self._producer or KafkaProducer(
                    bootstrap_servers=self._bootstrap, acks="all", enable_idempotence=True, delivery_timeout_ms=15_000,
                    request_timeout_ms=5_000, max_block_ms=10_000, reconnect_backoff_max_ms=1_000,
                )  # fmt: skip
                sent = self._producer.send(self._topic, value=value, partition=partition).get(timeout=20)
            except KafkaError:
                self.close()
                if time.monotonic() > until:
                    raise
                time.sleep(0.2)
            else:
                return int(sent.offset)

    def close(self) -> None:
        if self._producer is not None:
            self._producer.close(timeout=1)
            self._producer = None


class Listener:
    """Follows the answers in a thread of its own, so that the run knows what is closed."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self._bootstrap, self._topic = bootstrap, topic
        self._closed: set[str] = set()
        self._closings = 0
        self._changed = threading.Condition()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="answers", daemon=True)
        self._thread.start()

    @property
    def closed(self) -> frozenset[str]:
        """Requests with a closure record."""
        with self._changed:
            return frozenset(self._closed)

    @property
    def closings(self) -> int:
        """Messages with a closure record, also repeated ones."""
        with self._changed:
            return self._closings

    def wait(self, seconds: float) -> None:
        """Return when something was closed, or after this time."""
        with self._changed:
            self._changed.wait(seconds)

    def close(self) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        consumer = _consumer(self._bootstrap, self._topic)
        while not self._ended.is_set():
            try:
                batches = consumer.poll(timeout_ms=200)
            except KafkaError:
                continue
            for message in (m for batch in batches.values() for m in batch):
                event = json.loads(message.value)
                if event["type"] == "keshi.RequestClosed.v1":
                    with self._changed:
                        self._closed.add(event["data"]["state"]["request_id"])
                        self._closings += 1
                        self._changed.notify_all()
        consumer.close(autocommit=False)


def _consumer(bootstrap: str, topic: str) -> KafkaConsumer:
    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap, group_id=None, enable_auto_commit=False, auto_offset_reset="earliest",
        reconnect_backoff_max_ms=1_000, fetch_max_wait_ms=100,
    )  # fmt: skip
    consumer.assign([TopicPartition(topic, p) for p in sorted(consumer.partitions_for_topic(topic) or ())])
    return consumer


def read_all(bootstrap: str, topic: str) -> list[dict[str, Any]]:
    """Every message of a topic, from its start to where it ends now."""
    consumer = _consumer(bootstrap, topic)
    try:
        ends = consumer.end_offsets(list(consumer.assignment()))
        consumer.seek_to_beginning()
        found: list[dict[str, Any]] = []
        until = time.monotonic() + 60
        while any(consumer.position(p) < end for p, end in ends.items()):
            if time.monotonic() > until:
                raise TimeoutError(f"{topic} could not be read to its end within 60 s")
            for batch in consumer.poll(timeout_ms=500).values():
                found.extend(json.loads(m.value) for m in batch)
        return found
    finally:
        consumer.close(autocommit=False)


def passed(bootstrap: str, group: str, topic: str) -> dict[int, int]:
    """How far a group has told the broker that it has read: partition → next offset."""
    admin = KafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=5_000)
    try:
        offsets = admin.list_group_offsets({group: None})[group]
        return {p.partition: int(o.offset) for p, o in offsets.items() if p.topic == topic}
    finally:
        admin.close()


def held_tasks(api_url: str, token: str, request_id: str) -> bool:
    """Whether a task of this request waits for a person now."""
    question = urllib.request.Request(  # noqa: S310 - our own API's address
        f"{api_url}/v1/requests/{request_id}", headers={"Authorization": f"Bearer {token}"}
    )
    try:
        with urllib.request.urlopen(question, timeout=10) as answer:  # noqa: S310 - as above
            return bool(json.load(answer).get("held"))
    except urllib.error.HTTPError:
        return False
