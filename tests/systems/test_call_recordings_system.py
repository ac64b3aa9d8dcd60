"""The call recordings as their owner runs them: samples, index and store; and that the look believes no handler."""

from collections.abc import Callable
from contextlib import closing
from datetime import date
from pathlib import Path
from typing import Any

import psycopg
import pytest

from keshi.dev import s3
from keshi.dev.processes import Part, answers
from keshi.dev.systems.call_recordings.bucket import HANDLER_MAY, PLAYER_MAY, TAG, Bucket
from keshi.dev.systems.call_recordings.sample import calls, category, refs, strangers
from keshi.dev.systems.look import Expectation, Snapshot, compare
from keshi.dev.systems.people import Person, Trait, people
from keshi.dev.systems.snapshots import sql_rows

TODAY = date(2026, 4, 1)


@pytest.fixture(scope="module")
def everybody() -> tuple[Person, ...]:
    return people(12, today=TODAY)


# --- samples


def test_calls_are_a_function_of_the_person_alone() -> None:
    few, many = people(20, today=TODAY), people(60, today=date(2027, 1, 1))
    assert [calls(p) for p in few] == [calls(p) for p in many[:20]]
    ids = [c.id for p in many for c in (*calls(p), *strangers(p))]
    assert len(ids) == len(set(ids))
    keys = [b.key for p in many for c in calls(p) for b in c.blobs]
    assert len(keys) == len(set(keys))


def test_most_people_have_called_and_everything_occurs_that_a_handler_can_stumble_on() -> None:
    everybody = people(200, today=TODAY)
    numbers = [len(calls(p)) for p in everybody]
    assert set(numbers) == {0, 2, 3, 4, 5}
    assert numbers.count(0) < 40
    made = [c for p in everybody for c in calls(p)]
    blobs = [b for c in made for b in c.blobs]
    assert {len(b.versions) for b in blobs} == {1, 3}
    assert any(b.deleted for b in blobs)
    assert any(c.recording and not c.transcript for c in made)
    assert any(not c.recording for c in made)
    assert any(c.unlisted for c in made)
    assert any(c.recording and not c.recording.key.startswith(c.folder) for c in made)
    assert {category(b.key) for b in blobs} == {"recordings", "transcripts"}
    by_office = [p for p in everybody if p.office_phone in {c.phone for c in calls(p)}]
    assert all(Trait.OFFICE_PHONE in p.traits and p.office_phone not in p.identifiers.values() for p in by_office)
    assert by_office
    assert all({c.suspended_by for c in calls(p)} == {None, "manual"} for p in everybody if Trait.MANUAL in p.traits)


def test_strangers_call_from_numbers_that_only_begin_alike() -> None:
    everybody = people(60, today=TODAY)
    known = {p.phone for p in everybody} | {p.office_phone for p in everybody}
    near = [c.phone for p in everybody for c in strangers(p)]
    assert near
    assert not known & set(near)
    assert all(number[:-1] in known for number in near)


# --- the store


def test_everything_is_there_in_its_versions_also_after_a_kill(recordings: Any, everybody: tuple[Person, ...]) -> None:
    before = recordings.bucket.rows()
    mine = {ref for p in everybody for ref in refs(p) if not ref.startswith("calls:")}
    of_strangers = {ref for p in everybody for c in strangers(p) for b in c.blobs for ref in b.refs}
    assert before.keys() == mine | of_strangers
    assert {row["suspended_by"] for row in before.values()} == {None, "manual"}
    recordings.bucket.close()
    recordings.server.part.kill()
    recordings.server.start()
    assert recordings.bucket.rows() == before


def test_a_file_system_without_attributes_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are kept in files of their own then; versions and tags all the same."""
    monkeypatch.setattr(s3, "_keeps_attributes", lambda _: False)
    owner = s3.Account("owner", "a secret of the owner")
    server = s3.server("s3", tmp_path, owner, [s3.Account("handler", "a secret of the handler")])
    assert any("--sidecar=" in word for word in server.spec.argv)
    with running(server), closing(Bucket(server.url, owner)) as bucket:
        bucket.create({"handler": HANDLER_MAY})
        first = bucket.put("a/b.ogg", b"1", {TAG: "manual"})
        bucket.put("a/b.ogg", b"2")
        bucket.mark_deleted("a/b.ogg")
        rows = bucket.rows()
        assert [row["delete_marker"] for row in rows.values()] == [False, False, True]
        assert bucket.tags("a/b.ogg", first) == {TAG: "manual"}
        assert bucket.get("a/b.ogg", first) == b"1"


class running:  # noqa: N801 - reads as what it does
    """A server for the time of a test."""

    def __init__(self, server: s3.Server) -> None:
        self.server, self.part = server, Part(server.spec)

    def __enter__(self) -> None:
        self.part.start()
        self.part.wait_ready(answers(self.server.ready), 30)

    def __exit__(self, *_: object) -> None:
        self.part.kill()


def test_without_go_a_mock_stands_in_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KESHI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))
    s3.prepare()
    said = capsys.readouterr().err
    assert "a mock without rights that forgets everything when it ends" in said
    assert "install Go" in said
    assert len(said.strip().splitlines()) == 1
    owner = s3.Account("owner", "a secret of the owner")
    server = s3.server("s3", tmp_path, owner, ())
    assert "moto.server" in server.spec.argv
    with running(server), closing(Bucket(server.url, owner)) as bucket:
        bucket.create({"handler": HANDLER_MAY, "player": PLAYER_MAY})
        bucket.put("a/b.ogg", b"1")
        bucket.put("a/b.ogg", b"2", {TAG: "manual"})
        bucket.mark_deleted("a/b.ogg")
        rows = bucket.rows()
        assert len(rows) == 3
        assert {row["suspended_by"] for row in rows.values()} == {None, "manual"}


# --- the look


def look(recordings: Any) -> Snapshot:
    return Snapshot({"call_recordings": sql_rows(recordings.dsn) | recordings.bucket.rows()})


def erase_by_hand(recordings: Any, person: Person) -> None:
    """As the company's own people would, with all their rights."""
    ours = {b.key for c in calls(person) for b in c.blobs}
    versions = [v for v in recordings.bucket.versions() if v.key in ours]
    objects = [{"Key": v.key, "VersionId": v.version_id} for v in versions]
    recordings.bucket.client().delete_objects(Bucket=recordings.bucket.name, Delete={"Objects": objects})
    with psycopg.connect(recordings.dsn) as index:
        index.execute("DELETE FROM calls WHERE id = ANY (%s)", ([c.id for c in calls(person)],))


def leave_a_version(recordings: Any, person: Person) -> None:
    key = next(c.recording.key for c in calls(person) if c.recording)
    recordings.bucket.put(key, b"left behind")


def leave_a_row(recordings: Any, person: Person) -> None:
    with psycopg.connect(recordings.dsn) as index:
        values = calls(person)[0].id, person.phone
        index.execute("INSERT INTO calls (id, phone, started_at, agent) VALUES (%s, %s, now(), 'agent-1')", values)


def touch_a_stranger(recordings: Any, _: Person) -> None:
    recordings.bucket.put(calls(people(12, today=TODAY)[6])[0].blobs[0].key, b"changed")


def mark_a_stranger(recordings: Any, _: Person) -> None:
    blob = next(b for c in calls(people(12, today=TODAY)[6]) for b in c.blobs if not b.deleted)
    recordings.bucket.client().put_object_tagging(
        Bucket=recordings.bucket.name, Key=blob.key, Tagging={"TagSet": [{"Key": TAG, "Value": "keshi:x"}]}
    )


@pytest.mark.parametrize("wrong", [None, leave_a_version, leave_a_row, touch_a_stranger, mark_a_stranger])
def test_the_look_passes_what_is_right_and_finds_each_thing_that_is_wrong(
    recordings: Any, everybody: tuple[Person, ...], wrong: Callable[[Any, Person], None] | None
) -> None:
    person = everybody[0]
    before = look(recordings)
    erase_by_hand(recordings, person)
    if wrong:
        wrong(recordings, person)
    found = compare(before, look(recordings), [(person, Expectation.ERASE)], today=TODAY).systems["call_recordings"]
    assert found.ok == (wrong is None), found.as_json()
