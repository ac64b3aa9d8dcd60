"""The tasks of one system that are under way in this process: each once, until it is reported or is nobody's here."""

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog

from keshi.handlers.contract import Handler
from keshi.handlers.errors import GiveToPerson
from keshi.handlers.worker import reports
from keshi.handlers.worker.jobs import Job
from keshi.handlers.worker.leases import Leases
from keshi.handlers.worker.reporter import MAX_REPORT_BYTES, Outbound, Reporter
from keshi.handlers.worker.waits import Waits

if TYPE_CHECKING:
    from keshi.schemas.tasks import Mode

MAX_TASKS_UNDER_WAY: Final = 400
"""More than this, and no further message is taken until some have ended."""
MAX_TASKS_PARKED: Final = 10_000

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class BookParts:
    """What a book works with.

    Attributes:
        handler: Whose system it is.
        leases: Of that system.
        reporter: Of the process.
        stopping: Set when the process ends.
        on_due: Gets parked jobs whose time has come.
    """

    handler: Handler
    leases: Leases
    reporter: Reporter
    stopping: threading.Event
    on_due: Callable[[list[Job]], None]


class Book:
    """Serves several threads."""

    def __init__(self, parts: BookParts) -> None:
        self.system = parts.handler.system
        self.version = reports.version_of(parts.handler)
        self.leases = parts.leases
        self._reporter = parts.reporter
        self._stopping = parts.stopping
        self._jobs: dict[tuple[int, str, int, Mode], Job] = {}
        self._lock = threading.Lock()
        self._waits: Waits[Job] = Waits(parts.on_due, f"{self.system}-waits")

    @property
    def stopping(self) -> bool:
        """Whether nothing more is to be begun in this process."""
        return self._stopping.is_set()

    def crowded(self) -> bool:
        """Whether no further message should be taken for now."""
        with self._lock:
            under_way = len(self._jobs) - len(self._waits)
        return under_way >= MAX_TASKS_UNDER_WAY or len(self._waits) >= MAX_TASKS_PARKED

    def enter(self, job: Job) -> bool:
        """Take it up; no if an elder one of the same partition does the same, and holds its own offset."""
        key = job.key
        with self._lock:
            elder = self._jobs.get(key)
            if elder is not None and not elder.ticket.lost:
                return False
            self._jobs[key] = job
            return True

    def end(self, job: Job) -> None:
        """Nothing is left to do for it."""
        self.leases.release(job)
        with self._lock:
            if job.ended:
                return
            job.ended = True
            key = job.key
            if self._jobs.get(key) is job:
                del self._jobs[key]
        job.settled = True
        job.ticket.ended()

    def park(self, job: Job, seconds: float, *, forget: bool = False) -> None:
        """Bring it back after this time, in nobody's way until then."""
        self.leases.release(job)
        if forget:
            job.forget()
        self._waits.push(max(0.05, seconds), job)
        job.settled = True

    def kept(self, jobs: Iterable[Job]) -> list[Job]:
        """Those that may be gone on with: their partition is not another worker's, and the process does not end."""
        kept = []
        stopping = self.stopping  # they stay as they are: their offset is not committed, and they come back
        for job in jobs:
            if job.ticket.lost:
                self.end(job)
            elif not stopping:
                kept.append(job)
        return kept

    def report(self, job: Job, report: reports.AnyReport) -> None:
        """Say what came of it. It ends when that is on the broker."""
        self.send([self.written(job, report)])

    def written(self, job: Job, report: reports.AnyReport) -> Outbound:
        """The report as it is sent. Whoever asks for it hands it to `send`."""
        text = reports.text(report, job.go)
        if len(text) > MAX_REPORT_BYTES:
            text = reports.text(reports.failed(job, self.version, GiveToPerson("report_too_large")), None)
        self.leases.release(job)
        job.reported = True
        return Outbound(job.ticket.partition, self.system, text, partial(self.end, job))

    def send(self, outbounds: Sequence[Outbound]) -> None:
        """Send reports: those of one list together, so that they travel as one message."""
        self._reporter.put(outbounds)

    def fail(self, job: Job, error: BaseException) -> None:
        """This attempt has no result."""
        report = reports.failed(job, self.version, error)
        log.warning("attempt_failed", **job.told(report.error))
        self.report(job, report)

    def close(self) -> None:
        """Bring nothing back any more."""
        self._waits.close()
