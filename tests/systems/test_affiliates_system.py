"""The affiliates as anybody may ask them: what they take, what they say, what they delete, what survives a kill."""

from __future__ import annotations

import time
from base64 import b64decode
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256

from keshi.dev.systems.affiliates import COMPANIES, sample
from keshi.dev.systems.affiliates.behaviour import Mood, Sign, behaviour
from keshi.dev.systems.look import Expectation, compare
from keshi.dev.systems.people import people
from kit.affiliates import OCEANIA, SAKURA, RunningAffiliates

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import httpx

    from keshi.dev.systems.people import Person

TODAY = date(2026, 4, 1)
EVERYBODY = people(60, today=TODAY)
BOTH, NEITHER = EVERYBODY[0], EVERYBODY[11]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningAffiliates]:
    made = RunningAffiliates(tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("keys"), EVERYBODY)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def _as_usual(running: RunningAffiliates) -> Iterator[None]:
    yield
    for company in COMPANIES:
        running.behave(company)


@pytest.fixture
def sakura(running: RunningAffiliates) -> Iterator[httpx.Client]:
    with running.client(SAKURA) as client:
        yield client


def body(person: Person = NEITHER, **change: Any) -> dict[str, Any]:
    told: dict[str, Any] = {
        "api_version": "2.0",
        "regulation": "appi",
        "subject_request_id": str(uuid4()),
        "subject_request_type": "erasure",
        "submitted_time": "2026-04-01T03:00:00Z",
        "subject_identities": [
            {"identity_type": "email", "identity_value": person.email, "identity_format": "raw"},
        ],
    }
    return told | change


def until(what: Callable[[], Any], seconds: float = 20) -> Any:
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
    return found


def over(client: httpx.Client, name: str) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        said: dict[str, Any] = client.get(f"/v2/requests/{name}").json()
        return said if said["request_status"] in {"completed", "cancelled"} else None

    found: dict[str, Any] = until(look)
    return found


def test_some_people_are_with_both_some_with_one_some_with_none() -> None:
    where = {tuple(bool(sample.held(c, p)["members"]) for c in COMPANIES) for p in EVERYBODY}
    assert where == {(True, True), (True, False), (False, True), (False, False)}
    assert not sample.refs(NEITHER)
    assert {r.partition(".")[0] for r in sample.refs(BOTH)} == set(COMPANIES)
    assert people(20, today=TODAY) == EVERYBODY[:20]


def test_all_records_of_a_member_are_deleted_after_a_while_and_counted_and_nobody_elses(
    running: RunningAffiliates, sakura: httpx.Client
) -> None:
    before = running.rows()
    assert set(before.systems["affiliates"]) == {r for p in EVERYBODY for r in sample.refs(p)}
    running.behave(SAKURA, mood=Mood.SILENT, expected_seconds=600)
    asked = body(BOTH)
    receipt = sakura.post("/v2/requests", json=asked)
    assert receipt.status_code == 201
    said = receipt.json()
    assert said["subject_request_id"] == asked["subject_request_id"]
    assert datetime.fromisoformat(said["expected_completion_time"]) > datetime.now(UTC)
    pending = sakura.get(f"/v2/requests/{asked['subject_request_id']}").json()
    assert pending["request_status"] == "pending"
    assert "results_count" not in pending
    running.behave(SAKURA)
    done = over(sakura, asked["subject_request_id"])
    mine = {r for r in sample.refs(BOTH) if r.startswith(SAKURA)}
    assert (done["request_status"], done["results_count"]) == ("completed", len(mine))
    after = running.rows().systems["affiliates"]
    assert before.systems["affiliates"].keys() - after.keys() == mine
    assert all(before.systems["affiliates"][r] == row for r, row in after.items())


def test_a_look_sees_whether_both_have_erased(running: RunningAffiliates) -> None:
    person = EVERYBODY[1]
    before = running.rows()
    for company, whole in ((OCEANIA, False), (SAKURA, True)):
        with running.client(company) as client:
            asked = body(person)
            client.post("/v2/requests", json=asked)
            over(client, asked["subject_request_id"])
        found = compare(before, running.rows(), [(person, Expectation.ERASE)], today=TODAY).systems["affiliates"]
        assert found.ok == whole
    for what in (Expectation.SUSPEND_USE, Expectation.STOP_PROVISION):
        assert compare(before, before, [(person, what)], today=TODAY).ok, "they can do neither, and are not to try"


def test_of_a_request_that_is_over_nothing_is_kept_by_which_the_person_was_known(
    running: RunningAffiliates, sakura: httpx.Client
) -> None:
    for mood in (Mood.NORMAL, Mood.REJECTS):
        running.behave(SAKURA, mood=mood)
        asked = body()
        sakura.post("/v2/requests", json=asked)
        assert over(sakura, asked["subject_request_id"])["request_status"] == (
            "completed" if mood is Mood.NORMAL else "cancelled"
        )
        (kept,) = [r for r in running.requests(SAKURA) if r["id"] == asked["subject_request_id"]]
        assert kept["identities"] is None
    assert NEITHER.email not in running.log(SAKURA)


def test_who_is_no_member_is_answered_with_a_count_of_nothing(sakura: httpx.Client) -> None:
    asked = body(NEITHER)
    sakura.post("/v2/requests", json=asked)
    assert over(sakura, asked["subject_request_id"])["results_count"] == 0


def test_discovery_and_certificate_are_open_and_each_answer_is_signed(sakura: httpx.Client) -> None:
    del sakura.headers["Authorization"]
    told = sakura.get("/v2/discovery")
    assert told.json()["supported_subject_request_types"] == ["erasure"]
    assert told.json()["api_version"] == "2.0"
    leaf = x509.load_pem_x509_certificate(sakura.get(told.json()["processor_certificate"]).content)
    assert told.headers["X-OpenDSR-Processor-Domain"] == COMPANIES[SAKURA].domain
    key: Any = leaf.public_key()
    key.verify(b64decode(told.headers["X-OpenDSR-Signature"]), told.content, PKCS1v15(), SHA256())
    assert sakura.post("/v2/requests", json=body()).status_code == 401


def test_a_receipt_sends_back_what_came(sakura: httpx.Client) -> None:
    sent = sakura.build_request("POST", "/v2/requests", json=body())
    assert b64decode(sakura.send(sent).json()["encoded_request"]) == sent.content


def test_an_id_is_taken_once(sakura: httpx.Client) -> None:
    asked = body()
    assert [sakura.post("/v2/requests", json=asked).status_code for _ in range(2)] == [201, 409]


@pytest.mark.parametrize(
    "change",
    [
        {"subject_request_id": "0a0a0a0a-0000-1000-8000-000000000000"},
        {"subject_request_type": "access"},
        {"regulation": "none"},
        {"api_version": "1.0"},
        {"submitted_time": "yesterday"},
        {"submitted_time": "2026-04-01T03:00:00"},
        {"subject_identities": []},
        {"subject_identities": [{"identity_type": "email", "identity_value": 5, "identity_format": "raw"}]},
        {"subject_identities": "all"},
        {"extensions": {"opendsr.sakura-logistics.example": 1}},
        {"surprise": 1},
    ],
)
def test_what_is_no_request_is_refused_and_not_repeated(sakura: httpx.Client, change: dict[str, Any]) -> None:
    reply = sakura.post("/v2/requests", json=body(BOTH, **change))
    assert reply.status_code == 400
    assert BOTH.email not in reply.text
    assert reply.json()["error"]["code"] == 400


def test_what_is_no_call_is_refused(sakura: httpx.Client) -> None:
    assert sakura.post("/v2/requests", content=b"{").status_code == 400
    assert sakura.get(f"/v2/requests/{uuid4()}").status_code == 404
    assert sakura.get("/v1/discovery").status_code == 404
    assert sakura.delete(f"/v2/requests/{uuid4()}").status_code == 404


def test_a_request_can_be_cancelled_until_it_is_begun(running: RunningAffiliates, sakura: httpx.Client) -> None:
    running.behave(SAKURA, mood=Mood.SILENT)
    asked = body()
    sakura.post("/v2/requests", json=asked)
    assert sakura.delete(f"/v2/requests/{asked['subject_request_id']}").status_code == 202
    assert over(sakura, asked["subject_request_id"])["request_status"] == "cancelled"
    assert sakura.delete(f"/v2/requests/{asked['subject_request_id']}").status_code == 400


def test_what_was_received_survives_a_kill_and_is_carried_out_after_it(
    running: RunningAffiliates, sakura: httpx.Client
) -> None:
    running.behave(SAKURA, mood=Mood.SILENT)
    asked = body(next(p for p in EVERYBODY[30:] if sample.belongs(SAKURA, p)))
    sakura.post("/v2/requests", json=asked)
    running.restart(SAKURA)
    with running.client(SAKURA) as client:
        assert client.get(f"/v2/requests/{asked['subject_request_id']}").json()["request_status"] == "pending"
        running.behave(SAKURA)
        assert over(client, asked["subject_request_id"])["results_count"] > 0


def test_moods_are_switched_while_it_runs(running: RunningAffiliates, sakura: httpx.Client) -> None:
    running.behave(SAKURA, mood=Mood.DOWN)
    assert sakura.get("/v2/discovery").status_code == 503
    running.behave(SAKURA, sign=Sign.NONE)
    assert "X-OpenDSR-Signature" not in sakura.get("/v2/discovery").headers


def test_a_mood_that_does_not_exist_is_said_and_ends_nothing(tmp_path: Path) -> None:
    (tmp_path / "behaviour.json").write_text('{"mood": "merry", "after_ms": 1, "expected_seconds": 1, "sign": "none"}')
    with pytest.raises(ValueError, match="merry"):
        behaviour(tmp_path)
    (tmp_path / "behaviour.json").write_text('{"mood": "normal"}')
    with pytest.raises(ValueError, match="after_ms"):
        behaviour(tmp_path)
