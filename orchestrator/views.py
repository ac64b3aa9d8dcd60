"""What readers may see: the forms of the answers. None holds an identifier."""

from datetime import date
from typing import Annotated, Literal

from pydantic import Field

from keshi.schemas.base import Code, Count, Digest, Model, Moment, Name, Reference, RequestId, RuleId
from keshi.schemas.closure import ClosureRecord
from keshi.schemas.commands import Decision, Regime, Requester
from keshi.schemas.outcomes import CategoryOutcome
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


class Matched(CategoryOutcome):
    """An outcome of a request that was asked for by outcome, ground or system."""

    system: Name


class RequestSummary(Model):
    """A line of the list. `number` counts acceptances; `matched` are the outcomes that were asked for."""

    number: Count
    state: RequestState
    matched: tuple[Matched, ...] = ()


class RequestPage(Model):
    """Some of the requests that were asked for. `next` is the `cursor` of the next page; absent on the last one.

    A page may hold fewer than its limit, or none, and still have a next one: one call looks at so much and no more.
    """

    requests: tuple[RequestSummary, ...]
    next: str | None = None


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


class ExportNote(Model):
    """The body of `POST /v1/exports`: what was written, once it is whole. `sha256` is of the file."""

    purpose: Reference
    form: Literal["jsonl", "csv"]
    filters: Annotated[str, Field(max_length=4000, description="What was asked for; of identifiers only how many.")]
    requests: Count
    lines: Count
    sha256: Digest


class ExportView(ExportNote):
    """An export on record: by whom and when."""

    number: Count
    at: Moment
    person: Reference


class ExportPage(Model):
    """Exports, the latest first. `next` is the `before` of the next page."""

    exports: tuple[ExportView, ...]
    next: Count | None = None


class ChainView(Model):
    """The end of one partition's chain of records: how many there are, and the hash of the last one."""

    partition: Count
    number: Count
    head: Digest


class ChainPage(Model):
    """All chains."""

    chains: tuple[ChainView, ...]


class LaneView(Model):
    """One partition of `commands` or `reports`: who owns it (`epoch`), where it stands, and what waits in it."""

    stage: Literal["commands", "reports"]
    partition: Count
    epoch: Count
    next: Count
    topic_id: str | None = None
    inbox: Count
    outbox: Count
    next_due: Moment | None = None
    late: bool = False


class LanePage(Model):
    """All lanes. `late`: the earliest due moment of a lane has passed by more than a minute."""

    as_of: Moment
    lanes: tuple[LaneView, ...]


class QuarantineView(Model):
    """A message that could not be taken: where it stood and why. What lies in it stays sealed."""

    number: Count
    stage: Literal["commands", "reports"]
    partition: Count
    offset: Count
    reason: Code
    field: str | None = None
    size: Count
    at: Moment


class QuarantinePage(Model):
    """Messages in quarantine, the latest first. `next` is the `before` of the next page."""

    messages: tuple[QuarantineView, ...]
    next: Count | None = None


class Exported(Model):
    """One request with its closure record as it was sealed, if it is closed."""

    number: Count
    request: RequestState
    regime: Regime
    ground: RuleId
    requested_by: Requester
    notified_at: Moment | None
    closure: ClosureRecord | None


class ExportedPage(Model):
    """Some of the requests that were asked for; see `RequestPage`."""

    requests: tuple[Exported, ...]
    next: str | None
