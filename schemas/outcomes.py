"""How a task ends, per data category, and what that makes of the request: the published verdict table."""

from collections.abc import Iterable
from datetime import date
from enum import StrEnum
from typing import Annotated, Final, Self

from pydantic import Field, model_validator

from keshi.schemas.base import Code, Count, Model, Name, RuleId


class Outcome(StrEnum):
    """How one data category (or one affiliate) of one system ended."""

    ERASED = "erased"
    ANONYMISED = "anonymised"
    SUSPENDED = "suspended"
    RESUMED = "resumed"
    PROVISION_STOPPED = "provision_stopped"
    NOT_FOUND = "not_found"
    NOT_SEARCHABLE = "not_searchable"
    RETAINED_BY_LAW = "retained_by_law"
    ALTERNATIVE_MEASURE = "alternative_measure"
    REFUSED = "refused"
    IMPOSSIBLE = "impossible"
    NOT_STARTED = "not_started"
    OUT_OF_SCOPE = "out_of_scope"


class DecidedBy(StrEnum):
    """Whose word an outcome is."""

    WORKER = "worker"
    PERSON = "person"
    PLAN = "plan"
    WITHDRAWAL = "withdrawal"
    SUPERSESSION = "supersession"


class Verdict(StrEnum):
    """What a closed request amounts to. There is no "failed": what failed stays open."""

    FULFILLED = "fulfilled"
    FULFILLED_WITH_EXCEPTIONS = "fulfilled_with_exceptions"
    FULFILLED_WITHIN_SCOPE = "fulfilled_within_scope"
    NO_DATA_HELD = "no_data_held"
    REFUSED = "refused"
    WITHDRAWN = "withdrawn"
    SUPERSEDED = "superseded"


DONE = frozenset({Outcome.ERASED, Outcome.ANONYMISED, Outcome.SUSPENDED, Outcome.RESUMED, Outcome.PROVISION_STOPPED})
"""Outcomes in which something was changed as asked for."""

UNTOUCHED = frozenset(
    {
        Outcome.NOT_STARTED,
        Outcome.NOT_FOUND,
        Outcome.NOT_SEARCHABLE,
        Outcome.IMPOSSIBLE,
        Outcome.REFUSED,
    }
)
"""Outcomes in which nothing was changed."""

NOT_PROVIDED: Final = "not_provided_to_third_parties"
"""Reason of an `out_of_scope` that leaves out nothing of what was asked for: no provision is there to be stopped."""

_NEEDS_GROUND = frozenset({Outcome.RETAINED_BY_LAW, Outcome.REFUSED})
_NEEDS_REASON = frozenset({Outcome.IMPOSSIBLE, Outcome.ALTERNATIVE_MEASURE, Outcome.OUT_OF_SCOPE, Outcome.NOT_STARTED})


class Residue(Model):
    """What a system still holds after "deleted" and the handler cannot reach."""

    place: Code
    reason: Code
    until: date | None = None


class CategoryOutcome(Model):
    """One outcome of one category: how many records, and on which ground where it isn't plainly done."""

    category: Name
    outcome: Outcome
    count: Count = 0
    decided_by: DecidedBy = DecidedBy.WORKER
    ground: RuleId | None = None
    until: date | None = None
    reason: Code | None = None
    items: Annotated[tuple[Count, ...], Field(max_length=100_000)] | None = Field(
        default=None,
        description="Places in the sorted union of manifests; absent where all of the category ended alike.",
    )

    @model_validator(mode="after")
    def _backed(self) -> Self:
        if self.outcome in _NEEDS_GROUND and not self.ground:
            raise ValueError(f"{self.outcome} needs a ground")
        if self.outcome is Outcome.RETAINED_BY_LAW and not self.until:
            raise ValueError("retained_by_law needs the date until which the law asks for it")
        if self.outcome in _NEEDS_REASON and not self.reason:
            raise ValueError(f"{self.outcome} needs a reason")
        return self


def verdict(outcomes: Iterable[CategoryOutcome], *, narrowed: bool, residue: bool = False) -> Verdict:
    """The verdict of a request.

    Args:
        outcomes: Every outcome of every system of the plan. An empty iterable is a defect of the caller.
        narrowed: The command asked for less than everything.
        residue: Some system still holds what its handler cannot reach.
    """
    outcomes = tuple(outcomes)
    found = {o.outcome for o in outcomes}
    if not found:
        raise ValueError("a request without outcomes cannot be judged")
    in_scope = found - {Outcome.OUT_OF_SCOPE}
    if in_scope == {Outcome.REFUSED}:
        return Verdict.REFUSED
    if Outcome.NOT_STARTED in found and in_scope <= UNTOUCHED:
        superseded = any(o.decided_by is DecidedBy.SUPERSESSION for o in outcomes)
        return Verdict.SUPERSEDED if superseded else Verdict.WITHDRAWN
    # Who provides nothing was not searched, and may hold much.
    if in_scope == {Outcome.NOT_FOUND} and all(o.reason != NOT_PROVIDED for o in outcomes):
        return Verdict.NO_DATA_HELD
    plainly = DONE | {Outcome.NOT_FOUND}
    if not in_scope or not in_scope <= plainly or residue:
        return Verdict.FULFILLED_WITH_EXCEPTIONS
    left_out = any(o.outcome is Outcome.OUT_OF_SCOPE and o.reason != NOT_PROVIDED for o in outcomes)
    if narrowed or left_out:
        return Verdict.FULFILLED_WITHIN_SCOPE
    return Verdict.FULFILLED
