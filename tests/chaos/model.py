"""The systems as they have to be, worked out from the stores before it, one request after another. Nothing of keshi."""

import copy
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import date

from .affiliates import Affiliates
from .billing import Billing
from .call_recordings import CallRecordings
from .crm import Crm
from .ma_tool import MaTool
from .rules import Asked, Ending, Rules, Wanted, same
from .stores import Ref, Row, Stores

_MARKS = {"suspended_by", "suspended_at"}
_CRM = Crm()
RULES: Mapping[str, Rules] = {r.system: r for r in (Billing(), _CRM, CallRecordings(), MaTool(), Affiliates())}
"""What the owners of the five systems have decided, by system, as the inventory calls it."""

Counts = dict[tuple[str, str], Counter[Ending]]
"""System and category → how many records ended how. Every place is there."""


@dataclass(frozen=True)
class Taken:
    """What a request had done when it was taken back.

    Attributes:
        counts: how many records ended how; `left` are those that it still had to do.
        changed: by system, how many records it changed.
        strange: records in a state that no part of it leads to.
    """

    counts: Counts
    changed: Counter[str]
    strange: list[Ref]


@dataclass(frozen=True)
class GivenWay:
    """What shows of a suspension whose place an erasure has taken: system and category → how many records.

    Attributes:
        there: the person had.
        marked: the law kept from being erased, with the mark of this suspension on them.
    """

    there: dict[tuple[str, str], int]
    marked: dict[tuple[str, str], int]


class World:
    """The stores as they have to be."""

    def __init__(self, before: Stores, today: date) -> None:
        self.stores = before.copy()
        self.today = today

    def belonging(self, asked: Asked) -> dict[str, set[Ref]]:
        """By system, the records of the person; a system that can do nothing about the request is left out."""
        known = self._known(asked)
        return {
            system: rules.theirs(self.stores.of(system), known, asked)
            for system, rules in RULES.items()
            if asked.action in rules.actions and any(known.get(kind) for kind in rules.searched)
        }

    def _known(self, asked: Asked) -> Wanted:
        """What the command names, and what the CRM says of the person beyond it: it is asked first."""
        known: dict[str, set[str]] = {}
        for identifier in asked.identifiers:
            known.setdefault(identifier["type"], set()).add(identifier["value"].casefold())
        contacts = self.stores.of("crm")
        for kind, values in _CRM.learned(contacts, _CRM.theirs(contacts, known, asked)).items():
            known.setdefault(kind, set()).update(values)
        return known

    def carry_out(self, asked: Asked) -> Counts:
        """Do all that a request asks for, and count what becomes of each record."""
        belonging = self.belonging(asked)
        counts = _unable(asked, belonging)
        for system, refs in belonging.items():
            rules, rows = RULES[system], self.stores.of(system)
            mine = {ref: rows[ref] for ref in refs if ref in rows}
            before = copy.deepcopy(mine)
            rules.carry_out(mine, refs, asked, self.today)
            for ref in before.keys() - mine.keys():
                rules.remove(rows, ref)
            rows.update(mine)
            counts |= _placed(system, rules.endings(before, mine, refs, asked, self.today))
        return counts

    def take_over(self, asked: Asked, after: Stores) -> Taken:
        """What a request that was taken back has done before: read from the stores, and kept in the model.

        Args:
            asked: the request.
            after: the stores after it; the model's own, if it is said to have done nothing.
        """
        belonging = self.belonging(asked)
        taken = Taken(_unable(asked, belonging), Counter(), [])
        for system, refs in belonging.items():
            rules, rows = RULES[system], self.stores.of(system)
            before, now = ({ref: some[ref] for ref in refs if ref in some} for some in (rows, after.of(system)))
            wholly = copy.deepcopy(before)
            rules.carry_out(wholly, refs, asked, self.today)
            taken.counts.update(_placed(system, rules.endings(before, now, refs, asked, self.today)))
            for ref in sorted(refs):
                old, new, but = before.get(ref), now.get(ref), rules.own_column
                taken.changed[system] += not same(old, new, but=but)
                if rules.possible(old, wholly.get(ref), new):
                    self._take(system, ref, new)
                else:
                    taken.strange.append(ref)
        return taken

    def give_way(self, asked: Asked, after: Stores) -> GivenWay:
        """What shows of a suspension whose place an erasure took. Its marks on what was not erased go into the model.

        Args:
            asked: the suspension.
            after: the stores after the erasure, too.
        """
        belonging = self.belonging(asked)
        places = _unable(asked, belonging)
        found = GivenWay(dict.fromkeys(places, 0), dict.fromkeys(places, 0))
        for system, refs in belonging.items():
            rules, rows = RULES[system], self.stores.of(system)
            before = {ref: rows[ref] for ref in refs if ref in rows}
            wholly = copy.deepcopy(before)
            rules.carry_out(wholly, refs, asked, self.today)
            for category, endings in rules.endings(before, wholly, refs, asked, self.today).items():
                found.there[system, category] = endings.total()
            for ref in before.keys() & after.of(system).keys():
                marks = {name: after.of(system)[ref][name] for name in _MARKS & before[ref].keys()}
                if rules.possible(before[ref], wholly.get(ref), before[ref] | marks):
                    rows[ref] = before[ref] | marks
                if marks.get("suspended_by") == asked.mark:
                    found.marked[system, str(rules.category(ref))] += 1
        return found

    def _take(self, system: str, ref: Ref, new: Row | None) -> None:
        rules, rows = RULES[system], self.stores.of(system)
        if new is not None:
            rows[ref] = copy.deepcopy(rows.get(ref, {}) | {k: v for k, v in new.items() if k != rules.own_column})
        elif ref in rows:
            rules.remove(rows, ref)


def _unable(asked: Asked, able: Collection[str]) -> Counts:
    """What stands of the systems that can do nothing: the action is not theirs, or nobody knows what to search by."""
    counts: Counts = {(system, category): Counter() for system, rules in RULES.items() for category in rules.categories}
    for (system, _), endings in counts.items():
        if system not in able:
            endings["not_searchable" if asked.action in RULES[system].actions else "impossible", None] = 0
    return counts


def _placed(system: str, counts: Mapping[str, Counter[Ending]]) -> Counts:
    return {(system, category): endings for category, endings in counts.items()}


def differing(model: Stores, after: Stores) -> Iterator[tuple[str, Ref]]:
    """Records that are not as the model says, also those that nobody planned."""
    for system in RULES:
        wanted, found = model.of(system), after.of(system)
        for ref in sorted(wanted.keys() | found.keys()):
            if not same(wanted.get(ref), found.get(ref)):
                yield system, ref
