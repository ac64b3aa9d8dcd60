"""Where identifiers go, and where not: a scan of bytes over everything that a whole environment leaves behind.

Marked people are in both systems. They ask, their messages come malformed, too; systems fail with their names in
each failure; the broken messages, calls and decisions name them wherever a sender may write. Then no log, no topic but
`commands` and no table or file of the ledger may hold them, and after the clean-up of `commands` not the broker's
disk either.
"""

import base64
import json
import os
import shutil
import sqlite3
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from keshi.dev.options import POSTGRESQL, UpOptions
from keshi.dev.places import run_directory
from keshi.dev.stack import Stack
from keshi.runtime import topics
from kit.leaks import Scan, in_files, in_tables, in_topics
from kit.marks import Mark
from kit.samples import command

TESTS = Path(__file__).parents[1]
PARTITIONS = 2


def until(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.3)
    return found


@dataclass(frozen=True)
class Scene:
    stack: Stack
    marks: tuple[Mark, ...]
    scan: Scan

    def own_stores(self) -> list[Path]:
        """Where the systems keep what is theirs."""
        return [self.stack.directory / "billing" / "data", self.stack.directory / "systems"]

    def commands_on_disk(self) -> list[Path]:
        assert self.stack.kafka_data is not None
        return sorted(self.stack.kafka_data.glob(f"{self.stack.kafka.topic('commands')}-*"))

    # --- what is sent

    def send(self, *values: bytes, mark: Mark | None = None) -> None:
        """To `commands`, as a careless sender would: key and headers name the person, half of the clocks are wrong."""
        producer = KafkaProducer(bootstrap_servers=self.stack.kafka.bootstrap, acks="all")
        named = mark.email.encode() if mark else None
        try:
            for n, value in enumerate(values):
                producer.send(
                    self.stack.kafka.topic("commands"),
                    value=value,
                    key=named,
                    headers=[("person", named)] if named else None,
                    partition=n % PARTITIONS,
                    timestamp_ms=int(time.time() * 1000) + (3_000_000 if n % 2 else 0),
                ).get(timeout=30)
        finally:
            producer.close(timeout=5)

    def ask(self, kind: str, mark: Mark, **change: Any) -> str:
        data = command(kind, identifiers=mark.identifiers(), **change)
        self.send(event(data, kind, subject=mark.email, tracestate=f"person={mark.phone}"), mark=mark)
        return str(data["request_id"])

    def closed(self, *ids: str) -> None:
        end = time.monotonic() + 90
        for request_id in ids:
            while self.get(f"/v1/closures/{request_id}")[0] != 200:
                assert time.monotonic() < end, f"not closed: {self.get(f'/v1/requests/{request_id}')[1]}"
                time.sleep(0.2)

    # --- the API

    def get(self, path: str, token: str | None = None, body: dict[str, Any] | None = None) -> tuple[int, Any]:
        question = urllib.request.Request(  # noqa: S310 - our own API's address
            self.stack.api_url + path,
            headers={"Authorization": f"Bearer {token or self.stack.api_token}", "Content-Type": "application/json"},
            data=None if body is None else json.dumps(body).encode(),
        )
        try:
            with urllib.request.urlopen(question, timeout=10) as answer:  # noqa: S310 - as above
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as e:
            return e.code, e.read()


def event(data: dict[str, Any], kind: str, **attributes: Any) -> bytes:
    head = {"specversion": "1.0", "id": uuid4().hex, "source": "urn:example:dsar", "type": f"keshi.{kind}.v1"}
    return json.dumps(head | attributes | {"data": data}).encode()


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    directory = run_directory("keshi-leaks-")
    handlers = "billing=end_to_end.leaky_handlers:LeakyBilling,crm=end_to_end.leaky_handlers:LeakyCrm"
    options = UpOptions(
        ledger=POSTGRESQL,
        people=20,
        partitions=PARTITIONS,
        data=directory,
        commands_segment_ms=1_500,
        env={
            "PYTHONPATH": os.pathsep.join(filter(None, (str(TESTS), os.environ.get("PYTHONPATH")))),
            "KESHI_DEV_HANDLERS": handlers,
            "KESHI_WORKER_TRIES": "1",  # each failure is reported
            "KESHI_RETRY_SCHEDULE": "[0.5]",
            "KESHI_MAX_ATTEMPTS": "100",  # an outage may cost many
            "KESHI_MAX_ACTS": "20",
            "KESHI_LEASE_SECONDS": "3",
            "KESHI_LOG_LEVEL": "debug",
        },
    )
    try:
        with Stack(options) as stack:
            marks = tuple(Mark() for _ in range(5))
            yield Scene(stack, marks, Scan(marks, since=time.time() - 5))
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def put_into_the_systems(scene: Scene, mark: Mark, number: int) -> None:
    recent = datetime.now(UTC).date() - timedelta(days=200)
    with psycopg.connect(scene.stack.settled["billing"].inside["dsn"]) as db:
        db.execute(
            "INSERT INTO customers (customer_id, name, email, phone, address) VALUES (%s, %s, %s, %s, %s)",
            (mark.customer_id, f"Marked {mark.email}", mark.email, mark.phone, mark.phone),
        )
        db.execute(
            "INSERT INTO invoices (id, customer_id, issued_on, amount_yen, name, address)"
            " VALUES (%s, %s, %s, 1, %s, %s)",
            (9_000_000 + number, mark.customer_id, recent, mark.email, mark.phone),
        )
        db.execute(
            "INSERT INTO usage (id, customer_id, day, units) VALUES (%s, %s, %s, 1)",
            (9_000_000 + number, mark.customer_id, recent),
        )
    with closing(sqlite3.connect(Path(scene.stack.settled["crm"].inside["data"]) / "crm.sqlite3")) as store, store:
        store.execute(
            "INSERT INTO contacts (id, name, email, phone, customer_id, company) VALUES (?, ?, ?, ?, ?, 'x')",
            (f"P-{900_001 + number}", mark.email, mark.email, mark.phone, mark.customer_id),
        )


def malformed(mark: Mark) -> list[bytes]:
    """Messages that cannot be accepted, with a person in every place a sender can write to."""
    whole = command(identifiers=mark.identifiers())
    first = mark.identifiers()[0]
    texts = [
        b"not json, about " + mark.email.encode(),
        mark.email.encode("utf-16-le"),
        base64.b64encode(json.dumps(whole).encode()),
        json.dumps([mark.identifiers()]).encode(),
        json.dumps({"person": mark.email}).encode(),
        event(whole, "EraseSubject")[:-40],
        event(whole, f"Erase-{mark.customer_id}"),
        event(whole | {mark.email: mark.phone}, "EraseSubject"),
        event(whole | {"request_id": mark.email}, "EraseSubject"),
        event(whole | {"request_id": f"{whole['request_id']}{mark.phone}"}, "EraseSubject"),
        event(whole | {"ground": mark.customer_id}, "EraseSubject"),
        event(whole | {"regime": mark.email}, "EraseSubject"),
        event(whole | {"scope": {"categories": [mark.email]}}, "EraseSubject"),
        event(whole | {"scope": {"items": [f"letters:{mark.customer_id}"]}}, "EraseSubject"),
        event(whole | {"identifiers": [first | {"type": mark.email}]}, "EraseSubject"),
        event(whole | {"identifiers": [{"type": "phone", "value": f"call {mark.phone} \x00"}]}, "EraseSubject"),
        event(whole | {"identifiers": [{"type": "email", "value": f"{mark.email}@{mark.email}"}]}, "EraseSubject"),
        event(whole | {"identifiers": [first | {mark.phone: mark.phone}]}, "EraseSubject"),
        event(whole | {"assessed": {"by": mark.email, "at": mark.phone}}, "EraseSubject"),
        event(whole | {"arrived": {"at": mark.email, "channel": mark.email}}, "EraseSubject"),
        event(whole | {"notice_language": mark.email}, "EraseSubject"),
        event(whole, "EraseSubject", traceparent=mark.email),
        event(whole, "EraseSubject", extension=mark.email),
        event({"request_id": mark.phone}, "WithdrawRequest"),
        event(whole, "EraseSubject").replace(b'"specversion": "1.0"', f'"specversion": "{mark.email}"'.encode()),
    ]
    return [*texts, b"\xff" + texts[0], texts[5] + b" " * 300_000]


def answers(scene: Scene) -> int:
    """How many messages were answered with a rejection, or put into quarantine."""
    found = 0
    consumer = KafkaConsumer(bootstrap_servers=scene.stack.kafka.bootstrap, group_id=None, enable_auto_commit=False)
    try:
        for name in ("requests", "quarantine"):
            topic = scene.stack.kafka.topic(name)
            consumer.assign([TopicPartition(topic, p) for p in range(PARTITIONS)])
            ends = consumer.end_offsets(list(consumer.assignment()))
            consumer.seek_to_beginning()
            while any(consumer.position(p) < end for p, end in ends.items()):
                for batch in consumer.poll(timeout_ms=200).values():
                    found += sum(name == "quarantine" or b".RequestRejected." in m.value for m in batch)
    finally:
        consumer.close(autocommit=False)
    return found


def play(scene: Scene) -> None:
    """Everything that brings identifiers near a place where they should not be."""
    erased, suspended, broken, absent, outage = scene.marks
    for number, mark in enumerate((erased, suspended, outage)):
        put_into_the_systems(scene, mark, number)
    ids = [scene.ask("EraseSubject", erased), scene.ask("EraseSubject", absent)]
    held = scene.ask("SuspendUse", suspended)
    messages = malformed(broken)
    scene.send(*messages, mark=broken)
    # A system that is not there, with a person's task under way.
    scene.stack.stop("crm", gracefully=False)
    ids.append(scene.ask("EraseSubject", outage))
    ids.append(scene.ask("EraseSubject", erased, regime="gdpr", ground="gdpr.17"))
    for path in (
        f"/v1/requests/{broken.email}",
        f"/v1/closures/{broken.phone}?reasons={broken.email}",
        f"/{broken.email}",
    ):
        assert scene.get(path.replace("+", "%2B"))[0] >= 400
    assert scene.get("/v1/requests", token=broken.email)[0] == 401
    time.sleep(1)  # a moment of outage, so that some attempt falls into it
    scene.stack.start("crm")
    # The handler asks a person once; the words of the answer may name the person, and are sealed.
    until(lambda: scene.get(f"/v1/requests/{held}")[1].get("held"), 60, "the suspension is held")
    words = {"system": "crm", "decision": "retry", "reason": f"talked to {suspended.email}, {suspended.phone}"}
    assert scene.get(f"/v1/requests/{held}/decisions", body=words)[0] < 300
    assert scene.get(f"/v1/requests/{ids[0]}/decisions", body=words | {suspended.email: suspended.phone})[0] >= 400
    scene.closed(*ids, held)
    resumed = scene.ask("ResumeUse", suspended)
    scene.closed(resumed)
    until(lambda: answers(scene) >= len(messages), 60, "each malformed message got its answer")


def test_identifiers_are_in_commands_alone_and_after_its_clean_up_nowhere(scene: Scene) -> None:
    play(scene)
    stack, marks = scene.stack, scene.scan
    commands = stack.kafka.topic("commands")
    on_disk = scene.commands_on_disk()
    assert any(in_files(marks, directory) for directory in on_disk), "the scan would find them: they are in `commands`"
    assert in_files(marks, scene.own_stores()[0].parent), "and in the system's own store"

    assert in_files(marks, stack.directory, but=[*scene.own_stores(), *on_disk]) == []
    assert in_topics(marks, stack.kafka.bootstrap, but=[commands]) == []
    assert in_tables(marks, stack.ledger_url) == []

    segments = [file for directory in on_disk for file in directory.glob("*.log")]
    assert len(segments) > len(on_disk), "some segment was rolled"
    options = topics.TopicOptions(partitions=PARTITIONS, commands_partitions=PARTITIONS, commands_retention_ms=1_000)
    topics.apply(stack.kafka, topics.wanted(stack.kafka, stack.systems, options), options)
    assert stack.kafka_data is not None
    disk = stack.kafka_data
    until(lambda: not any(in_files(marks, directory) for directory in on_disk), 90, "`commands` is cleaned up")
    assert in_files(marks, disk) == []
    plant_and_find(scene)


def plant_and_find(scene: Scene) -> None:
    """The same scan finds a leak that is put there, in each kind of place."""
    stack, marks, mark = scene.stack, scene.scan, scene.marks[0]
    log = stack.logs / "planted.log"
    log.write_bytes(b'{"event":"x","body":"' + base64.b64encode(b"to: " + mark.email.encode()) + b'"}\n')
    assert in_files(marks, stack.directory, but=scene.own_stores()) == ["logs/planted.log"]
    producer = KafkaProducer(bootstrap_servers=stack.kafka.bootstrap, compression_type="gzip")
    producer.send(stack.kafka.topic("quarantine"), value=b"{}", key=mark.phone.encode().hex().encode()).get(timeout=30)
    producer.close(timeout=5)
    assert in_topics(marks, stack.kafka.bootstrap, but=[stack.kafka.topic("commands")]) == [
        stack.kafka.topic("quarantine")
    ]
    with psycopg.connect(stack.ledger_url) as db:
        db.execute("CREATE TABLE planted (note jsonb)")
        db.execute("INSERT INTO planted VALUES (%s)", (json.dumps({"note": mark.customer_id.upper()}),))
    assert in_tables(marks, stack.ledger_url) == ["planted"]


@pytest.mark.parametrize(
    "write",
    [
        lambda m: m.email.upper().encode(),
        lambda m: base64.b64encode(b"x" + m.email.encode()),
        lambda m: base64.urlsafe_b64encode(b"xy" + m.phone.encode()),
        lambda m: m.customer_id.encode().hex().encode(),
        lambda m: m.email.replace("@", "%40").encode(),
        lambda m: ("0" + m.phone[3:]).encode(),
        lambda m: m.phone[1:].encode(),
        lambda m: m.email.encode("utf-16-le"),
    ],
)
def test_the_scan_knows_the_usual_writings(write: Callable[[Mark], bytes], tmp_path: Path) -> None:
    mark = Mark()
    file = tmp_path / "data.bin"
    file.write_bytes(b"\0" * 100_000 + b"before " + write(mark) + b" after" + b"\0" * 100_000)
    assert in_files(Scan([mark]), tmp_path) == ["data.bin"]
    assert in_files(Scan([mark]), tmp_path, but=[tmp_path]) == []
    assert not Scan([Mark()])(file.read_bytes())
