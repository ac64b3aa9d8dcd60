"""The worker as a real process, on a real broker: what it survives, and that it acts under a go alone."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from end_to_end.worker_api import Api, ApiServer, Kept
from keshi.runtime.kafka import new_admin, new_consumer, new_producer
from keshi.runtime.settings import KafkaSettings
from keshi.runtime.topics import TopicOptions, apply, wanted
from keshi.schemas.commands import Action
from keshi.schemas.envelope import wrap
from keshi.schemas.identifiers import Identifier
from keshi.schemas.outcomes import Outcome
from keshi.schemas.reading import read
from keshi.schemas.reports import Accepted, Completed, Failed, TasksReported, signature
from keshi.schemas.tasks import Found, Mode, PerformTasks, Task

PROCESS = Path(__file__).with_name("worker_process.py")
CATEGORIES = ("contacts", "notes")


def until(condition: Callable[[], object], seconds: float = 40, what: str = "") -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds} s: {what or condition}")


@dataclass
class Stage:
    """A broker's topics, an API, a system of files, and worker processes over them."""

    kafka: KafkaSettings
    directory: Path
    api: Api
    url: str
    producer: KafkaProducer
    consumer: KafkaConsumer
    processes: list[subprocess.Popen] = field(default_factory=list)
    reports: list = field(default_factory=list)

    # --- people and tasks

    def person(self, value: str, records: int = 2, ref: str = "r", **kept) -> str:
        """Invent a person with `records` records in each category; returns the id of a request for them."""
        request = str(uuid4())
        index = []
        for category in CATEGORIES:
            (self.directory / "records" / category).mkdir(parents=True, exist_ok=True)
            for n in range(records):
                name = f"{ref}{n}-{value}"
                (self.directory / "records" / category / name).write_text("active")
                index.append((category, name))
        (self.directory / "index").mkdir(exist_ok=True)
        if records:
            (self.directory / "index" / value).write_text(json.dumps(index))
        self.api.tasks[request] = Kept((Identifier(type="email", value=value),), **kept)
        return request

    def task(self, request: str, action: Action = Action.ERASE, mode: Mode = Mode.ACT) -> Task:
        return Task(
            request_id=request,
            system="files",
            action=action,
            mode=mode,
            attempt=1,
            categories=CATEGORIES,
            sealed=("sealed",),
            as_of=date(2026, 1, 1),
        )

    def send(self, *tasks: Task, partition: int = 0, raw: bytes | None = None) -> int:
        data = PerformTasks(system="files", partition=partition, tasks=tasks) if tasks else None
        value = raw if data is None else wrap(data, kind="PerformTasks", id=uuid4().hex, source="tests")
        future = self.producer.send(self.kafka.topic("tasks.files"), value=value, partition=partition)
        return future.get(timeout=10).offset

    def left(self, value: str) -> list[str]:
        return sorted(p.name for p in (self.directory / "records").rglob(f"*-{value}"))

    def log(self) -> list[str]:
        path = self.directory / "log"
        return path.read_text().splitlines() if path.exists() else []

    # --- processes

    def worker(self, **environment: str) -> subprocess.Popen:
        points = self.directory / "failpoints"
        points.mkdir(exist_ok=True)
        errors = (self.directory / f"stderr-{len(self.processes)}").open("wb")
        process = subprocess.Popen(
            [sys.executable, str(PROCESS), str(self.directory)],
            stderr=errors,
            env={
                **os.environ,
                "KESHI_ENVIRONMENT": "development",
                "KESHI_FAILPOINTS_DIR": str(points),
                "KESHI_KAFKA_BOOTSTRAP": self.kafka.bootstrap,
                "KESHI_KAFKA_PREFIX": self.kafka.prefix,
                "KESHI_KAFKA_SESSION_TIMEOUT_SECONDS": "4",
                "KESHI_API_URL": self.url,
                "KESHI_API_TOKEN": self.api.token,
                "KESHI_WORKER_RETRY_SECONDS": "3",
                "KESHI_WORKER_TRIES": "2",
                "KESHI_WORKER_LIST_SECONDS": "10",
                **environment,
            },
        )
        errors.close()
        self.processes.append(process)
        return process

    def arm(self, name: str, what: str = "kill") -> None:
        points = self.directory / "failpoints"
        points.mkdir(exist_ok=True)
        (points / name).write_text(what)

    def stderr(self) -> str:
        return "".join(p.read_text() for p in sorted(self.directory.glob("stderr-*")))

    # --- what was reported and committed

    def seen(self, request: str) -> list[Accepted | Completed | Failed]:
        for messages in self.consumer.poll(timeout_ms=50).values():
            for message in messages:
                _, data = read(message.value, {"keshi.TasksReported.v1": TasksReported}, limit=1_000_000)
                self.reports.extend(data.reports)
                for report in data.reports:
                    if isinstance(report, Completed | Accepted):
                        self.api.tasks[report.request_id].open = False
        return [r for r in self.reports if r.request_id == request]

    def completed(self, request: str, seconds: float = 40) -> Completed:
        found = until(
            lambda: [r for r in self.seen(request) if isinstance(r, Completed)], seconds, f"completed {request}"
        )
        report = found[0]
        assert report.hmac == signature(report, self.api.secret(report.lease_id))
        return report

    def committed(self, partition: int = 0) -> int:
        admin = new_admin(self.kafka)
        try:
            group = f"{self.kafka.prefix}handlers.files"
            offsets = admin.list_group_offsets([group])[group]
        finally:
            admin.close()
        found = offsets.get(TopicPartition(self.kafka.topic("tasks.files"), partition))
        return found.offset if found else -1

    def close(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGUSR1)  # prints its stacks, for the test that fails
                with suppress(subprocess.TimeoutExpired):
                    process.wait(0.3)
                process.kill()
                process.wait()
        self.producer.close()
        self.consumer.close()


@pytest.fixture
def stage(kafka_bootstrap: str, topic_prefix: str, tmp_path: Path) -> Iterator[Stage]:
    kafka = KafkaSettings(bootstrap=kafka_bootstrap, prefix=topic_prefix)
    options = TopicOptions(partitions=2, commands_partitions=1)
    apply(kafka, wanted(kafka, ["files"], options), options)
    api = Api()
    server = ApiServer(api)
    consumer = new_consumer(kafka, None)
    topic = kafka.topic("reports")
    consumer.assign([TopicPartition(topic, 0), TopicPartition(topic, 1)])
    consumer.seek_to_beginning()
    it = Stage(kafka, tmp_path, api, server.url, new_producer(kafka), consumer)
    yield it
    it.close()
    print(it.stderr())  # noqa: T201 - shown where a test fails; it holds ids alone
    server.close()


def counts(report: Completed) -> dict[tuple[str, Outcome], int]:
    return {(o.category, o.outcome): o.count for o in report.outcomes}


ERASED = {("contacts", Outcome.ERASED): 2, ("notes", Outcome.ERASED): 2}
NOTHING = {("contacts", Outcome.NOT_FOUND): 0, ("notes", Outcome.NOT_FOUND): 0}


def test_a_list_is_unwrapped_and_begun_with_one_call_each_and_reported_task_by_task(stage: Stage) -> None:
    people = [stage.person(f"p{n}@list.example") for n in range(5)]
    nobody = stage.person("nobody@list.example", records=0)
    closed = stage.person("closed@list.example", open=False)
    bystander = "bystander@list.example"
    stage.person(bystander)
    offset = stage.send(*(stage.task(r) for r in (*people, nobody, closed)))
    stage.worker()
    for request in people:
        assert counts(stage.completed(request)) == ERASED
    assert counts(stage.completed(nobody)) == NOTHING
    assert stage.api.calls[:2] == ["/v1/tasks:unwrap", "/v1/tasks:begin"]
    assert stage.api.calls.count("/v1/tasks:unwrap") == 1
    assert stage.left("p0@list.example") == []
    assert len(stage.left(bystander)) == 4
    assert len(stage.left("closed@list.example")) == 4
    assert stage.seen(closed) == []
    until(lambda: stage.committed() == offset + 1, what="the offset is committed")


def test_a_handler_that_can_do_lists_gets_lists(stage: Stage) -> None:
    people = [stage.person(f"p{n}@many.example") for n in range(4)]
    stage.send(*(stage.task(r) for r in people))
    stage.worker(FILES_BY_LIST="1")
    for request in people:
        assert counts(stage.completed(request)) == ERASED
    assert [line.split()[0] for line in stage.log()] == [
        "locate_list",
        "act_list",
        *("enter", "leave") * 4,
        "verify_list",
    ]


@pytest.mark.parametrize(
    "point",
    ["worker.after_locate", "worker.after_begin", "worker.mid_act", "worker.after_act", "worker.after_report"],
)
def test_a_worker_killed_anywhere_still_accounts_for_all_that_was_there(stage: Stage, point: str) -> None:
    """The first attempt removes what leads to the records: only the union still knows of them."""
    value = "killed@point.example"
    request = stage.person(value)
    stage.arm(point)
    first = stage.worker()
    offset = stage.send(stage.task(request))
    assert until(first.poll, what="it is killed") == -signal.SIGKILL
    stage.worker()
    assert counts(stage.completed(request)) == ERASED
    assert stage.left(value) == []
    assert not (stage.directory / "index" / value).exists()
    until(lambda: stage.committed() == offset + 1, what="the offset is committed")
    if point == "worker.after_report":
        assert stage.api.tasks[request].goes == 1  # it was known as done, and was not done again


def test_a_worker_frozen_in_mid_act_wakes_up_and_changes_nothing_more(stage: Stage) -> None:
    value = "frozen@point.example"
    request = stage.person(value)
    stage.arm("worker.mid_act", "stop")
    first = stage.worker()
    stage.send(stage.task(request))
    until(lambda: list((stage.directory / "failpoints").glob("worker.mid_act.hit.*")), what="it freezes")
    stage.worker()
    assert counts(stage.completed(request)) == ERASED
    for category, name in [(c, f"r{n}-{value}") for c in CATEGORIES for n in range(2)]:
        (stage.directory / "records" / category / name).write_text("active")  # new, and not to be touched
    first.send_signal(signal.SIGCONT)
    until(lambda: "task_stopped" in stage.stderr(), what="it asks again, and is told to stop")
    assert len(stage.left(value)) == 4
    assert len(stage.seen(request)) == 1


def test_a_lone_worker_that_was_frozen_goes_on_when_nobody_else_has_begun(stage: Stage) -> None:
    """It asks again under the same begin-id, and spends neither an attempt nor an act."""
    value = "lone@point.example"
    request = stage.person(value)
    stage.arm("worker.mid_act", "stop")
    process = stage.worker()
    stage.send(stage.task(request))
    until(lambda: list((stage.directory / "failpoints").glob("worker.mid_act.hit.*")), what="it freezes")
    kept = stage.api.tasks[request]
    until(lambda: time.monotonic() > kept.until, what="its lease ends")
    process.send_signal(signal.SIGCONT)
    assert counts(stage.completed(request)) == ERASED
    assert stage.left(value) == []
    assert "lease_lapsed" in stage.stderr()
    assert (kept.goes, len({b.begin_id for b in kept.begins})) == (1, 1)


def test_one_poisonous_and_one_slow_task_harm_no_other(stage: Stage) -> None:
    poison = stage.person("poison@list.example")
    slow = stage.person("slow@list.example")
    good = [stage.person(f"good{n}@list.example") for n in range(6)]
    offset = stage.send(*(stage.task(r) for r in (poison, slow, *good)))
    stage.worker()
    for request in good:
        assert counts(stage.completed(request)) == ERASED
    assert not [r for r in stage.seen(slow) if isinstance(r, Completed)]
    report = until(lambda: stage.seen(poison))[0]
    assert isinstance(report, Failed)
    assert (report.error, report.intent, report.began) == ("value_error", "retry", False)
    assert isinstance(until(lambda: stage.seen(slow))[0], Completed | Failed)
    until(lambda: stage.committed() == offset + 1, what="the offset is committed")
    assert "poison@" not in stage.stderr()
    assert "no such person" not in stage.stderr()


def test_a_task_that_kills_its_worker_again_and_again_cannot_hold_back_its_list(stage: Stage) -> None:
    crash = stage.person("crash@list.example")
    good = [stage.person(f"good{n}@list.example") for n in range(3)]
    stage.send(*(stage.task(r) for r in (crash, *good)))
    for _ in range(15):
        process = stage.worker()
        until(
            lambda p=process: p.poll() is not None or all(stage.seen(r) for r in good),  # type: ignore[misc] # a default
            what="killed, or the others are done",
        )
        if all(stage.seen(r) for r in good):
            break
    for request in good:
        assert counts(stage.completed(request, seconds=5)) == ERASED
    assert stage.seen(crash) == []
    stage.api.tasks[crash].open = False  # a person took it away
    stage.worker()
    until(lambda: stage.committed() == 1, what="the offset is committed")


def test_a_worker_told_to_end_finishes_its_act_and_leaves_the_rest(stage: Stage) -> None:
    first = stage.person("now@stop.example", ref="slow")
    second = stage.person("later@stop.example", ref="slow")
    process = stage.worker(KESHI_WORKER_CONCURRENCY="1")
    offset = stage.send(stage.task(first), stage.task(second))
    until(stage.log, what="an act has begun")
    process.terminate()
    assert process.wait(20) == 0
    begun = stage.log()[0].split()[1]
    assert counts(stage.completed(begun, seconds=5)) == ERASED
    other = {first: second, second: first}[begun]
    assert stage.seen(other) == []
    assert stage.committed() < offset + 1
    stage.worker()
    assert counts(stage.completed(other)) == ERASED
    until(lambda: stage.committed() == offset + 1, what="the offset is committed")


def test_without_an_answer_nothing_is_done_and_nothing_is_lost(stage: Stage) -> None:
    value = "unanswered@api.example"
    request = stage.person(value)
    stage.api.down = True
    stage.worker()
    stage.send(stage.task(request))
    until(lambda: len(stage.api.calls) > 3, what="it asks again")
    assert stage.seen(request) == []
    assert len(stage.left(value)) == 4
    stage.api.down = False
    assert counts(stage.completed(request)) == ERASED


def test_what_the_api_cannot_read_is_found_and_given_to_a_person(stage: Stage) -> None:
    odd, good = stage.person("odd@api.example"), stage.person("good@api.example")
    stage.api.refuse.add(odd)
    stage.worker()
    stage.send(stage.task(odd), stage.task(good))
    assert counts(stage.completed(good)) == ERASED
    report = until(lambda: stage.seen(odd))[0]
    assert isinstance(report, Failed)
    assert (report.error, report.intent) == ("api_422", "person")
    assert len(stage.left("odd@api.example")) == 4


def test_a_task_that_has_to_wait_is_in_nobodys_way(stage: Stage) -> None:
    waiting, value = stage.person("waiting@lease.example"), "waiting@lease.example"
    kept = stage.api.tasks[waiting]
    kept.begin_id, kept.until = "f" * 32, float("inf")  # somebody else's lease
    good = stage.person("good@lease.example")
    stage.worker()
    stage.send(stage.task(waiting), stage.task(good))
    assert counts(stage.completed(good)) == ERASED
    until(lambda: len(kept.begins) > 1, what="it asks again")
    assert stage.seen(waiting) == []
    assert len(stage.left(value)) == 4
    kept.until = 0.0
    assert counts(stage.completed(waiting)) == ERASED
    assert len({b.begin_id for b in kept.begins}) == 1


def test_a_stop_that_a_person_has_to_see_is_reported_and_others_are_not(stage: Stage) -> None:
    over = stage.person("over@stop.example", stop="over_limit")
    withdrawn = stage.person("withdrawn@stop.example", stop="withdrawn")
    stage.worker()
    offset = stage.send(stage.task(over), stage.task(withdrawn))
    report = until(lambda: stage.seen(over))[0]
    assert isinstance(report, Failed)
    assert (report.error, report.intent) == ("over_limit", "person")
    until(lambda: stage.committed() == offset + 1, what="the offset is committed")
    assert stage.seen(withdrawn) == []
    assert len(stage.left("over@stop.example")) == len(stage.left("withdrawn@stop.example")) == 4


def test_a_check_looks_and_never_acts(stage: Stage) -> None:
    request = stage.person("check@mode.example", mode=Mode.CHECK)
    stage.worker()
    stage.send(stage.task(request, mode=Mode.CHECK))
    report = stage.completed(request)
    assert report.mode is Mode.CHECK
    assert {(o.outcome, o.reason, o.count) for o in report.outcomes} == {(Outcome.NOT_STARTED, "withdrawn", 2)}
    assert len(stage.left("check@mode.example")) == 4


def test_a_source_of_identifiers_hands_in_what_it_learned_and_changes_nothing(stage: Stage) -> None:
    request = stage.person("source@mode.example", mode=Mode.IDENTIFY)
    stage.worker()
    stage.send(stage.task(request, mode=Mode.IDENTIFY))
    report = stage.completed(request)
    assert {(o.outcome, o.reason) for o in report.outcomes} == {(Outcome.OUT_OF_SCOPE, "identified_only")}
    (begin,) = stage.api.tasks[request].begins
    assert [(i.type, i.value) for i in begin.learned] == [("customer_id", "c-17")]
    assert begin.manifest == ()
    assert len(stage.left("source@mode.example")) == 4


def test_suspending_and_resuming_touch_what_is_remembered_and_no_more(stage: Stage) -> None:
    value = "paused@mode.example"
    suspend = stage.person(value)
    stage.worker()
    stage.send(stage.task(suspend, Action.SUSPEND_USE))
    assert {o.outcome for o in stage.completed(suspend).outcomes} == {Outcome.SUSPENDED}
    ours = tuple(Found(category=c, ref=f"r0-{value}") for c in CATEGORIES)
    resume = str(uuid4())
    stage.api.tasks[resume] = Kept(stage.api.tasks[suspend].identifiers, remembered=ours)
    stage.send(stage.task(resume, Action.RESUME_USE), partition=1)
    assert counts(stage.completed(resume)) == {(c, Outcome.RESUMED): 1 for c in CATEGORIES}
    states = [(stage.directory / "records" / "notes" / f"r{n}-{value}").read_text() for n in range(2)]
    assert states == ["active", "suspended"]


def test_what_only_took_the_job_is_accepted_and_what_did_nothing_is_not_verified(stage: Stage) -> None:
    acceptor, stubborn = stage.person("acceptor@mode.example"), stage.person("stubborn@mode.example")
    stage.worker()
    stage.send(stage.task(acceptor), stage.task(stubborn))
    first = until(lambda: stage.seen(acceptor))[0]
    assert isinstance(first, Accepted)
    assert first.check_after_seconds == 60
    assert first.hmac == signature(first, stage.api.secret(first.lease_id))
    second = until(lambda: stage.seen(stubborn))[0]
    assert isinstance(second, Failed)
    assert (second.error, second.intent, second.began) == ("not_verified", "retry", True)


def test_what_cannot_be_read_is_passed_over_and_what_follows_is_done(stage: Stage) -> None:
    request = stage.person("after@unreadable.example")
    stage.send(raw=b"not json")
    stage.send(raw=b'{"specversion":"1.0","id":"x","source":"tests","type":"keshi.PerformTasks.v9","data":{}}')
    offset = stage.send(stage.task(request))
    stage.worker()
    assert counts(stage.completed(request)) == ERASED
    until(lambda: stage.committed() == offset + 1, what="the offset is committed")


def test_a_long_act_keeps_its_lease(stage: Stage) -> None:
    """Three slow records take longer than the lease of 2 s: it is renewed meanwhile, by the same begin-id."""
    request = stage.person("long@lease.example", records=2, ref="slow")
    stage.worker()
    stage.send(stage.task(request))
    assert counts(stage.completed(request)) == ERASED
    kept = stage.api.tasks[request]
    assert kept.goes == 1
    assert len({b.begin_id for b in kept.begins}) == 1
    assert len(kept.begins) > 3


def test_a_second_worker_takes_its_share_and_nothing_is_lost(stage: Stage) -> None:
    requests = [stage.person(f"p{n}@share.example", ref="slow", records=1) for n in range(8)]
    stage.worker(KESHI_WORKER_CONCURRENCY="2")
    for n, request in enumerate(requests):
        stage.send(stage.task(request), partition=n % 2)
    until(stage.log, what="an act has begun")
    stage.worker(KESHI_WORKER_CONCURRENCY="2")
    for request in requests:
        report = stage.completed(request, seconds=60)
        assert {(o.outcome, o.count) for o in report.outcomes} == {(Outcome.ERASED, 1)}
    until(lambda: stage.committed(0) == stage.committed(1) == 4, what="both offsets are committed")


def test_a_worker_that_cannot_start_says_why_in_one_line(stage: Stage) -> None:
    process = stage.worker(KESHI_KAFKA_PREFIX="nothing.here.")
    assert process.wait(30) != 0
    assert "topic nothing.here.reports does not exist: make it with `keshi topics apply`" in stage.stderr()
