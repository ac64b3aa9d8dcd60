"""What comes by the topic `commands`."""

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from keshi.schemas.base import (
    Digest,
    FreeText,
    Language,
    Model,
    Moment,
    Name,
    Reference,
    RequestId,
    RuleId,
    Sealed,
)
from keshi.schemas.identifiers import Identifier


class Action(StrEnum):
    """What is asked for. 消去, 利用停止, its lifting, 第三者提供の停止."""

    ERASE = "erase"
    SUSPEND_USE = "suspend_use"
    RESUME_USE = "resume_use"
    STOP_PROVISION = "stop_provision"


class Regime(StrEnum):
    """The body of rules that a request rests on."""

    APPI = "appi"
    GDPR = "gdpr"
    CCPA = "ccpa"
    CONTRACT = "contract"
    OWN = "own"


ItemReference = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,62}:[A-Za-z0-9._-]{1,80}$")]


class Scope(Model):
    """How far a request reaches. What is left empty is not narrowed; what is named narrows together.

    `items` are records, `category:reference` as the system names them. Past intake a reference stands only as a keyed
    hash, since it may itself be an identifier.
    """

    categories: Annotated[tuple[Name, ...], Field(min_length=1, max_length=100)] | None = None
    purposes: Annotated[tuple[Name, ...], Field(min_length=1, max_length=100)] | None = None
    items: Annotated[tuple[ItemReference, ...], Field(min_length=1, max_length=1000)] | None = None

    @property
    def narrowed(self) -> bool:
        """Whether the request asks for less than everything."""
        return bool(self.categories or self.purposes or self.items)


class Requester(Model):
    """Who asked. Evidence is named by reference, never included."""

    kind: Literal["person", "legal_representative", "agent", "retention_sweep"]
    identity_evidence: Annotated[tuple[Reference, ...], Field(max_length=20)] = ()
    mandate_evidence: Annotated[tuple[Reference, ...], Field(max_length=20)] = ()

    @model_validator(mode="after")
    def _mandated(self) -> Self:
        if self.kind in {"legal_representative", "agent"} and not self.mandate_evidence:
            raise ValueError("somebody who asks for another needs mandate_evidence")
        return self


class Assessment(Model):
    """Who judged that the request is to be carried out, and when."""

    by: Reference
    at: Moment


class Arrival(Model):
    """Where and when the request reached the company. Legal clocks run from here."""

    at: Moment
    channel: Reference


class SubjectCommand(Model):
    """Common to the four commands that name a person."""

    request_id: RequestId
    identifiers: Annotated[tuple[Identifier, ...], Field(min_length=1, max_length=50)]
    scope: Scope = Scope()
    regime: Regime
    ground: RuleId
    requested_by: Requester
    assessed: Assessment
    arrived: Arrival
    due: Moment | None = None
    notice_language: Language = "ja"


class EraseSubject(SubjectCommand):
    """Erase the person's data."""


class SuspendUse(SubjectCommand):
    """Stop using the person's data, without erasing it."""


class ResumeUse(SubjectCommand):
    """Lift what an earlier `SuspendUse` suspended, and nothing else."""


class StopProvision(SubjectCommand):
    """Stop giving the person's data to third parties."""


class WithdrawRequest(Model):
    """The person takes the request back. What has not begun will not begin."""

    request_id: RequestId


class RecordNotice(Model):
    """The DSAR system has told the person the result (APPI 35(7), GDPR 12(3))."""

    request_id: RequestId
    notified_at: Moment
    notice: Reference


class Decision(StrEnum):
    """What a person can decide about a held task."""

    APPROVE = "approve"
    REFUSE = "refuse"
    RETRY = "retry"


class DecideTask(Model):
    """A person's decision, produced and signed by keshi's API and by nobody else."""

    request_id: RequestId
    system: Name
    decision: Decision
    person: Reference
    reason: Sealed
    ground: RuleId | None = None
    attempt: Annotated[int, Field(ge=1)]
    manifest_digest: Digest | None = None
    decided_at: Moment
    signature: Digest

    @model_validator(mode="after")
    def _grounded(self) -> Self:
        if self.decision is Decision.REFUSE and not self.ground:
            raise ValueError("a refusal needs a ground")
        return self


class DecisionRequest(Model):
    """Body of `POST /v1/requests/{id}/decisions`."""

    system: Name
    decision: Decision
    reason: FreeText
    ground: RuleId | None = None

    @model_validator(mode="after")
    def _grounded(self) -> Self:
        if self.decision is Decision.REFUSE and not self.ground:
            raise ValueError("a refusal needs a ground")
        return self


ACTIONS: dict[type[SubjectCommand], Action] = {
    EraseSubject: Action.ERASE,
    SuspendUse: Action.SUSPEND_USE,
    ResumeUse: Action.RESUME_USE,
    StopProvision: Action.STOP_PROVISION,
}

_MODELS: tuple[type[Model], ...] = (*ACTIONS, WithdrawRequest, RecordNotice, DecideTask)

COMMANDS: dict[str, type[Model]] = {f"keshi.{model.__name__}.v1": model for model in _MODELS}
"""CloudEvents type → model, for every version that can still be read."""
