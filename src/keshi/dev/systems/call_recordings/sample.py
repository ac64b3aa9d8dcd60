"""The sample people's calls: a pure function of each person."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import TYPE_CHECKING, Final

from keshi.dev.systems.people import MANUAL, SEED, Trait

if TYPE_CHECKING:
    from collections.abc import Iterator

    from keshi.dev.systems.people import Person

_LAST_DAY = datetime(2026, 3, 1, 1, 0, tzinfo=UTC)
_SILENT_PLACE = 14
"""Of twenty people one has never called."""
_WRITTEN: Final = (".json", ".txt")


@dataclass(frozen=True, slots=True)
class Blob:
    """What the bucket holds under one key.

    Attributes:
        key: where.
        versions: their content, the oldest first.
        deleted: a delete marker lies on top.
        suspended_by: the tag on all versions.
    """

    key: str
    versions: tuple[bytes, ...] = field(repr=False)
    deleted: bool = False
    suspended_by: str | None = None

    @property
    def refs(self) -> Iterator[str]:
        """Versions and marker, counted from the oldest."""
        for place in range(len(self.versions) + self.deleted):
            yield version_ref(self.key, place + 1)


@dataclass(frozen=True, slots=True)
class Call:
    """One call: its row in the index, and its objects.

    Attributes:
        id: opaque; the folder has its name.
        phone: the caller's.
        started_at: in UTC.
        agent: who took it.
        recording: None where nobody answered.
        transcript: None where none was made.
        unlisted: objects in its folder that the index does not name.
        suspended_by: the marker of the row.
    """

    id: str
    phone: str = field(repr=False)
    started_at: datetime
    agent: str
    recording: Blob | None = None
    transcript: Blob | None = None
    unlisted: tuple[Blob, ...] = ()
    suspended_by: str | None = None

    @property
    def blobs(self) -> tuple[Blob, ...]:
        return tuple(b for b in (self.recording, self.transcript, *self.unlisted) if b)

    @property
    def folder(self) -> str:
        return f"calls/{self.started_at:%Y/%m}/{self.id}/"


def category(key: str) -> str:
    """What an object is: `recordings` or `transcripts`."""
    return "transcripts" if key.endswith(_WRITTEN) else "recordings"


def version_ref(key: str, place: int) -> str:
    """How a snapshot names one version (or marker) of a key, the oldest being 1."""
    return f"{category(key)}:{key}?version={place}"


def refs(person: Person) -> frozenset[str]:
    """References of all that the system holds about a person."""
    found = {f"calls:{call.id}" for call in calls(person)}
    return frozenset(found.union(*(blob.refs for call in calls(person) for blob in call.blobs)))


def calls(person: Person) -> tuple[Call, ...]:
    """A person's calls, by the number that everybody knows and by the one that only the CRM does."""
    if not person.contacts or person.number % 20 == _SILENT_PLACE:
        return ()
    random = Random(f"{SEED}:calls:{person.number}")  # noqa: S311 - samples
    return tuple(_call(person, place, random) for place in range(random.randint(2, 5)))


def strangers(person: Person) -> tuple[Call, ...]:
    """A call of nobody we know, from a number that a careless pattern takes for the person's."""
    if person.number % 5:
        return ()
    random = Random(f"{SEED}:strangers:{person.number}")  # noqa: S311 - samples
    started = _LAST_DAY - timedelta(minutes=random.randint(0, 1_000_000))
    call = Call(_id(person.number, -1), f"{person.phone}0", started, "agent-9")
    return (_recorded(call, versions=2),)


def _call(person: Person, place: int, random: Random) -> Call:
    n, shape = person.number, person.number + place
    phone = person.office_phone if person.office_phone and place % 2 else person.phone
    started = _LAST_DAY - timedelta(minutes=random.randint(0, 1_000_000))
    marker = MANUAL if place == 0 and Trait.MANUAL in person.traits else None
    call = Call(_id(n, place), phone, started, f"agent-{random.randint(1, 8)}", suspended_by=marker)
    if place and shape % 5 == 0:
        return call  # nobody answered
    return _recorded(
        call,
        versions=3 if shape % 6 == 1 else 1,
        deleted=shape % 7 == 3,  # noqa: PLR2004 - shapes repeat
        archived=shape % 11 == 5,  # noqa: PLR2004
        written=shape % 3 == 1,
        channels=2 if shape % 6 == 2 else 1,  # noqa: PLR2004
    )


def _recorded(
    call: Call, *, versions: int, deleted: bool = False, archived: bool = False, written: bool = True, channels: int = 1
) -> Call:
    audio = f"archive/{call.id}.ogg" if archived else f"{call.folder}audio.ogg"
    second = f"{call.folder}channel-2.ogg"
    text = f"{call.folder}transcript.{'json' if versions > 1 else 'txt'}"
    unlisted = tuple(Blob(second, (_audio(call, 2, 1),)) for _ in range(channels - 1))
    return Call(
        call.id,
        call.phone,
        call.started_at,
        call.agent,
        recording=Blob(audio, tuple(_audio(call, 1, v + 1) for v in range(versions)), deleted, call.suspended_by),
        transcript=Blob(text, (_text(call),), suspended_by=call.suspended_by) if written else None,
        unlisted=unlisted,
        suspended_by=call.suspended_by,
    )


def _id(number: int, place: int) -> str:
    return f"T-{hashlib.sha256(f'{SEED}:{number}:{place}'.encode()).hexdigest()[:12]}"


def _audio(call: Call, channel: int, version: int) -> bytes:
    return f"no sound, but the invented recording of {call.id}, channel {channel}, version {version}\n".encode() * 4


def _text(call: Call) -> bytes:
    said = [{"who": "caller", "says": "もしもし"}, {"who": call.agent, "says": "見本商事でございます"}]
    return json.dumps({"call": call.id, "caller": call.phone, "said": said}, ensure_ascii=False).encode()
