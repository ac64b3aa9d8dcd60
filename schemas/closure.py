"""The closure record: the sealed account of a request, for compliance, an authority or a court."""

import hashlib
from datetime import date
from typing import Annotated, Literal

from pydantic import Field

from keshi.schemas.base import (
    Code,
    Count,
    Digest,
    Model,
    Moment,
    Name,
    Reference,
    RequestId,
    RuleId,
    Sealed,
    canonical,
    canonical_object,
    changed,
    sha256,
)
from keshi.schemas.commands import Action, Arrival, Assessment, Decision, Regime, Requester, Scope
from keshi.schemas.identifiers import IdentifierType
from keshi.schemas.inventory import Plan
from keshi.schemas.outcomes import CategoryOutcome, Outcome, Residue, Verdict
from keshi.schemas.reports import HandlerVersion
from keshi.schemas.writing import canonical_members


class Clocks(Model):
    """The four times that the law asks about."""

    arrived: Moment
    accepted: Moment
    due: Moment
    closed: Moment


class Located(Model):
    """What all attempts together found, by category; `commitment` is keyed and over the whole union."""

    counts: dict[Name, Count]
    commitment: Digest | None = None


class AttemptRecord(Model):
    """One try at one task."""

    attempt: Count
    mode: Code
    started: Moment
    ended: Moment | None = None
    error: Code | None = None
    acts_entered: Count = 0


class DecisionRecord(Model):
    """What a person decided. The reason is sealed; the API opens it for readers."""

    decision: Decision
    person: Reference
    at: Moment
    ground: RuleId | None = None
    reason: Sealed
    manifest_digest: Digest | None = None


class SystemRecord(Model):
    """What happened in one system."""

    system: Name
    outcomes: Annotated[tuple[CategoryOutcome, ...], Field(min_length=1)]
    located: Located
    searched: tuple[IdentifierType, ...] = ()
    checked_at: Moment | None = None
    handler: HandlerVersion | None = None
    residue: tuple[Residue, ...] = ()
    attempts: tuple[AttemptRecord, ...] = ()
    decisions: tuple[DecisionRecord, ...] = ()


class ObligationRecord(Model):
    """What is left to do after the closure. Each has its own number, key and next moment."""

    obligation_id: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    kind: Literal["retention", "suspension", "residue"]
    system: Name
    category: Name
    count: Count
    ground: RuleId | None = None
    until: date | None = None


class ClosureRecord(Model):
    """One request, one record. `hash` is over the canonical JSON (RFC 8785) of all the rest."""

    version: Literal[1] = 1
    request_id: RequestId
    action: Action
    scope: Scope
    regime: Regime
    ground: RuleId
    requested_by: Requester
    assessed: Assessment
    arrival: Arrival
    subject: Annotated[tuple[Digest, ...], Field(description="Keyed hashes of the identifiers.")]
    clocks: Clocks
    withdrawn: bool
    superseded_by: Annotated[
        RequestId | None, Field(description="The later erasure of the same person that took the place of this request.")
    ] = None
    plan: Plan
    plan_hash: Digest
    systems: Annotated[tuple[SystemRecord, ...], Field(min_length=1)]
    obligations: tuple[ObligationRecord, ...] = ()
    own_residue: Annotated[
        tuple[Residue, ...], Field(description="What keshi itself still holds, sealed or in the clear, and until when.")
    ] = ()
    verdict: Verdict
    partition: Count
    number: Annotated[int, Field(ge=1, description="Place in the partition's chain, from 1.")]
    previous: Digest
    hash: Digest

    def done(self) -> dict[Outcome, int]:
        """Records by outcome, over all systems."""
        total: dict[Outcome, int] = {}
        for system in self.systems:
            for outcome in system.outcomes:
                total[outcome.outcome] = total.get(outcome.outcome, 0) + outcome.count
        return total


GENESIS = "0" * 64
"""The `previous` of the first record of a chain."""


def record_hash(record: ClosureRecord) -> str:
    """SHA-256 over the canonical JSON of the record without its `hash`.

    Absent fields are absent here as they are on Kafka and in the ledger: a verifier hashes the JSON that it was given.
    """
    return sha256(record.model_dump(mode="json", exclude={"hash"}, exclude_none=True))


def sealed(record: ClosureRecord, plan: bytes) -> tuple[ClosureRecord, str]:
    """The record with its hash, and its canonical JSON.

    Args:
        record: Its hash is not looked at.
        plan: The canonical JSON of its plan: many records have the same.
    """
    members = canonical_members(record, without=("hash", "plan")) | {"plan": plan}
    digest = hashlib.sha256(canonical_object(members)).hexdigest()
    text = canonical_object({**members, "hash": canonical(digest)})
    return changed(record, {"hash": digest}), text.decode()
