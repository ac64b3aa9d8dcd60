"""call_recordings: an index of calls in SQL, recordings and transcripts in an S3 bucket that keeps every version.

- Calls are found by the caller's number. Their objects are those that the index names and all others in the call's
  folder, `calls/<year>/<month>/<call id>/`.
- What is found is a key, not a version: it is gone when no version, no delete marker and no incomplete upload of the
  key is left, whoever wrote them and when. So a version that comes while we act is seen by the check, and deleted by
  the next attempt, which needs no row of the index for it.
- Objects go before their rows: what leads to them goes last.
- Use is suspended by a mark on each row, and by a tag on each version of an object, also on those below a delete
  marker. A version that carries a mark that isn't ours keeps it. A key is suspended when all its versions are marked.
- What the law keeps (a retention rule of the inventory) is marked as out of use instead. A version that a legal hold or
  a lock keeps, without such a rule, is for a person: a lock names no ground.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import chain
from typing import Any, ClassVar, Final, LiteralString, Self

from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from keshi.handlers.connectors.s3 import S3, S3Settings, Upload, Version
from keshi.handlers.connectors.sql import Database
from keshi.handlers.contract import (
    Active,
    Gone,
    Handler,
    Located,
    Results,
    Retained,
    State,
    Suspended,
    Union,
    Verified,
    Work,
    hurried,
)
from keshi.handlers.errors import GiveToPerson, LeaseEnded, Retry
from keshi.handlers.systems.retention import kept_until
from keshi.runtime.settings import load
from keshi.schemas.commands import Action
from keshi.schemas.tasks import Found, Mode

OURS: Final = "keshi:"
"""How our marks begin; the request's id follows."""
TAG: Final = "suspended_by"
WRITTEN: Final = (".json", ".txt", ".vtt")
"""How the keys of transcripts end. All other objects of a call are recordings."""
OBJECTS: Final = ("recordings", "transcripts")
MAX_KEY: Final = 200
"""Characters of a reference."""
MAX_VERSIONS: Final = 100_000
"""Of one person's objects. More is a defect or a disaster: a person looks at it."""

_FOLDER: Final = re.compile(r"calls/[0-9]{4}/[0-9]{2}/[A-Za-z0-9_-]+/")
# One statement for a whole list: `task` is the place in it.
_LOCATE: Final[LiteralString] = """
SELECT task, id, started_at, recording_key, transcript_key, suspended_by
FROM unnest(%(task)s::int[], %(phone)s::text[]) AS wanted (task, phone) JOIN calls USING (phone)
"""
_READ: Final[LiteralString] = "SELECT id, started_at, suspended_by FROM calls WHERE id = ANY (%(ids)s::text[])"
_DELETE: Final[LiteralString] = "DELETE FROM calls WHERE id = ANY (%(ids)s::text[])"
_SUSPEND: Final[LiteralString] = (
    "UPDATE calls SET suspended_by = %(mark)s, suspended_at = now()"
    " WHERE id = ANY (%(ids)s::text[]) AND suspended_by IS NULL"
)
_RESUME: Final[LiteralString] = (
    "UPDATE calls SET suspended_by = NULL, suspended_at = NULL"
    " WHERE id = ANY (%(ids)s::text[]) AND starts_with(suspended_by, %(mark)s)"
)

Row = Mapping[str, Any]
Place = tuple[str, bool]
"""A folder with all that is in it (True), or exactly one key."""


class Settings(BaseSettings):
    """`KESHI_CALL_RECORDINGS_…`: the index."""

    model_config = SettingsConfigDict(env_prefix="KESHI_CALL_RECORDINGS_", frozen=True, hide_input_in_errors=True)

    dsn: SecretStr = SecretStr("")


class StoreSettings(S3Settings):
    """`KESHI_CALL_RECORDINGS_S3_…`: the bucket."""

    model_config = SettingsConfigDict(env_prefix="KESHI_CALL_RECORDINGS_S3_", frozen=True, hide_input_in_errors=True)


@dataclass(slots=True)
class Held:
    """What the bucket holds under one key."""

    versions: list[Version] = field(default_factory=list)
    markers: list[Version] = field(default_factory=list)
    uploads: list[Upload] = field(default_factory=list)

    @property
    def anything(self) -> bool:
        return bool(self.versions or self.markers or self.uploads)

    def add(self, thing: Version | Upload) -> None:
        """Put it where it belongs."""
        if isinstance(thing, Upload):
            self.uploads.append(thing)
        else:
            (self.markers if thing.marker else self.versions).append(thing)

    def since(self) -> datetime | None:
        """When the oldest version was written; None where only remains are left, which no law keeps."""
        return min((v.modified for v in self.versions), default=None)


Marks = list[str | None]
"""Of the versions of a key, None for each that carries none."""


class CallRecordings(Handler):
    """The handler of the call recordings."""

    system: ClassVar[str] = "call_recordings"
    actions: ClassVar[frozenset[Action]] = frozenset({Action.ERASE, Action.SUSPEND_USE, Action.RESUME_USE})

    def __init__(self, index: Database, store: S3) -> None:
        self._index = index
        self._store = store

    @classmethod
    def from_environment(cls) -> Self:
        store = S3(load(StoreSettings))
        return cls(Database(load(Settings).dsn.get_secret_value(), setting="KESHI_CALL_RECORDINGS_DSN"), store)

    def locate(self, task: Work) -> Located:
        return self._located(task, self._found_rows([task])[0])

    def erase(self, task: Work, union: Union) -> None:
        rows, held = self._rows([(task, union)]), self._held(task, union)
        kept = {key for key, h in held.items() if _kept(task, _category(key), h.since())}
        for key in sorted(kept):
            self._mark(task, held[key])
        self._remove(task, [h for key, h in held.items() if key not in kept])
        staying = {i for i, row in rows.items() if _kept(task, "calls", row["started_at"])}
        self._change(task, _SUSPEND, staying, mark=f"{OURS}{task.request_id}")
        self._change(task, _DELETE, rows.keys() - staying)

    def suspend_use(self, task: Work, union: Union) -> None:
        self._change(task, _SUSPEND, _ids(union), mark=f"{OURS}{task.request_id}")
        for one in self._held(task, union).values():
            self._mark(task, one)

    def resume_use(self, task: Work, union: Union) -> None:
        foreign = False
        for one in self._held(task, union).values():
            foreign |= self._unmark(task, one)
        self._change(task, _RESUME, _ids(union), mark=OURS)
        if foreign or any(row["suspended_by"] for row in self._rows([(task, union)]).values()):
            raise GiveToPerson("suspended_by_other")

    def verify(self, task: Work, union: Union) -> Verified:
        return self._verified(task, union, self._rows([(task, union)]))

    def locate_list(self, tasks: Sequence[Work]) -> Results[Located]:
        try:
            found = self._found_rows(tasks)
        except (GiveToPerson, LeaseEnded):
            return super().locate_list(tasks)  # one by one: each fails for itself
        return [_result(self._located, task, rows) for task, rows in zip(tasks, found, strict=True)]

    def verify_list(self, tasks: Sequence[tuple[Work, Union]]) -> Results[Verified]:
        try:
            rows = self._rows(tasks)
        except (GiveToPerson, LeaseEnded):
            return super().verify_list(tasks)
        return [_result(self._verified, task, union, rows) for task, union in tasks]

    def ready(self) -> bool:
        return self._index.ready() and self._store.ready()

    def close(self) -> None:
        self._index.close()
        self._store.close()

    # --- the index

    def _found_rows(self, tasks: Sequence[Work]) -> list[list[Row]]:
        found: list[list[Row]] = [[] for _ in tasks]
        wanted = [(n, phone) for n, task in enumerate(tasks) for phone in task.values("phone")]
        if wanted:
            task, phones = (list(column) for column in zip(*wanted, strict=True))
            for row in self._index.run(hurried(tasks), _LOCATE, {"task": task, "phone": phones}).rows:
                found[row["task"]].append(row)
        return found

    def _rows(self, tasks: Sequence[tuple[Work, Union]]) -> dict[str, Row]:
        """The rows of the index that are left, by id."""
        ids = sorted({i for _, union in tasks for i in _ids(union)})
        if not ids:
            return {}
        found = self._index.run(hurried(task for task, _ in tasks), _READ, {"ids": ids}).rows
        return {row["id"]: row for row in found}

    def _change(self, task: Work, statement: LiteralString, ids: Iterable[str], **values: str) -> None:
        some = sorted(ids)
        if some:
            task.checkpoint()
            self._index.run(task, statement, {"ids": some, **values})

    # --- the bucket

    def _located(self, task: Work, rows: Iterable[Row]) -> Located:
        found = [Found(category="calls", ref=row["id"], was=_was([row["suspended_by"]])) for row in rows]
        for key, held in self._read(task, {p for row in rows for p in _places(row)}).items():
            if len(key) > MAX_KEY:
                raise GiveToPerson("key_too_long")
            if held.versions or task.action is Action.ERASE:  # a delete marker alone holds nothing that could be used
                found.append(Found(category=_category(key), ref=key, was=_was(self._marks(task, held))))
        return Located(
            found=tuple(f for f in found if f.category in task.categories),
            searched=("phone",) if task.values("phone") else (),
        )

    def _verified(self, task: Work, union: Union, rows: Mapping[str, Row]) -> Verified:
        held = self._held(task, union)
        states = (
            _row_state(task, rows.get(f.ref)) if f.category == "calls" else self._object_state(task, f.ref, held[f.ref])
            for f in union
        )
        return Verified(tuple(states))

    def _held(self, task: Work, union: Union) -> dict[str, Held]:
        """What is left under each key of the union."""
        keys = {f.ref for f in union if f.category in OBJECTS}
        # A folder is listed once for all of its keys.
        places = {(found[0], True) if (found := _FOLDER.match(key)) else (key, False) for key in keys}
        there = self._read(task, places)
        return {key: there.get(key, Held()) for key in sorted(keys)}

    def _read(self, task: Work, places: Iterable[Place]) -> dict[str, Held]:
        """All that lies there, by key."""
        found: dict[str, Held] = {}
        left = MAX_VERSIONS
        for place, folder in sorted(places):
            there: Iterator[Version | Upload] = chain(
                self._store.versions(task, place, exact=not folder), self._store.uploads(task, place, exact=not folder)
            )
            for thing in there:
                left -= 1
                if left < 0:
                    raise GiveToPerson("too_many_versions")
                found.setdefault(thing.key, Held()).add(thing)
        return found

    def _remove(self, task: Work, held: Sequence[Held]) -> None:
        for upload in (u for h in held for u in h.uploads):
            self._store.abort(task, upload)
        refused = self._store.delete(task, (v for h in held for v in (*h.versions, *h.markers)))
        if refused:
            locked = any(self._store.locked(task, v) for v in refused if not v.marker)
            raise GiveToPerson("object_locked") if locked else Retry("deletion_refused")

    def _marks(self, task: Work, held: Held) -> Marks:
        tags = (self._store.tags(task, v) for v in held.versions)
        return [t.get(TAG) for t in tags if t is not None]

    def _mark(self, task: Work, held: Held) -> None:
        for version in held.versions:
            tags = self._store.tags(task, version)
            if tags is not None and TAG not in tags:
                self._store.retag(task, version, {**tags, TAG: f"{OURS}{task.request_id}"})

    def _unmark(self, task: Work, held: Held) -> bool:
        """Take our marks away; whether somebody else's keep all of it out of use."""
        marks: Marks = []
        for version in held.versions:
            tags = self._store.tags(task, version) or {}
            mark = tags.pop(TAG, None)
            if mark and mark.startswith(OURS):
                self._store.retag(task, version, tags)
                mark = None
            marks.append(mark)
        return bool(marks) and all(marks)

    def _object_state(self, task: Work, key: str, held: Held) -> State:
        erase = task.action is Action.ERASE
        if not (held.anything if erase else held.versions):
            return Gone()
        marks = self._marks(task, held)
        out_of_use = bool(marks) and all(marks)
        kept = _kept(task, _category(key), held.since()) if erase else None
        if kept:
            return replace(kept, restricted=out_of_use)
        ours = any(m and m.startswith(OURS) for m in marks)
        # Of what was taken back while a key was being marked, the marks that stand are told: only so they are lifted.
        partly = ours and (task.action is Action.RESUME_USE or task.mode is Mode.CHECK)
        return Suspended() if out_of_use or partly else Active()


def _result(step: Any, *given: Any) -> Any:
    try:
        return step(*given)
    except Exception as e:  # noqa: BLE001 - the failure of one task is its result
        return e


def _places(row: Row) -> Iterator[Place]:
    """Where a call's objects lie: its folder, and what the index names outside of it."""
    folder = f"calls/{row['started_at'].astimezone(UTC):%Y/%m}/{row['id']}/"
    own = _FOLDER.fullmatch(folder)  # an id with a slash in it could lead into the folder of another
    if own:
        yield folder, True
    for key in (row["recording_key"], row["transcript_key"]):
        if key and not (own and key.startswith(folder)):
            yield key, False


def _category(key: str) -> str:
    return "transcripts" if key.lower().endswith(WRITTEN) else "recordings"


def _was(marks: Marks) -> Any:
    return "suspended" if marks and all(marks) else "active"


def _ids(union: Union) -> set[str]:
    if any(f.category not in {"calls", *OBJECTS} for f in union):
        raise GiveToPerson("category_unknown")  # not to be taken for gone
    return {f.ref for f in union if f.category == "calls"}


def _row_state(task: Work, row: Row | None) -> State:
    if row is None:
        return Gone()
    kept = _kept(task, "calls", row["started_at"]) if task.action is Action.ERASE else None
    if kept:
        return replace(kept, restricted=bool(row["suspended_by"]))
    return Suspended() if row["suspended_by"] else Active()


def _kept(task: Work, category: str, since: datetime | None) -> Retained | None:
    """How the law keeps what was made then, if it does."""
    rule = kept_until(task, since.astimezone(UTC).date(), (category,)) if since else None
    return rule and Retained(rule[0].ground, rule[1], restricted=False)
