"""What a request has to do to the records of one system. What is here holds where nothing else is said."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, ClassVar

from .stores import Ref, Row, Rows

MARK = "keshi:"
LEFT = "left"
SOME_TIME = "(some time)"
"""Stands in a model's row for a moment that only the system knew."""

Ending = tuple[str, str | None]
"""An outcome, and until when it lasts."""
Counts = dict[str, Counter[Ending]]
"""Category → how many records ended how."""
Wanted = Mapping[str, set[str]]
"""Type of identifier → values, in small letters."""


@dataclass(frozen=True)
class Asked:
    """A command as it was sent."""

    request_id: str
    action: str
    identifiers: tuple[Mapping[str, str], ...]

    @property
    def mark(self) -> str:
        """What a record carries that this request has suspended."""
        return f"{MARK}{self.request_id}"


class Rules(ABC):
    """Of one system: its records stand each for itself and carry the mark of who suspended them."""

    system: ClassVar[str]
    categories: ClassVar[tuple[str, ...]]
    searched: ClassVar[frozenset[str]] = frozenset({"customer_id", "email", "phone"})
    actions: ClassVar[frozenset[str]] = frozenset({"erase", "suspend_use", "resume_use"})
    own_column: ClassVar[str] = ""
    """A column that the system itself changes when another record goes."""

    # --- whose, and what is in force

    @abstractmethod
    def theirs(self, rows: Rows, wanted: Wanted, asked: Asked) -> set[Ref]:
        """All records of the person, and what the system notes of the request itself."""

    def category(self, ref: Ref) -> str | None:
        """What the record counts as; None for what is not counted."""
        return ref[0] if ref[0] in self.categories else None

    def kept_until(self, rows: Rows, ref: Ref, today: date) -> date | None:
        """The last day on which the law wants this record kept; None where it does not."""
        return None

    def marks(self, rows: Rows, ref: Ref) -> tuple[str, ...]:
        """The marks that keep this record out of use; none where it, or part of it, is in use."""
        mark = rows[ref].get("suspended_by") if ref in rows else None
        return (mark,) if mark else ()

    def begun(self, row: Row | None, mark: str) -> bool:
        """Whether part of a record carries this mark, which only a suspension that was taken back leaves behind."""
        return False

    def usable(self, row: Row) -> bool:
        """Whether it holds anything that could be used."""
        return True

    def possible(self, old: Row | None, wholly: Row | None, new: Row | None) -> bool:
        """Whether a request that was taken back can have left the record so: as it was, or as it wanted it."""
        return any(same(wanted, new, but=self.own_column) for wanted in (old, wholly))

    # --- what becomes of it

    def carry_out(self, rows: Rows, refs: Iterable[Ref], asked: Asked, today: date) -> None:
        """Do to these records all that is asked for."""
        there = sorted(set(refs) & rows.keys())
        kept = {ref: self.kept_until(rows, ref, today) for ref in there}
        marked = {ref: bool(self.marks(rows, ref)) for ref in there}
        for ref in there:
            if asked.action == "resume_use":
                self.resume(rows[ref])
            elif asked.action == "suspend_use":
                if not marked[ref]:
                    self.suspend(rows[ref], asked.mark)
            elif kept[ref]:
                rows[ref]["restricted"] = True
            else:
                self.remove(rows, ref)

    def suspend(self, row: Row, mark: str) -> None:
        """Mark a record as out of use."""
        row.update(suspended_by=mark, suspended_at=SOME_TIME)

    def resume(self, row: Row) -> None:
        """Take a mark of keshi away; any other stays."""
        if (row["suspended_by"] or "").startswith(MARK):
            row.update(suspended_by=None, suspended_at=None)

    def remove(self, rows: Rows, ref: Ref) -> None:
        """Delete a record."""
        del rows[ref]

    def endings(self, before: Rows, after: Rows, refs: Iterable[Ref], asked: Asked, today: date) -> Counts:
        """How these records have ended, by how they are afterwards; what is still to be done is `left`."""
        counts: Counts = {category: Counter() for category in self.categories}
        for ref in refs:
            category = self.category(ref)
            ending = category and self._ending(before, after, ref, asked, today)
            if category and ending:
                counts[category][ending] += 1
        return counts

    def _ending(self, before: Rows, after: Rows, ref: Ref, asked: Asked, today: date) -> Ending | None:
        """None for what the action is not about."""
        if asked.action == "erase":
            if ref not in after:
                return "erased", None
            kept = self.kept_until(before, ref, today)
            return ("retained_by_law", kept.isoformat()) if kept and after[ref]["restricted"] else (LEFT, None)
        if not self.usable(before[ref]):
            return None
        if asked.action == "suspend_use":
            return ("suspended" if self.marks(after, ref) or self.begun(after.get(ref), asked.mark) else LEFT), None
        marks = self.marks(before, ref)
        if not marks or not all(mark.startswith(MARK) for mark in marks):
            return None  # resume_use touches, and counts, only what keshi had suspended
        return (LEFT if self.marks(after, ref) else "resumed"), None


def same(wanted: Row | None, found: Row | None, *, but: str = "") -> bool:
    """Whether a record is as it should be. `but` names a column that is looked at elsewhere."""
    if wanted is None or found is None:
        return wanted is found
    return wanted.keys() == found.keys() and all(k == but or _equal(wanted[k], found[k]) for k in wanted)


def _equal(wanted: Any, found: Any) -> bool:
    return found is not None if wanted == SOME_TIME else bool(wanted == found)


def named(row: Row, wanted: Wanted) -> bool:
    """Whether the row has one of these identifiers in the column that is called like its type."""
    return any((row.get(kind) or "").casefold() in values for kind, values in wanted.items())
