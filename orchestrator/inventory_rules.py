"""What an inventory must say beyond its form. Pure; looks at what can be read, so that one slip hides no other."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final

from keshi.schemas.commands import Action
from keshi.schemas.grounds import grounds
from keshi.schemas.inventory import THIRD_PARTIES, Role

Place = tuple[str | int, ...]

_OTHERS: Final = frozenset({Role.THIRD_PARTY.value, Role.RECIPIENT_ABROAD.value, Role.JOINT_USER.value})


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong at a place of the tree; a note is no obstacle."""

    place: Place
    what: str
    remedy: str
    note: bool = False


@dataclass(frozen=True, slots=True)
class Seen:
    """One system, as far as it can be read."""

    index: int
    name: str
    raw: Mapping[str, Any]

    def at(self, *place: str | int) -> Place:
        """A place within it."""
        return ("systems", self.index, *place)

    def words(self, field: str) -> list[tuple[Place, str]]:
        """The texts of one of its lists, with their places."""
        return [(self.at(field, i), w) for i, w in enumerate(_list(self.raw.get(field))) if isinstance(w, str)]

    def has(self, field: str, word: str) -> bool:
        """Whether one of its lists names something."""
        return word in _list(self.raw.get(field))


def findings(data: Mapping[str, Any]) -> Iterator[Finding]:
    """All that the rules find."""
    systems = [
        Seen(i, str(raw.get("name", i + 1)), raw)
        for i, raw in enumerate(_list(data.get("systems")))
        if isinstance(raw, dict)
    ]
    yield from _names(systems)
    yield from _order(systems)
    yield from _learning(systems)
    for system in systems:
        yield from _retention(system)
    yield from _abroad(systems)
    yield from _actions(systems)
    for system in systems:
        yield from _provision(system)


def _list(node: Any) -> list[Any]:
    return node if isinstance(node, list) else []


def _word(raw: Mapping[str, Any], field: str) -> str:
    word = raw.get(field)
    return word if isinstance(word, str) else ""


def _names(systems: Iterable[Seen]) -> Iterator[Finding]:
    first: dict[str, int] = {}
    for system in systems:
        if first.setdefault(system.name, system.index) != system.index:
            yield Finding(system.at("name"), "another system has this name", "give each system a name of its own")
        categories = [c.get("name") if isinstance(c, dict) else None for c in _list(system.raw.get("categories"))]
        for i, name in enumerate(categories):
            if name is not None and name in categories[:i]:
                yield Finding(
                    system.at("categories", i, "name"),
                    "another category of this system has this name",
                    "give each category a name of its own, or make them one",
                )
        for field in ("actions", "identifiers", "learns", "after"):
            yield from _repeated(system.words(field))


def _repeated(words: Iterable[tuple[Place, str]]) -> Iterator[Finding]:
    seen: set[str] = set()
    for place, word in words:
        if word in seen:
            yield Finding(place, f"{word} stands there twice", "keep one")
        seen.add(word)


def _order(systems: list[Seen]) -> Iterator[Finding]:
    after: dict[str, list[str]] = {}
    for system in systems:
        for place, other in system.words("after"):
            if other == system.name:
                yield Finding(place, "a system cannot wait for itself", "take it out")
            elif all(s.name != other for s in systems):
                yield Finding(place, f"there is no system {other}", _closest(other, [s.name for s in systems]))
            else:
                after.setdefault(system.name, []).append(other)
    reported: set[frozenset[str]] = set()
    for system in systems:
        circle = _circle(system.name, after)
        if circle and frozenset(circle) not in reported:
            reported.add(frozenset(circle))
            way = " waits for ".join([*circle, circle[0]])
            yield Finding(system.at("after"), f"nobody could begin: {way}", "take one of these `after` out")


def _circle(start: str, after: Mapping[str, list[str]]) -> list[str]:
    """The systems on a way from `start` back to itself."""
    came_from: dict[str, str] = {}
    waiting = [start]
    while waiting:
        here = waiting.pop()
        for other in after.get(here, ()):
            if other == start:
                way = [here]
                while way[-1] != start:
                    way.append(came_from[way[-1]])
                return way[::-1]
            if other not in came_from:
                came_from[other] = here
                waiting.append(other)
    return []


def _closest(word: str, known: Iterable[str]) -> str:
    known = list(known)
    close = get_close_matches(word, known, n=1)
    return f"did you mean {close[0]}?" if close else f"name one of {', '.join(known[:20])}, or take it out"


def _learning(systems: list[Seen]) -> Iterator[Finding]:
    for system in systems:
        for place, kind in system.words("learns"):
            if not any(other.has("identifiers", kind) for other in systems if other is not system):
                yield Finding(
                    place,
                    f"no other system is searched by {kind}",
                    f"add {kind} to the `identifiers` of the system that needs it, or take it out of `learns`",
                )


def _retention(system: Seen) -> Iterator[Finding]:
    known = grounds()
    keeping = sorted(g.id for g in known.values() if g.retains)
    for i, category in enumerate(_list(system.raw.get("categories"))):
        rules = _list(category.get("retention")) if isinstance(category, dict) else []
        words = []
        for k, rule in enumerate(rules):
            ground = rule.get("ground") if isinstance(rule, dict) else None
            place = system.at("categories", i, "retention", k, "ground")
            if not isinstance(ground, str):
                continue
            words.append((place, ground))
            if ground not in known:
                yield Finding(place, f"no rule file has the ground {ground}", _closest(ground, keeping))
            elif not known[ground].retains:
                yield Finding(
                    place, f"{ground} makes nobody keep a record", f"name a ground that does: {', '.join(keeping)}"
                )
        yield from _repeated(words)


def _abroad(systems: list[Seen]) -> Iterator[Finding]:
    home = {_word(s.raw, "country") for s in systems if _word(s.raw, "role") == Role.OWN.value}
    for place, holder in _holders(systems):
        role, country = _word(holder, "role"), _word(holder, "country")
        if role == Role.RECIPIENT_ABROAD.value:
            if not holder.get("basis"):
                yield Finding(
                    (*place, "role"),
                    "a recipient abroad has no basis",
                    "add `basis:` with what allows the provision (APPI 28): consent, an equivalent system, a country",
                )
            if country in home:
                yield Finding(
                    (*place, "country"),
                    "a recipient abroad is in a country of your own systems",
                    "check country and role",
                    note=True,
                )
        elif role != Role.OWN.value and home and country not in home and not holder.get("basis"):
            yield Finding(
                (*place, "country"),
                "its holder is in another country than your own systems, and no basis is given",
                "add `basis:` with what allows it (APPI 28), or make its role recipient_abroad",
                note=True,
            )


def _holders(systems: Iterable[Seen]) -> Iterator[tuple[Place, Mapping[str, Any]]]:
    """Who holds data: each system, and each category that names a holder of its own."""
    for system in systems:
        yield system.at(), system.raw
        for i, category in enumerate(_list(system.raw.get("categories"))):
            holder = category.get("holder") if isinstance(category, dict) else None
            if isinstance(holder, dict):
                yield system.at("categories", i, "holder"), holder


def _actions(systems: list[Seen]) -> Iterator[Finding]:
    offered = {word for s in systems for _, word in s.words("actions")}
    if systems and Action.ERASE.value not in offered:
        yield Finding(
            ("systems",),
            "no system can erase: every command that asks for it would be rejected",
            "add erase to the `actions` of the systems whose handlers can do it",
        )
    for system in systems:
        able = {word for _, word in system.words("actions")}
        if not able and isinstance(system.raw.get("actions"), list):
            yield Finding(
                system.at("actions"),
                "it can do nothing: each request will say that it was impossible here",
                "list what its handler can do",
                note=True,
            )
        if Action.SUSPEND_USE.value in able and Action.RESUME_USE.value not in able:
            yield Finding(
                system.at("actions"),
                "what it suspends it cannot resume",
                "add resume_use, if its handler can",
                note=True,
            )
    if (
        any(_word(holder, "role") in _OTHERS for _, holder in _holders(systems))
        and Action.STOP_PROVISION.value not in offered
    ):
        yield Finding(
            ("systems",),
            "data go to others, and no system can stop that: such commands would be rejected",
            "add stop_provision where a handler can do it",
            note=True,
        )


def _provision(system: Seen) -> Iterator[Finding]:
    """Who provides nothing to third parties is not one, and has no provision to stop."""
    if system.raw.get("provides_to_third_parties", True):
        return
    if system.has("actions", Action.STOP_PROVISION.value):
        yield Finding(
            system.at("provides_to_third_parties"),
            "it provides nothing to third parties, and offers to stop that",
            "take stop_provision out of its `actions`, or this line out",
        )
    for place, holder in _holders([system]):
        if (role := _word(holder, "role")) in THIRD_PARTIES:
            yield Finding(
                (*place, "role"),
                f"its role is {role}, and the system is said to provide nothing to third parties",
                "take `provides_to_third_parties: false` out, or put the role right",
            )
