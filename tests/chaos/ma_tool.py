"""MA tool: contacts with their cookies, behaviour, lists and mails; behaviour also from before a cookie was linked.

Contacts, cookies and mails carry marks. What hangs on a contact or a cookie follows the marks of that, too.
"""

from collections.abc import Iterator, Mapping
from typing import ClassVar

from .rules import MARK, Asked, Rules, Wanted
from .stores import Ref, Row, Rows

_HANGS = ("lists", "mails", "audiences")


class MaTool(Rules):
    system: ClassVar[str] = "ma_tool"
    categories: ClassVar[tuple[str, ...]] = ("contacts", "cookies", "behaviour", "lists", "mails")
    searched: ClassVar[frozenset[str]] = frozenset({"customer_id", "email", "cookie_id"})

    def theirs(self, rows: Rows, wanted: Wanted, asked: Asked) -> set[Ref]:
        tables: dict[str, dict[str, Row]] = {name: {} for name in (*self.categories, *_HANGS)}
        for (table, key), row in rows.items():
            tables.get(table, {})[key] = row
        contacts = self._contacts(tables["contacts"], wanted)
        cookies = {key for key, row in tables["cookies"].items() if row["contact_id"] in contacts}
        values = {tables["cookies"][key]["cookie_id"] for key in cookies}
        behaviour = {
            key
            for key, row in tables["behaviour"].items()
            if row["contact_id"] in contacts or row["cookie_id"] in values
        }
        found = {"contacts": contacts, "cookies": cookies, "behaviour": behaviour}
        hanging = {(t, k) for t in _HANGS for k, row in tables[t].items() if row["contact_id"] in contacts}
        return hanging | {(table, key) for table, keys in found.items() for key in keys}

    def _contacts(self, contacts: Mapping[str, Row], wanted: Wanted) -> set[str]:
        """Those named, and those that have the address or the customer number of one."""
        emails, customers = set(wanted.get("email", ())), set(wanted.get("customer_id", ()))
        found: set[str] = set()
        size = -1
        while size != len(found):
            size = len(found)
            for key, row in contacts.items():
                email, customer = (row["email"] or "").casefold(), (row["customer_id"] or "").casefold()
                if email in emails or customer in customers:
                    found.add(key)
                    emails |= {email} - {""}
                    customers |= {customer} - {""}
        return found

    def marks(self, rows: Rows, ref: Ref) -> tuple[str, ...]:
        return tuple(row["suppressed_by"] for row in _follows(rows, ref) if row.get("suppressed_by"))

    def suspend(self, row: Row, mark: str) -> None:
        if "suppressed_by" in row:
            row["suppressed_by"] = mark

    def resume(self, row: Row) -> None:
        if (row.get("suppressed_by") or "").startswith(MARK):
            row["suppressed_by"] = None


def _follows(rows: Rows, ref: Ref) -> Iterator[Row]:
    """A record, and those whose marks it follows."""
    row = rows.get(ref)
    if row is None:
        return
    yield row
    owners = {row.get("contact_id")}
    if ref[0] == "behaviour":
        for (table, _), cookie in rows.items():
            if table == "cookies" and cookie["cookie_id"] == row["cookie_id"]:
                owners.add(cookie["contact_id"])
                yield cookie
    yield from (rows["contacts", owner] for owner in owners if owner and ("contacts", owner) in rows)
