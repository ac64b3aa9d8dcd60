"""What the affiliates hold of the sample people: a pure function of each.

Some people are with both, some with one, some with none. Ids carry the person's number.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from keshi.dev.systems.affiliates import COMPANIES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from keshi.dev.systems.calls import Row
    from keshi.dev.systems.people import Person

TABLES = ("members", "records")
_SINCE = datetime(2025, 6, 2, 1, 0, tzinfo=UTC)


def belongs(company: str, person: Person) -> bool:
    """Whether the person is a member there."""
    return bool(person.number % 3 if company == "sakura_logistics" else person.number % 4)


def held(company: str, person: Person) -> dict[str, list[Row]]:
    """Table → rows that a company has about the person."""
    if not belongs(company, person):
        return {name: [] for name in TABLES}
    members = list(_members(company, person))
    return {"members": members, "records": [row for member in members for row in _records(company, member)]}


def refs(person: Person) -> frozenset[str]:
    """References (`company.table:id`) of all of these rows, at both."""
    return frozenset(
        f"{company}.{table}:{row['id']}"
        for company in COMPANIES
        for table, rows in held(company, person).items()
        for row in rows
    )


def _members(company: str, person: Person) -> Iterator[Row]:
    """Known by all that the person has; one in five a second time, by the telephone number alone."""
    letter, n = COMPANIES[company].letter, person.number
    own = person.identifiers
    # They write addresses as they like.
    email = own["email"].upper() if n % 2 else own["email"]
    known = {"email": email, "phone": own["phone"], "customer_id": own.get("customer_id")}
    yield {"id": f"{letter}-{n:06d}-1", **known, "name": f"Member {n:06d}"}
    if n % 5 == 0:
        alone = {"email": None, "phone": own["phone"], "customer_id": None}
        yield {"id": f"{letter}-{n:06d}-2", **alone, "name": f"Member {n:06d} (hotline)"}


def _records(company: str, member: Row) -> Iterator[Row]:
    kind, number = COMPANIES[company].kind, int(member["id"][2:8])
    for place in range(1 + number % 3):
        at = (_SINCE + timedelta(days=number % 200, hours=place)).isoformat()
        yield {"id": f"{member['id']}-{place}", "member_id": member["id"], "kind": kind, "at": at}
