"""Affiliates: each company has its members, takes a request for erasure, and says how many records it deleted.

What it notes of a request is looked at, too: that it was asked at all, what it came to, and that nothing of the person
is kept in it. Its id follows from ours.
"""

from collections import Counter
from collections.abc import Iterable
from datetime import date
from hashlib import sha256
from typing import ClassVar
from uuid import UUID

from .rules import LEFT, Asked, Counts, Rules, Wanted, named
from .stores import Ref, Rows


class Affiliates(Rules):
    system: ClassVar[str] = "affiliates"
    categories: ClassVar[tuple[str, ...]] = ("sakura_logistics", "oceania_loyalty")
    actions: ClassVar[frozenset[str]] = frozenset({"erase"})

    def theirs(self, rows: Rows, wanted: Wanted, asked: Asked) -> set[Ref]:
        found: set[Ref] = set()
        for company in self.categories:
            members = {k for (t, k), row in rows.items() if t == f"{company}.members" and named(row, wanted)}
            found |= {(f"{company}.members", key) for key in members}
            found |= {r for r, row in rows.items() if r[0] == f"{company}.records" and row["member_id"] in members}
            found.add(request_there(company, asked))
        return found

    def carry_out(self, rows: Rows, refs: Iterable[Ref], asked: Asked, today: date) -> None:
        """Every company is asked, and counts what it had."""
        everything = set(refs)
        for company in self.categories:
            held = {ref for ref in everything & rows.keys() if _held(ref, company)}
            for ref in held:
                del rows[ref]
            note = {"status": "completed", "identities": None, "results_count": len(held)}
            rows[request_there(company, asked)] = note

    def endings(self, before: Rows, after: Rows, refs: Iterable[Ref], asked: Asked, today: date) -> Counts:
        """One request to each company has one ending. Who was never asked has done nothing."""
        counts: Counts = {}
        everything = set(refs)
        for company in self.categories:
            held = {ref for ref in everything & before.keys() if _held(ref, company)}
            if held & after.keys() or request_there(company, asked) not in after:
                ending = LEFT
            else:
                ending = "erased" if held else "not_found"
            counts[company] = Counter({(ending, None): 1})
        return counts


def _held(ref: Ref, company: str) -> bool:
    return ref[0] in {f"{company}.members", f"{company}.records"}


def request_there(company: str, asked: Asked) -> Ref:
    """How a company calls our request (docs/affiliates.md): the same for the same, in the form of a UUID."""
    name = f"opendsr/{asked.request_id}/{company}/{asked.action}/0"
    return f"{company}.requests", str(UUID(bytes=sha256(name.encode()).digest()[:16], version=4))
