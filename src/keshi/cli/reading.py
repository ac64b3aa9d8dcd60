"""What commands that read have in common: ids, moments in a zone, languages."""

import re
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Annotated, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import typer

from keshi.cli.errors import Failure
from keshi.client.commands import canonical_request_id
from keshi.orchestrator.words import Language, Words

_RELATIVE: Final = re.compile(r"^([+-]\d{1,4})d$")
_MISUSED: Final = 2

ZONE = Annotated[
    str,
    typer.Option(envvar="KESHI_ZONE", metavar="NAME", help="Zone of the times shown and of days given: Asia/Tokyo."),
]
LANGUAGE = Annotated[Language, typer.Option(envvar="KESHI_LANGUAGE", help="Language of the text.")]
AS_JSON = Annotated[bool, typer.Option("--json", help="Print what the API says, as JSON.")]


def request_id_of(text: str) -> str:
    """The canonical form of what was typed.

    Raises:
        Failure: it is no request id.
    """
    try:
        return canonical_request_id(text)
    except ValueError as e:
        raise Failure(str(e), _MISUSED) from None


def zone_of(name: str) -> tzinfo:
    """The zone of this name.

    Raises:
        Failure: there is none.
    """
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise Failure("--zone: there is no time zone of this name; write it like Asia/Tokyo or UTC", _MISUSED) from None


def words_of(language: Language, zone: str) -> Words:
    """The words of a language, with times in a zone."""
    return Words(language, zone_of(zone))


def moment_of(text: str | None, option: str, zone: tzinfo) -> datetime | None:
    """A moment: ISO 8601 with a zone, a day (its beginning), or days from now (`+7d`, `-30d`).

    Raises:
        Failure: it is none of them.
    """
    if text is None:
        return None
    if relative := _RELATIVE.match(text):
        return datetime.now(UTC) + timedelta(days=int(relative[1]))
    try:
        if len(text) == len("2026-03-01"):
            day = date.fromisoformat(text)
            return datetime(day.year, day.month, day.day, tzinfo=zone)
        at = datetime.fromisoformat(text)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise Failure(
            f"{option}: write a day (2026-03-01), a moment with its zone (2026-03-01T09:00:00+09:00), or +7d", _MISUSED
        )
    return at


def when(at: datetime | None, zone: tzinfo = UTC) -> str:
    """A moment, to the second, with its zone."""
    return at.astimezone(zone).isoformat(timespec="seconds").replace("+00:00", "Z") if at else ""


def day_and_time(at: datetime | None, zone: tzinfo = UTC) -> str:
    """A moment, to the minute, with its zone: for lists."""
    return at.astimezone(zone).isoformat(timespec="minutes").replace("+00:00", "Z") if at else ""
