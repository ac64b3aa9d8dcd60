"""The look past all handlers: it passes what was done right, and finds each thing that was done wrong.

What is done to the systems here is done by hand, through the doors that a handler has.
"""

from collections.abc import Set as AbstractSet
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from keshi.dev.systems.look import Expectation, Snapshot, compare
from keshi.dev.systems.people import Person, Trait
from keshi.dev.systems.snapshots import file_rows, sql_rows

TODAY = date(2026, 4, 1)
ERASE, SUSPEND, RESUME = Expectation.ERASE, Expectation.SUSPEND_USE, Expectation.RESUME_USE


class Both:
    """Both systems, worked on as a handler would."""

    def __init__(self, billing: Any, crm_data: Path, crm_client: httpx.Client) -> None:
        self.billing = billing
        self.crm_data = crm_data
        self.crm = crm_client

    def look(self) -> Snapshot:
        crm = file_rows(self.crm_data / "crm.sqlite3")
        return Snapshot({"billing": sql_rows(self.billing.dsn), "crm": crm})

    def sql(self, *statements: str, **values: object) -> None:
        with psycopg.connect(self.billing.handler_dsn) as connection:
            for statement in statements:
                connection.execute(statement, values)

    def erase(self, person: Person, *, but: AbstractSet[str] = frozenset()) -> None:
        kept = "issued_on + interval '7 years' > %(today)s"
        self.sql(
            f"DELETE FROM payments USING invoices i WHERE i.id = invoice_id AND i.customer_id = %(who)s AND NOT {kept}",
            f"DELETE FROM invoices WHERE customer_id = %(who)s AND NOT {kept}",
            "UPDATE payments SET restricted = true WHERE customer_id = %(who)s",
            "UPDATE invoices SET restricted = true WHERE customer_id = %(who)s",
            "DELETE FROM usage WHERE customer_id = %(who)s",
            "DELETE FROM customers WHERE customer_id = %(who)s",
            who=person.customer_id,
            today=TODAY,
        )
        for kind in ("cards", "activities", "contacts"):
            for row in getattr(person, kind):
                if {row.id, getattr(row, "contact_id", None)}.isdisjoint(but):
                    assert self.crm.delete(f"/v1/{kind}/{row.id}").status_code == 204

    def mark(self, person: Person, status: str) -> None:
        at = "now()" if status == "suspended" else "NULL"
        by = "'case-1'" if status == "suspended" else "NULL"
        old = "suspended_by IS NULL" if status == "suspended" else "suspended_by = 'case-1'"
        self.sql(
            *(
                f"UPDATE {table} SET suspended_by = {by}, suspended_at = {at} WHERE customer_id = %(who)s AND {old}"
                for table in ("customers", "invoices", "payments", "usage")
            ),
            who=person.customer_id,
        )
        for ref in person.refs("crm"):
            answer = self.crm.patch(f"/v1/{ref.replace(':', '/')}", json={"status": status, "suspended_by": "case-1"})
            assert answer.status_code in {200, 409}


@pytest.fixture
def both(billing_database: Any, crm_process: Any, crm_client: httpx.Client) -> Both:
    return Both(billing_database, crm_process.data, crm_client)


def pick(everybody: tuple[Person, ...], *traits: Trait, but: tuple[Person, ...] = ()) -> Person:
    return next(p for p in everybody if set(traits) <= p.traits and p not in but)


def test_all_kinds_done_right_are_found_right(both: Both, everybody: tuple[Person, ...]) -> None:
    erased = everybody[0], pick(everybody, Trait.RETAINED, Trait.AGED, Trait.DUPLICATES)
    suspended = pick(everybody, Trait.MANUAL, Trait.BILLING, Trait.CRM, but=erased)
    resumed = pick(everybody, Trait.MANUAL, Trait.CRM, Trait.BILLING, but=(*erased, suspended))
    before = both.look()
    for person in erased:
        both.erase(person)
    for person in (suspended, resumed):
        both.mark(person, "suspended")
    both.mark(resumed, "active")
    expectations = [*((p, ERASE) for p in erased), (suspended, SUSPEND), (resumed, RESUME)]
    found = compare(before, both.look(), expectations, today=TODAY)
    assert found.ok, found.as_json()
    for system in ("billing", "crm"):
        shown = found.as_json()[system]
        assert shown["expected"] == {goal: shown[goal] for goal in shown["expected"]}
        assert shown["gone"] > 0
        assert shown["bystanders_before"] == shown["bystanders_after"]
        assert shown["suspended"] == len(suspended.refs(system))
        assert shown["resumed"] == len(resumed.refs(system))
    assert found.systems["billing"].right["retained"] > 0
    assert found.systems["crm"].right["retained"] == 0


def test_a_suspension_lifted_between_two_looks_is_found_right(both: Both, everybody: tuple[Person, ...]) -> None:
    person = pick(everybody, Trait.MANUAL, Trait.CRM, Trait.BILLING)
    both.mark(person, "suspended")
    before = both.look()
    both.mark(person, "active")
    assert compare(before, both.look(), [(person, RESUME)], today=TODAY).ok


def test_what_was_reported_and_not_done_is_found(both: Both, everybody: tuple[Person, ...]) -> None:
    before = both.look()
    for expectation in (ERASE, SUSPEND):
        found = compare(before, both.look(), [(everybody[0], expectation)], today=TODAY)
        assert set(found.systems["crm"].wrong) == everybody[0].refs("crm")
        assert set(found.systems["billing"].wrong) == everybody[0].refs("billing")


def test_a_second_duplicate_that_was_missed_is_found(both: Both, everybody: tuple[Person, ...]) -> None:
    person = everybody[0]
    before = both.look()
    missed = person.contacts[2].id
    both.erase(person, but={missed})
    found = compare(before, both.look(), [(person, ERASE)], today=TODAY)
    assert not found.ok
    assert f"contacts:{missed}" in found.systems["crm"].wrong
    assert found.systems["billing"].ok


@pytest.mark.parametrize(
    ("statement", "table"),
    [
        ("UPDATE payments SET restricted = false WHERE customer_id = %(who)s", "payments"),
        ("UPDATE invoices SET restricted = false WHERE customer_id = %(who)s", "invoices"),
        ("DELETE FROM payments WHERE customer_id = %(who)s", "payments"),
    ],
)
def test_a_statutory_record_that_is_open_or_gone_is_found(
    both: Both, everybody: tuple[Person, ...], statement: str, table: str
) -> None:
    person = next(p for p in everybody if p.payments and {Trait.RETAINED, Trait.CRM} <= p.traits)
    before = both.look()
    both.erase(person)
    both.sql(statement, who=person.customer_id)
    wrong = compare(before, both.look(), [(person, ERASE)], today=TODAY).systems["billing"].wrong
    assert wrong
    assert {ref.partition(":")[0] for ref in wrong} == {table}


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE usage SET suspended_by = 'case-1', suspended_at = now() WHERE id = %(id)s",
        "DELETE FROM usage WHERE id = %(id)s",
    ],
)
def test_a_bystander_that_was_touched_is_found(both: Both, everybody: tuple[Person, ...], statement: str) -> None:
    person, other = everybody[0], everybody[1]
    before = both.look()
    both.erase(person)
    both.sql(statement, id=other.usage[0].id)
    found = compare(before, both.look(), [(person, ERASE)], today=TODAY).systems["billing"]
    assert found.wrong == (f"usage:{other.usage[0].id}",)
    assert found.bystanders_before != found.bystanders_after


def test_a_manual_suspension_that_was_lifted_is_found(both: Both, everybody: tuple[Person, ...]) -> None:
    person = pick(everybody, Trait.MANUAL, Trait.BILLING)
    before = both.look()
    both.mark(person, "suspended")
    both.mark(person, "active")
    both.sql(
        "UPDATE customers SET suspended_by = NULL, suspended_at = NULL WHERE customer_id = %(who)s",
        who=person.customer_id,
    )
    found = compare(before, both.look(), [(person, RESUME)], today=TODAY)
    assert found.systems["billing"].wrong == (f"customers:{person.customer_id}",)


def test_a_copy_put_aside_is_found(both: Both, everybody: tuple[Person, ...]) -> None:
    before = both.look()
    both.erase(everybody[0])
    with psycopg.connect(both.billing.dsn) as connection:
        connection.execute("CREATE TABLE aside AS SELECT 'x' AS note FROM generate_series(1, 2)")
    found = compare(before, both.look(), [(everybody[0], ERASE)], today=TODAY)
    assert [ref.partition(":")[0] for ref in found.systems["billing"].wrong] == ["aside", "aside"]


def test_a_first_look_that_came_too_late_proves_nothing(both: Both, everybody: tuple[Person, ...]) -> None:
    both.erase(everybody[0])
    late = both.look()
    assert not compare(late, both.look(), [(everybody[0], ERASE)], today=TODAY).ok


def test_a_stopped_or_killed_crm_is_read_alike(both: Both, crm_process: Any) -> None:
    running = both.look()
    crm_process.end(9)
    assert both.look() == running
    crm_process.start()
    crm_process.end()
    assert both.look() == running


def test_one_person_has_one_expectation(both: Both, everybody: tuple[Person, ...]) -> None:
    look = both.look()
    twice = [(everybody[0], ERASE), (everybody[0], SUSPEND)]
    with pytest.raises(ValueError, match="one expectation"):
        compare(look, look, twice, today=TODAY)


def test_what_is_shown_holds_no_personal_value(both: Both, everybody: tuple[Person, ...]) -> None:
    found = compare(both.look(), both.look(), [(everybody[0], ERASE)], today=TODAY)
    assert everybody[0].email not in str(found.as_json())
    assert everybody[0].email not in repr(both.look())


def test_the_day_on_which_the_period_ends_is_past_it(both: Both, everybody: tuple[Person, ...]) -> None:
    person = pick(everybody, Trait.RETAINED, Trait.CRM)
    newest = person.invoices[-1].issued_on
    look = both.look()

    def retained(today: date) -> int:
        found = compare(look, look, [(person, ERASE)], today=today)
        return found.systems["billing"].expected["retained"]

    end = newest.replace(year=newest.year + 7)
    assert retained(end) == 0
    assert retained(end - timedelta(days=1)) >= 1
