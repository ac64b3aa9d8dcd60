"""What the MA tool holds of the sample people: a pure function of each. Ids carry the person's number."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from keshi.dev.systems.people import MANUAL, Person, Trait

if TYPE_CHECKING:
    from collections.abc import Iterator

    from keshi.dev.systems.calls import Row

Tables = dict[str, list["Row"]]

TABLES = ("contacts", "cookies", "behaviour", "lists", "mails", "audiences")
PARTNERS = ("adnet", "mosaic")

_ROUND = 20
_NOBODY = frozenset({8, 18})
_VISITOR = 13
_PROVISION_STOPPED = 5
_COOKIE_STOPPED = 15
_LINKED = datetime(2025, 11, 4, 9, 0, tzinfo=UTC)
_SEND = datetime(2036, 4, 1, 0, 0, tzinfo=UTC)
"""Scheduled mails lie so far ahead that none is sent while somebody looks."""


def held(person: Person) -> Tables:
    """Table → rows about this person; some people are in no table.

    Shapes: the contact has only a former address that the CRM knows; a second contact under the same address that was
    imported from a list; a contact, a cookie or the giving to partners that the company's own people stopped.
    """
    tables: Tables = {name: [] for name in TABLES}
    if person.number % _ROUND in _NOBODY:
        return tables
    for number, contact in enumerate(_contacts(person), start=1):
        tables["contacts"].append(contact)
        for name, rows in _belongings(person.number, number, contact).items():
            tables[name] += rows
    return tables


def refs(person: Person) -> frozenset[str]:
    """References (`table:id`) of all of these rows."""
    return frozenset(f"{table}:{row['id']}" for table, rows in held(person).items() for row in rows)


def cookie_value(person: int, number: int) -> str:
    """The value of a cookie, as a browser holds it."""
    return "ck." + hashlib.sha256(f"sample cookie {person}.{number}".encode()).hexdigest()[:24]


def visitor(person: Person) -> Tables:
    """Beside one in twenty people: a visitor whom no contact is known of. The cookie alone finds what is kept."""
    if person.number % _ROUND != _VISITOR:
        return {}
    cookie = _cookie(person.number, 9, None)
    return {"cookies": [cookie], "behaviour": list(_behaviour(person.number, 9, cookie, None))}


def _id(letter: str, person: int, *numbers: int) -> str:
    return "-".join((letter, f"{person:06d}", *map(str, numbers)))


def _contacts(person: Person) -> Iterator[Row]:
    n, place = person.number, person.number % _ROUND
    name = person.contacts[0].name if person.contacts else person.customer.name if person.customer else ""
    manual = MANUAL if Trait.MANUAL in person.traits else None
    stopped = MANUAL if place == _PROVISION_STOPPED else None
    hidden = Trait.HIDDEN_DUPLICATE in person.traits
    email = next(c.email for c in person.contacts if c.duplicate_of is None) if hidden else person.email
    customer_id = None if hidden else person.customer_id
    first = {"id": _id("M", n, 1), "email": email, "customer_id": customer_id, "name": name}
    yield {**first, "suppressed_by": manual, "provision_stopped_by": stopped}
    if Trait.DUPLICATES in person.traits:
        imported = {"id": _id("M", n, 2), "email": person.email.title(), "customer_id": None, "name": name}
        yield {**imported, "suppressed_by": None, "provision_stopped_by": None}


def _belongings(n: int, number: int, contact: Row) -> Tables:
    first, owner = number == 1, contact["id"]
    tables: Tables = {name: [] for name in TABLES}
    for c in range(10 * number, 10 * number + (2 if first and n % 3 else 1)):
        cookie = _cookie(n, c, owner)
        if n % _ROUND == _COOKIE_STOPPED and c == 11:  # noqa: PLR2004 - the second one
            cookie["suppressed_by"] = MANUAL
        tables["cookies"].append(cookie)
        tables["behaviour"] += _behaviour(n, c, cookie, owner)
    for place, name in enumerate(("newsletter", "spring-fair", "renewals")[: 1 + (n + number) % 3]):
        row = {"id": _id("L", n, number, place), "contact_id": owner, "list": name, "since": "2025-10-01"}
        tables["lists"].append(row)
    for place in range(1 + n % 2 if first else 1):
        tables["mails"].append(_mail(n, number, place, contact))
    if first:
        status = "removed" if contact["provision_stopped_by"] else "active"
        tables["audiences"] = [
            {"id": _id("X", n, p), "contact_id": owner, "partner": partner, "status": status, "asked_at": None}
            for p, partner in enumerate(PARTNERS[: 1 + n % 2])
        ]
    return tables


def _cookie(n: int, number: int, owner: str | None) -> Row:
    linked = (_LINKED + timedelta(days=number)).isoformat() if owner else None
    marks = {"suppressed_by": None, "provision_stopped_by": None}
    cookie = {"id": _id("K", n, number), "cookie_id": cookie_value(n, number), "contact_id": owner, "linked_at": linked}
    return cookie | marks


def _behaviour(n: int, number: int, cookie: Row, owner: str | None) -> Iterator[Row]:
    """Some before the cookie was linked, anonymous as they were written; some after."""
    for place in range(3 + n % 3):
        at = _LINKED + timedelta(days=number, hours=place - 2)
        kind, page = ("view", f"/products/{(n + place) % 40}") if place % 3 else ("search", "/search")
        known = owner if place > 1 else None
        yield {
            "id": _id("V", n, number, place),
            "cookie_id": cookie["cookie_id"],
            "contact_id": known,
            "at": at.isoformat(),
            "kind": kind,
            "page": page,
        }


def _mail(n: int, number: int, place: int, contact: Row) -> Row:
    """The first one of every fourth person has been sent."""
    at = _SEND + timedelta(days=place)
    sent = "2025-12-01T00:00:00+00:00" if (n % 4, place) == (0, 0) else None
    return {
        "id": _id("S", n, number, place),
        "contact_id": contact["id"],
        "address": contact["email"],
        "campaign": f"renewal-{2036 + place}",
        "send_at": sent or at.isoformat(),
        "sent_at": sent,
        "suppressed_by": None,
    }
