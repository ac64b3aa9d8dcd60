"""Call recordings: rows of an index, found by number, and all that lies in their folders or that they name.

An object is gone when no version and no delete marker of its key is left, and out of use when every version is marked.
"""

from typing import Any, ClassVar

from .rules import MARK, Asked, Rules, Wanted
from .stores import Ref, Row, Rows

_WRITTEN = (".json", ".txt")


class CallRecordings(Rules):
    system: ClassVar[str] = "call_recordings"
    categories: ClassVar[tuple[str, ...]] = ("calls", "recordings", "transcripts")
    searched: ClassVar[frozenset[str]] = frozenset({"phone"})

    def theirs(self, rows: Rows, wanted: Wanted, asked: Asked) -> set[Ref]:
        numbers = wanted.get("phone", set())
        calls = {key: row for (table, key), row in rows.items() if table == "calls" and row["phone"] in numbers}
        named = {row[name] for row in calls.values() for name in ("recording_key", "transcript_key")}
        folders = tuple(f"calls/{c['started_at'][:4]}/{c['started_at'][5:7]}/{key}/" for key, c in calls.items())
        objects = {(t, k) for t, k in rows if t == "objects" and (k in named or k.startswith(folders))}
        return {("calls", key) for key in calls} | objects

    def category(self, ref: Ref) -> str | None:
        if ref[0] == "objects":
            return "transcripts" if ref[1].endswith(_WRITTEN) else "recordings"
        return super().category(ref)

    def marks(self, rows: Rows, ref: Ref) -> tuple[str, ...]:
        if ref[0] != "objects" or ref not in rows:
            return super().marks(rows, ref)
        marks = [version["suspended_by"] for version in _versions(rows[ref])]
        return tuple(marks) if all(marks) else ()

    def begun(self, row: Row | None, mark: str) -> bool:
        return any(version["suspended_by"] == mark for version in (row or {}).get("versions", {}).values())

    def possible(self, old: Row | None, wholly: Row | None, new: Row | None) -> bool:
        """Of the versions of an object some may be marked already; that some are gone already is not to be told."""
        if old is None or wholly is None or new is None or "versions" not in old:
            return super().possible(old, wholly, new)
        ways = (old["versions"], wholly["versions"])
        return old["versions"].keys() == new["versions"].keys() and all(
            any(way[name] == version for way in ways) for name, version in new["versions"].items()
        )

    def usable(self, row: Row) -> bool:
        """A delete marker alone holds nothing."""
        return "versions" not in row or bool(_versions(row))

    def suspend(self, row: Row, mark: str) -> None:
        if "versions" not in row:
            super().suspend(row, mark)
            return
        for version in _versions(row):
            version["suspended_by"] = version["suspended_by"] or mark

    def resume(self, row: Row) -> None:
        if "versions" not in row:
            super().resume(row)
            return
        for version in _versions(row):
            if (version["suspended_by"] or "").startswith(MARK):
                version["suspended_by"] = None


def _versions(row: Row) -> list[dict[str, Any]]:
    """Without delete markers."""
    return [version for version in row["versions"].values() if not version["marker"]]
