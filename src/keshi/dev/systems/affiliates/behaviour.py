"""How an affiliate behaves, by a file in its directory that is read again and again: for demos and tests."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

FILE: Final = "behaviour.json"


class Mood(StrEnum):
    """What becomes of a request."""

    NORMAL = "normal"  # it is carried out
    SILENT = "silent"  # it is received, and then nothing
    REJECTS = "rejects"  # it is cancelled
    DOWN = "down"  # no call is answered but by 503
    HANGS = "hangs"  # no call is answered at all


class Sign(StrEnum):
    """What stands in the signature."""

    RIGHT = "right"
    WRONG = "wrong"  # it does not fit the body
    NONE = "none"
    STRANGER = "stranger"  # it is right, for another domain


@dataclass(frozen=True, slots=True)
class Behaviour:
    """See the module.

    Attributes:
        mood: as it applies to all requests that are not over.
        after_ms: a request is begun so long after it came.
        expected_seconds: it is said to be done so long after it came.
        sign: see there.
    """

    mood: Mood = Mood.NORMAL
    after_ms: int = 300
    expected_seconds: int = 3600
    sign: Sign = Sign.RIGHT


def behave(data: Path, behaviour: Behaviour) -> None:
    """Switches; holds from the next call on."""
    fresh = data / f"{FILE}.new"
    fresh.write_text(json.dumps(asdict(behaviour)), encoding="ascii")
    fresh.replace(data / FILE)


def behaviour(data: Path) -> Behaviour:
    """As it stands in the file; by default all is well.

    Raises:
        ValueError: the file says something else.
    """
    try:
        given = json.loads((data / FILE).read_text(encoding="ascii"))
    except FileNotFoundError:
        return Behaviour()
    try:
        return Behaviour(
            Mood(given["mood"]), int(given["after_ms"]), int(given["expected_seconds"]), Sign(given["sign"])
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"{FILE} lacks {error}") from None
