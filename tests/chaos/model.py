"""What each request has to do to the records of a person, worked out from the stores before it. Nothing of keshi.

The rules are those of the two systems' owners: an invoice stays for seven years after its issue, restricted, and
its payments with it; whatever else is the person's goes. A suspension marks each record that carries no mark yet,
and a resumption takes away marks of keshi alone.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from .stores import Ref, Row, Rows, Stores

CATEGORIES = {
    "billing": ("customers", "invoices", "payments", "usage"),
    "crm": ("contacts", "cards", "activities"),
}
KEPT_YEARS = 7
MARK = "keshi:"
LEFT = "left"
OUTSIDE = "outside"
SOME_TIME = "(some time)"
"""Stands in a model's row for a moment that only the system knew."""

Identifiers = Iterable[Mapping[str, str]]
Ending = tuple[str, str | None]
"""An outcome, and until when it lasts."""
Counts = dict[tuple[str, str], Counter[Ending]]
"""System and category → how many records ended how."""


@dataclass(frozen=True)
class Asked:
    """A command as it was sent."""

    request_id: str
    action: str
    identifiers: tuple[Mapping[str, str], ...]


def belonging(stores: Stores, identifiers: Identifiers) -> dict[str, set[Ref]]:
    """The records of the person that these identifiers name: system → records."""
    wanted: dict[str, set[str]] = {}
    for identifier in identifiers:
        wanted.setdefault(identifier["type"], set()).add(identifier["value"].casefold())
    return {"billing": _in_billing(stores.billing, wanted), "crm": _in_crm(stores.crm, wanted)}


def _in_billing(rows: Rows, wanted: Mapping[str, set[str]]) -> set[Ref]:
    owners = {row["customer_id"] for (table, _), row in rows.items() if table == "customers" and _named(row, wanted)}
    named = wanted.get("customer_id", set())
    return {
        ref
        for ref, row in rows.items()
        if ref[0] in CATEGORIES["billing"] and (row["customer_id"] in owners or row["customer_id"].casefold() in named)
    }


def _in_crm(rows: Rows, wanted: Mapping[str, set[str]]) -> set[Ref]:
    contacts = {key: row for (table, key), row in rows.items() if table == "contacts"}
    found = {key for key, row in contacts.items() if _named(row, wanted)}
    size = -1
    while size != len(found):
        size = len(found)
        addresses = {(contacts[key]["email"] or "").casefold() for key in found} - {""}
        targets = {contacts[key]["duplicate_of"] for key in found}
        found |= {
            key
            for key, row in contacts.items()
            if key in targets or row["duplicate_of"] in found or (row["email"] or "").casefold() in addresses
        }
    below = {ref for ref, row in rows.items() if ref[0] in {"cards", "activities"} and row["contact_id"] in found}
    return {("contacts", key) for key in found} | below


def _named(row: Row, wanted: Mapping[str, set[str]]) -> bool:
    return any((row.get(kind) or "").casefold() in values for kind, values in wanted.items())


def kept_until(rows: Rows, ref: Ref, today: date) -> date | None:
    """The last day on which the law wants this record kept; None where it does not."""
    table, row = ref[0], rows[ref]
    if table == "payments":
        invoice = ("invoices", str(row["invoice_id"]))
        return kept_until(rows, invoice, today) if invoice in rows else None
    if table != "invoices":
        return None
    issued = date.fromisoformat(row["issued_on"])
    leap = (issued.month, issued.day) == (2, 29)
    end = date(issued.year + KEPT_YEARS, issued.month, 28 if leap else issued.day) - timedelta(days=1)
    return end if today <= end else None


class World:
    """The stores as they have to be, one request after another."""

    def __init__(self, before: Stores, today: date) -> None:
        self.stores = before.copy()
        self.today = today

    def carry_out(self, asked: Asked) -> Counts:
        """Do all that a request asks for, and count what becomes of each record."""
        counts = _nothing()
        for system, refs in belonging(self.stores, asked.identifiers).items():
            rows = self.stores.of(system)
            kept = {ref: kept_until(rows, ref, self.today) for ref in refs}
            for ref in sorted(refs):
                ending = self._one(asked, rows, ref, kept[ref])
                if ending:
                    counts[system, ref[0]][ending] += 1
        return counts

    def _one(self, asked: Asked, rows: Rows, ref: Ref, kept: date | None) -> Ending | None:
        row = rows[ref]
        mark = row["suspended_by"]
        if asked.action == "erase":
            if kept:
                row["restricted"] = True
                return "retained_by_law", kept.isoformat()
            remove(rows, ref)
            return "erased", None
        if asked.action == "suspend_use":
            if mark is None:
                suspend(row, f"{MARK}{asked.request_id}")
            return "suspended", None
        if not (mark or "").startswith(MARK):
            return None  # resume_use touches, and counts, only what keshi had suspended
        resume(row)
        return "resumed", None

    def take_over(self, asked: Asked, after: Stores) -> "Taken":
        """What a request that was taken back has done before: read from the stores, and kept in the model.

        Args:
            asked: the request.
            after: the stores after it; the model's own, if it is said to have done nothing.
        """
        taken = Taken(_nothing(), Counter(), [])
        for system, refs in belonging(self.stores, asked.identifiers).items():
            rows, now = self.stores.of(system), after.of(system)
            kept = {ref: kept_until(rows, ref, self.today) for ref in refs}
            for ref in sorted(refs):
                ending = _partly(asked, rows[ref], now.get(ref), kept[ref])
                if ending is None:
                    taken.strange.append(ref)
                elif ending[0] != OUTSIDE:
                    taken.counts[system, ref[0]][ending] += 1
                taken.changed[system] += not same(rows[ref], now.get(ref), but="duplicate_of")
            for ref in refs - set(taken.strange):  # only now: retention looks at other records
                if ref not in now:
                    remove(rows, ref)
                else:
                    rows[ref].update({k: v for k, v in now[ref].items() if k != "duplicate_of"})
        return taken


@dataclass(frozen=True)
class Taken:
    """What a request had done when it was taken back.

    Attributes:
        counts: how many records ended how; `left` are those that it still had to do.
        changed: by system, how many records it changed.
        strange: records in a state that no part of it leads to.
    """

    counts: Counts
    changed: "Counter[str]"
    strange: list[Ref]


def _partly(asked: Asked, old: Row, new: Row | None, kept: date | None) -> Ending | None:
    """How one record of a request that was taken back has ended; None where no part of it leads there."""
    mark = old["suspended_by"]
    if asked.action == "resume_use" and not (mark or "").startswith(MARK):
        return (OUTSIDE, None) if same(old, new, but="duplicate_of") else None
    if same(old, new, but="duplicate_of"):
        if kept and asked.action == "erase" and old["restricted"]:
            return "retained_by_law", kept.isoformat()
        return ("suspended" if asked.action == "suspend_use" and mark else LEFT), None
    if asked.action == "erase" and not kept:
        return ("erased", None) if new is None else None
    wanted = dict(old)
    if asked.action == "erase" and kept:
        wanted["restricted"] = True
        ending: Ending = ("retained_by_law", kept.isoformat())
    elif asked.action == "suspend_use" and mark is None:
        suspend(wanted, f"{MARK}{asked.request_id}")
        ending = ("suspended", None)
    elif asked.action == "resume_use":
        resume(wanted)
        ending = ("resumed", None)
    else:
        return None
    return ending if same(wanted, new, but="duplicate_of") else None


def _nothing() -> Counts:
    return {(system, category): Counter() for system, names in CATEGORIES.items() for category in names}


def remove(rows: Rows, ref: Ref) -> None:
    """Delete a record; the CRM itself cuts links that pointed at a contact."""
    del rows[ref]
    if ref[0] == "contacts":
        for (table, _), row in rows.items():
            if table == "contacts" and row["duplicate_of"] == ref[1]:
                row["duplicate_of"] = None


def suspend(row: Row, mark: str) -> None:
    """Mark a record as out of use."""
    row["suspended_by"] = mark
    if "status" in row:
        row["status"] = "suspended"
    else:
        row["suspended_at"] = SOME_TIME


def resume(row: Row) -> None:
    """Take the mark away."""
    row["suspended_by"] = None
    if "status" in row:
        row["status"] = "active"
    else:
        row["suspended_at"] = None


def same(wanted: Row | None, found: Row | None, *, but: str = "") -> bool:
    """Whether a record is as the model says. `but` names a column that is looked at elsewhere."""
    if wanted is None or found is None:
        return wanted is found
    return wanted.keys() == found.keys() and all(k == but or _equal(wanted[k], found[k]) for k in wanted)


def _equal(wanted: Any, found: Any) -> bool:
    return found is not None if wanted == SOME_TIME else bool(wanted == found)


def differing(model: Stores, after: Stores) -> Iterator[tuple[str, Ref]]:
    """Records that are not as the model says, also those that nobody planned."""
    for system in CATEGORIES:
        wanted, found = model.of(system), after.of(system)
        for ref in sorted(wanted.keys() | found.keys()):
            if not same(wanted.get(ref), found.get(ref)):
                yield system, ref
