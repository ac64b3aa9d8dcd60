"""CRM: contacts with all their duplicates; it knows what finds a person elsewhere."""

from typing import ClassVar

from .rules import MARK, Asked, Rules, Wanted, named
from .stores import Ref, Row, Rows

_KNOWS = ("customer_id", "email", "phone")


class Crm(Rules):
    system: ClassVar[str] = "crm"
    categories: ClassVar[tuple[str, ...]] = ("contacts", "cards", "activities")
    own_column: ClassVar[str] = "duplicate_of"

    def theirs(self, rows: Rows, wanted: Wanted, asked: Asked) -> set[Ref]:
        contacts = {key: row for (table, key), row in rows.items() if table == "contacts"}
        found = {key for key, row in contacts.items() if named(row, wanted)}
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

    def learned(self, rows: Rows, theirs: set[Ref]) -> Wanted:
        """What a person's contacts say of them, and nobody else's."""
        own, others = _said(rows, theirs), _said(rows, rows.keys() - theirs)
        return {kind: own[kind] - others[kind] for kind in _KNOWS}

    def suspend(self, row: Row, mark: str) -> None:
        row.update(status="suspended", suspended_by=mark)

    def resume(self, row: Row) -> None:
        if (row["suspended_by"] or "").startswith(MARK):
            row.update(status="active", suspended_by=None)

    def remove(self, rows: Rows, ref: Ref) -> None:
        """The CRM itself cuts links that pointed at a contact."""
        del rows[ref]
        if ref[0] == "contacts":
            for (table, _), row in rows.items():
                if table == "contacts" and row["duplicate_of"] == ref[1]:
                    row["duplicate_of"] = None


def _said(rows: Rows, some: set[Ref]) -> dict[str, set[str]]:
    contacts = [rows[ref] for ref in some if ref[0] == "contacts"]
    return {kind: {(row[kind] or "").casefold() for row in contacts} - {""} for kind in _KNOWS}
