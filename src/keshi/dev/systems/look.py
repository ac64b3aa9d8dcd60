"""A look into the reference systems past every handler, judged by its own rules.

`compare` holds two snapshots against what was to happen to whom. Each system has a `Look` that says which records
are whose, and what each expectation means there. The rules that billing and CRM share:

- **erase**: every record is gone, but for invoices within seven years of their issue and the payments of
  those; they are there, restricted, and otherwise as they were.
- **suspend_use**: every record is there, carries a marker, and is otherwise as it was; one that carried a
  marker before is as it was altogether.
- **resume_use**: every record is as it was before; one that was in suspension when the first snapshot was
  taken has lost the marker, unless the company's own people had set it.
- **untouched**, and everybody else: every record is as it was, to the byte. A record that was not there
  before is wrong, whoever it is about.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from keshi.dev.systems.affiliates import sample as affiliates
from keshi.dev.systems.call_recordings import sample
from keshi.dev.systems.ma_tool import people as ma_people
from keshi.dev.systems.snapshots import Row, Rows, Snapshot, snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from keshi.dev.systems.people import Person

__all__ = ["Expectation", "Findings", "Found", "Look", "Snapshot", "compare", "snapshot"]

KEPT_YEARS = 7
MOST_WRONG = 100
"""So many references of wrong records are shown; `wrong_count` counts them all."""

_OWN_MARKER = "manual"


class Expectation(StrEnum):
    ERASE = "erase"
    SUSPEND_USE = "suspend_use"
    RESUME_USE = "resume_use"
    STOP_PROVISION = "stop_provision"
    UNTOUCHED = "untouched"


class Goal(StrEnum):
    """What must have become of a record."""

    GONE = "gone"
    SUSPENDED = "suspended"
    RESUMED = "resumed"
    RETAINED = "retained"
    STOPPED = "stopped"
    SAME = "same"


class Look:
    """How one system is looked at: these are the rules of systems that mark each record.

    Args:
        refs: references (`table:id`) of all records that the system holds about a person.
        can: what the system can do; whatever else is asked for leaves it untouched.
        marks: columns that a suspension may change.
    """

    def __init__(
        self,
        refs: Callable[[Person], Iterable[str]],
        can: Iterable[Expectation] = (),
        marks: Iterable[str] = ("status", "suspended_by", "suspended_at"),
    ) -> None:
        self.refs = refs
        self.can = frozenset(can) or frozenset(
            {Expectation.ERASE, Expectation.SUSPEND_USE, Expectation.RESUME_USE, Expectation.UNTOUCHED}
        )
        self.marks = frozenset(marks)

    def goal(self, ref: str, rows: Rows, expectation: Expectation, today: date) -> Goal:  # noqa: ARG002 - for those with a retention
        """What has to become of a record, by the rows before."""
        return _GOALS[expectation] if expectation in self.can else Goal.SAME

    def met(self, goal: Goal, old: Row | None, new: Row | None) -> bool:
        """Whether that has become of it."""
        if goal is Goal.GONE:
            return new is None
        if old is None or new is None:
            return False
        marker = old.get("suspended_by")
        if goal is Goal.SUSPENDED and not marker:
            return bool(new["suspended_by"]) and alike(old, new, self.marks)
        if goal is Goal.RESUMED and marker not in {None, _OWN_MARKER}:
            return not new["suspended_by"] and alike(old, new, self.marks)
        return old == new


_GOALS: Final[Mapping[Expectation, Goal]] = {
    Expectation.ERASE: Goal.GONE,
    Expectation.SUSPEND_USE: Goal.SUSPENDED,
    Expectation.RESUME_USE: Goal.RESUMED,
    Expectation.STOP_PROVISION: Goal.STOPPED,
    Expectation.UNTOUCHED: Goal.SAME,
}


class _Billing(Look):
    """Invoices within seven years of their issue, and their payments, are kept by law and restricted."""

    def goal(self, ref: str, rows: Rows, expectation: Expectation, today: date) -> Goal:
        if expectation is Expectation.ERASE and _kept_by_law(ref, rows, today):
            return Goal.RETAINED
        return super().goal(ref, rows, expectation, today)

    def met(self, goal: Goal, old: Row | None, new: Row | None) -> bool:
        if goal is not Goal.RETAINED:
            return super().met(goal, old, new)
        if old is None or new is None:
            return False
        kept_marker = old.get("suspended_by") != _OWN_MARKER or new["suspended_by"] == _OWN_MARKER
        return new["restricted"] is True and kept_marker and alike(old, new, self.marks | {"restricted"})


class _CallRecordings(Look):
    """A delete marker holds nothing that could be used: only an erasure changes it."""

    def goal(self, ref: str, rows: Rows, expectation: Expectation, today: date) -> Goal:
        if expectation is not Expectation.ERASE and rows.get(ref, {}).get("delete_marker"):
            return Goal.SAME
        return super().goal(ref, rows, expectation, today)


class _MaTool(Look):
    """Contacts, cookies and mails carry marks, and what hangs on a marked contact follows it.

    Once giving to partners has stopped for a contact, the partners have taken it from their lists.
    """

    def goal(self, ref: str, rows: Rows, expectation: Expectation, today: date) -> Goal:
        goal, table = super().goal(ref, rows, expectation, today), ref.partition(":")[0]
        if goal not in {Goal.SUSPENDED, Goal.STOPPED}:
            return goal
        mark = "suppressed_by" if goal is Goal.SUSPENDED else "provision_stopped_by"
        marked_with = rows.get(f"contacts:{rows.get(ref, {}).get('contact_id')}", {}).get(mark)
        carries = mark in rows.get(ref, {}) and not marked_with
        return goal if carries or (goal is Goal.STOPPED and table == "audiences") else Goal.SAME

    def met(self, goal: Goal, old: Row | None, new: Row | None) -> bool:
        if goal is not Goal.STOPPED or old is None or new is None:
            return super().met(goal, _renamed(old), _renamed(new))
        if "partner" in old:
            return new["status"] == "removed" and alike(old, new, frozenset({"status", "asked_at"}))
        if old["provision_stopped_by"]:
            return old == new
        return bool(new["provision_stopped_by"]) and alike(old, new, frozenset({"provision_stopped_by"}))


def _renamed(row: Row | None) -> Row | None:
    """With the mark of a suppression under its usual name."""
    return row and {"suspended_by" if name == "suppressed_by" else name: value for name, value in row.items()}


LOOKS: Final[Mapping[str, Look]] = {
    "billing": _Billing(lambda person: person.refs("billing")),
    "crm": Look(lambda person: person.refs("crm")),
    "affiliates": Look(affiliates.refs, can=(Expectation.ERASE, Expectation.UNTOUCHED)),
    "call_recordings": _CallRecordings(sample.refs),
    "ma_tool": _MaTool(ma_people.refs, Expectation),
}
"""By system. Whoever brings a further system adds its look here."""


@dataclass(frozen=True)
class Found:
    """What the look found in one system.

    `expected` says how many records should have come to each end, `right` how many did; `wrong` names all others,
    also bystanders that were changed.
    """

    expected: dict[str, int]
    right: dict[str, int]
    bystanders_before: str
    bystanders_after: str
    wrong: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not self.wrong and self.bystanders_before == self.bystanders_after

    def as_json(self) -> dict[str, Any]:
        return {
            "expected": self.expected,
            **self.right,
            "bystanders_before": self.bystanders_before,
            "bystanders_after": self.bystanders_after,
            "wrong_count": len(self.wrong),
            "wrong": list(self.wrong[:MOST_WRONG]),
        }


@dataclass(frozen=True)
class Findings:
    systems: dict[str, Found]

    @property
    def ok(self) -> bool:
        """True if everything that was to happen did, and nothing else."""
        return all(found.ok for found in self.systems.values())

    def as_json(self) -> dict[str, Any]:
        """One JSON object: system → what was found there. References of records only, nothing personal."""
        return {system: found.as_json() for system, found in self.systems.items()}


def compare(
    before: Snapshot,
    after: Snapshot,
    expectations: Sequence[tuple[Person, Expectation]],
    *,
    today: date,
    scopes: Mapping[int, Iterable[str]] | None = None,
) -> Findings:
    """Judges what became of everybody's records.

    Args:
        before: taken before anything was asked for (or, for a resumption alone, while the suspension was on).
        after: taken when all was said to be done.
        expectations: at most one a person: what must be true in the end. Who is not named is untouched.
        today: the day from which the statutory period is counted.
        scopes: by number of a person, the only tables that the expectation is about.

    Raises:
        ValueError: a person is named twice.
    """
    if len({person.number for person, _ in expectations}) != len(expectations):
        raise ValueError("one expectation a person: what must be true of them in the end")
    found = {}
    only = {number: frozenset(tables) for number, tables in (scopes or {}).items()}
    acting = [(person, what) for person, what in expectations if what is not Expectation.UNTOUCHED]
    for system in before.systems:
        wanted = {
            ref: what
            for person, what in acting
            for ref in LOOKS[system].refs(person)
            if person.number not in only or ref.partition(":")[0] in only[person.number]
        }
        found[system] = _judge(system, before, after, wanted, today)
    return Findings(found)


def _judge(system: str, before: Snapshot, after: Snapshot, wanted: Mapping[str, Expectation], today: date) -> Found:
    look, old, new = LOOKS[system], before.systems[system], after.systems[system]
    # A first snapshot that was taken too late would prove nothing: what it lacks counts as wrong.
    wrong = set(wanted.keys() - old.keys())
    expected: Counter[Goal] = Counter()
    right: Counter[Goal] = Counter()
    for ref in (old.keys() | new.keys()) - wrong:
        goal = look.goal(ref, old, wanted.get(ref, Expectation.UNTOUCHED), today)
        expected[goal] += 1
        if look.met(goal, old.get(ref), new.get(ref)):
            right[goal] += 1
        else:
            wrong.add(ref)
    return Found(
        expected={goal.value: expected[goal] for goal in Goal if goal is not Goal.SAME},
        right={goal.value: right[goal] for goal in Goal if goal is not Goal.SAME},
        bystanders_before=before.bystanders_hash(system, wanted.keys()),
        bystanders_after=after.bystanders_hash(system, wanted.keys()),
        wrong=tuple(sorted(wrong)),
    )


def alike(old: Row, new: Row, but: frozenset[str]) -> bool:
    """Whether two rows are the same but for some columns."""
    return all(old.get(name) == new.get(name) for name in (old.keys() | new.keys()) - but)


def _kept_by_law(ref: str, rows: Rows, today: date) -> bool:
    table, row = ref.partition(":")[0], rows[ref]
    if table == "payments":
        invoice = f"invoices:{row['invoice_id']}"
        return invoice in rows and _kept_by_law(invoice, rows, today)
    return table == "invoices" and today < _years_on(date.fromisoformat(row["issued_on"]), KEPT_YEARS)


def _years_on(day: date, years: int) -> date:
    """The same day in a later year; 29 February becomes the 28th, as PostgreSQL counts."""
    try:
        return day.replace(year=day.year + years)
    except ValueError:
        return day.replace(year=day.year + years, day=28)
