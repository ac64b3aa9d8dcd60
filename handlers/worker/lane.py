"""The way of a list in one system: unwrap, locate, begin, act, verify, report. No task waits for a slower one."""

import random
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, TypeVar

import structlog

from keshi.client.api import ApiError, ApiRefusedError, WorkerApi
from keshi.handlers.contract import Accepted, Handler, Limit, Union, Verified, Work, boot_time
from keshi.handlers.errors import GiveToPerson, LeaseEnded, Retry, code_of
from keshi.handlers.worker import reports
from keshi.handlers.worker.jobs import Job, Ticket, calls
from keshi.handlers.worker.judge import Case, identified, judge
from keshi.handlers.worker.leases import Leases
from keshi.handlers.worker.pool import Pool, Urgency
from keshi.handlers.worker.reporter import MAX_REPORT_BYTES, Outbound, Reporter
from keshi.handlers.worker.steps import Patience, Steps, evidence
from keshi.handlers.worker.waits import Waits
from keshi.runtime import failpoints
from keshi.runtime.settings import WorkerSettings
from keshi.schemas.tasks import HOLDS, Answer, Go, Mode, PerformTasks, Stop, Unwrapped, Wait

LISTS_AT_A_TIME: Final = 4
MAX_TASKS_UNDER_WAY: Final = 400
"""More than this, and no further message is taken until some have ended."""
MAX_TASKS_PARKED: Final = 10_000
GATHER_SECONDS: Final = 1.0
"""What has been located after this time begins; the slower ones follow with a call of their own."""
MAX_LAPSES: Final = 3
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


class Lane:
    """Everything of one system in one process.

    Args:
        parts: What it works with.
    """

    def __init__(self, parts: LaneParts) -> None:
        self.handler = parts.handler
        self.system = parts.handler.system
        self._api = parts.api
        self._reporter = parts.reporter
        self._settings = parts.settings
        self._stopping = parts.stopping
        self._version = reports.version_of(parts.handler)
        patience = Patience(parts.settings.tries, parts.settings.retry_seconds)
        self._steps = Steps(parts.handler, patience, parts.stopping)
        self._jobs: dict[tuple[int, str, int, str], Job] = {}
        self._lock = threading.Lock()
        self._lists = Pool(LISTS_AT_A_TIME, f"{self.system}-list")
        self._pool = Pool(parts.settings.concurrency, f"{self.system}-task")
        self._waits: Waits[Job] = Waits(self._back, f"{self.system}-waits")
        self._leases = Leases(parts.api, f"{self.system}-leases")
        self._shuffle = random.SystemRandom().shuffle

    # --- what the poller sees

    def take(self, message: PerformTasks, ticket: Ticket) -> None:
        """Take over one message. Its ticket is done when each of its tasks is."""
        budget = Limit(self._settings.list_seconds)
        jobs = []
        for task in message.tasks:
            job = Job(task, ticket, budget)
            if self._enter(job):
                jobs.append(job)
            else:
                ticket.ended()  # an elder one of the same partition does it, and holds its own offset
        if jobs:
            self._lists.submit(Urgency.LOCATE, partial(self._work, jobs, ticket))

    def crowded(self) -> bool:
        """Whether no further message should be taken for now."""
        with self._lock:
            under_way = len(self._jobs) - len(self._waits)
        return under_way >= MAX_TASKS_UNDER_WAY or len(self._waits) >= MAX_TASKS_PARKED

    def oldest(self) -> float:
        """Seconds that the longest step has been running."""
        return self._pool.oldest()

    def close(self, seconds: float) -> bool:
        """Begin nothing more; let the acts that run come to their end, and after `seconds` leave at a checkpoint.

        Returns:
            Whether no act was left running.
        """
        self._waits.close()
        self._lists.shutdown(0)
        ended = self._pool.shutdown(seconds)
        if not ended:
            self._leases.end_all()
            ended = self._pool.shutdown(2)
        self._lists.shutdown(1)
        self._leases.close()
        return ended

    # --- a job begins and ends

    def _enter(self, job: Job) -> bool:
        with self._lock:
            elder = self._jobs.get(job.key)
            if elder is not None and not elder.ticket.lost:
                return False
            self._jobs[job.key] = job
            return True

    def _end(self, job: Job) -> None:
        """Nothing is left to do for it."""
        self._leases.release(job)
        with self._lock:
            if job.ended:
                return
            job.ended = True
            if self._jobs.get(job.key) is job:
                del self._jobs[job.key]
        job.settled.set()
        job.ticket.ended()

    def _park(self, job: Job, seconds: float, *, forget: bool = False) -> None:
        """Bring it back after this time, in nobody's way until then."""
        self._leases.release(job)
        if forget:
            job.forget()
        self._waits.push(max(0.05, seconds), job)
        job.settled.set()

    def _back(self, jobs: list[Job]) -> None:
        for job in jobs:
            job.settled.clear()
        located = [j for j in jobs if j.begin]
        bare = [j for j in jobs if not j.begin]
        if located:
            self._lists.submit(Urgency.ACT, partial(self._guarded, self._begin, located))
        if bare:
            self._lists.submit(Urgency.LOCATE, partial(self._guarded, self._flow, bare))

    def _dropped(self, job: Job) -> bool:
        """Whether nothing more is to be begun for it: its partition is another worker's now."""
        if job.ticket.lost:
            self._end(job)
            return True
        return self._stopping.is_set()  # it stays as it is: its offset is not committed, and it comes back

    def _report(self, job: Job, report: reports.AnyReport) -> None:
        self._leases.release(job)
        job.reported = True
        text = reports.text(report, job.go)
        if len(text) > MAX_REPORT_BYTES:
            text = reports.text(reports.failed(job, self._version, GiveToPerson("report_too_large")), None)
        self._reporter.put(Outbound(job.ticket.partition, self.system, text, partial(self._end, job)))

    def _fail(self, job: Job, error: BaseException) -> None:
        report = reports.failed(job, self._version, error)
        log.warning("attempt_failed", **job.told(report.error))
        self._report(job, report)

    def _guarded(self, step: Callable[[list[Job]], None], jobs: list[Job]) -> None:
        """A defect of ours fails the attempts concerned, and is seen; it does not lose them."""
        try:
            step(jobs)
        except Exception as e:
            log.exception("worker_defect", system=self.system, count=len(jobs))
            for job in jobs:
                if not job.reported and not job.settled.is_set() and not job.go:
                    self._fail(job, Retry(f"worker_{code_of(e)}"))

    # --- 1 unwrap

    def _work(self, jobs: list[Job], ticket: Ticket) -> None:
        if not ticket.redelivered:
            self._guarded(self._flow, jobs)
            return
        # Some worker did not come to the end of this list. One by one, and in no order that could put the task
        # which ended it always before the same others.
        self._shuffle(jobs)
        for job in jobs:
            self._guarded(self._flow, [job])
            while not job.settled.wait(0.2) and job.budget.left() > 0 and not self._stopping.is_set():
                pass

    def _flow(self, jobs: list[Job]) -> None:
        jobs = [j for j in jobs if not self._dropped(j)]
        for some in calls(jobs):
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
                self._end(job)
            else:
                job.unanswered = 0
                job.work = _work(job, answer)
                opened.append(job)
        return opened

    def _unanswered(self, jobs: Sequence[Job], error: ApiError | None) -> None:
        """No answer means no act, and costs nothing: the same question again, later."""
        if self._stopping.is_set():
            return
        if isinstance(error, ApiRefusedError):
            self._refused(jobs, error)
            return
        code = getattr(error, "code", "api_answer_missing")
        log.warning("api_unanswered", system=self.system, count=len(jobs), code=code)
        for job in jobs:
            pause = RETRY_CALL[min(job.unanswered, len(RETRY_CALL) - 1)]
            job.unanswered += 1
            self._park(job, pause)

    def _refused(self, jobs: Sequence[Job], error: ApiRefusedError) -> None:
        """The API cannot read a call: find the task that it is about; the others go on."""
        if len(jobs) == 1:
            self._fail(jobs[0], GiveToPerson(error.code))
            return
        for job in jobs:
            step = self._begin if job.begin else self._flow
            self._lists.submit(Urgency.LOCATE, partial(self._guarded, step, [job]))

    # --- 2 locate

    def _locate(self, jobs: list[Job]) -> None:
        pending: dict[Future[None], list[Job]] = {}
        if self._steps.lists_locate and len(jobs) > 1:
            pending[self._pool.submit(Urgency.LOCATE, partial(self._locate_many, jobs))] = jobs
        else:
            for job in jobs:
                pending[self._pool.submit(Urgency.LOCATE, partial(self._locate_one, job))] = [job]
        budget = jobs[0].budget
        while pending and not self._stopping.is_set():
            done, _ = wait(pending, timeout=GATHER_SECONDS)
            self._begin([j for f in done for j in pending.pop(f) if j.begin and not f.cancelled()])
            if budget.left() <= 0:
                for future, some in pending.items():  # the list gives up its place; they go on by themselves
                    future.add_done_callback(partial(self._located_late, some))
                return

    def _located_late(self, jobs: list[Job], _: "Future[None]") -> None:
        self._lists.submit(Urgency.ACT, partial(self._guarded, self._begin, [j for j in jobs if j.begin]))

    def _locate_one(self, job: Job) -> None:
        if self._dropped(job) or job.work is None:
            return
        try:
            located = self._steps.locate(job.work, once=job.budget.left() <= 0)
            job.begin = evidence(job.work, located, job.begin_id)
        except Exception as e:  # noqa: BLE001 - reported under its code
            self._fail(job, e)
            return
        failpoints.hit("worker.after_locate")

    def _locate_many(self, jobs: list[Job]) -> None:
        going = [(j, j.work) for j in jobs if not self._dropped(j) and j.work]
        for (job, work), located in zip(going, self._steps.locate_list([w for _, w in going]), strict=True):
            try:
                job.begin = evidence(work, _got(located), job.begin_id)
            except Exception as e:  # noqa: BLE001 - as above
                self._fail(job, e)
        failpoints.hit("worker.after_locate")

    # --- 3 begin

    def _begin(self, jobs: list[Job]) -> None:
        jobs = [j for j in jobs if not self._dropped(j)]
        for some in calls(jobs):
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
                self._park(job, answer.seconds, forget=answer.seconds > job.budget.left())
            elif isinstance(answer, Stop):
                self._stopped(job, answer)
            else:
                self._unanswered([job], None)
        if self._steps.lists_act and len(going) > 1:
            self._pool.submit(Urgency.ACT, partial(self._perform_many, going))
        else:
            for job in going:
                self._pool.submit(Urgency.ACT, partial(self._perform, job))

    def _stopped(self, job: Job, answer: Stop) -> None:
        if answer.reason in HOLDS:
            self._fail(job, GiveToPerson(answer.reason))
        else:
            log.info("task_stopped", **job.told(answer.reason))
            self._end(job)

    # --- 4 act, 5 verify, 6 report

    def _perform(self, job: Job) -> None:
        work, go = job.work, job.go
        if work is None or go is None or not self._may_act(job):
            return
        try:
            if reports.acts(job) and go.union:
                job.acted = True
                answer = self._steps.act(_under(work, job), go.union)
                failpoints.hit("worker.after_act")
                if isinstance(answer, Accepted):
                    self._report(job, reports.accepted(job, self._version, go, answer))
                    return
            looks = go.union and job.task.mode is not Mode.IDENTIFY
            verified = self._steps.verify(work, go.union) if looks else Verified(())
            self._conclude(job, go, verified)
        except LeaseEnded as e:
            self._lapsed(job, e)
        except Exception as e:  # noqa: BLE001 - reported under its code
            self._fail(job, e)

    def _perform_many(self, jobs: list[Job]) -> None:
        acting: list[tuple[Job, Work, Go]] = []
        for job in jobs:
            if job.work and job.go and job.go.union and reports.acts(job):
                if self._may_act(job):
                    job.acted = True
                    acting.append((job, job.work, job.go))
            else:
                self._perform(job)
        if not acting:
            return
        answers = self._steps.act_list([(_under(w, j), g.union) for j, w, g in acting])
        failpoints.hit("worker.after_act")
        looking: list[tuple[Job, Work, Go]] = []
        for (job, work, go), answer in zip(acting, answers, strict=True):
            if isinstance(answer, LeaseEnded):
                self._lapsed(job, answer)
            elif isinstance(answer, Exception):
                self._fail(job, answer)
            elif isinstance(answer, Accepted):
                self._report(job, reports.accepted(job, self._version, go, answer))
            else:
                looking.append((job, work, go))
        self._verify_many(looking)

    def _verify_many(self, looking: list[tuple[Job, Work, Go]]) -> None:
        pairs: list[tuple[Work, Union]] = [(w, g.union) for _, w, g in looking]
        many = self._steps.lists_verify and len(pairs) > 1
        states = self._steps.verify_list(pairs) if many else [None] * len(pairs)
        for (job, work, go), state in zip(looking, states, strict=True):
            try:
                self._conclude(job, go, _got(state) or self._steps.verify(work, go.union))
            except Exception as e:  # noqa: BLE001 - as above
                self._fail(job, e)

    def _may_act(self, job: Job) -> bool:
        """Whether its turn has come in time."""
        if self._dropped(job):
            return False
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
            self._fail(job, error)
        else:
            self._park(job, 0)

    def _conclude(self, job: Job, go: Go, verified: Verified) -> None:
        task, begin = job.task, job.begin
        if task.mode is Mode.IDENTIFY:
            outcomes = identified(task.categories)
        else:
            searched = begin.searched if begin else ()
            case = Case(task.action, task.mode, task.categories, searched, go.union, verified.states)
            outcomes = judge(case)
        self._report(job, reports.completed(job, self._version, go, outcomes, verified.residue))


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
        mode=task.mode,
        attempt=task.attempt,
        retention=task.retention,
        items=None if answer.items is None else frozenset(answer.items),
        remembered=answer.remembered,
    )


def _under(work: Work, job: Job) -> Work:
    """The same work under its lease: from here on the time is the lease's."""
    assert job.lease is not None
    return replace(work, limit=job.lease)
