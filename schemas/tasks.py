"""What goes to a handler (`tasks.<system>`), and the two calls of a worker (`unwrap`, `begin`)."""

from datetime import date
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from keshi.schemas.base import (
    Code,
    Count,
    Digest,
    Model,
    Moment,
    Name,
    RecordReference,
    RequestId,
    RuleId,
    Sealed,
    Traceparent,
)
from keshi.schemas.commands import Action, Regime
from keshi.schemas.identifiers import Identifier, IdentifierType

MAX_TASKS = 200
"""Tasks in one `PerformTasks`."""
MAX_LIST_BYTES = 262_144
"""Size of one `PerformTasks`, always below the broker's limit."""
MAX_MANIFEST = 20_000
"""Records of one task in one system. More is a defect or a disaster: a person looks at it."""

Attempt = Annotated[int, Field(ge=1, le=1000)]
BeginId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


class Mode(StrEnum):
    """What an attempt may do.

    `act` changes the system after a go. `check` finds and verifies over the union and never acts.
    `identify` only finds identifiers that other systems need.
    """

    ACT = "act"
    CHECK = "check"
    IDENTIFY = "identify"


class RetentionRule(Model):
    """What law makes a system keep of one category."""

    category: Name
    ground: RuleId
    years: Annotated[int, Field(ge=1, le=100)]


class Task(Model):
    """One attempt at one action in one system. Identifiers are sealed for that system alone."""

    request_id: RequestId
    system: Name
    action: Action
    mode: Mode = Mode.ACT
    attempt: Attempt
    categories: tuple[Name, ...]
    retention: tuple[RetentionRule, ...] = ()
    sealed: Annotated[tuple[Sealed, ...], Field(min_length=1, max_length=20)]
    as_of: date = Field(description="The day on which retention periods are judged.")
    arrived_at: Moment | None = Field(default=None, description="When the request reached the company.")
    regime: Regime | None = None
    traceparent: Traceparent | None = None


class PerformTasks(Model):
    """A list of tasks of different requests, all of one partition and one system."""

    system: Name
    partition: Count
    tasks: Annotated[tuple[Task, ...], Field(min_length=1, max_length=MAX_TASKS)]


class TaskRef(Model):
    """Names one attempt."""

    request_id: RequestId
    system: Name
    attempt: Attempt


# --- POST /v1/tasks:unwrap


class UnwrapRequest(Model):
    tasks: Annotated[tuple[TaskRef, ...], Field(min_length=1, max_length=MAX_TASKS)]


class Found(Model):
    """One record that a handler located. `was` is its state before anything was done to it."""

    category: Name
    ref: RecordReference
    was: Literal["active", "suspended"] = "active"

    def __repr__(self) -> str:
        return f"Found({self.category}:…)"

    __str__ = __repr__


class Unwrapped(Model):
    """The identifiers of one open task, or why there are none.

    `remembered` lists, for `resume_use`, what earlier requests suspended in this system. `items` are the records
    (`category:reference`) that the request is about; absent where it is about all.
    """

    request_id: RequestId
    system: Name
    attempt: Attempt
    open: bool
    reason: Code | None = None
    identifiers: tuple[Identifier, ...] = ()
    items: tuple[str, ...] | None = None
    remembered: tuple[Found, ...] = ()


class UnwrapResponse(Model):
    tasks: tuple[Unwrapped, ...]


# --- POST /v1/tasks:begin


class Begin(Model):
    """A worker's evidence and its question: may I act?

    The same `begin_id` gets the same answer, and renews the lease while the worker acts.
    """

    request_id: RequestId
    system: Name
    attempt: Attempt
    begin_id: BeginId
    mode: Mode = Mode.ACT
    manifest: Annotated[tuple[Found, ...], Field(max_length=MAX_MANIFEST)] = ()
    searched: Annotated[tuple[IdentifierType, ...], Field(max_length=50)] = ()
    learned: Annotated[tuple[Identifier, ...], Field(max_length=50)] = ()


class BeginRequest(Model):
    tasks: Annotated[tuple[Begin, ...], Field(min_length=1, max_length=MAX_TASKS)]


class Go(Model):
    """The lease: act on, and verify, the whole `union` within `seconds` from before the call."""

    answer: Literal["go"] = "go"
    request_id: RequestId
    system: Name
    lease_id: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    secret: Digest
    seconds: Annotated[float, Field(gt=0, le=3600)]
    union: tuple[Found, ...]
    digest: Digest


class Wait(Model):
    answer: Literal["wait"] = "wait"
    request_id: RequestId
    system: Name
    reason: Code
    seconds: Annotated[float, Field(ge=0, le=86_400)]
    until: Moment


class Stop(Model):
    answer: Literal["stop"] = "stop"
    request_id: RequestId
    system: Name
    reason: Code


Answer = Annotated[Go | Wait | Stop, Field(discriminator="answer")]


class BeginResponse(Model):
    tasks: tuple[Answer, ...]


class StopReason(StrEnum):
    """Why a worker gets no go. The ones in `HOLDS` are to be reported, so that a person is asked."""

    UNKNOWN = "unknown"
    CLOSED = "closed"
    WITHDRAWN = "withdrawn"
    SUPERSEDED = "superseded"
    HELD = "held"
    NOT_OPEN = "not_open"
    OTHER_ATTEMPT = "other_attempt"
    OTHER_MODE = "other_mode"
    OVER_LIMIT = "over_limit"
    ACTS_SPENT = "acts_spent"


HOLDS = frozenset({StopReason.OVER_LIMIT, StopReason.ACTS_SPENT})
