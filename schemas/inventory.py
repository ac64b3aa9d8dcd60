"""All systems that hold personal data, and the plan that a command makes of them."""

from enum import StrEnum
from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from keshi.schemas.base import Code, Count, Country, Digest, Model, Name, RequestId, RuleId
from keshi.schemas.commands import Action, Scope
from keshi.schemas.identifiers import IdentifierType
from keshi.schemas.outcomes import CategoryOutcome
from keshi.schemas.tasks import RetentionRule


class Role(StrEnum):
    """What the holder of a system is to the company (APPI 27(5), 28)."""

    OWN = "own"
    PROCESSOR = "processor"
    JOINT_USER = "joint_user"
    THIRD_PARTY = "third_party"
    RECIPIENT_ABROAD = "recipient_abroad"


THIRD_PARTIES: Final = frozenset({Role.THIRD_PARTY, Role.RECIPIENT_ABROAD})
"""Who is given data by a provision that can be asked to stop (APPI 27, 28, 35(3)); the others are no third parties."""


class Retention(Model):
    """A statutory period, counted from the day on which the record was made."""

    ground: RuleId
    years: Annotated[int, Field(ge=1, le=100)]


class Holder(Model):
    """Who holds data, as far as the law asks (APPI 27(5), 28)."""

    role: Role
    country: Country
    basis: Annotated[str, Field(min_length=1, max_length=500)] | None = None

    @model_validator(mode="after")
    def _based(self) -> Self:
        if self.role is Role.RECIPIENT_ABROAD and not self.basis:
            raise ValueError("a recipient abroad needs its basis (APPI 28)")
        return self


class Category(Model):
    """One kind of data in one system; or what one affiliate holds, and then with a holder of its own."""

    name: Name
    title: Annotated[str, Field(min_length=1, max_length=200)]
    holder: Holder | None = None
    purposes: Annotated[tuple[Name, ...], Field(max_length=100)] = ()
    retention: tuple[Retention, ...] = ()


class ExpectedResidue(Model):
    """What the system keeps after "deleted", known beforehand."""

    place: Code
    reason: Code
    days: Annotated[int, Field(ge=1, le=36_500)]


class System(Model):
    """One place that holds personal data.

    `provides_to_third_parties: false` declares that nothing of it is given to third parties, so that there is no
    provision to stop. Without a word it counts as one that may be giving.
    """

    name: Name
    title: Annotated[str, Field(min_length=1, max_length=200)]
    owner: Annotated[str, Field(min_length=1, max_length=200)]
    role: Role
    country: Country
    basis: Annotated[str, Field(min_length=1, max_length=500)] | None = None
    actions: Annotated[tuple[Action, ...], Field(max_length=4)]
    identifiers: Annotated[tuple[IdentifierType, ...], Field(min_length=1, max_length=50)]
    provides_to_third_parties: Literal[True, False] | None = None
    learns: Annotated[tuple[IdentifierType, ...], Field(max_length=50)] = ()
    after: Annotated[tuple[Name, ...], Field(max_length=100)] = ()
    record_limit: Annotated[int, Field(ge=1, le=20_000)] = 1000
    categories: Annotated[tuple[Category, ...], Field(min_length=1, max_length=200)]
    residue: tuple[ExpectedResidue, ...] = ()

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.role is Role.RECIPIENT_ABROAD and not self.basis:
            raise ValueError("a recipient abroad needs its basis (APPI 28)")
        names = [c.name for c in self.categories]
        if len(set(names)) != len(names):
            raise ValueError("a category is named twice")
        return self


class Inventory(Model):
    """`inventory.yaml`."""

    version: Annotated[int, Field(ge=1, le=1)]
    company: Annotated[str, Field(min_length=1, max_length=200)]
    systems: Annotated[tuple[System, ...], Field(min_length=1, max_length=500)]

    def system(self, name: str) -> System:
        """The system of that name; KeyError where there is none."""
        for system in self.systems:
            if system.name == name:
                return system
        raise KeyError(name)


class PlannedTask(Model):
    """What one system has to do, or why it is left out (`known`: its outcomes, decided by the plan)."""

    system: Name
    categories: tuple[Name, ...] = ()
    identifiers: tuple[IdentifierType, ...] = ()
    identify: bool = False
    learns: tuple[IdentifierType, ...] = ()
    after: tuple[Name, ...] = ()
    record_limit: Count = 0
    retention: tuple[RetentionRule, ...] = ()
    residue: tuple[ExpectedResidue, ...] = ()
    known: tuple[CategoryOutcome, ...] = ()

    @property
    def included(self) -> bool:
        """Whether a worker has to do something here, be it only to find identifiers for others."""
        return bool(self.categories) or self.identify


class Plan(Model):
    """The tasks of a request: a pure function of command and inventory. Every system is in it."""

    inventory: Digest
    action: Action
    scope: Scope
    tasks: Annotated[tuple[PlannedTask, ...], Field(min_length=1)]

    def task(self, system: str) -> PlannedTask:
        """The planned task of a system; KeyError where the system is unknown."""
        for task in self.tasks:
            if task.system == system:
                return task
        raise KeyError(system)


class PlanOf(Model):
    """A plan with the request it was made for (in answers of the API)."""

    request_id: RequestId
    plan: Plan
