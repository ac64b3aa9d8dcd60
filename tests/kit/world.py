"""An orchestrator in this process: the real engine, ledger, keys and `begin`, a real broker for what it sends.

Records are handed to the engine directly, so that a test says what comes when; what the engine produces is read
back from the broker.
"""

import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from kafka import TopicPartition
from ulid import ULID

from keshi.orchestrator.context import Policy
from keshi.orchestrator.engine import OrchestratorEngine, Parts
from keshi.orchestrator.go import GoService
from keshi.orchestrator.intake import Intake
from keshi.orchestrator.keys import Keys
from keshi.orchestrator.ledger.migrate import migrate
from keshi.orchestrator.ledger.postgres import PostgresLedger, connect
from keshi.orchestrator.request import State
from keshi.orchestrator.silence import Silence
from keshi.orchestrator.stream.port import Lane, LogBounds, Record
from keshi.runtime import topics
from keshi.runtime.kafka import new_consumer, new_producer, partition_of
from keshi.runtime.sealing import key_ring, new_key_line
from keshi.runtime.settings import KafkaSettings, KeySettings
from keshi.schemas.closure import ClosureRecord
from keshi.schemas.commands import DecideTask
from keshi.schemas.envelope import wrap
from keshi.schemas.inventory import Inventory
from keshi.schemas.outcomes import CategoryOutcome, Outcome
from keshi.schemas.reports import UNSIGNED, Completed, Failed, HandlerVersion, Intent, TasksReported, signed
from keshi.schemas.tasks import Begin, Found, Go, Mode, Task
from kit import asking

PARTITIONS = 2
HANDLER = HandlerVersion(name="tests.Handler", version="1.0")
KEK = new_key_line("test-kek")


class World:
    """See the module."""

    def __init__(self, bootstrap: str, prefix: str, dsn: str, inventory: Inventory, policy: Policy | None = None):
        self.kafka = KafkaSettings(bootstrap=bootstrap, prefix=prefix)
        self.inventory = inventory
        self.policy = policy or Policy(lease_seconds=2, retry_schedule=(0.05,), silence_seconds=2, recheck_seconds=0.5)
        specs = topics.wanted(
            self.kafka, [s.name for s in inventory.systems], topics.TopicOptions(partitions=PARTITIONS)
        )
        topics.apply(self.kafka, specs, topics.TopicOptions())
        self.db = connect(dsn)
        migrate(self.db)
        self.ledger = PostgresLedger(self.db)
        self.ledger.partitions(PARTITIONS)
        self.keys = Keys.of(key_ring(KeySettings(kek=KEK)), self.ledger)
        self.producer = new_producer(self.kafka, linger_ms=0)
        self.go = GoService(self.ledger, self.keys, self.policy, PARTITIONS)
        self.offsets: dict[Lane, int] = {}
        names = ["requests", "quarantine", *(f"tasks.{s.name}" for s in inventory.systems)]
        self._consumer = new_consumer(self.kafka, None)
        self._consumer.assign([TopicPartition(self.kafka.topic(n), p) for n in names for p in range(PARTITIONS)])
        self.messages: list[tuple[str, dict[str, Any]]] = []
        self.engine = self.new_engine()

    def new_engine(self) -> OrchestratorEngine:
        """Another orchestrator process, as far as the ledger can tell: it takes every lane."""
        engine = OrchestratorEngine(
            Parts(
                ledger=self.ledger,
                keys=self.keys,
                intake=Intake(self.inventory, self.keys),
                policy=self.policy,
                producer=self.producer,
                kafka=self.kafka,
                partitions=PARTITIONS,
                silence=Silence(self.kafka),
            )
        )
        lanes = [Lane(s, p) for s in ("commands", "reports") for p in range(PARTITIONS)]
        engine.take({lane: LogBounds(0, 10**9, "topic-uuid") for lane in lanes})
        return engine

    def close(self) -> None:
        self._consumer.close(autocommit=False)
        self.producer.close(timeout=5)
        self.ledger.close()

    # --- what comes in

    def feed(self, stage: Any, partition: int, *values: bytes | None) -> int:
        """Hand records to the engine; returns the first one's offset."""
        lane = Lane(stage, partition)
        first = self.offsets.get(lane, 0)
        records = [Record(lane, first + n, v, None, (), 0) for n, v in enumerate(values)]
        self.offsets[lane] = first + len(values)
        self.engine.process(lane, records)
        self.turn()
        return first

    def send(self, *values: bytes | None, partition: int = 0) -> int:
        """Commands by any partition."""
        return self.feed("commands", partition, *values)

    def turn(self, times: int = 4) -> None:
        """Let the engine do what waits for no record."""
        for _ in range(times):
            self.engine._probed = 0.0
            self.engine.idle(self.lanes)

    @property
    def lanes(self) -> list[Lane]:
        return [Lane(s, p) for s in ("commands", "reports") for p in range(PARTITIONS)]

    def report(self, *reports: Any) -> None:
        """Reports, each by the partition of its request."""
        for r in reports:
            p = partition_of(r.request_id, PARTITIONS)
            data = TasksReported(partition=p, reports=(r,))
            self.feed("reports", p, wrap(data, kind="TasksReported", id=str(ULID()), source="urn:test:worker"))

    # --- what comes out

    def poll(self) -> None:
        for batch in self._consumer.poll(timeout_ms=20).values():
            self.messages.extend((m.topic.removeprefix(self.kafka.prefix), json.loads(m.value)) for m in batch)

    def until(self, what: Callable[[], Any], seconds: float = 20) -> Any:
        """Wait for a condition, with a bound."""
        end = time.monotonic() + seconds
        while not (found := what()):
            assert time.monotonic() < end, "waited in vain"
            self.poll()
            self.turn(1)
        return found

    def task(self, request_id: str, system: str, attempt: int = 1) -> Task:
        """The task as its worker gets it."""

        def find() -> Task | None:
            for topic, message in self.messages:
                for t in message["data"].get("tasks", ()) if topic == f"tasks.{system}" else ():
                    if (t["request_id"], t["attempt"]) == (request_id, attempt):
                        return Task.model_validate_json(json.dumps(t))
            return None

        found: Task = self.until(find)
        return found

    def tasks_sent(self, request_id: str) -> list[tuple[str, int, str]]:
        """(system, attempt, mode) of all tasks sent for a request so far."""
        return [
            (t["system"], t["attempt"], t.get("mode", "act"))
            for topic, m in self.messages
            if topic.startswith("tasks.")
            for t in m["data"]["tasks"]
            if t["request_id"] == request_id
        ]

    def answers(self, request_id: str, kind: str) -> list[dict[str, Any]]:
        """Messages of a type on `requests` about a request."""
        return [
            m["data"]
            for topic, m in self.messages
            if topic == "requests"
            and m["type"] == f"keshi.{kind}.v1"
            and request_id in (m["data"].get("request_id"), m["data"].get("state", {}).get("request_id"))
        ]

    def answer(self, request_id: str, kind: str) -> dict[str, Any]:
        found: list[dict[str, Any]] = self.until(lambda: self.answers(request_id, kind))
        return found[-1]

    def state(self, request_id: str) -> State:
        with self.ledger.reader() as r:
            return r.states([request_id])[request_id]

    def record(self, request_id: str) -> ClosureRecord:
        with self.ledger.reader() as r:
            return ClosureRecord.model_validate_json(r.closures([request_id])[request_id])

    # --- a worker, in steps

    def begin(self, task: Task, found: Iterable[tuple[str, str]] | Sequence[Found], **change: Any) -> Any:
        """Ask for the go."""
        manifest = tuple(f if isinstance(f, Found) else Found(category=f[0], ref=f[1]) for f in found)
        question = Begin(
            request_id=task.request_id,
            system=task.system,
            attempt=task.attempt,
            begin_id=change.pop("begin_id", f"{time.time_ns():032x}"),
            mode=change.pop("mode", task.mode),
            manifest=manifest,
            searched=("email",),
            **change,
        )
        return asking.begin(self.go, task.system, question)[0]

    def completed(self, task: Task, go: Go, outcome: Outcome = Outcome.ERASED, **change: Any) -> Completed:
        """A signed report: all of the union ended alike, what was not found is said so."""
        counts = {c: sum(1 for f in go.union if f.category == c) for c in task.categories}
        outcomes = tuple(
            CategoryOutcome(category=c, outcome=outcome if n else Outcome.NOT_FOUND, count=n) for c, n in counts.items()
        )
        now = datetime.now(UTC)
        body = Completed(
            request_id=task.request_id,
            system=task.system,
            attempt=task.attempt,
            handler=HANDLER,
            at=now,
            mode=task.mode,
            lease_id=go.lease_id,
            digest=go.digest,
            searched=("email",),
            outcomes=change.pop("outcomes", outcomes),
            checked_at=now,
            hmac=UNSIGNED,
        )
        report = signed(body.model_copy(update=change), go.secret)
        assert isinstance(report, Completed)
        return report

    def failed(self, task: Task, error: str = "unavailable", intent: Intent = Intent.RETRY, **more: Any) -> Failed:
        return Failed(
            request_id=task.request_id,
            system=task.system,
            attempt=task.attempt,
            handler=HANDLER,
            at=datetime.now(UTC),
            error=error,
            intent=intent,
            **more,
        )

    def decide(self, request_id: str, system: str, decision: str, *, forged: bool = False, **change: Any) -> None:
        """A person's decision, as the API signs and produces it."""
        task = self.state(request_id).tasks[system]
        body: dict[str, Any] = {
            "request_id": request_id,
            "system": system,
            "decision": decision,
            "person": "staff:kato",
            "reason": self.keys.seal_text(request_id, "looked at it"),
            "ground": change.get("ground"),
            "attempt": task.attempt,
            "manifest_digest": change.get("digest", task.held_digest),
            "decided_at": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
            "signature": "0" * 64,
        }
        command = DecideTask.model_validate_json(json.dumps(body))
        signature = self.keys.decision_signature(command.model_dump(mode="json"))
        if not forged:
            command = command.model_copy(update={"signature": signature})
        self.send(wrap(command, kind="DecideTask", id=str(ULID()), source="urn:keshi:api"))

    def work(self, request_id: str, system: str, found: Iterable[tuple[str, str]], attempt: int = 1) -> None:
        """Locate, begin, act, verify and report, all well."""
        task = self.task(request_id, system, attempt)
        go = self.begin(task, found)
        assert isinstance(go, Go), go
        verbs = {"erase": Outcome.ERASED, "suspend_use": Outcome.SUSPENDED, "resume_use": Outcome.RESUMED}
        self.report(self.completed(task, go, verbs[task.action.value]))


def lasting_policy(**change: Any) -> Policy:
    """The tests' policy, changed."""
    return replace(Policy(lease_seconds=2, retry_schedule=(0.05,), silence_seconds=2, recheck_seconds=0.5), **change)


__all__ = ["KEK", "Mode", "World", "lasting_policy"]
