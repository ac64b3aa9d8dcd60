"""Keeps leases alive while their acts run: the same begin-id again, at a third of the lease."""

import threading
from collections.abc import Sequence
from typing import Final

import structlog

from keshi.client.api import ApiError, WorkerApi
from keshi.handlers.contract import Limit, boot_time
from keshi.handlers.worker.jobs import Job, calls
from keshi.schemas.tasks import Go, Mode

MAX_ACT_SECONDS: Final = 300.0
"""No act is given more time than this: it stops at its next checkpoint, and a next attempt goes on."""
TICK: Final = 0.1
"""Seconds between two looks, at least."""
IDLE_SECONDS: Final = 1.0
"""And at most: also when nothing is due sooner."""
SETTLING_SHARE: Final = 0.1
MAX_SETTLING_SECONDS: Final = 1.0
"""At the end of a lease nothing is sent any more: a system may still be at the last thing that it was sent, also
when nobody waits for the answer, and whoever looks next has to see it done."""

log = structlog.get_logger()


class Leases:
    """The leases of one worker of one system.

    Args:
        api: To ask again.
        name: Of the thread.
    """

    def __init__(self, api: WorkerApi, name: str) -> None:
        self._api = api
        self._jobs: set[Job] = set()
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._look_at = 0.0
        self._ended = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def take(self, job: Job, go: Go, since: float) -> Limit:
        """A go was given. Its time runs from `since`, before the call; it is kept alive if it is to act."""
        limit = Limit(_to_act(go.seconds), since=since, failpoint="worker.mid_act")
        job.go, job.lease = go, limit
        job.renew_at = since + go.seconds / 3
        job.renew_until = since + MAX_ACT_SECONDS
        if job.task.mode is Mode.ACT:
            with self._lock:
                self._jobs.add(job)
                if job.renew_at < self._look_at:
                    self._changed.notify()
        return limit

    def release(self, job: Job) -> None:
        """Nothing is to be done under it any more."""
        with self._lock:
            self._jobs.discard(job)

    def end_all(self) -> None:
        """Let every lease be over now: acts leave at their next checkpoint."""
        for job in self._living():
            if job.lease:
                job.lease.end_now()

    def close(self) -> None:
        """Renew nothing any more."""
        with self._lock:
            self._ended = True
            self._changed.notify()
        self._thread.join()

    def _living(self) -> Sequence[Job]:
        with self._lock:
            return tuple(self._jobs)

    def _run(self) -> None:
        while self._waited():
            now = boot_time()
            due = [j for j in self._living() if j.renew_at <= now < j.renew_until and _lives(j)]
            for some in calls(due):
                self._renew(some)

    def _waited(self) -> bool:
        """Wait until something may be due; no when nothing is to be renewed any more."""
        now = boot_time()
        with self._lock:
            dues = (j.renew_at for j in self._jobs if now < j.renew_until and _lives(j))
            soonest = min(dues, default=now + IDLE_SECONDS)
            self._look_at = max(now + TICK, min(soonest, now + IDLE_SECONDS))
            if not self._ended:
                self._changed.wait(self._look_at - now)
            return not self._ended

    def _renew(self, jobs: Sequence[Job]) -> None:
        since = boot_time()
        try:
            answers = self._api.begin([j.begin for j in jobs if j.begin], tries=1).tasks
        except ApiError as e:
            log.warning("lease_not_renewed", count=len(jobs), code=getattr(e, "code", "api_error"))
            for job in jobs:
                job.renew_at = boot_time() + TICK * 3
            return
        goes = {a.request_id: a for a in answers if isinstance(a, Go)}
        for job in jobs:
            again = goes.get(job.task.request_id)
            if again and job.go and job.lease and (again.lease_id, again.digest) == (job.go.lease_id, job.go.digest):
                job.lease.extend(_to_act(again.seconds), since=since)
                job.renew_at = since + again.seconds / 3
            else:
                # Not ours any more: what time is left may be used, and no more comes.
                self.release(job)


def _to_act(seconds: float) -> float:
    """How much of a lease is for acting."""
    return seconds - min(seconds * SETTLING_SHARE, MAX_SETTLING_SECONDS)


def _lives(job: Job) -> bool:
    return job.lease is not None and job.lease.left() > 0
