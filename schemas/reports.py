"""What handlers say of their tasks, by the topic `reports`."""

import hmac
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from keshi.schemas.base import Code, Count, Digest, Model, Moment, Name, RequestId, Traceparent
from keshi.schemas.identifiers import IdentifierType
from keshi.schemas.outcomes import CategoryOutcome, Residue
from keshi.schemas.tasks import Attempt, Mode
from keshi.schemas.writing import canonical_text

MAX_REPORTS = 200

LeaseId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]


class HandlerVersion(Model):
    """Which code did it."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:-]{1,120}$")]
    version: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._+!-]{1,60}$")]


class _Report(Model):
    request_id: RequestId
    system: Name
    attempt: Attempt
    handler: HandlerVersion
    at: Moment
    traceparent: Traceparent | None = None


NotDone = Annotated[
    tuple[Name, ...] | None, Field(max_length=200, description="Categories that are known not to be done yet.")
]


class Accepted(_Report):
    """The system took the job and goes on by itself: ends the lease, asks to be polled by a check."""

    kind: Literal["accepted"] = "accepted"
    lease_id: LeaseId
    digest: Digest
    check_after_seconds: Annotated[int, Field(ge=1, le=2_592_000)]
    left: NotDone = None
    hmac: Digest


class Left(Model):
    """What a system says of that which a check found not done: when to look again, and whether that is late.

    `asks` is why a person has to look at some of it.
    """

    check_after_seconds: Annotated[int, Field(ge=1, le=2_592_000)] | None = None
    late: bool = False
    asks: Code | None = None


class Completed(_Report):
    """The worker's own check of the whole union has passed. `hmac` is over all the rest.

    A check says `not_started` of what is not done; `left` is what the system says of that, if it says anything.
    """

    kind: Literal["completed"] = "completed"
    mode: Mode
    lease_id: LeaseId
    digest: Digest = Field(description="Of the union, as given with the go.")
    searched: tuple[IdentifierType, ...]
    outcomes: Annotated[tuple[CategoryOutcome, ...], Field(min_length=1, max_length=300)]
    residue: Annotated[tuple[Residue, ...], Field(max_length=100)] = ()
    left: Left | None = None
    checked_at: Moment
    hmac: Digest


class Intent(StrEnum):
    """What a failure asks for."""

    RETRY = "retry"
    PERSON = "person"


class Failed(_Report):
    """An attempt that ended without a result. `error` is a class of errors, never a message."""

    kind: Literal["failed"] = "failed"
    error: Code
    intent: Intent
    retry_after_seconds: Annotated[int, Field(ge=0, le=2_592_000)] | None = None
    lease_id: LeaseId | None = None
    began: bool = False
    left: NotDone = None


Report = Annotated[Accepted | Completed | Failed, Field(discriminator="kind")]


class TasksReported(Model):
    """Reports of one partition, as the tasks finish."""

    partition: Count
    reports: Annotated[tuple[Report, ...], Field(min_length=1, max_length=MAX_REPORTS)]


def signature(report: Accepted | Completed, secret: str) -> str:
    """HMAC-SHA-256 under the lease's secret over the canonical JSON of the report as it is sent, without `hmac`."""
    return _mac(_unsigned(report), secret)


def _unsigned(report: Accepted | Completed) -> bytes:
    return canonical_text(report, without=("hmac",))


def _mac(text: bytes, secret: str) -> str:
    return hmac.digest(bytes.fromhex(secret), text, "sha256").hex()


def signed_text(report: Accepted | Completed, secret: str) -> bytes:
    """The signed report as JSON: the text that is signed, with the signature behind it. So it is written only once."""
    text = _unsigned(report)
    return text[:-1] + f',"hmac":"{_mac(text, secret)}"}}'.encode()


def signed(report: Accepted | Completed, secret: str) -> Accepted | Completed:
    """The report with its signature. A report is born with sixty-four zeros in its place."""
    return report.model_copy(update={"hmac": signature(report, secret)})


UNSIGNED = "0" * 64
