"""billing: an invoice stays for seven years after its issue, restricted, and its payments with it."""

from datetime import date, timedelta
from typing import ClassVar

from .rules import Asked, Rules, Wanted, named
from .stores import Ref, Rows

KEPT_YEARS = 7


class Billing(Rules):
    system: ClassVar[str] = "billing"
    categories: ClassVar[tuple[str, ...]] = ("customers", "invoices", "payments", "usage")

    def theirs(self, rows: Rows, wanted: Wanted, asked: Asked) -> set[Ref]:
        """Invoices outlive their customer's row: the number alone leads to them."""
        owners = {row["customer_id"] for (table, _), row in rows.items() if table == "customers" and named(row, wanted)}
        given = wanted.get("customer_id", set())
        return {
            ref
            for ref, row in rows.items()
            if self.category(ref) and (row["customer_id"] in owners or row["customer_id"].casefold() in given)
        }

    def kept_until(self, rows: Rows, ref: Ref, today: date) -> date | None:
        table, row = ref[0], rows[ref]
        if table == "payments":
            invoice = ("invoices", str(row["invoice_id"]))
            return self.kept_until(rows, invoice, today) if invoice in rows else None
        if table != "invoices":
            return None
        issued = date.fromisoformat(row["issued_on"])
        leap = (issued.month, issued.day) == (2, 29)
        end = date(issued.year + KEPT_YEARS, issued.month, 28 if leap else issued.day) - timedelta(days=1)
        return end if today <= end else None
