"""Sample people: invented, and the same for the same numbers, seed and day.

A person's records do not depend on how many people there are: `people(30)` is the start of `people(1000)`.

E-mail addresses are under `.example` (RFC 2606); phone numbers look like Japanese mobile numbers in a block
that is assigned to nobody (`+81 90 0…`), possible but not valid to the phonenumbers library.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from itertools import count
from random import Random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

SEED = 20260401
MANUAL = "manual"
"""Marker of a suspension by the company's own people, which nobody else may lift."""

KNOWN_EMAIL = "hanako.keshi@customer.example"
KNOWN_CUSTOMER_ID = "C-000001"
"""The first person, named in the published example command: in all systems, and with no invoice that the law
still wants kept, so that an erasure can be complete."""

_MARKED_AT = datetime(2026, 1, 15, 3, 0, tzinfo=UTC)
_FAMILY = ("消田", "架空", "見本", "仮野", "例山", "試川", "偽島", "空井")
_GIVEN = ("花子", "太郎", "一葉", "次郎", "三奈", "四朗", "五月", "六実")
_FAMILY_LATIN = ("keshida", "kakuu", "mihon", "karino", "reiyama", "tamekawa", "nisejima", "sorai")
_GIVEN_LATIN = ("hanako", "taro", "ichiyo", "jiro", "mina", "shiro", "satsuki", "mutsumi")
_COMPANIES = ("見本商事", "架空製作所", "例題銀行", "仮設電機")


class Trait(StrEnum):
    """What is special about a person; tests and the demo pick people by it."""

    BILLING = "billing"
    CRM = "crm"
    RETAINED = "retained"  # has invoices the law still wants kept
    AGED = "aged"  # has invoices past that period
    DUPLICATES = "duplicates"  # three contacts in the CRM
    HIDDEN_DUPLICATE = "hidden_duplicate"  # the contact that is found is a duplicate of one that is not
    MANUAL = "manual"  # some records are suspended by the company's own people
    OTHER_CASE = "other_case"  # billing holds the address in other case
    OFFICE_PHONE = "office_phone"  # a second number that only a contact in the CRM has


@dataclass(frozen=True, slots=True)
class Customer:
    customer_id: str
    name: str = field(repr=False)
    email: str = field(repr=False)
    phone: str = field(repr=False)
    address: str = field(repr=False)
    suspended_by: str | None
    suspended_at: datetime | None


@dataclass(frozen=True, slots=True)
class Invoice:
    id: int
    customer_id: str
    issued_on: date
    amount_yen: int
    name: str = field(repr=False)
    address: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Payment:
    id: int
    customer_id: str
    invoice_id: int
    paid_on: date
    method: str
    amount_yen: int


@dataclass(frozen=True, slots=True)
class Usage:
    id: int
    customer_id: str
    day: date
    units: int


@dataclass(frozen=True, slots=True)
class Contact:
    id: str
    name: str = field(repr=False)
    email: str | None = field(repr=False)
    phone: str | None = field(repr=False)
    customer_id: str | None
    company: str = field(repr=False)
    duplicate_of: str | None
    suspended_by: str | None = None


@dataclass(frozen=True, slots=True)
class Card:
    id: str
    contact_id: str
    image_text: str = field(repr=False)
    email: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Activity:
    id: str
    contact_id: str
    kind: str
    at: datetime
    note: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Person:
    """One invented person with everything both systems hold about them."""

    number: int
    traits: frozenset[Trait]
    email: str = field(repr=False)
    phone: str = field(repr=False)
    customer: Customer | None
    invoices: tuple[Invoice, ...] = ()
    payments: tuple[Payment, ...] = ()
    usage: tuple[Usage, ...] = ()
    contacts: tuple[Contact, ...] = ()
    cards: tuple[Card, ...] = ()
    activities: tuple[Activity, ...] = ()
    office_phone: str | None = field(default=None, repr=False)
    """No command names it: who needs it has to learn it from the CRM."""

    @property
    def customer_id(self) -> str | None:
        return self.customer.customer_id if self.customer else None

    @property
    def identifiers(self) -> dict[str, str]:
        """What a command may name this person by, type → value."""
        known = {"email": self.email, "phone": self.phone}
        return known | ({"customer_id": self.customer.customer_id} if self.customer else {})

    def refs(self, system: str) -> frozenset[str]:
        """References (`table:id`) of all records that `system` (billing or crm) holds about the person."""
        if system == "billing":
            own = [f"customers:{self.customer.customer_id}"] if self.customer else []
            own += [f"invoices:{row.id}" for row in self.invoices]
            own += [f"payments:{row.id}" for row in self.payments]
            own += [f"usage:{row.id}" for row in self.usage]
        elif system == "crm":
            own = [f"contacts:{row.id}" for row in self.contacts]
            own += [f"cards:{row.id}" for row in self.cards]
            own += [f"activities:{row.id}" for row in self.activities]
        else:
            raise ValueError(f"no system called {system!r}; there are billing and crm")
        return frozenset(own)


@dataclass(frozen=True, slots=True)
class _Ids:
    """Running numbers, one per kind of record."""

    invoice: Iterator[int] = field(default_factory=lambda: count(100_001))
    payment: Iterator[int] = field(default_factory=lambda: count(500_001))
    usage: Iterator[int] = field(default_factory=lambda: count(1))
    contact: Iterator[int] = field(default_factory=lambda: count(1))
    card: Iterator[int] = field(default_factory=lambda: count(1))
    activity: Iterator[int] = field(default_factory=lambda: count(1))


def people(number: int, *, today: date, seed: int = SEED) -> tuple[Person, ...]:
    """Invents the first `number` sample people.

    Args:
        number: how many, at least 1.
        today: the day from which the age of invoices counts. No invoice is issued within a month of seven
            years before it, so that a run across midnight means the same.
        seed: another seed, other amounts and dates; names, addresses and shapes stay.
    """
    if number < 1:
        raise ValueError("at least one person")
    ids = _Ids()
    return tuple(_person(n, today, Random(f"{seed}:{n}"), ids) for n in range(1, number + 1))  # noqa: S311 - samples


def _traits(n: int) -> frozenset[Trait]:
    """Shapes repeat every 20 people; person 1 is the known one."""
    if n == 1:
        return frozenset({Trait.BILLING, Trait.CRM, Trait.AGED, Trait.DUPLICATES, Trait.OFFICE_PHONE})
    place = n % 20
    traits = {Trait.BILLING, Trait.CRM}
    if place in {7, 17}:
        traits = {Trait.CRM}
    elif place in {9, 19}:
        traits = {Trait.BILLING}
    if Trait.BILLING in traits:
        traits |= {Trait.RETAINED} if place % 4 != 1 else set()
        traits |= {Trait.AGED} if place % 3 != 1 else set()
        traits |= {Trait.OTHER_CASE} if place in {4, 9} else set()
    if Trait.CRM in traits and place in {2, 5, 7, 12, 15}:
        traits |= {Trait.DUPLICATES, Trait.OFFICE_PHONE}
    if Trait.CRM in traits and place in {6, 17}:
        traits |= {Trait.HIDDEN_DUPLICATE}
    if place in {3, 12}:
        traits |= {Trait.MANUAL}
    return frozenset(traits)


def _local_part(n: int) -> str:
    """The name before the `@`: unique, some so near person 1 that a careless pattern mixes them up."""
    near = {
        1: "hanako.keshi",
        2: "hanako_keshi",
        3: "ahanako.keshi",
        4: "hanako.keshi+shop",
        5: "hanako%keshi",
    }
    return near.get(n, f"{_GIVEN_LATIN[n % 8]}.{_FAMILY_LATIN[n // 8 % 8]}.{n:06d}")


def _person(n: int, today: date, random: Random, ids: _Ids) -> Person:
    traits = _traits(n)
    name = "消 花子" if n == 1 else f"{_FAMILY[n // 8 % 8]} {_GIVEN[n % 8]}"
    email, phone = f"{_local_part(n)}@customer.example", f"+81900{n:07d}"
    customer_id = f"C-{n:06d}" if Trait.BILLING in traits else None
    customer = _customer(n, customer_id, name, email, phone, traits) if customer_id else None
    invoices = tuple(_invoices(customer, traits, today, random, ids)) if customer else ()
    contacts = tuple(_contacts(n, name, email, phone, customer_id, traits, ids)) if Trait.CRM in traits else ()
    return Person(
        number=n,
        traits=traits,
        email=email,
        phone=phone,
        customer=customer,
        invoices=invoices,
        payments=tuple(_payments(invoices, random, ids)),
        usage=tuple(_usage(customer_id, today, random, ids)) if customer_id else (),
        contacts=contacts,
        cards=tuple(_card(contact, ids) for contact in contacts if contact.email),
        activities=tuple(_activities(contacts, today, random, ids)),
        office_phone=_office_phone(n) if Trait.OFFICE_PHONE in traits else None,
    )


def _office_phone(n: int) -> str:
    """In the same block as the other numbers, and nobody's: people are counted up to a million."""
    return f"+819009{n:06d}"


def _customer(n: int, customer_id: str, name: str, email: str, phone: str, traits: frozenset[Trait]) -> Customer:
    marked = Trait.MANUAL in traits
    return Customer(
        customer_id=customer_id,
        name=name,
        email=email.upper() if Trait.OTHER_CASE in traits else email,
        phone=phone,
        address=f"〒000-{n % 10_000:04d} 架空県見本市例町{n}番地",
        suspended_by=MANUAL if marked else None,
        suspended_at=_MARKED_AT if marked else None,
    )


def _invoices(
    customer: Customer, traits: frozenset[Trait], today: date, random: Random, ids: _Ids
) -> Iterator[Invoice]:
    year = 365
    ages = [random.randint(7 * year + 40, 11 * year) for _ in range(random.randint(1, 3)) if Trait.AGED in traits]
    ages += [random.randint(10, 7 * year - 40) for _ in range(random.randint(1, 4)) if Trait.RETAINED in traits]
    for age in sorted(ages, reverse=True):
        yield Invoice(
            id=next(ids.invoice),
            customer_id=customer.customer_id,
            issued_on=today - timedelta(days=age),
            amount_yen=random.randint(5, 400) * 100,
            name=customer.name,
            address=customer.address,
        )


def _payments(invoices: tuple[Invoice, ...], random: Random, ids: _Ids) -> Iterator[Payment]:
    """Most invoices are paid, some in two parts, some not at all."""
    for invoice in invoices:
        parts = random.choice((0, 1, 1, 1, 2))
        for part in range(parts):
            yield Payment(
                id=next(ids.payment),
                customer_id=invoice.customer_id,
                invoice_id=invoice.id,
                paid_on=invoice.issued_on + timedelta(days=5 + part),
                method=random.choice(("card", "transfer", "convenience_store")),
                amount_yen=invoice.amount_yen // parts,
            )


def _usage(customer_id: str, today: date, random: Random, ids: _Ids) -> Iterator[Usage]:
    for day in range(random.randint(2, 6)):
        yield Usage(next(ids.usage), customer_id, today - timedelta(days=1 + day), random.randint(1, 500))


def _contacts(
    n: int,
    name: str,
    email: str,
    phone: str,
    customer_id: str | None,
    traits: frozenset[Trait],
    ids: _Ids,
) -> Iterator[Contact]:
    company = _COMPANIES[n % 4]
    first = f"P-{next(ids.contact):06d}"
    marker = MANUAL if Trait.MANUAL in traits else None
    if Trait.HIDDEN_DUPLICATE in traits:
        # The one with the known address points at one that shares nothing but the link.
        yield Contact(first, name, f"old.{n:06d}@former.example", None, None, company, None)
        found = f"P-{next(ids.contact):06d}"
        yield Contact(found, name, email, phone, customer_id, company, first, marker)
        return
    yield Contact(first, name, email, phone, customer_id, company, None, marker)
    if Trait.DUPLICATES not in traits:
        return
    second, third = (f"P-{next(ids.contact):06d}" for _ in range(2))
    # The second is found by the address alone, or by a link too; the third by a link alone, or by two.
    yield Contact(second, name, email.title(), None, None, company, None if n % 3 else first)
    yield Contact(
        third, name, f"moved.{n:06d}@office.example", _office_phone(n), None, company, first if n % 2 else second
    )


def _card(contact: Contact, ids: _Ids) -> Card:
    text = f"{contact.company}\n{contact.name}\n{contact.email}"
    return Card(f"B-{next(ids.card):06d}", contact.id, text, contact.email)


def _activities(contacts: tuple[Contact, ...], today: date, random: Random, ids: _Ids) -> Iterator[Activity]:
    noon = datetime(today.year, today.month, today.day, 3, tzinfo=UTC)
    for contact in contacts:
        for _ in range(random.randint(0 if contact.duplicate_of else 1, 3)):
            kind = random.choice(("call", "mail", "visit"))
            at = noon - timedelta(days=random.randint(1, 900))
            yield Activity(f"A-{next(ids.activity):06d}", contact.id, kind, at, f"{contact.name}様と{kind}")
