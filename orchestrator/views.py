"""What readers may see: the forms of the answers. None holds an identifier."""

from datetime import date
from typing import Annotated, Literal

from pydantic import Field

from keshi.schemas.base import Code, Count, Digest, Model, Moment, Name, Reference, RequestId, RuleId
from keshi.schemas.closure import ClosureRecord
from keshi.schemas.commands import Decision
from keshi.schemas.requests import RequestState


class HeldTask(Model):
    """A task that waits for a person: why, how much was found, and what can be decided."""

    system: Name
    attempt: Count
    reason: Code
    count: Count | None = None
    digest: Digest | None = None
    decisions: tuple[Decision, ...]
    reminder_at: Moment | None = None


class ObligationView(Model):
    """What is left to do after a closure, as it stands. `late`: its moment has passed and it is not met."""

    obligation_id: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    kind: Literal["retention", "suspension", "residue"]
    system: Name
    category: Name
    count: Count
    ground: RuleId | None = None
    until: date | None = None
    status: Literal["open", "met"]
    next_at: Moment | None = None
    late: bool = False


class RequestSummary(Model):
    """A line of the list. `number` counts acceptances."""

    number: Count
    state: RequestState


class RequestPage(Model):
    """Requests, the latest first. `next` is the `before` of the next page; absent on the last one."""

    requests: tuple[RequestSummary, ...]
    next: Count | None = None


class RequestView(RequestSummary):
    """One request with what people can decide and what is left to do."""

    held: tuple[HeldTask, ...] = ()
    obligations: tuple[ObligationView, ...] = ()
    notified_at: Moment | None = None


class ReasonView(Model):
    """The words of one decision, opened. `decision` is its place among those of its system in the record."""

    system: Name
    decision: Count
    person: Reference
    at: Moment
    reason: str | None = None


class ClosureView(Model):
    """A closure record beside the opened reasons of its decisions, which are no part of it."""

    request_id: RequestId
    closure: ClosureRecord
    reasons: tuple[ReasonView, ...]
