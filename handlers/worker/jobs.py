"""A task on its way through this process, and the message it came with."""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from secrets import token_hex
from typing import Final

from keshi.handlers.contract import Limit, Work
from keshi.runtime.telemetry import Stage, Telemetry
from keshi.schemas.base import made
from keshi.schemas.tasks import MAX_TASKS, Begin, Go, Mode, Task, TaskRef

MAX_BEGIN_RECORDS: Final = 20_000
"""Records in one call of begin, so that its body stays bounded. One task alone may have as many."""


class Ticket:
    """One `PerformTasks` message. When all its tasks have ended, its offset may be committed.

    Args:
        partition: Of `reports`, for the tasks of this message.
        size: How many tasks it brought.
        redelivered: Some worker had begun it before: it is worked one by one.
        done: Called once, when the last task has ended.
    """

    def __init__(self, partition: int, size: int, *, redelivered: bool, done: Callable[[], None]) -> None:
        self.partition = partition
        self.redelivered = redelivered
        self.lost = False  # the partition belongs to another worker now: what is not begun is dropped
        self._left = size
        self._lock = threading.Lock()
        self._done = done

    def ended(self) -> None:
        """One of its tasks has ended."""
        with self._lock:
            self._left -= 1
            last = self._left == 0
        if last:
            self._done()


@dataclass(eq=False, slots=True)
class Job:
    """One attempt at one task in this process. The representation shows no identifier."""

    task: Task
    ticket: Ticket
    budget: Limit
    """Of its list: beyond it nothing is tried twice, and who has to wait is parked."""
    begin_id: str = field(default_factory=lambda: token_hex(16))
    work: Work | None = None
    begin: Begin | None = None
    go: Go | None = None
    lease: Limit | None = None
    renew_at: float = 0.0
    renew_until: float = 0.0
    acted: bool = False
    """The act was entered."""
    unanswered: int = 0
    lapses: int = 0
    """Leases that ended before their act did."""
    settled: bool = False
    """Nothing runs for it: it has ended or is parked."""
    reported: bool = False
    ended: bool = False

    def __repr__(self) -> str:
        return f"Job({self.task.request_id}, {self.task.system}, attempt={self.task.attempt})"

    @property
    def ref(self) -> TaskRef:
        """What names it in a call."""
        task = self.task
        return made(TaskRef, request_id=task.request_id, system=task.system, attempt=task.attempt)

    @property
    def key(self) -> tuple[int, str, int, Mode]:
        """What makes two jobs of one process the same."""
        task = self.task
        return self.ticket.partition, task.request_id, task.attempt, task.mode

    def forget(self) -> None:
        """Drop what was unwrapped and located, to be asked for again later."""
        self.work = self.begin = self.go = self.lease = None
        self.begin_id = token_hex(16)

    def told(self, what: object) -> dict[str, object]:
        """What a log may say of it."""
        return {
            "request_id": self.task.request_id,
            "system": self.task.system,
            "attempt": self.task.attempt,
            "mode": self.task.mode.value,
            "code": str(what),
        }


def tell(telemetry: Telemetry, stage: Stage, jobs: Iterable[Job], began: int) -> None:
    """Record a step that is over, for each task in its own trace."""
    if telemetry.on:
        for job in jobs:
            t = job.task
            known = {"system": t.system, "action": t.action.value, "mode": t.mode.value, "attempt": t.attempt}
            telemetry.span(stage, t.traceparent, began, request_id=t.request_id, **known)


def calls(jobs: Sequence[Job]) -> Iterator[list[Job]]:
    """Divide jobs into lists for one call each: bounded, and no request twice, for answers name the request."""
    rest = list(jobs)
    while rest:
        taken: list[Job] = []
        later: list[Job] = []
        requests: set[str] = set()
        records = 0
        for job in rest:
            size = len(job.begin.manifest) if job.begin else 0
            full = len(taken) >= MAX_TASKS or (taken and records + size > MAX_BEGIN_RECORDS)
            if full or job.task.request_id in requests:
                later.append(job)
                continue
            taken.append(job)
            requests.add(job.task.request_id)
            records += size
        yield taken
        rest = later
