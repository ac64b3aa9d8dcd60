"""What keshi answers by the topic `requests`. Each message carries the request's whole current state."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from keshi.schemas.base import Code, Count, Digest, Language, Model, Moment, Name, RequestId
from keshi.schemas.closure import ClosureRecord
from keshi.schemas.commands import Action
from keshi.schemas.outcomes import CategoryOutcome, Verdict


class RequestStatus(StrEnum):
    """Where a request stands."""

    WAITING = "waiting"
    OPEN = "open"
    CLOSED = "closed"


class TaskStatus(StrEnum):
    """Where one task stands.

    `waiting` for another system; `open` with a worker; `scheduled` for its next attempt; `held` for a
    person; `ended` with its outcomes.
    """

    WAITING = "waiting"
    OPEN = "open"
    SCHEDULED = "scheduled"
    HELD = "held"
    ENDED = "ended"


class TaskState(Model):
    """One task as the sender and compliance may see it."""

    system: Name
    status: TaskStatus
    attempt: Count
    reason: Code | None = None
    next_at: Moment | None = None
    late: Literal[True] | None = None
    left: Annotated[tuple[Name, ...], Field(description="Categories that are known not to be done.")] | None = None
    outcomes: tuple[CategoryOutcome, ...] = ()


class RequestState(Model):
    """A request as the sender and compliance may see it. A higher `sequence` contains what a lower one said."""

    request_id: RequestId
    sequence: Count
    status: RequestStatus
    action: Action
    withdrawn: bool = False
    superseded_by: Annotated[
        RequestId | None, Field(description="The later erasure of the same person that took the place of this request.")
    ] = None
    waits_for: RequestId | None = None
    arrived_at: Moment
    accepted_at: Moment
    due_at: Moment
    overdue: bool = False
    closed_at: Moment | None = None
    notice_language: Language
    verdict: Verdict | None = None
    closure_hash: Digest | None = None
    tasks: tuple[TaskState, ...]


class RequestAccepted(Model):
    state: RequestState


class RequestClosed(Model):
    state: RequestState
    closure: ClosureRecord


class RequestOverdue(Model):
    state: RequestState


class Coordinates(Model):
    """Where on Kafka a message stood. All that is said of a message that could not be read."""

    topic: Literal["commands", "reports"]
    partition: Count
    offset: Count


class RejectionCode(StrEnum):
    """Why a command was refused. Stable: senders may compare them."""

    TYPE_UNKNOWN = "type_unknown"
    FIELD_MISSING = "field_missing"
    FIELD_UNKNOWN = "field_unknown"
    FIELD_INVALID = "field_invalid"
    TEXT_INVALID = "text_invalid"
    NUMBER_TOO_LARGE = "number_too_large"
    IDENTIFIER_INVALID = "identifier_invalid"
    IDENTIFIER_IN_REFERENCE = "identifier_in_reference"
    GROUND_UNKNOWN = "ground_unknown"
    GROUND_NOT_FOR_ACTION = "ground_not_for_action"
    CATEGORY_UNKNOWN = "category_unknown"
    PURPOSE_UNKNOWN = "purpose_unknown"
    SCOPE_NOT_SUPPORTED = "scope_not_supported"
    ACTION_NOT_POSSIBLE = "action_not_possible"
    NOTHING_SEARCHABLE = "nothing_searchable"
    REQUEST_ID_CONFLICT = "request_id_conflict"
    REQUEST_UNKNOWN = "request_unknown"
    ALREADY_CLOSED = "already_closed"
    SIGNATURE_INVALID = "signature_invalid"
    DECISION_NOT_APPLICABLE = "decision_not_applicable"


class RequestRejected(Model):
    """A command was not accepted. It changed nothing; an earlier request of this id goes on as it was."""

    request_id: RequestId
    code: RejectionCode
    field: Annotated[str, Field(max_length=200)] | None = None
    detail: Annotated[str, Field(max_length=500)]
    command: Coordinates


class Quarantined(Model):
    """What could not be read. The payload stays sealed in the ledger."""

    reason: Code
    field: Annotated[str, Field(max_length=200)] | None = None
    size: Count
    message: Coordinates
    at: Moment


EVENTS: dict[str, type[Model]] = {
    f"keshi.{m.__name__}.v1": m for m in (RequestAccepted, RequestRejected, RequestClosed, RequestOverdue, Quarantined)
}
