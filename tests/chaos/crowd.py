"""Who asks for what: drawn from the sample people by a seed, nobody twice but for what belongs together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .rules import Asked
from .wire import request_id

if TYPE_CHECKING:
    from collections.abc import Iterator
    from random import Random

    from keshi.dev.systems.people import Person

_SHAPES = {
    "erase": 9,
    "erase_again": 2,
    "erase_repeated": 3,
    "suspend": 4,
    "suspend_resume": 3,
    "suspend_erase": 5,
}


@dataclass(frozen=True)
class Case:
    """What one person asks for: commands in the order in which they are sent.

    Attributes:
        asked: the requests.
        repeats: how often each command is sent.
    """

    asked: tuple[Asked, ...]
    repeats: int = 1


class Crowd:
    """An endless source of cases, as long as there are people."""

    def __init__(self, people: tuple[Person, ...], random: Random) -> None:
        self._random = random
        self._left: Iterator[Person] = iter(random.sample(people, len(people)))

    def case(self) -> Case:
        """The next person with whatever they ask for."""
        shape = self._random.choices(list(_SHAPES), weights=list(_SHAPES.values()))[0]
        person = self._identifiers()
        if shape == "erase_repeated":
            return Case((self._asked("erase", person),), repeats=3)
        actions = {
            "erase_again": ("erase", "erase"),
            "suspend": ("suspend_use",),
            "suspend_resume": ("suspend_use", "resume_use"),
            "suspend_erase": ("suspend_use", "erase"),
        }.get(shape, ("erase",))
        return Case(tuple(self._asked(action, person) for action in actions))

    def single(self) -> Case:
        """The next person with one request, which can be taken back."""
        action = self._random.choice(("erase", "erase", "suspend_use"))
        return Case((self._asked(action, self._identifiers()),))

    def _asked(self, action: str, identifiers: tuple[dict[str, str], ...]) -> Asked:
        return Asked(request_id(self._random.getrandbits(128)), action, identifiers)

    def _identifiers(self) -> tuple[dict[str, str], ...]:
        """The next person, named by some of what is known of them."""
        known = next(self._left).identifiers
        names = sorted(known)
        chosen = names if self._random.random() < 0.5 else self._random.sample(names, 1)
        return tuple({"type": kind, "value": known[kind]} for kind in chosen)
