"""The sample people: deterministic, obviously invented, with every shape a handler can stumble on."""

import subprocess
import sys
from datetime import date, timedelta

import phonenumbers
import pytest

from keshi.dev.systems.people import KNOWN_CUSTOMER_ID, KNOWN_EMAIL, Trait, people

TODAY = date(2026, 4, 1)


def test_the_same_people_come_out_each_time_and_in_each_process() -> None:
    here = people(60, today=TODAY)
    code = (
        "from datetime import date; from keshi.dev.systems.people import people; import hashlib, pickle;"
        "print([hash_ for p in people(60, today=date(2026, 4, 1)) for hash_ in"
        " (sorted(p.refs('billing')), sorted(p.refs('crm')), p.email, [i.amount_yen for i in p.invoices])])"
    )
    there = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    assert there.stdout.strip() == str(
        [
            part
            for p in here
            for part in (
                sorted(p.refs("billing")),
                sorted(p.refs("crm")),
                p.email,
                [i.amount_yen for i in p.invoices],
            )
        ]
    )


def test_a_smaller_number_is_the_start_of_a_larger_one() -> None:
    assert people(30, today=TODAY) == people(100, today=TODAY)[:30]


def test_the_known_person_is_in_both_systems_with_nothing_that_the_law_keeps() -> None:
    known = people(1, today=TODAY)[0]
    assert (known.email, known.customer_id) == (KNOWN_EMAIL, KNOWN_CUSTOMER_ID)
    assert known.invoices
    assert known.usage
    assert len(known.contacts) == 3
    assert known.cards
    assert known.activities
    assert all(invoice.issued_on < TODAY - timedelta(days=7 * 366) for invoice in known.invoices)


def test_every_address_is_under_example_and_every_number_possible_but_assigned_to_nobody() -> None:
    everybody = people(1000, today=TODAY)
    addresses = {c.email for p in everybody for c in p.contacts if c.email} | {p.email for p in everybody}
    assert all(address.lower().endswith(".example") for address in addresses)
    for person in everybody:
        number = phonenumbers.parse(person.phone)
        assert phonenumbers.is_possible_number(number)
        assert not phonenumbers.is_valid_number(number)


def test_nobody_shares_an_identifier_or_a_record_with_somebody_else() -> None:
    everybody = people(1000, today=TODAY)
    values = [value.lower() for p in everybody for value in p.identifiers.values()]
    assert len(values) == len(set(values))
    for system in ("billing", "crm"):
        refs = [ref for p in everybody for ref in p.refs(system)]
        assert len(refs) == len(set(refs))


@pytest.mark.parametrize("trait", list(Trait))
def test_thirty_people_show_each_trait(trait: Trait) -> None:
    assert any(trait in person.traits for person in people(30, today=TODAY))


def test_traits_say_what_is_there() -> None:
    for person in people(200, today=TODAY):
        assert (Trait.BILLING in person.traits) == (person.customer is not None)
        assert (Trait.CRM in person.traits) == bool(person.contacts)
        ages = [(TODAY - invoice.issued_on).days for invoice in person.invoices]
        assert (Trait.RETAINED in person.traits) == any(age < 7 * 365 for age in ages)
        assert (Trait.AGED in person.traits) == any(age > 7 * 366 for age in ages)
        assert all(abs(age - 7 * 365.25) > 30 for age in ages)
        assert (Trait.DUPLICATES in person.traits) == (len(person.contacts) == 3)
        marked = [c for c in person.contacts if c.suspended_by] + [
            c for c in (person.customer,) if c and c.suspended_by
        ]
        assert (Trait.MANUAL in person.traits) == bool(marked)


def test_the_representation_of_a_person_shows_nothing_personal() -> None:
    person = people(2, today=TODAY)[1]
    shown = repr(person)
    assert person.customer
    assert not any(value in shown for value in (person.email, person.phone, person.customer.name))
