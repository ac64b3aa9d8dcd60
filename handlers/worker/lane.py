"""The way of a list in one system: unwrap, locate, begin, act, verify, report. No task waits for a slower one."""

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

import structlog

from keshi.client.api import ApiError, ApiRefusedError, WorkerApi
from keshi.handlers.contract import Handler, Limit, Work, boot_time
from keshi.handlers.errors import GiveToPerson, Retry, code_of
from keshi.handlers.worker.book import Book, BookParts
from keshi.handlers.worker.jobs import Job, Ticket, calls, tell
from keshi.handlers.worker.leases import Leases
from keshi.handlers.worker.perform import Performer
from keshi.handlers.worker.pool import Pool, Urgency
from keshi.handlers.worker.reporter import Reporter
from keshi.handlers.worker.steps import Patience, Steps, evidence
from keshi.runtime import failpoints
from keshi.runtime.settings import WorkerSettings
from keshi.runtime.telemetry import OFF, Stage, Telemetry
from keshi.schemas.tasks import HOLDS, MAX_TASKS, Answer, Go, PerformTasks, Stop, Unwrapped, Wait

LISTS_AT_A_TIME: Final = 4
GATHER_SECONDS: Final = 1.0
"""What has been located after this time begins; the slower ones follow with a call of their own."""
ONE_BY_ONE_SECONDS: Final = 0.005
"""How soon the next task of a list that came back is begun."""
RETRY_CALL: Final = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Seconds between calls that got no answer. It goes on as long as the process lives: nothing is lost, or done."""

T = TypeVar("T")

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class LaneParts:
    """What a lane works with."""

    handler: Handler
    api: WorkerApi
    reporter: Reporter
    settings: WorkerSettings
    stopping: threading.Event
    telemetry: Telemetry = OFF


class Lane:
    """Everything of one system in one process.

    Args:
        parts: What it works with.
    """

    def __init__(self, parts: LaneParts) -> None:
        self.handler = parts.handler
        self.system = parts.handler.system
        self._api = parts.api
        self._settings = parts.settings
        patience = Patience(parts.settings.tries, parts.settings.retry_seconds)
        self._steps = Steps(parts.handler, patience, parts.stopping)
        self._fresh: deque[list[Job]] = deque()
        self._lists = Pool(LISTS_AT_A_TIME, f"{self.system}-list")
        self._pool = Pool(parts.settings.concurrency, f"{self.system}-task")
        self._leases = Leases(parts.api, f"{self.system}-leases")
        self._book = Book(BookParts(parts.handler, self._leases, parts.reporter, parts.stopping, self._back))
        self._telemetry = parts.telemetry
        self._performer = Performer(self._book, self._steps, self._pool, parts.telemetry)
        self._shuffle = random.SystemRandom().shuffle

    # --- what the poller sees

    def take(self, message: PerformTasks, ticket: Ticket) -> None:
        """Take over one message. Its ticket is done when each of its tasks is."""
        budget = Limit(self._settings.list_seconds)
        jobs = []
        for task in message.tasks:
            job = Job(task, ticket, budget)
            if self._book.enter(job):
                jobs.append(job)
            else:
                ticket.ended()
        if jobs and ticket.redelivered:
            self._lists.submit(Urgency.LOCATE, partial(self._one_by_one, jobs))
        elif jobs:
            self._fresh.append(jobs)
            self._lists.submit(Urgency.LOCATE, self._together)

    def crowded(self) -> bool:
        """Whether no further message should be taken for now."""
        return self._book.crowded()

    def oldest(self) -> float:
        """Seconds that the longest step has been running."""
        return max(self._pool.oldest(), self._lists.oldest())

    def close(self, seconds: float) -> bool:
        """Begin nothing more; let the acts that run come to their end, and after `seconds` leave at a checkpoint.

        Returns:
            Whether no act was left running.
        """
        end = boot_time() + seconds
        self._book.close()
        self._lists.shutdown(0)
        ended = self._pool.shutdown(seconds) & self._lists.shutdown(max(1.0, end - boot_time()))
        if not ended:
            self._leases.end_all()
            ended = self._pool.shutdown(2) & self._lists.shutdown(1)
        self._leases.close()
        return ended

    # --- how a list begins

    def _together(self) -> None:
        """Work on what has come meanwhile as one list: the more there is to do, the less each costs."""
        jobs: list[Job] = []
        while self._fresh and len(jobs) < MAX_TASKS:
            try:
                jobs += self._fresh.popleft()
            except IndexError:
                break  # another thread has taken it
        if jobs:
            self._guarded(self._flow, jobs)

    def _one_by_one(self, jobs: list[Job]) -> None:
        """Some worker did not come to the end of this list: in an order that cannot always be the same.

        The task which ended that worker must not stand before the same others each time.
        """
        self._shuffle(jobs)
        for job in jobs:
            self._guarded(self._flow, [job])
            while not job.settled and job.budget.left() > 0 and not self._book.stopping:
                time.sleep(ONE_BY_ONE_SECONDS)

    def _back(self, jobs: list[Job]) -> None:
        for job in jobs:
            job.settled = False
        located = [j for j in jobs if j.begin]
        bare = [j for j in jobs if not j.begin]
        if located:
            self._lists.submit(Urgency.ACT, partial(self._guarded, self._begin, located))
        if bare:
            self._lists.submit(Urgency.LOCATE, partial(self._guarded, self._flow, bare))

    def _guarded(self, step: Callable[[list[Job]], None], jobs: list[Job]) -> None:
        """A defect of ours fails the attempts concerned, and is seen; it does not lose them."""
        try:
            step(jobs)
        except Exception as e:
            log.exception("worker_defect", system=self.system, count=len(jobs))
            for job in jobs:
                if not job.reported and not job.settled and not job.go:
                    self._book.fail(job, Retry(f"worker_{code_of(e)}"))

    # --- 1 unwrap

    def _flow(self, jobs: list[Job]) -> None:
        for some in calls(self._book.kept(jobs)):
            opened = self._unwrap(some)
            if opened:
                self._locate(opened)

    def _unwrap(self, jobs: list[Job]) -> list[Job]:
        try:
            answers = self._api.unwrap([j.ref for j in jobs]).tasks
        except ApiError as e:
            self._unanswered(jobs, e)
            return []
        by_request = {(a.request_id, a.attempt): a for a in answers}
        opened = []
        for job in jobs:
            answer = by_request.get((job.task.request_id, job.task.attempt))
            if answer is None:
                self._unanswered([job], None)
            elif not answer.open:
                self._book.end(job)
            else:
                job.unanswered = 0
                job.work = _work(job, answer)
                opened.append(job)
        return opened

    def _unanswered(self, jobs: Sequence[Job], error: ApiError | None) -> None:
        """No answer means no act, and costs nothing: the same question again, later."""
        if self._book.stopping:
            return
        if isinstance(error, ApiRefusedError):
            self._refused(jobs, error)
            return
        code = getattr(error, "code", "api_answer_missing")
        log.warning("api_unanswered", system=self.system, count=len(jobs), code=code)
        for job in jobs:
            pause = RETRY_CALL[min(job.unanswered, len(RETRY_CALL) - 1)]
            job.unanswered += 1
            self._book.park(job, pause)

    def _refused(self, jobs: Sequence[Job], error: ApiRefusedError) -> None:
        """The API cannot read a call: find the task that it is about; the others go on."""
        if len(jobs) == 1:
            self._book.fail(jobs[0], GiveToPerson(error.code))
            return
        for job in jobs:
            step = self._begin if job.begin else self._flow
            self._lists.submit(Urgency.LOCATE, partial(self._guarded, step, [job]))

    # --- 2 locate

    def _locate(self, jobs: list[Job]) -> None:
        if self._steps.lists_locate:
            self._locate_list(jobs)
            self._begin([j for j in jobs if j.begin])
            return
        pending = {self._pool.submit(Urgency.LOCATE, partial(self._locate_one, job)): job for job in jobs}
        budget = jobs[0].budget
        while pending and not self._book.stopping:
            done, _ = wait(pending, timeout=GATHER_SECONDS)
            self._begin([job for job in map(pending.pop, done) if job.begin])
            if budget.left() <= 0:
                for future, job in pending.items():  # the list gives up its place; they go on by themselves
                    future.add_done_callback(partial(self._located_late, job))
                return

    def _located_late(self, job: Job, _: "Future[None]") -> None:
        if job.begin:
            self._lists.submit(Urgency.ACT, partial(self._guarded, self._begin, [job]))

    def _locate_one(self, job: Job) -> None:
        if job.work is None or not self._book.kept([job]):
            return
        began = time.time_ns()
        try:
            located = self._steps.locate(job.work, once=job.budget.left() <= 0)
            job.begin = evidence(job.work, located, job.begin_id)
            tell(self._telemetry, Stage.LOCATE, [job], began)
        except Exception as e:  # noqa: BLE001 - reported under its code
            self._book.fail(job, e)
            return
        failpoints.hit("worker.after_locate")

    def _locate_list(self, jobs: list[Job]) -> None:
        began = time.time_ns()
        going = [(j, j.work) for j in self._book.kept(jobs) if j.work]
        for (job, work), located in zip(going, self._steps.locate_list([w for _, w in going]), strict=True):
            try:
                job.begin = evidence(work, _got(located), job.begin_id)
            except Exception as e:  # noqa: BLE001 - as above
                self._book.fail(job, e)
        tell(self._telemetry, Stage.LOCATE, [j for j, _ in going], began)
        failpoints.hit("worker.after_locate")

    # --- 3 begin

    def _begin(self, jobs: list[Job]) -> None:
        for some in calls(self._book.kept(jobs)):
            since = boot_time()
            try:
                answers = self._api.begin([j.begin for j in some if j.begin]).tasks
            except ApiError as e:
                self._unanswered(some, e)
                continue
            failpoints.hit("worker.after_begin")
            self._answered(some, {a.request_id: a for a in answers}, since)

    def _answered(self, jobs: list[Job], answers: dict[str, Answer], since: float) -> None:
        going: list[Job] = []
        for job in jobs:
            answer = answers.get(job.task.request_id)
            if answer is not None:
                job.unanswered = 0
            if isinstance(answer, Go):
                self._leases.take(job, answer, since)
                going.append(job)
            elif isinstance(answer, Wait):
                # One that waits for longer than its list has time keeps nothing of the person meanwhile.
                self._book.park(job, answer.seconds, forget=answer.seconds > job.budget.left())
            elif isinstance(answer, Stop):
                self._stopped(job, answer)
            else:
                self._unanswered([job], None)
        if going:
            self._performer.perform(going)

    def _stopped(self, job: Job, answer: Stop) -> None:
        if answer.reason in HOLDS:
            self._book.fail(job, GiveToPerson(answer.reason))
        else:
            log.info("task_stopped", **job.told(answer.reason))
            self._book.end(job)


def _got(result: T | Exception) -> T:
    if isinstance(result, Exception):
        raise result
    return result


def _work(job: Job, answer: Unwrapped) -> Work:
    task = job.task
    return Work(
        request_id=task.request_id,
        system=task.system,
        action=task.action,
        categories=task.categories,
        identifiers=answer.identifiers,
        as_of=task.as_of,
        arrived_at=task.arrived_at,
        regime=task.regime,
        mode=task.mode,
        attempt=task.attempt,
        retention=task.retention,
        items=None if answer.items is None else frozenset(answer.items),
        remembered=answer.remembered,
        limit=job.budget,
    )
