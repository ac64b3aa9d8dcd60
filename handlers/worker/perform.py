"""The steps after the go: act, verify, report. A handler that can do lists is given the whole list in each step."""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

import structlog

from keshi.handlers.contract import Accepted, Union, Verified, Work
from keshi.handlers.errors import LeaseEnded, Retry, code_of
from keshi.handlers.worker import reports
from keshi.handlers.worker.book import Book
from keshi.handlers.worker.jobs import Job, tell
from keshi.handlers.worker.judge import Case, goes_on, identified, judge, left
from keshi.handlers.worker.pool import Pool, Urgency
from keshi.handlers.worker.steps import Steps
from keshi.runtime import failpoints
from keshi.runtime.telemetry import OFF, Stage, Telemetry
from keshi.schemas.tasks import MAX_TASKS, Go, Mode

if TYPE_CHECKING:
    from keshi.handlers.worker.reporter import Outbound

MAX_LAPSES: Final = 3
_NOTHING: Final = Verified(())
"""What a look at nothing shows."""

T = TypeVar("T")
Held = tuple[Job, Work, Go]
"""A job with what its handler sees of it, and the go that it holds."""

log = structlog.get_logger()


class Performer:
    """Serves several threads.

    Args:
        book: Of the tasks.
        steps: Of the handler.
        pool: For handlers that take one task at a time.
    """

    def __init__(self, book: Book, steps: Steps, pool: Pool, telemetry: Telemetry = OFF) -> None:
        self._telemetry = telemetry
        self._book = book
        self._steps = steps
        self._pool = pool
        self._done: deque[Held] = deque()
        self._looking = threading.Lock()

    def perform(self, jobs: Sequence[Job]) -> None:
        """Act, verify and report, for each under its go. A list is done when this returns; single ones go on."""
        if self._steps.lists_act:
            self._guarded(self._perform_list, jobs)
            return
        for job in jobs:
            self._pool.submit(Urgency.ACT, partial(self._guarded, self._perform_one, [job]))

    def _guarded(self, step: Callable[[Sequence[Job]], None], jobs: Sequence[Job]) -> None:
        """A defect of ours fails the attempts concerned, and is seen; it does not lose them."""
        try:
            step(jobs)
        except Exception as e:
            log.exception("worker_defect", system=self._book.system, count=len(jobs))
            for job in jobs:
                if not job.reported and not job.settled:
                    self._book.fail(job, Retry(f"worker_{code_of(e)}"))

    # --- as a list

    def _perform_list(self, jobs: Sequence[Job]) -> None:
        acting: list[Held] = []
        looking: list[Held] = []
        for job in self._book.kept(jobs):
            if job.work is None or job.go is None or not self._in_time(job):
                continue
            if reports.acts(job) and job.go.union:
                job.acted = True
                acting.append((job, job.work, job.go))
            else:
                looking.append((job, job.work, job.go))
        if acting:
            began = time.time_ns()
            answers = self._steps.act_list([(_under(w, j), g.union) for j, w, g in acting])
            failpoints.hit("worker.after_act")
            tell(self._telemetry, Stage.ACT, [j for j, _, _ in acting], began)
            for case, answer in zip(acting, answers, strict=True):
                if self._acted(case, answer):
                    looking.append(case)
        self._verify(looking)

    def _acted(self, case: Held, answer: Accepted | Exception | None) -> bool:
        """Whether it is to be verified now."""
        job, _, go = case
        if isinstance(answer, LeaseEnded):
            self._lapsed(job, answer)
        elif isinstance(answer, Exception):
            self._book.fail(job, answer)
        elif isinstance(answer, Accepted):
            self._book.report(job, reports.accepted(job, self._book.version, go, answer))
        else:
            return True
        return False

    # --- one at a time

    def _perform_one(self, jobs: Sequence[Job]) -> None:
        (job,) = jobs
        work, go = job.work, job.go
        if work is None or go is None or not self._book.kept(jobs) or not self._in_time(job):
            return
        case = job, work, go
        if reports.acts(job) and go.union:
            job.acted = True
            began = time.time_ns()
            try:
                answer: Accepted | Exception | None = self._steps.act(_under(work, job), go.union)
            except Exception as e:  # noqa: BLE001 - reported under its code
                answer = e
            else:
                failpoints.hit("worker.after_act")
            tell(self._telemetry, Stage.ACT, [job], began)
            if not self._acted(case, answer):
                return
        if self._steps.lists_verify:
            self._gather(case)
        else:
            self._verify([case])

    def _gather(self, case: Held) -> None:
        """Verify it together with all whose acts end while others are being verified."""
        self._done.append(case)
        while self._done and self._looking.acquire(blocking=False):
            try:
                some = [self._done.popleft() for _ in range(min(len(self._done), MAX_TASKS))]
                self._verify(some)
            finally:
                self._looking.release()

    # --- verify and conclude

    def _verify(self, cases: Sequence[Held]) -> None:
        began = time.time_ns()
        looks = [c for c in cases if c[2].union and c[0].task.mode is not Mode.IDENTIFY]
        pairs: list[tuple[Work, Union]] = [(work, go.union) for _, work, go in looks]
        states = dict(zip(map(_job, looks), self._steps.verify_list(pairs), strict=True)) if pairs else {}
        tell(self._telemetry, Stage.VERIFY, [j for j, _, _ in looks], began)
        said: list[Outbound] = []
        try:
            for case in cases:
                job, _, go = case
                try:
                    report = self._conclusion(job, go, _got(states.get(job, _NOTHING)))
                    said.append(self._book.written(job, report))
                except LeaseEnded as e:
                    self._lapsed(job, e)
                except Exception as e:  # noqa: BLE001 - reported under its code
                    self._book.fail(job, e)
        finally:
            self._book.send(said)

    def _conclusion(self, job: Job, go: Go, verified: Verified) -> reports.AnyReport:
        task, version = job.task, self._book.version
        if task.mode is Mode.IDENTIFY:
            return reports.completed(job, version, go, identified(task.categories))
        searched = job.begin.searched if job.begin else ()
        case = Case(task.action, task.mode, task.categories, searched, go.union, verified.states)
        after = goes_on(case) if task.mode is Mode.ACT else None
        if after is not None:
            return reports.accepted(job, version, go, after)
        outcomes = judge(case)
        open_ = left(verified.states) if task.mode is Mode.CHECK else None
        return reports.completed(job, version, go, outcomes, verified.residue, open_)

    # --- leases

    def _in_time(self, job: Job) -> bool:
        """Whether its turn has come in time."""
        try:
            if job.lease and reports.acts(job):
                job.lease.require()
        except LeaseEnded as e:
            self._lapsed(job, e)
            return False
        return True

    def _lapsed(self, job: Job, error: LeaseEnded) -> None:
        """Its time was over: ask again, by the same begin-id. If nobody got a go since, this one may go on.

        To go on is to repeat the act over the same union. A worker that was frozen learns here that its task is
        another's now, or done. One that is told to end leaves the task to the next: its offset is not committed.
        """
        job.lapses += 1
        log.warning("lease_lapsed", **job.told(error.code))
        if job.lapses > MAX_LAPSES:
            self._book.fail(job, error)
        else:
            self._book.park(job, 0)


def _job(case: Held) -> Job:
    return case[0]


def _got(result: T | Exception) -> T:
    if isinstance(result, Exception):
        raise result
    return result


def _under(work: Work, job: Job) -> Work:
    """The same work under its lease: from here on the time is the lease's."""
    assert job.lease is not None
    return work.within(job.lease)
