"""The thirty commands of the demo: what is sent about whom, what it should come to, and what must then be true."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from ulid import ULID

from keshi.dev.errors import DevError
from keshi.dev.systems.look import Expectation
from keshi.dev.systems.people import Person, Trait
from keshi.runtime.kafka import partition_of
from keshi.schemas.commands import COMMANDS
from keshi.schemas.envelope import wrap
from keshi.schemas.outcomes import Verdict
from keshi.schemas.requests import RejectionCode

SOURCE = "urn:keshi:demo"
_ALL = ("email", "phone", "customer_id")
_BOTH = (Trait.BILLING, Trait.CRM)
_PLAIN = (*_BOTH, Trait.RETAINED)
_ODD = frozenset({Trait.DUPLICATES, Trait.HIDDEN_DUPLICATE, Trait.MANUAL, Trait.OTHER_CASE})
_EVIDENCE = {"identity_evidence": ["dsar:id-check-1"]}


@dataclass(frozen=True)
class Step:
    """One message.

    Attributes:
        title: what it is, for people; names nobody.
        kind: the command.
        data: its content.
        verdict: of the request it opens; None where it opens none.
        rejected: the code it is refused with; None where it is not.
        repeats: an identical command came before.
        early: answered while a worker is held up, and what this one waits for with it.
        later: sent when all that was sent first is closed.
        lane: messages of one lane keep their order; by default each request has its own.
    """

    title: str
    kind: str
    data: Mapping[str, Any] = field(repr=False)  # holds identifiers
    verdict: Verdict | None = None
    rejected: RejectionCode | None = None
    repeats: bool = False
    early: bool = False
    later: bool = False
    lane: str = ""

    @property
    def request_id(self) -> str:
        return str(self.data["request_id"])

    @property
    def key(self) -> bytes:
        """What keeps messages of one lane in one partition of `commands`."""
        return (self.lane or self.request_id).encode()

    def message(self) -> bytes:
        """The CloudEvent as it goes to Kafka."""
        command = COMMANDS[f"keshi.{self.kind}.v1"].model_validate(self.data, strict=False)
        return wrap(command, kind=self.kind, id=_new_id(), source=SOURCE)


@dataclass
class Script:
    """All steps, and what must be true of whom in the end."""

    partitions: int
    steps: list[Step] = field(default_factory=list)
    expectations: list[tuple[Person, Expectation]] = field(default_factory=list)
    scopes: dict[int, tuple[str, ...]] = field(default_factory=dict)
    """By number of a person, the only categories that the expectation is about."""

    def add(
        self,
        step: Step,
        person: Person | None = None,
        becomes: Expectation | None = None,
        only: tuple[str, ...] | None = None,
    ) -> Step:
        self.steps.append(step)
        if person is not None and becomes is not None:
            self.expectations.append((person, becomes))
            if only is not None:
                self.scopes[person.number] = only
        return step

    def beside(self, request_id: str) -> str:
        """A new id in the same partition as another."""
        wanted = partition_of(request_id, self.partitions)
        return next(new for new in iter(_new_id, "") if partition_of(new, self.partitions) == wanted)


def _new_id() -> str:
    return str(ULID())


class _Cast:
    """Hands out people by what is special about them, each at most once."""

    def __init__(self, people: Sequence[Person]) -> None:
        self._left = list(people)

    def pick(self, *traits: Trait, without: Iterable[Trait] = ()) -> Person:
        """The next one with these traits, and without those."""
        wanted, unwanted = frozenset(traits), frozenset(without)
        for person in self._left:
            if wanted <= person.traits and not unwanted & person.traits:
                self._left.remove(person)
                return person
        raise DevError("too few sample people for the demo: it needs 40 of them")


def script(people: Sequence[Person], partitions: int) -> Script:
    """The demo over these people.

    Args:
        people: at least 40.
        partitions: of the topics. Requests of one partition are accepted in the order in which they came.
    """
    made, cast, at = Script(partitions), _Cast(people), datetime.now(UTC)
    _erasures(made, cast, at)
    _special_erasures(made, cast, at)
    _suspensions(made, cast, at)
    _withdrawals(made, cast, at)
    _superseded(made, cast, at)
    _answers_without_effect(made, cast, at)
    return made


def _erasures(made: Script, cast: _Cast, at: datetime) -> None:
    """Each kind of person once."""
    done, kept = Verdict.FULFILLED, Verdict.FULFILLED_WITH_EXCEPTIONS
    hidden, mail = Trait.HIDDEN_DUPLICATE, ("email",)
    one, other = {Trait.BILLING}, {Trait.CRM}
    rows = (
        (
            "old invoices only, two duplicates",
            cast.pick(*_BOTH, Trait.DUPLICATES, without={Trait.RETAINED}),
            mail,
            done,
        ),
        ("invoices that the law keeps", cast.pick(*_PLAIN, Trait.AGED, without=_ODD), _ALL, kept),
        ("only in the CRM, two duplicates", cast.pick(Trait.CRM, Trait.DUPLICATES, without=one), mail, done),
        ("only in billing", cast.pick(Trait.BILLING, Trait.AGED, without=other), ("email", "phone"), done),
        ("a hidden duplicate", cast.pick(*_PLAIN, hidden), ("phone",), kept),
        ("only in the CRM, a hidden duplicate", cast.pick(hidden, without=one), ("email", "phone"), done),
        ("some of it suspended by hand", cast.pick(*_PLAIN, Trait.MANUAL), ("customer_id",), kept),
        ("the address is in other case", cast.pick(*_PLAIN, Trait.OTHER_CASE), mail, kept),
    )
    for title, person, types, verdict in rows:
        step = Step(f"erase: {title}", "EraseSubject", _command(person, at, types), verdict)
        made.add(step, person, Expectation.ERASE)


def _special_erasures(made: Script, cast: _Cast, at: datetime) -> None:
    """By other grounds, for others, in part, and for nobody."""
    kept = Verdict.FULFILLED_WITH_EXCEPTIONS
    variants: tuple[tuple[str, dict[str, Any]], ...] = (
        ("erase: retention sweep", {"ground": "appi.22", "requested_by": {"kind": "retention_sweep"}}),
        (
            "erase: GDPR, by a legal representative",
            {
                "regime": "gdpr",
                "ground": "gdpr.17",
                "requested_by": {
                    "kind": "legal_representative",
                    "mandate_evidence": ["dsar:mandate-7"],
                    **_EVIDENCE,
                },
            },
        ),
    )
    for title, change in variants:
        person = cast.pick(*_PLAIN, without=_ODD)
        made.add(Step(title, "EraseSubject", _command(person, at, **change), kept), person, Expectation.ERASE)
    for categories in (("usage",), ("cards", "activities")):
        person = cast.pick(*_PLAIN, Trait.DUPLICATES) if "cards" in categories else cast.pick(*_PLAIN, without=_ODD)
        data = _command(person, at, scope={"categories": list(categories)})
        step = Step(f"erase: {' and '.join(categories)} only", "EraseSubject", data, Verdict.FULFILLED_WITHIN_SCOPE)
        made.add(step, person, Expectation.ERASE, categories)
    nobody = {"email": "nobody.here@stranger.example", "phone": "+819009999999"}
    stranger = _data([{"type": kind, "value": value} for kind, value in nobody.items()], at)
    made.add(Step("erase: unknown to all systems", "EraseSubject", stranger, Verdict.NO_DATA_HELD))


def _suspensions(made: Script, cast: _Cast, at: datetime) -> None:
    fulfilled = Verdict.FULFILLED_WITH_EXCEPTIONS  # affiliates cannot suspend, and the record says so
    person = cast.pick(*_PLAIN, Trait.MANUAL)
    step = Step("suspend use: some by hand already", "SuspendUse", _command(person, at), fulfilled)
    made.add(step, person, Expectation.SUSPEND_USE)
    person, billed = cast.pick(*_PLAIN, without=_ODD), ("invoices", "payments")
    data = _command(person, at, scope={"categories": list(billed)})
    step = Step("suspend use: invoices and payments only", "SuspendUse", data, Verdict.FULFILLED_WITHIN_SCOPE)
    made.add(step, person, Expectation.SUSPEND_USE, billed)
    for title, person in (
        ("", cast.pick(*_PLAIN, without=_ODD)),
        (": what was by hand stays", cast.pick(*_PLAIN, Trait.MANUAL, Trait.DUPLICATES)),
    ):
        data = _command(person, at)
        lane = data["request_id"]
        made.add(Step(f"suspend use{title}", "SuspendUse", data, fulfilled, lane=lane))
        made.add(
            Step(f"resume use{title}", "ResumeUse", {**data, "request_id": made.beside(lane)}, fulfilled, lane=lane),
            person,
            Expectation.RESUME_USE,
        )


def _withdrawals(made: Script, cast: _Cast, at: datetime) -> None:
    person = cast.pick(*_PLAIN, without=_ODD)
    erase = _command(person, at)
    before = Step("withdraw: comes before its command", "WithdrawRequest", {"request_id": erase["request_id"]})
    made.add(before, person, Expectation.UNTOUCHED)
    made.add(Step("erase: was withdrawn before it came", "EraseSubject", erase, Verdict.WITHDRAWN, later=True))
    # The sweep waits for the suspension of the same person, and so is withdrawn before anything is touched.
    person = cast.pick(*_PLAIN, without=_ODD)
    suspend = _command(person, at)
    lane = suspend["request_id"]
    sweep = {"ground": "appi.22", "requested_by": {"kind": "retention_sweep"}}
    erase = {**suspend, **sweep, "request_id": made.beside(lane)}
    made.add(
        Step("suspend use, and at once", "SuspendUse", suspend, Verdict.FULFILLED_WITH_EXCEPTIONS, lane=lane),
        person,
        Expectation.SUSPEND_USE,
    )
    title = "erase: retention sweep, waits for the suspension"
    made.add(Step(title, "EraseSubject", erase, Verdict.WITHDRAWN, early=True, lane=lane))
    made.add(Step("withdraw: while it waits", "WithdrawRequest", {"request_id": erase["request_id"]}, lane=lane))


def _superseded(made: Script, cast: _Cast, at: datetime) -> None:
    """Nothing of the suspension has begun when the person asks for the erasure of it all."""
    person = cast.pick(*_PLAIN, without=_ODD)
    suspend = _command(person, at)
    lane = suspend["request_id"]
    made.add(Step("suspend use: superseded", "SuspendUse", suspend, Verdict.SUPERSEDED, early=True, lane=lane))
    erase = {**suspend, "request_id": made.beside(lane)}
    title = "erase: takes the place of the suspension"
    step = Step(title, "EraseSubject", erase, Verdict.FULFILLED_WITH_EXCEPTIONS, lane=lane)
    made.add(step, person, Expectation.ERASE)


def _answers_without_effect(made: Script, cast: _Cast, at: datetime) -> None:
    """Repeats, a conflict, what nobody can do, what comes too late, and the word that the person was told."""
    first, second, third = made.steps[:3]
    kept = Verdict.FULFILLED_WITH_EXCEPTIONS
    made.add(replace(first, title="the first erasure once more", verdict=None, repeats=True))
    made.add(replace(second, title="the second once more, after its end", verdict=None, repeats=True, later=True))
    other = {**third.data, "ground": "appi.35-1"}
    conflict = RejectionCode.REQUEST_ID_CONFLICT
    made.add(Step("erase: another command under a used id", third.kind, other, rejected=conflict, later=True))
    person = cast.pick(*_BOTH, without=_ODD)
    # An affiliate is abroad, and so a third party (APPI 28): it cannot be told to stop, and the record says so.
    stop = Step("stop provision: to advertising partners", "StopProvision", _command(person, at), kept)
    made.add(stop, person, Expectation.STOP_PROVISION)
    done = {"request_id": third.request_id}
    late = Step("withdraw: after the closure", "WithdrawRequest", done, later=True)
    made.add(replace(late, rejected=RejectionCode.ALREADY_CLOSED))
    told = {"request_id": first.request_id, "notified_at": at.isoformat(), "notice": "dsar:letter-1"}
    made.add(Step("the person was told", "RecordNotice", told, later=True))


def _command(person: Person, at: datetime, types: Iterable[str] = _ALL, **change: Any) -> dict[str, Any]:
    known = person.identifiers
    return _data([{"type": kind, "value": known[kind]} for kind in types if kind in known], at, **change)


def _data(identifiers: list[dict[str, str]], at: datetime, **change: Any) -> dict[str, Any]:
    now = at.isoformat()
    return {
        "request_id": _new_id(),
        "identifiers": identifiers,
        "regime": "appi",
        "ground": "appi.35-5",
        "requested_by": {"kind": "person", **_EVIDENCE},
        "assessed": {"by": "staff:demo", "at": now},
        "arrived": {"at": now, "channel": "web:privacy-form"},
        **change,
    }
