"""What a worker says of a task: one of three reports, signed as it is written down. Pure but for the clock."""

import math
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from keshi.handlers.contract import Accepted as GoesOn
from keshi.handlers.contract import Handler
from keshi.handlers.errors import MAX_RETRY_AFTER_SECONDS, GiveToPerson, HandlerError, RetryAfter, code_of
from keshi.handlers.worker.jobs import Job
from keshi.schemas.base import made
from keshi.schemas.outcomes import CategoryOutcome, Residue
from keshi.schemas.reports import UNSIGNED, Accepted, Completed, Failed, HandlerVersion, Intent, Left, signed_text
from keshi.schemas.tasks import Go, Mode

AnyReport = Accepted | Completed | Failed
MAX_RESIDUE: Final = 100


def version_of(handler: Handler) -> HandlerVersion:
    """Which code acts."""
    kind = type(handler)
    name = re.sub(r"[^A-Za-z0-9._:-]", "_", f"{kind.__module__}:{kind.__qualname__}")[-120:]
    version = re.sub(r"[^A-Za-z0-9._+!-]", "_", handler.version)[:60] or "0"
    return HandlerVersion(name=name, version=version)


def failed(job: Job, version: HandlerVersion, error: BaseException) -> Failed:
    """An attempt without a result."""
    after = math.ceil(error.seconds) if isinstance(error, RetryAfter) else None
    return Failed(
        **_common(job, version),
        error=code_of(error),
        intent=Intent.PERSON if isinstance(error, GiveToPerson) else Intent.RETRY,
        retry_after_seconds=after,
        lease_id=job.go.lease_id if job.go else None,
        began=job.acted,
        left=_planned(job, error.left) if isinstance(error, HandlerError) else None,
    )


def accepted(job: Job, version: HandlerVersion, go: Go, answer: GoesOn) -> Accepted:
    """The system goes on by itself."""
    return Accepted(
        **_common(job, version),
        lease_id=go.lease_id,
        digest=go.digest,
        check_after_seconds=min(max(1, math.ceil(answer.check_after_seconds)), MAX_RETRY_AFTER_SECONDS),
        left=_planned(job, answer.left),
        hmac=UNSIGNED,
    )


def completed(
    job: Job,
    version: HandlerVersion,
    go: Go,
    outcomes: Sequence[CategoryOutcome],
    residue: Sequence[Residue] = (),
    left: Left | None = None,
) -> Completed:
    """The check of the whole union has passed, or says what is not done.

    Raises:
        GiveToPerson: more kinds of residue than a report can hold.
    """
    if len(residue) > MAX_RESIDUE:
        raise GiveToPerson("too_much_residue")
    members = _common(job, version)
    members |= {
        "mode": job.begin.mode if job.begin else job.task.mode,
        "lease_id": go.lease_id,
        "digest": go.digest,
        "searched": job.begin.searched if job.begin else (),
        "outcomes": tuple(outcomes),
        "residue": tuple(residue),
        "left": left,
        "checked_at": members["at"],
        "hmac": UNSIGNED,
    }
    # What a handler says is checked here; all the rest was, where it came in.
    return Completed(**members) if residue or not outcomes else made(Completed, **members)


def text(report: AnyReport, go: Go | None) -> bytes:
    """The report as JSON; where a lease stands behind it, signed under the secret of this go."""
    if isinstance(report, Failed):
        return report.model_dump_json(exclude_none=True).encode()
    assert go is not None
    return signed_text(report, go.secret)


def acts(job: Job) -> bool:
    """Whether this job may change anything."""
    return job.task.mode is Mode.ACT


def _planned(job: Job, categories: Iterable[str]) -> tuple[str, ...] | None:
    """Of what a handler names that which the task is about; None where nothing is left of it."""
    return tuple(c for c in dict.fromkeys(categories) if c in job.task.categories) or None


def _common(job: Job, version: HandlerVersion) -> dict[str, Any]:
    task = job.task
    return {
        "request_id": task.request_id,
        "system": task.system,
        "attempt": task.attempt,
        "handler": version,
        "at": datetime.now(UTC),
        "traceparent": task.traceparent,
    }
