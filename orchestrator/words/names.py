"""How people call what a record names by codes: systems, categories, grounds, scopes, and what is left to do."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from itertools import groupby

from keshi.orchestrator.views import ObligationView
from keshi.orchestrator.words import Words
from keshi.schemas.commands import Scope
from keshi.schemas.grounds import grounds
from keshi.schemas.inventory import Holder, System
from keshi.schemas.outcomes import Residue


class Names:
    """Names from the inventory that the plan was made of; without it, the names in the plan."""

    def __init__(self, inventory: Iterable[System], words: Words) -> None:
        self._w = words
        self._systems: Mapping[str, System] = {s.name: s for s in inventory}

    def system(self, name: str) -> str:
        """Its title, and the name by which commands know it."""
        system = self._systems.get(name)
        return f"{system.title} [{name}]" if system else name

    def holder(self, name: str) -> str:
        """A system with what its holder is to the company."""
        system = self._systems.get(name)
        if system is None:
            return name
        return self._w.say("units", "aside", text=self.system(name), more=self._role(system))

    def category(self, system: str, name: str) -> str:
        """A category's title; with its holder, where it names an affiliate."""
        found = self._systems.get(system)
        category = next((c for c in found.categories if c.name == name), None) if found else None
        if category is None:
            return name
        if category.holder is None:
            return category.title
        return self._w.say("units", "aside", text=category.title, more=self._role(category.holder))

    def _role(self, holder: System | Holder) -> str:
        where = self._w.say("units", "country", country=holder.country)
        parts = [self._w.code("role", holder.role), where]
        if holder.basis:
            label = self._w.say("label", "basis")
            parts.append(self._w.say("units", "label", label=label, text=holder.basis))
        return self._w.join(parts)

    def ground(self, rule: str) -> str:
        """What a ground says, with its id. Of one without words here: its title in the rule file."""
        if self._w.knows("ground", rule):
            return f"{self._w.say('ground', rule)} [{rule}]"
        known = grounds().get(rule)
        return f"{known.title} [{rule}]" if known else rule

    def scope(self, scope: Scope) -> str:
        """How far the request reaches."""
        parts = [
            self._w.say("scope", name, names=self._w.join(self._of_scope(name, values)))
            for name, values in (
                ("categories", scope.categories),
                ("purposes", scope.purposes),
                ("items", scope.items),
            )
            if values
        ]
        if not parts:
            return self._w.say("scope", "everything")
        return self._w.say("scope", "narrowed", parts=self._w.join(parts))

    def _of_scope(self, kind: str, values: Sequence[str]) -> Iterator[str]:
        if kind == "purposes":
            return iter(values)
        titles = {c.name: c.title for s in self._systems.values() for c in s.categories}
        # Of an item its reference is a keyed hash: its category says more.
        return (titles.get(c, c) for c in dict.fromkeys(v.partition(":")[0] for v in values))

    def identifiers(self, types: Iterable[str]) -> str:
        """Types of identifiers."""
        return self._w.join(self._identifier(t) for t in types)

    def _identifier(self, kind: str) -> str:
        if self._w.knows("identifier", kind):
            return self._w.say("identifier", kind)
        return self._w.say("identifier", "other", kind=kind)

    def residue(self, residue: Residue) -> str:
        """Where something stays behind, and why."""
        return self._w.say(
            "units",
            "label",
            label=self._w.code("residue_place", residue.place),
            text=self._w.code("residue_reason", residue.reason),
        )

    def obligations(self, obligations: Iterable[ObligationView], family: str) -> Iterator[tuple[int, str]]:
        """Obligations, those alike together, in the words of a family: `kept` or `to_do`."""
        for _, alike in groupby(sorted(obligations, key=_alike), key=_alike):
            same = list(alike)
            first, count = same[0], sum(o.count for o in same)
            label = self._w.join((self.system(first.system), self.category(first.system, first.category)))
            yield 0, self._w.say("units", "label", label=label, text=self._w.code(family, first.kind, count))
            if family == "to_do":
                yield 1, self._w.say("obligation", "late" if first.late else first.status)
            yield from ((1, line) for line in self.backing(first.ground, [(o.until, o.count) for o in same]))

    def backing(self, ground: str | None, until: Iterable[tuple[date | None, int]]) -> Iterator[str]:
        """Until when, with how many where there are several dates, and on which ground."""
        dates: Counter[date] = Counter()
        for day, count in until:
            if day is not None:
                dates[day] += count
        if dates:
            yield self.labelled("until", self._w.join(self._dated(dates)))
        if ground:
            yield self.labelled("ground", self.ground(ground))

    def _dated(self, dates: Mapping[date, int]) -> Iterator[str]:
        for day, count in sorted(dates.items()):
            told = self._w.day(day)
            records = self._w.say("units", "records", count)
            yield self._w.say("units", "aside", text=told, more=records) if len(dates) > 1 else told

    def labelled(self, name: str, text: str) -> str:
        """A text with its label."""
        return self._w.say("units", "label", label=self._w.say("label", name), text=text)


def _alike(o: ObligationView) -> tuple[str, ...]:
    return (o.status, o.system, o.category, o.kind, o.ground or "", str(o.late))
