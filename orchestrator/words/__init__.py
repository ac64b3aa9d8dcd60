"""Words for people: the codes of a record as sentences, in the languages that have a catalogue here."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, tzinfo
from enum import StrEnum
from functools import cache
from importlib.resources import files
from typing import Any, Final

import yaml


class Language(StrEnum):
    """Languages with a catalogue."""

    EN = "en"
    JA = "ja"


@dataclass(frozen=True)
class Words:
    """Sentences in one language. Times are shown in one zone, and say which."""

    language: Language
    zone: tzinfo = UTC

    def say(self, family: str, name: str, count: int | None = None, **values: Any) -> str:
        """A sentence that the catalogue has.

        Args:
            family: Its part of the catalogue, such as `line`.
            name: Its name in there.
            count: Chooses between `none`, `one` and `other`, and fills `{count}` and `{records}`.
            values: Fill the other places.

        Raises:
            KeyError: there is none.
        """
        found = catalogue(self.language)[family][name]
        if isinstance(found, Mapping):
            found = found.get({0: "none", 1: "one"}.get(count or 0, "other")) or found["other"]
        if count is not None:
            values["count"] = f"{count:,}"
            if "{records}" in found:
                values["records"] = self.say("units", "records", count)
        return str(found).format(**values)

    def code(self, family: str, code: str, count: int | None = None, **values: Any) -> str:
        """The sentence of a code; of one that this version does not know, the code itself, so that it can be read."""
        if code in catalogue(self.language)[family]:
            return self.say(family, code, count, **values)
        return self.say("units", "unknown", text=code.replace("_", " "), code=code)

    def knows(self, family: str, code: str) -> bool:
        """Whether a code has a sentence of its own."""
        return code in catalogue(self.language)[family]

    def join(self, parts: Any) -> str:
        """An enumeration."""
        return str(catalogue(self.language)["units"]["list"]).join(parts)

    def when(self, at: datetime) -> str:
        """A moment, to the minute, with its zone."""
        local = at.astimezone(self.zone)
        name = local.tzname() or ""
        zone = catalogue(self.language)["units"]["zones"].get(name, name)
        return self.say("units", "minute", zone=zone, hour=local.hour, minute=local.minute, **self._day(local))

    def day(self, day: date) -> str:
        """A day of the calendar."""
        return self.say("units", "day", **self._day(day))

    def _day(self, day: date) -> dict[str, Any]:
        months = catalogue(self.language)["units"].get("months")
        return {"year": day.year, "month": months[day.month - 1] if months else day.month, "day": day.day}


@cache
def catalogue(language: Language) -> Mapping[str, Mapping[str, Any]]:
    """All sentences of a language, by family and name."""
    text = (files("keshi.orchestrator.words") / f"{language}.yaml").read_text(encoding="utf-8")
    found: Mapping[str, Mapping[str, Any]] = yaml.safe_load(text)
    return found


LANGUAGES: Final = tuple(Language)
