"""The small parts of the worker, each by itself: offsets, waiting, limits, errors, tries, calls, messages."""

import threading
import time
from dataclasses import FrozenInstanceError
from datetime import UTC, date, datetime
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from keshi.handlers.contract import Handler, Limit, Located, Verified, Work, boot_time, hurried
from keshi.handlers.errors import GiveToPerson, LeaseEnded, Retry, RetryAfter, code_of, retry_after, slug
from keshi.handlers.worker import reports
from keshi.handlers.worker.jobs import Job, Ticket, calls
from keshi.handlers.worker.lane import _work
from keshi.handlers.worker.offsets import Watermark
from keshi.handlers.worker.poller import _begun
from keshi.handlers.worker.pool import Pool, Urgency
from keshi.handlers.worker.reporter import MAX_BYTES, Outbound, _value, messages_of
from keshi.handlers.worker.steps import OutOfTime, Patience, Steps, evidence
from keshi.handlers.worker.waits import TOGETHER, WaitQueue
from keshi.schemas.commands import Action
from keshi.schemas.identifiers import Identifier
from keshi.schemas.outcomes import CategoryOutcome, Outcome, Residue
from keshi.schemas.reading import Unreadable, read
from keshi.schemas.reports import (
    MAX_REPORTS,
    UNSIGNED,
    Completed,
    Failed,
    HandlerVersion,
    Intent,
    TasksReported,
    signature,
    signed,
    signed_text,
)
from keshi.schemas.tasks import MAX_TASKS, Begin, Found, Go, Mode, Task, Unwrapped

ONE = Identifier(type="email", value="taro@people.example")
OUTCOME = CategoryOutcome(category="contacts", outcome=Outcome.ERASED, count=2)


def work(**more) -> Work:
    return Work(
        **{
            "request_id": str(uuid4()),
            "system": "files",
            "action": Action.ERASE,
            "categories": ("contacts",),
            "identifiers": (ONE,),
            "as_of": date(2026, 1, 1),
            **more,
        }
    )


# --- offsets


@given(st.lists(st.integers(1, 3), max_size=30), st.randoms(use_true_random=False))
def test_only_what_has_nothing_undone_before_it_may_be_committed(gaps: list[int], order) -> None:
    """In whatever order messages are done, and with holes in the log."""
    mark = Watermark(5)
    offsets, at = [], 4
    for gap in gaps:
        at += gap
        offsets.append(at)
        mark.take(at)
    todo = set(offsets)
    shuffled = list(offsets)
    order.shuffle(shuffled)
    for offset in shuffled:
        assert mark.low == min(todo)
        mark.done(offset)
        todo.discard(offset)
    assert mark.low == mark.next == at + 1


def test_an_offset_is_not_taken_twice() -> None:
    """What was read is not read again under the same mark."""
    mark = Watermark(0)
    mark.take(3)
    with pytest.raises(ValueError, match="below"):
        mark.take(3)


@pytest.mark.parametrize(
    ("text", "offset"), [("begun=12", 12), ("", 0), (None, 0), ("somebody else's", 0), ("begun=-1", 0)]
)
def test_what_others_write_beside_an_offset_does_no_harm(text: str | None, offset: int) -> None:
    """The metadata of a commit is anybody's text."""
    assert _begun(text) == offset


# --- waiting


@given(st.lists(st.floats(0, 100), max_size=40), st.lists(st.floats(0, 100), max_size=10))
def test_everything_comes_back_once_in_order_and_not_before_its_time(dues: list[float], nows: list[float]) -> None:
    """Items that are due together come back together."""
    queue: WaitQueue[float] = WaitQueue()
    for due in dues:
        queue.push(due, due)
    came: list[float] = []
    for now in sorted(nows):
        batch = queue.pop_due(now)
        assert all(d <= now + TOGETHER for d in batch)
        assert not batch or batch[0] <= now
        assert (queue.next_due() or 1000) > now
        came += batch
    came += queue.pop_due(1000)
    assert came == sorted(dues)
    assert len(queue) == 0
    assert queue.next_due() is None


# --- limits


def test_a_limit_is_over_when_it_is_over() -> None:
    """And never gives a time-out of zero, which to many systems means none."""
    limit = Limit(0.1)
    assert 0 < limit.require() <= 0.1
    limit.end_now()
    with pytest.raises(LeaseEnded):
        limit.require()
    with pytest.raises(LeaseEnded):
        limit.checkpoint()
    limit.extend(100, since=boot_time())
    assert limit.left() < 0  # what is over stays over


def test_a_limit_runs_from_before_the_call() -> None:
    """The time that the call took is not given twice."""
    assert Limit(10, since=boot_time() - 9).left() < 1.1
    limit = Limit(10)
    limit.extend(10, since=boot_time() - 5)
    assert limit.left() > 9  # an older answer shortens nothing


def test_work_under_another_limit_is_the_same_and_stays_as_it_was() -> None:
    first, limit = work(items=frozenset({"contacts:1"})), Limit(5)
    second = first.within(limit)
    assert second == first
    assert second.limit is limit
    assert first.limit is not limit
    with pytest.raises(FrozenInstanceError):
        second.attempt = 2  # type: ignore[misc]


def test_the_time_of_a_list_is_that_of_its_most_hurried_task() -> None:
    tasks = [work(attempt=n).within(Limit(seconds)) for n, seconds in enumerate((30, 10, 20), start=1)]
    assert hurried(tasks) is tasks[1]
    tasks[1].limit.extend(60, since=boot_time())
    assert hurried(iter(tasks)) is tasks[2]
    tasks[0].limit.end_now()
    assert hurried(tasks) is tasks[0]


def test_work_shows_no_identifier() -> None:
    """Not in its representation, nor in that of its error."""
    assert "taro" not in repr(work()) + str(work()) + f"{work()}"


# --- errors


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("OperationalError", "operational_error"),
        ("HTTPStatusError", "http_status_error"),
        ("S3Error", "s3_error"),
        ("_", "unknown_error"),
        ("消去", "unknown_error"),
        ("9Lives", "unknown_error"),
    ],
)
def test_the_name_of_a_class_becomes_a_code(name: str, code: str) -> None:
    """The message of an exception is never used."""
    assert slug(name) == code


@given(st.text(max_size=200))
def test_any_name_becomes_a_legal_code(name: str) -> None:
    """So that a report can always be made."""
    Failed(
        request_id=str(uuid4()),
        system="files",
        attempt=1,
        handler=HandlerVersion(name="x", version="1"),
        at=datetime.now(UTC),
        error=slug(name),
        intent=Intent.RETRY,
    )


def test_codes_come_from_the_class_unless_they_are_given_and_legal() -> None:
    """Text from elsewhere does not become a code."""
    assert code_of(ValueError("taro@people.example")) == "value_error"
    assert code_of(Retry("lock_timeout")) == "lock_timeout"
    assert code_of(Retry("no such person: taro@people.example")) == "retry"
    assert code_of(OutOfTime()) == "out_of_time"


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("120", 120), ("Mon, 01 Jan 2024 00:01:00 GMT", 60), ("Sun, 31 Dec 2023 00:00:00 GMT", 0), ("9" * 30, 2_592_000)],
)
def test_retry_after_is_seconds_or_a_date(header: str, seconds: float) -> None:
    """And is never longer than thirty days, nor in the past."""
    error = retry_after(header, datetime(2024, 1, 1, tzinfo=UTC))
    assert isinstance(error, RetryAfter)
    assert error.seconds == seconds


@pytest.mark.parametrize("header", [None, "", "soon", "-5", "٣"])
def test_a_retry_after_that_says_nothing_is_plain_trouble(header: str | None) -> None:
    """What cannot be read is not guessed."""
    assert type(retry_after(header)) is Retry


# --- tries within an attempt


class Scripted(Handler):
    system = "files"
    actions = frozenset({Action.ERASE})

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.tries = 0

    def locate(self, task: Work) -> Located:
        self.tries += 1
        if self.errors:
            raise self.errors.pop(0)
        return Located((), ("email",))

    def verify(self, task: Work, union: tuple[Found, ...]) -> Verified:
        return Verified(())


def steps(handler: Handler, tries: int = 3, seconds: float = 5) -> Steps:
    return Steps(handler, Patience(tries, seconds), threading.Event())


def test_passing_trouble_is_tried_again_within_the_attempt() -> None:
    """Whether it has a class of ours or not."""
    handler = Scripted(OSError(), Retry())
    assert steps(handler).locate(work()).searched == ("email",)
    assert handler.tries == 3


def test_tries_are_bounded_and_the_last_error_is_the_one_reported() -> None:
    """Three tries, then the attempt has failed."""
    handler = Scripted(OSError(), OSError(), TimeoutError(), OSError())
    with pytest.raises(TimeoutError):
        steps(handler).locate(work())
    assert handler.tries == 3


@pytest.mark.parametrize("error", [GiveToPerson("odd"), RetryAfter(3600)])
def test_what_another_try_cannot_end_is_not_tried_again(error: Exception) -> None:
    """A person's matter, or a wait that is longer than the attempt."""
    handler = Scripted(error)
    with pytest.raises(type(error)):
        steps(handler).locate(work())
    assert handler.tries == 1


def test_retry_after_is_obeyed() -> None:
    """Not earlier than the system said."""
    handler = Scripted(RetryAfter(0.8))
    began = time.monotonic()
    steps(handler).locate(work())
    assert time.monotonic() - began >= 0.8


def test_who_looks_for_too_long_is_out_of_time_and_not_of_its_lease() -> None:
    """A lease has nothing to do with looking."""

    class Slow(Scripted):
        def locate(self, task: Work) -> Located:
            while True:
                task.checkpoint()
                time.sleep(0.01)

    with pytest.raises(OutOfTime):
        steps(Slow(), seconds=0.1).locate(work())


@pytest.mark.parametrize(("took", "tries"), [(11.0, 1), (4.0, 3)])
def test_nothing_is_tried_again_in_less_time_than_it_took(
    monkeypatch: pytest.MonkeyPatch, took: float, tries: int
) -> None:
    """It would be cut short, and what the first try found out would be lost."""
    now = [0.0]
    monkeypatch.setattr("keshi.handlers.worker.steps.boot_time", lambda: now[0])

    class Slow(Scripted):
        def locate(self, task: Work) -> Located:
            now[0] += took
            return super().locate(task)

    handler = Slow(*[Retry("no_answer")] * 3)
    with pytest.raises(Retry) as failure:
        steps(handler, tries=3, seconds=20).locate(work())
    assert (failure.value.code, handler.tries) == ("no_answer", tries)


def test_nothing_is_tried_again_when_the_process_ends() -> None:
    """The task comes back by itself."""
    handler = Scripted(OSError(), OSError())
    stopping = threading.Event()
    stopping.set()
    with pytest.raises(OSError):  # noqa: PT011 - the very one
        Steps(handler, Patience(5, 60), stopping).locate(work())
    assert handler.tries == 1


def test_a_list_that_fails_as_a_whole_is_tried_one_by_one() -> None:
    """One poisonous task in it fails alone."""

    class Lists(Scripted):
        def locate(self, task: Work) -> Located:
            if task.attempt == 13:
                raise GiveToPerson("poison")
            return Located((), ("email",))

        def locate_list(self, tasks):
            raise OSError

    results = steps(Lists()).locate_list([work(attempt=a) for a in (12, 13, 14)])
    assert [type(r) for r in results] == [Located, GiveToPerson, Located]


# --- evidence


def test_evidence_holds_what_is_in_scope_and_each_record_once() -> None:
    """What was found elsewhere is never acted upon."""
    found = (
        Found(category="contacts", ref="1"),
        Found(category="contacts", ref="1", was="suspended"),
        Found(category="diaries", ref="2"),
    )
    begin = evidence(work(), Located(found, ("email", "email")), "0" * 32)
    assert begin.manifest == found[:1]
    assert begin.searched == ("email",)


def test_to_resume_only_what_is_remembered_is_handed_in() -> None:
    """Somebody else's suspension is not lifted."""
    ours, theirs = Found(category="contacts", ref="1"), Found(category="contacts", ref="2", was="suspended")
    task = work(action=Action.RESUME_USE, remembered=(ours,))
    located = Located((ours.model_copy(update={"was": "suspended"}), theirs), ("email",))
    assert [f.ref for f in evidence(task, located, "0" * 32).manifest] == ["1"]


def test_a_worker_takes_from_the_api_what_a_request_is_about_and_hands_in_no_more() -> None:
    task = Task(
        request_id=str(uuid4()),
        system="files",
        action=Action.ERASE,
        attempt=1,
        categories=("contacts",),
        sealed=("x.y.z",),
        as_of=date(2026, 1, 1),
    )
    job = Job(task, Ticket(0, 1, redelivered=False, done=lambda: None), Limit(60))
    answer = Unwrapped(request_id=task.request_id, system="files", attempt=1, open=True, items=("contacts:2",))
    found = tuple(Found(category="contacts", ref=ref) for ref in ("1", "2", "3"))
    begin = evidence(_work(job, answer), Located(found, ("email",)), "0" * 32)
    assert [f.ref for f in begin.manifest] == ["2"]


def test_evidence_that_no_begin_can_hold_goes_to_a_person() -> None:
    """More records than one task may have, or a type of identifier that does not exist."""
    many = tuple(Found(category="contacts", ref=str(n)) for n in range(20_001))
    with pytest.raises(GiveToPerson, match="over_limit"):
        evidence(work(), Located(many, ("email",)), "0" * 32)
    with pytest.raises(GiveToPerson, match="evidence_invalid"):
        evidence(work(), Located((), ("shoe_size",)), "0" * 32)


# --- calls


def job(request: str | None = None, records: int = 0) -> Job:
    request = request or str(uuid4())
    task = Task(
        request_id=request,
        system="files",
        action=Action.ERASE,
        attempt=1,
        categories=("contacts",),
        sealed=("x",),
        as_of=date(2026, 1, 1),
    )
    it = Job(task, Ticket(0, 1, redelivered=False, done=lambda: None), Limit(60))
    manifest = tuple(Found(category="contacts", ref=str(n)) for n in range(records))
    it.begin = Begin(request_id=request, system="files", attempt=1, begin_id="0" * 32, manifest=manifest)
    return it


def test_calls_are_bounded_and_lose_nobody() -> None:
    """By tasks, by records, and with each request once: answers name the request."""
    same = str(uuid4())
    jobs = [job() for _ in range(250)] + [job(same), job(same)] + [job(records=15_000) for _ in range(3)]
    lists = list(calls(jobs))
    assert sorted(map(id, (j for some in lists for j in some))) == sorted(map(id, jobs))
    for some in lists:
        assert len(some) <= MAX_TASKS
        assert len({j.task.request_id for j in some}) == len(some)
        assert len(some) == 1 or sum(len(j.begin.manifest) for j in some if j.begin) <= 20_000


def test_a_ticket_is_done_when_its_last_task_is() -> None:
    """And only once."""
    done = []
    ticket = Ticket(0, 2, redelivered=False, done=lambda: done.append(1))
    ticket.ended()
    assert done == []
    ticket.ended()
    assert done == [1]


# --- the pool


def test_who_holds_a_lease_goes_before_those_who_only_look() -> None:
    """Though it came later."""
    pool = Pool(1, "test")
    gate, order = threading.Event(), []
    first = pool.submit(Urgency.LOCATE, lambda: gate.wait(10))
    looks = [pool.submit(Urgency.LOCATE, lambda: order.append("look")) for _ in range(3)]
    act = pool.submit(Urgency.ACT, lambda: order.append("act"))
    gate.set()
    futures: list[Any] = [first, act, *looks]
    for future in futures:
        future.result(10)
    assert order == ["act", "look", "look", "look"]
    assert pool.shutdown(5)


def test_what_a_pool_has_not_begun_when_it_ends_is_cancelled() -> None:
    """And who waits for it is told; what runs comes to its end."""
    pool = Pool(1, "test")
    begun, gate = threading.Event(), threading.Event()
    running = pool.submit(Urgency.ACT, lambda: [step() for step in (begun.set, gate.wait)])
    queued = pool.submit(Urgency.ACT, lambda: 1)
    assert begun.wait(10)
    assert not pool.shutdown(0)
    assert queued.cancelled()
    assert pool.submit(Urgency.ACT, lambda: 1).cancelled()
    gate.set()
    assert pool.shutdown(10)
    assert running.result(0)


def test_a_call_that_raises_does_not_end_its_thread() -> None:
    """The next one is served."""
    pool = Pool(1, "test")
    assert isinstance(pool.submit(Urgency.ACT, lambda: 1 // 0).exception(10), ZeroDivisionError)
    assert pool.submit(Urgency.ACT, lambda: 7).result(10) == 7
    pool.shutdown(5)


# --- messages of reports


@given(st.from_regex(r"[a-z][a-z0-9_]{0,20}", fullmatch=True), st.booleans())
def test_a_report_is_written_down_as_it_is_signed(reason: str, traced: bool) -> None:
    """Who reads it comes to the same signature; the whole message is what the models would have made of it."""
    secret, now = "ab" * 32, datetime.now(UTC)
    report = Completed(
        request_id=str(uuid4()),
        system="files",
        attempt=1,
        handler=HandlerVersion(name="x", version="1"),
        at=now,
        traceparent=f"00-{'1' * 32}-{'2' * 16}-01" if traced else None,
        mode=Mode.ACT,
        lease_id="0" * 32,
        digest="1" * 64,
        searched=("email",),
        outcomes=(CategoryOutcome(category="contacts", outcome=Outcome.ERASED, count=2),),
        residue=(Residue(place="backups", reason=reason, until=date(2026, 1, 2)),),
        checked_at=now,
        hmac=UNSIGNED,
    )
    text = signed_text(report, secret)
    failed = Failed(
        request_id=str(uuid4()), system="files", attempt=1, handler=report.handler, at=now, error="odd",
        intent=Intent.RETRY,
    )  # fmt: skip
    some = [Outbound(3, "files", body, lambda: None) for body in (text, failed.model_dump_json().encode())]
    envelope, sent = read(_value(some), {"keshi.TasksReported.v1": TasksReported}, limit=10_000)
    assert sent == TasksReported(partition=3, reports=(signed(report, secret), failed))
    assert isinstance(sent.reports[0], Completed)
    assert signature(sent.reports[0], secret) == sent.reports[0].hmac
    assert envelope.id == read(_value(some), {"keshi.TasksReported.v1": TasksReported}, limit=10_000)[0].id


def finished(residue: tuple[Any, ...] = (), outcomes: tuple[CategoryOutcome, ...] = ()) -> Completed:
    it = job(records=2)
    go = Go(
        request_id=it.task.request_id, system="files", lease_id="0" * 32, secret="ab" * 32, seconds=10, union=(),
        digest="1" * 64,
    )  # fmt: skip
    return reports.completed(it, HandlerVersion(name="x", version="1"), go, outcomes, residue)


def test_a_report_is_as_if_it_were_checked_and_what_a_handler_says_in_it_is() -> None:
    """Nobody could read a list of reports with one in it that is none."""
    outcomes = (OUTCOME,)
    quick = finished(outcomes=outcomes)
    assert Completed.model_validate_json(quick.model_dump_json()) == quick
    assert finished((Residue(place="backups", reason="tape"),), outcomes).residue
    with pytest.raises(ValidationError):
        finished(({"place": "backups"},), outcomes)
    with pytest.raises(ValidationError):
        finished()


def test_a_message_of_another_type_is_told_from_one_that_cannot_be_read() -> None:
    """Also where one type alone is looked for, and the other has the same data."""
    report = Outbound(3, "files", signed_text(finished(outcomes=(OUTCOME,)), "ab" * 32), lambda: None)
    value = _value([report])
    assert read(value, {"keshi.TasksReported.v1": TasksReported}, limit=10_000)[1].partition == 3
    for raw, reason in (
        (value.replace(b"keshi.TasksReported.v1", b"keshi.TasksReported.v2"), "type_unknown"),
        (value.replace(b'"partition":3', b'"partition":"3"'), "field_invalid"),
        (value[:-1], "not_json"),
    ):
        with pytest.raises(Unreadable) as told:
            read(raw, {"keshi.TasksReported.v1": TasksReported}, limit=10_000)
        assert told.value.reason in {reason, "not_a_cloudevent"}


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(100, 100_000)), max_size=300))
def test_reports_travel_in_bounded_messages_of_one_partition(sizes: list[tuple[int, int]]) -> None:
    """None is lost, none doubled, and their order stays."""
    batch = [Outbound(partition, "files", b"x" * size, lambda: None) for partition, size in sizes]
    messages = list(messages_of(batch))
    for some in messages:
        assert len({o.partition for o in some}) == 1
        assert len(some) <= MAX_REPORTS
        assert len(some) == 1 or sum(len(o.text) for o in some) <= MAX_BYTES
    for partition in range(3):
        sent = [o for some in messages for o in some if o.partition == partition]
        assert list(map(id, sent)) == [id(o) for o in batch if o.partition == partition]
