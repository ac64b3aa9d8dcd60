"""The handler of call recordings against a real database and a real S3 server, judged by the look past it."""

import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from contract.reference import (
    ERASE,
    RESUME,
    SUSPEND,
    TODAY,
    EndsAt,
    attempt,
    closing,
    judged,
    killed_in_mid_act,
    recordings_rows,
    refs,
    states,
    work,
)
from keshi.dev.systems.call_recordings.bucket import HANDLER_MAY, PLAYER_MAY, TAG
from keshi.dev.systems.call_recordings.player import NothingError, Player, WithheldError
from keshi.dev.systems.call_recordings.sample import Call, calls
from keshi.dev.systems.call_recordings.sample import refs as refs_of
from keshi.dev.systems.people import Person, Trait, people
from keshi.handlers.contract import Active, Gone, Limit, Located, Retained, Suspended, Union, Verified, Work
from keshi.handlers.errors import GiveToPerson, LeaseEnded, Retry
from keshi.handlers.systems.call_recordings import CallRecordings
from keshi.handlers.testing import HandlerSuite, Scene
from keshi.runtime.settings import ConfigurationError
from keshi.schemas.commands import Action
from keshi.schemas.identifiers import Identifier
from keshi.schemas.outcomes import Outcome
from keshi.schemas.tasks import Found, Mode, RetentionRule

RULES = tuple(RetentionRule(category=c, ground="jp.tax-records", years=7) for c in ("calls", "recordings"))


@pytest.fixture(scope="session")
def everybody() -> tuple[Person, ...]:
    """Enough of them to have every kind of call, and no more: each test puts all of their objects."""
    return people(12, today=TODAY)


@pytest.fixture
def environment(recordings: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    for name, value in recordings.environment.items():
        monkeypatch.setenv(name, value)
    return recordings.environment


@pytest.fixture
def handler(environment: dict[str, str]) -> Iterator[CallRecordings]:
    with closing(CallRecordings.from_environment()) as made:
        yield made


def task(person: Person, action: Action = ERASE, **more: Any) -> Work:
    """A task with all numbers of this person, as the CRM teaches them."""
    phones = [p for p in (person.phone, person.office_phone) if p]
    return work(
        "call_recordings",
        person,
        action,
        **{"identifiers": tuple(Identifier(type="phone", value=p) for p in phones)} | more,
    )


def rows(recordings: Any) -> Any:
    return recordings_rows(recordings.dsn, recordings.bucket)


def keys_left(recordings: Any, person: Person) -> set[str]:
    """References of the person's records that are still there."""
    return refs_of(person) & rows(recordings).systems["call_recordings"].keys()


def found_refs(person: Person) -> set[str]:
    """What the handler has to find: calls, and keys without their versions."""
    return {ref.partition("?")[0] for ref in refs_of(person)}


def caller(everybody: tuple[Person, ...], *traits: Trait) -> Person:
    return next(p for p in everybody if set(traits) <= p.traits and any(c.transcript for c in calls(p)))


def call_with(everybody: tuple[Person, ...], what: Any) -> tuple[Person, Call]:
    return next((p, c) for p in everybody for c in calls(p) if c.recording and not c.suspended_by and what(c))


def audio(call: Call) -> str:
    """The key of its recording."""
    assert call.recording
    return call.recording.key


# --- erase


def test_all_calls_of_everybody_are_erased_in_all_versions_and_no_other(
    handler: CallRecordings, recordings: Any, everybody: tuple[Person, ...]
) -> None:
    """Numbers that begin alike or end alike belong to somebody else."""
    chosen, others = everybody[::2], everybody[1::2]
    assert {len(c.recording.versions) for p in chosen for c in calls(p) if c.recording} >= {1, 3}
    assert any(b.deleted for p in chosen for c in calls(p) for b in c.blobs)
    assert any(c.unlisted for p in chosen for c in calls(p))
    assert any("archive/" in ref for p in chosen for ref in refs_of(p))
    before = rows(recordings)
    for person in chosen:
        union, verified = attempt(handler, task(person))
        assert refs(union) == found_refs(person), person.number
        assert set(verified.states) <= {Gone()}
    found = judged("call_recordings", before, rows(recordings), {ERASE: chosen})
    assert found.ok, found.as_json()
    assert found.right["gone"] > 0
    assert all(keys_left(recordings, p) == refs_of(p) for p in others)


def test_a_recording_in_three_versions_is_gone_in_all_three(
    handler: CallRecordings, recordings: Any, everybody: tuple[Person, ...]
) -> None:
    person, call = call_with(everybody, lambda c: len(c.recording.versions) == 3)
    key = audio(call)
    assert len(recordings.bucket.versions(key)) >= 3
    union, verified = attempt(handler, task(person))
    assert states(union, verified)[f"recordings:{key}"] == "Gone"
    assert recordings.bucket.versions(key) == []


def test_a_recording_below_a_delete_marker_is_gone_with_the_marker(
    handler: CallRecordings, recordings: Any, everybody: tuple[Person, ...]
) -> None:
    person, call = call_with(everybody, lambda c: c.recording.deleted)
    assert [v.marker for v in recordings.bucket.versions(audio(call))] == [False, True]
    attempt(handler, task(person))
    assert recordings.bucket.versions(audio(call)) == []


def test_calls_by_a_number_that_only_the_crm_knows_are_found_by_that_number_alone(
    handler: CallRecordings, everybody: tuple[Person, ...]
) -> None:
    person = caller(everybody, Trait.OFFICE_PHONE)
    by = {
        p: {
            f.ref
            for f in handler.locate(
                work("call_recordings", person, identifiers=(Identifier(type="phone", value=p),))
            ).found
            if f.category == "calls"
        }
        for p in (person.phone, person.office_phone or "")
    }
    assert all(by.values())
    assert not set.intersection(*by.values())
    assert set.union(*by.values()) == {c.id for c in calls(person)}


def test_without_a_number_nothing_was_searched(handler: CallRecordings, everybody: tuple[Person, ...]) -> None:
    address = (Identifier(type="email", value=everybody[0].email),)
    assert handler.locate(task(everybody[0], identifiers=address)) == Located((), ())


def test_only_the_categories_of_the_task_are_located(handler: CallRecordings, everybody: tuple[Person, ...]) -> None:
    located = handler.locate(task(caller(everybody), categories=("transcripts",)))
    assert {f.category for f in located.found} == {"transcripts"}


def test_nothing_outside_the_union_is_erased(
    handler: CallRecordings, recordings: Any, everybody: tuple[Person, ...]
) -> None:
    """Also nothing whose key begins alike, and nothing else of the same call."""
    person, call = call_with(everybody, lambda c: c.transcript)
    key = audio(call)
    recordings.bucket.put(f"{key}.backup", b"of somebody else's tool")
    before = rows(recordings).systems["call_recordings"]
    handler.act(task(person), (Found(category="recordings", ref=key),))
    after = rows(recordings).systems["call_recordings"]
    assert {ref.partition("?")[0] for ref in before.keys() - after.keys()} == {f"recordings:{key}"}
    assert after.keys() < before.keys()


def test_more_versions_than_one_answer_or_one_call_holds_are_all_gone(
    handler: CallRecordings, recordings: Any, everybody: tuple[Person, ...]
) -> None:
    person, call = call_with(everybody, lambda c: not c.recording.deleted)
    key = audio(call)
    recordings.bucket._each(lambda n: recordings.bucket.put(key, b"%d" % n), range(1001))
    recordings.bucket.mark_deleted(key)
    assert len(recordings.bucket.versions(key)) > 1001
    union, verified = attempt(handler, task(person, limit=Limit(120)))
    assert set(verified.states) == {Gone()}
    assert refs(union) == found_refs(person)
    assert recordings.bucket.versions(key) == []


def test_parts_of_an_upload_that_nobody_completed_go_too(
    handler: CallRecordings, recordings: Any, everybody: tuple[Person, ...]
) -> None:
    """Under a key that exists, and under one that does not."""
    person, call = call_with(everybody, lambda c: c.transcript)
    s3, name = recordings.bucket.client(), recordings.bucket.name
    for key in (f"{call.folder}audio.ogg", f"{call.folder}never-finished.ogg"):
        upload = s3.create_multipart_upload(Bucket=name, Key=key)["UploadId"]
        s3.upload_part(Bucket=name, Key=key, UploadId=upload, PartNumber=1, Body=b"half a conversation")
    work_ = task(person)
    union = handler.locate(work_).found
    assert f"recordings:{call.folder}never-finished.ogg" in refs(union)
    handler.act(work_, union)
    assert set(handler.verify(work_, union).states) == {Gone()}
    assert not s3.list_multipart_uploads(Bucket=name).get("Uploads")


def test_a_key_that_looks_like_a_folder_leads_to_nobody_else(
    handler: CallRecordings, recordings: Any, everybody: tuple[Person, ...]
) -> None:
    """The index may hold anything: a key that ends in a slash, or none, or an id that is half a path."""
    person, other = caller(everybody[:6]), caller(everybody[6:])
    theirs = calls(other)[0]
    with psycopg.connect(recordings.dsn) as index:
        for n, key in enumerate((theirs.folder, "calls/", "", "c")):
            index.execute(
                "INSERT INTO calls (id, phone, started_at, agent, recording_key) VALUES (%s, %s, %s, 'agent-1', %s)",
                (f"odd-{n}", person.phone, theirs.started_at, key),
            )
        index.execute(
            "INSERT INTO calls (id, phone, started_at, agent) VALUES (%s, %s, %s, 'agent-1')",
            (f"x/../{theirs.id}", person.phone, theirs.started_at),
        )
    union, verified = attempt(handler, task(person))
    assert set(verified.states) == {Gone()}
    assert len([f for f in union if f.category == "calls"]) == len(calls(person)) + 5
    assert keys_left(recordings, other) == refs_of(other)


# --- what comes in between


def test_a_version_that_was_written_while_we_acted_is_seen_and_deleted_by_the_next_attempt(
    handler: CallRecordings, recordings: Any, everybody: tuple[Person, ...]
) -> None:
    """The rows of the index are gone by then: the union alone leads to it."""
    person, call = call_with(everybody, lambda c: not c.recording.deleted)
    key = audio(call)
    before = rows(recordings)
    work_ = task(person)
    union = handler.locate(work_).found
    handler.act(work_, union)
    recordings.bucket.put(key, b"a late upload")
    seen = states(union, handler.verify(work_, union))
    assert seen.pop(f"recordings:{key}") == "Active"
    assert set(seen.values()) == {"Gone"}
    assert handler.locate(work_).found == ()
    _, verified = attempt(handler, work_, union)
    assert set(verified.states) == {Gone()}
    assert judged("call_recordings", before, rows(recordings), {ERASE: [person]}).ok


def test_a_plain_delete_by_somebody_else_does_not_hide_what_is_left(
    handler: CallRecordings, recordings: Any, everybody: tuple[Person, ...]
) -> None:
    person, call = call_with(everybody, lambda c: c.transcript)
    union = handler.locate(task(person)).found
    recordings.bucket.mark_deleted(audio(call))
    assert set(handler.verify(task(person), union).states) == {Active()}
    handler.act(task(person), union)
    assert set(handler.verify(task(person), union).states) == {Gone()}
    assert not keys_left(recordings, person)


# --- crashes and leases


def test_killed_in_mid_act_the_next_attempt_completes_it_over_the_union(
    handler: CallRecordings, recordings: Any, environment: dict[str, str], everybody: tuple[Person, ...], tmp_path: Path
) -> None:
    """Killed between the objects and their rows, and again with the rows gone and objects left by hand."""
    person = caller(everybody, Trait.OFFICE_PHONE)
    before = rows(recordings)
    work_ = task(person)
    union = handler.locate(work_).found
    assert killed_in_mid_act(work_, union, environment, tmp_path) == -signal.SIGKILL
    left = keys_left(recordings, person)
    assert left == {f"calls:{c.id}" for c in calls(person)}
    assert not judged("call_recordings", before, rows(recordings), {ERASE: [person]}).ok
    both, verified = attempt(handler, work_, union)
    assert set(both) == set(union)
    assert set(verified.states) == {Gone()}
    assert judged("call_recordings", before, rows(recordings), {ERASE: [person]}).ok


def test_with_the_rows_already_gone_the_objects_of_the_union_are_deleted(
    handler: CallRecordings, recordings: Any, everybody: tuple[Person, ...]
) -> None:
    person = caller(everybody)
    union = handler.locate(task(person)).found
    with psycopg.connect(recordings.dsn) as index:
        index.execute("DELETE FROM calls WHERE phone = ANY (%s)", ([person.phone, person.office_phone],))
    assert handler.locate(task(person)).found == ()
    _, verified = attempt(handler, task(person), union)
    assert set(verified.states) == {Gone()}
    assert not keys_left(recordings, person)


@pytest.mark.parametrize("action", [ERASE, SUSPEND])
def test_a_lease_that_ends_at_any_step_leaves_what_a_later_attempt_completes(
    handler: CallRecordings, recordings: Any, everybody: tuple[Person, ...], action: Action
) -> None:
    person = caller(everybody)
    before = rows(recordings)
    union = handler.locate(task(person)).found
    steps = 0
    with suppress(StopIteration):
        for step in range(1, 100):
            try:
                handler.act(task(person, action, limit=EndsAt(step)), union)
            except LeaseEnded:
                steps += 1
            else:
                break
            at_the_end = rows(recordings)
            with pytest.raises(LeaseEnded):
                handler.act(task(person, action, limit=Limit(0)), union)
            assert rows(recordings).systems == at_the_end.systems
    assert steps > 1
    attempt(handler, task(person, action), union)
    assert judged("call_recordings", before, rows(recordings), {action: [person]}).ok


# --- suspend and resume


def test_suspended_then_resumed_everything_is_as_it_was_and_marks_of_others_stay(
    handler: CallRecordings, recordings: Any, everybody: tuple[Person, ...]
) -> None:
    chosen = [p for p in everybody if calls(p)]
    assert any(Trait.MANUAL in p.traits for p in chosen)
    before = rows(recordings)
    suspended = {}
    for person in chosen:
        union, verified = attempt(handler, task(person, SUSPEND))
        assert set(verified.states) == {Suspended()}, person.number
        suspended[person.number] = tuple(f for f in union if f.was == "active")
    during = rows(recordings)
    found = judged("call_recordings", before, during, {SUSPEND: chosen})
    assert found.ok, found.as_json()
    for person in chosen:
        work_ = task(person, RESUME, remembered=suspended[person.number])
        ours = tuple(f for f in handler.locate(work_).found if refs([f]) <= refs(work_.remembered))
        assert refs(ours) == refs(work_.remembered)
        handler.act(work_, ours)
        assert set(handler.verify(work_, ours).states) == {Active()}
    after = rows(recordings)
    assert judged("call_recordings", during, after, {RESUME: chosen}).ok
    assert after.systems == before.systems


def test_what_is_suspended_cannot_be_listened_to_in_any_version(
    handler: CallRecordings, recordings: Any, everybody: tuple[Person, ...]
) -> None:
    """The company's player looks at the mark of the row, and at that of the object where the row has none."""
    player = Player(recordings.dsn, recordings.bucket, recordings.server.player)
    person, call = call_with(everybody, lambda c: len(c.recording.versions) == 3 and not c.recording.deleted)
    key = audio(call)
    assert player.play(call.id)
    attempt(handler, task(person, SUSPEND))
    with pytest.raises(WithheldError):
        player.play(call.id)
    with psycopg.connect(recordings.dsn) as index:
        index.execute("UPDATE calls SET suspended_by = NULL, suspended_at = NULL WHERE id = %s", (call.id,))
    versions = recordings.bucket.versions(key)
    assert len(versions) == 3
    with pytest.raises(WithheldError):
        player.play(call.id)
    assert all(recordings.bucket.tags(key, v.version_id)[TAG].startswith("keshi:") for v in versions)


def test_other_tags_stay_and_the_first_request_s_mark_stays(
    handler: CallRecordings, recordings: Any, everybody: tuple[Person, ...]
) -> None:
    person, call = call_with(everybody, lambda c: not c.recording.deleted)
    version = recordings.bucket.put(audio(call), b"x", {"team": "claims"})
    where = (audio(call), version)
    first, second = (task(person, SUSPEND) for _ in range(2))
    attempt(handler, first)
    union, _ = attempt(handler, second)
    assert {f.was for f in union} == {"suspended"}
    assert recordings.bucket.tags(*where) == {"team": "claims", TAG: f"keshi:{first.request_id}"}
    handler.act(task(person, RESUME, remembered=union), union)
    assert recordings.bucket.tags(*where) == {"team": "claims"}


def test_a_version_that_is_marked_by_hand_keeps_that_mark_beside_ours(
    handler: CallRecordings, recordings: Any, everybody: tuple[Person, ...]
) -> None:
    """The key was in use before, and is again: exactly as it was."""
    person, call = call_with(everybody, lambda c: not c.recording.deleted)
    key = audio(call)
    recordings.bucket.put(key, b"secret", {TAG: "manual"})
    before = rows(recordings)
    union, verified = attempt(handler, task(person, SUSPEND))
    assert set(verified.states) == {Suspended()}
    assert next(f for f in union if f.ref == key).was == "active"
    resume = task(person, RESUME, remembered=union)
    handler.act(resume, union)
    assert set(handler.verify(resume, union).states) == {Active()}
    assert rows(recordings).systems == before.systems


def test_a_mark_of_somebody_else_is_not_lifted_and_a_person_is_asked(
    handler: CallRecordings, recordings: Any, everybody: tuple[Person, ...]
) -> None:
    person = caller(everybody, Trait.MANUAL)
    union, _ = attempt(handler, task(person, SUSPEND))
    with pytest.raises(GiveToPerson) as failure:
        handler.act(task(person, RESUME), union)
    assert failure.value.code == "suspended_by_other"
    found = rows(recordings).systems["call_recordings"]
    assert {found[ref]["suspended_by"] for ref in refs_of(person)} == {None, "manual"}


def test_a_version_that_came_during_a_suspension_is_not_suspended(
    handler: CallRecordings, recordings: Any, everybody: tuple[Person, ...]
) -> None:
    person, call = call_with(everybody, lambda c: c.transcript)
    union, _ = attempt(handler, task(person, SUSPEND))
    key = audio(call)
    recordings.bucket.put(key, b"new")
    assert states(union, handler.verify(task(person, SUSPEND), union))[f"recordings:{key}"] == "Active"


def test_a_suspension_taken_back_between_two_versions_says_what_it_has_marked(
    handler: CallRecordings, recordings: Any, everybody: tuple[Person, ...]
) -> None:
    """It is not suspended while another version can be heard; once nobody acts any more, its mark must not be lost."""
    person, call = call_with(everybody, lambda c: len(c.recording.versions) == 3)
    key, suspend = audio(call), task(person, SUSPEND)
    union = handler.locate(suspend).found
    before = rows(recordings)
    first = recordings.bucket.versions(key)[0].version_id
    tags = {"TagSet": [{"Key": TAG, "Value": f"keshi:{suspend.request_id}"}]}
    where = {"Bucket": recordings.bucket.name, "Key": key, "VersionId": first}
    recordings.bucket.client().put_object_tagging(**where, Tagging=tags)
    assert states(union, handler.verify(suspend, union))[f"recordings:{key}"] == "Active"
    checked = states(union, handler.verify(replace(suspend, mode=Mode.CHECK), union))
    assert [ref for ref, state in checked.items() if state == "Suspended"] == [f"recordings:{key}"]
    handler.act(task(person, RESUME, remembered=union), union)
    assert rows(recordings).systems == before.systems


# --- what the law or a lock keeps


def test_what_a_rule_keeps_is_marked_and_stays_and_the_rest_goes(
    handler: CallRecordings, recordings: Any, everybody: tuple[Person, ...]
) -> None:
    """A recording's period runs from its oldest version, a call's from its start."""
    person, call = call_with(everybody, lambda c: c.transcript and not c.recording.deleted)
    today = datetime.now(UTC).date()
    union, verified = attempt(handler, task(person, retention=RULES, as_of=today))
    kept = dict(zip((f"{f.category}:{f.ref}" for f in union), verified.states, strict=True))
    recording, row = kept[f"recordings:{audio(call)}"], kept[f"calls:{call.id}"]
    assert isinstance(recording, Retained)
    assert recording.restricted
    assert recording.until.year == today.year + 7 or (today.month, today.day) == (1, 1)
    end = call.started_at.date().replace(year=call.started_at.year + 7) - timedelta(days=1)
    assert row == Retained("jp.tax-records", end, restricted=True)
    assert {type(state) for ref, state in kept.items() if ref.startswith("transcripts:")} == {Gone}
    later = task(person, retention=RULES, as_of=today + timedelta(days=8 * 366), identifiers=())
    _, verified = attempt(handler, later, union)
    assert set(verified.states) == {Gone()}
    assert not keys_left(recordings, person)


def test_a_legal_hold_is_for_a_person_and_everything_else_goes(
    handler: CallRecordings, recordings: Any, everybody: tuple[Person, ...]
) -> None:
    """A lock names no ground of law. The rows stay: they lead to what is still there."""
    person, call = call_with(everybody, lambda c: len(c.recording.versions) == 3)
    key = audio(call)
    held = recordings.bucket.versions(key)[1]
    where = {"Bucket": recordings.bucket.name, "Key": key, "VersionId": held.version_id}
    s3 = recordings.bucket.client()
    s3.put_object_legal_hold(**where, LegalHold={"Status": "ON"})
    union = handler.locate(task(person)).found
    with pytest.raises(GiveToPerson) as failure:
        handler.act(task(person), union)
    assert failure.value.code == "object_locked"
    left = states(union, handler.verify(task(person), union))
    assert {ref for ref, state in left.items() if state != "Gone"} == {
        f"recordings:{key}",
        *(f"calls:{c.id}" for c in calls(person)),
    }
    s3.put_object_legal_hold(**where, LegalHold={"Status": "OFF"})
    _, verified = attempt(handler, task(person), union)
    assert set(verified.states) == {Gone()}


def test_a_retention_date_of_the_store_counts_as_a_lock(
    handler: CallRecordings, recordings: Any, everybody: tuple[Person, ...]
) -> None:
    person, call = call_with(everybody, lambda c: not c.recording.deleted)
    key = audio(call)
    until = datetime.now(UTC) + timedelta(days=1)
    recordings.bucket.client().put_object_retention(
        Bucket=recordings.bucket.name, Key=key, Retention={"Mode": "GOVERNANCE", "RetainUntilDate": until}
    )
    with pytest.raises(GiveToPerson) as failure:
        attempt(handler, task(person))
    assert failure.value.code == "object_locked"


# --- rights and failures


def test_the_handler_can_listen_to_nothing_and_change_nothing_else(
    recordings: Any, everybody: tuple[Person, ...]
) -> None:
    _, call = call_with(everybody, lambda c: not c.recording.deleted)
    where = {"Bucket": recordings.bucket.name, "Key": audio(call)}
    s3 = recordings.bucket.client(recordings.server.handler)
    version = recordings.bucket.versions(where["Key"])[-1].version_id
    for operation, more in (
        ("get_object", {}),
        ("get_object", {"VersionId": version}),
        ("put_object", {"Body": b"-"}),
        ("delete_object", {}),
    ):
        with pytest.raises(s3.exceptions.ClientError) as failure:
            getattr(s3, operation)(**where, **more)
        assert failure.value.response["Error"]["Code"] == "AccessDenied"
    with psycopg.connect(recordings.handler_dsn) as index, pytest.raises(psycopg.errors.InsufficientPrivilege):
        index.execute("UPDATE calls SET phone = '+81900000000'")


@pytest.mark.parametrize("missing", ["s3:DeleteObjectVersion", "s3:ListBucketVersions"])
def test_a_right_that_is_missing_is_waited_for(
    handler: CallRecordings, recordings: Any, everybody: tuple[Person, ...], missing: str
) -> None:
    """Operations can set it right; nothing is taken for gone meanwhile."""
    person = caller(everybody)
    union = handler.locate(task(person)).found
    fewer = {part: tuple(a for a in actions if a != missing) for part, actions in HANDLER_MAY.items()}
    rights = {
        recordings.server.player.access_key: PLAYER_MAY,
        recordings.server.handler.access_key: {p: a for p, a in fewer.items() if a},
    }
    recordings.bucket.create(rights)
    with pytest.raises(Retry) as failure:
        handler.act(task(person), union)
    assert failure.value.code == ("deletion_refused" if "Delete" in missing else "access_denied")
    assert keys_left(recordings, person) == refs_of(person)
    recordings.bucket.create({**rights, recordings.server.handler.access_key: HANDLER_MAY})
    _, verified = attempt(handler, task(person), union)
    assert set(verified.states) == {Gone()}


def test_a_store_that_was_killed_is_tried_again_and_has_everything_when_it_is_back(
    handler: CallRecordings, recordings: Any, everybody: tuple[Person, ...]
) -> None:
    person, before = caller(everybody), rows(recordings)
    union = handler.locate(task(person)).found
    assert handler.ready()
    recordings.bucket.close()
    recordings.server.part.kill()
    try:
        assert not handler.ready()
        with pytest.raises(Retry):
            handler.locate(task(person))
        with pytest.raises(Retry):
            handler.act(task(person), union)
    finally:
        recordings.server.start()
    assert rows(recordings).systems == before.systems
    _, verified = attempt(handler, task(person), union)
    assert set(verified.states) == {Gone()}


def test_a_bucket_that_is_not_there_is_never_taken_for_an_empty_one(
    recordings: Any, environment: dict[str, str], everybody: tuple[Person, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KESHI_CALL_RECORDINGS_S3_BUCKET", "not-there")
    with closing(CallRecordings.from_environment()) as lost, pytest.raises(Retry) as failure:
        lost.verify(task(everybody[0]), (Found(category="recordings", ref="archive/x.ogg"),))
    assert failure.value.code == "no_such_bucket"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"DSN": ""}, "KESHI_CALL_RECORDINGS_DSN"),
        ({"S3_ENDPOINT": "recordings.example"}, "KESHI_CALL_RECORDINGS_S3_ENDPOINT"),
        ({"S3_BUCKET": ""}, "KESHI_CALL_RECORDINGS_S3_BUCKET"),
        ({"S3_ACCESS_KEY": ""}, "KESHI_CALL_RECORDINGS_S3_ACCESS_KEY"),
        ({"S3_SECRET_KEY": ""}, "KESHI_CALL_RECORDINGS_S3_SECRET_KEY"),
        ({"S3_SECRET_KEY_FILE": "/nowhere/key"}, "KESHI_CALL_RECORDINGS_S3_SECRET_KEY_FILE"),
        ({"S3_CAFILE": "/nowhere/ca.pem"}, "KESHI_CALL_RECORDINGS_S3_CAFILE"),
    ],
)
def test_what_is_missing_at_the_start_is_named_in_one_line(
    change: dict[str, str], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {
        "DSN": "postgresql://nobody@127.0.0.1:1/none",
        "S3_ENDPOINT": "https://s3.example",
        "S3_BUCKET": "b",
        "S3_ACCESS_KEY": "k",
        "S3_SECRET_KEY": "s",
    }
    for name, value in {**given, **change}.items():
        monkeypatch.setenv(f"KESHI_CALL_RECORDINGS_{name}", value)
    with pytest.raises(ConfigurationError) as failure:
        CallRecordings.from_environment()
    assert named in str(failure.value)
    assert "\n" not in str(failure.value)


# --- lists


def test_a_list_is_answered_as_its_tasks_one_by_one(handler: CallRecordings, everybody: tuple[Person, ...]) -> None:
    tasks = [task(p) for p in everybody[:6]] + [task(everybody[0], identifiers=())]
    together, single = handler.locate_list(tasks), [handler.locate(t) for t in tasks]
    for one, other in zip(together, single, strict=True):
        assert isinstance(one, Located)
        assert (set(one.found), one.searched) == (set(other.found), other.searched)
    unions = [(t, located.found) for t, located in zip(tasks, single, strict=True)]
    handler.act_list(unions[::2])
    assert handler.verify_list(unions) == [handler.verify(t, u) for t, u in unions]
    assert handler.verify_list([]) == []
    assert handler.locate_list([]) == []


def test_a_task_of_a_list_that_fails_harms_no_other(
    handler: CallRecordings, recordings: Any, everybody: tuple[Person, ...]
) -> None:
    """One whose time is over, and one with a key that no reference can hold."""
    first, long = task(everybody[0]), task(caller(everybody[1:]))
    recordings.bucket.put(f"{calls(caller(everybody[1:]))[0].folder}{'long' * 50}.ogg", b"-")
    good, bad = handler.locate_list([first, long])
    assert isinstance(good, Located)
    assert isinstance(bad, GiveToPerson)
    assert bad.code == "key_too_long"
    good, bad = handler.locate_list([first, task(everybody[1], limit=Limit(0))])
    assert isinstance(good, Located)
    assert isinstance(bad, LeaseEnded)
    seen, unseen = handler.verify_list([(first, good.found), (task(everybody[1], limit=Limit(0)), good.found)])
    assert isinstance(seen, Verified)
    assert isinstance(unseen, LeaseEnded)


# --- planted bugs


class Latest(CallRecordings):
    """Deletes as most programs do: the latest version, by its key alone."""

    def erase(self, task: Work, union: Union) -> None:
        newest = [h.versions[-1] for h in self._held(task, union).values() if h.versions]
        self._store.delete(task, newest)
        self._change(
            task, "DELETE FROM calls WHERE id = ANY (%(ids)s::text[])", {f.ref for f in union if f.category == "calls"}
        )


def test_a_handler_that_leaves_old_versions_is_found_by_its_own_check_and_by_the_look(
    environment: dict[str, str], recordings: Any, everybody: tuple[Person, ...]
) -> None:
    person, call = call_with(everybody, lambda c: len(c.recording.versions) == 3)
    before = rows(recordings)
    with closing(Latest.from_environment()) as latest:
        union, verified = attempt(latest, task(person))
    key = audio(call)
    assert states(union, verified)[f"recordings:{key}"] == "Active"
    found = judged("call_recordings", before, rows(recordings), {ERASE: [person]})
    assert f"recordings:{key}?version=1" in found.wrong


def test_a_category_that_is_not_known_is_never_taken_for_gone(
    handler: CallRecordings, everybody: tuple[Person, ...]
) -> None:
    with pytest.raises(GiveToPerson):
        handler.verify(task(everybody[0]), (Found(category="voicemails", ref="1"),))


def test_a_player_without_a_recording_says_so(recordings: Any, everybody: tuple[Person, ...]) -> None:
    player = Player(recordings.dsn, recordings.bucket, recordings.server.player)
    with pytest.raises(NothingError):
        player.play("T-nobody")
    _, call = call_with(everybody, lambda c: c.recording.deleted)
    with pytest.raises(NothingError):
        player.play(call.id)


# --- the suite that every handler passes


class TestSuite(HandlerSuite):
    """The rules of every handler, on new callers with two versions, a delete marker and a transcript each."""

    @pytest.fixture(autouse=True)
    def _over(self, empty_recordings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        for name, value in empty_recordings.environment.items():
            monkeypatch.setenv(name, value)
        self.recordings = empty_recordings
        self.made: list[CallRecordings] = []
        self.mine: set[str] = set()
        yield
        for handler in self.made:
            handler.close()

    def fresh(self) -> CallRecordings:
        self.made.append(CallRecordings.from_environment())
        return self.made[-1]

    def arrange(self, action: Action) -> Scene:
        phone, call = f"+81900{uuid4().int % 10**7:07d}", f"S-{uuid4().hex[:12]}"
        folder = f"calls/2026/03/{call}/"
        self.mine.add(call)
        with psycopg.connect(self.recordings.dsn) as index:
            index.execute(
                "INSERT INTO calls VALUES (%s, %s, '2026-03-05 00:00+00', 'agent-1', %s, %s)",
                (call, phone, f"{folder}audio.ogg", f"{folder}transcript.json"),
            )
        for content in (b"one", b"two"):
            self.recordings.bucket.put(f"{folder}audio.ogg", content)
        self.recordings.bucket.mark_deleted(f"{folder}audio.ogg")
        self.recordings.bucket.put(f"{folder}transcript.json", b"{}")
        one = {"calls": 1, "recordings": 1, "transcripts": 1}
        ends = {ERASE: Outcome.ERASED, SUSPEND: Outcome.SUSPENDED, RESUME: Outcome.RESUMED}[action]
        return Scene(
            task=Work(
                request_id=str(uuid4()),
                system="call_recordings",
                action=action,
                categories=("calls", "recordings", "transcripts"),
                identifiers=(Identifier(type="phone", value=phone),),
                as_of=date(2026, 4, 1),
            ),
            located=one,
            outcomes={category: {ends: 1} for category in one},
        )

    def bystanders(self) -> object:
        found = rows(self.recordings).systems["call_recordings"]
        return {ref: row for ref, row in found.items() if not any(call in ref for call in self.mine)}
