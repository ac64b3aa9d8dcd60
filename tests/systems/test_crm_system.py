"""The CRM as a process: what its API says, what it refuses, and that an answered write survives a kill."""

import json
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

from keshi.dev.systems import crm
from keshi.dev.systems.people import Person, Trait


def pick(everybody: tuple[Person, ...], *traits: Trait) -> Person:
    return next(p for p in everybody if set(traits) <= p.traits)


def search(client: httpx.Client, **wanted: list[str]) -> list[str]:
    """All contacts found, over all pages."""
    found, after = [], ""
    for _ in range(100):
        page = client.post("/v1/contacts:search", json={**wanted, "after": after, "limit": 2})
        assert page.status_code == 200, page.text
        found += page.json()["items"]
        after = page.json()["next"]
        if after is None:
            return [contact["id"] for contact in found]
    raise AssertionError("pages without end")


def test_contacts_are_found_by_email_in_any_case_phone_and_customer_id(
    crm_client: httpx.Client, everybody: tuple[Person, ...]
) -> None:
    person = pick(everybody, Trait.DUPLICATES, Trait.BILLING)
    first, second, _ = (contact.id for contact in person.contacts)
    assert search(crm_client, email=[person.email.upper()]) == [first, second]
    assert search(crm_client, phone=[person.phone]) == [first]
    assert search(crm_client, customer_id=[str(person.customer_id)]) == [first]
    assert search(crm_client, email=[person.email], phone=[person.phone]) == [first, second]


def test_a_search_takes_many_values_and_comes_in_pages(crm_client: httpx.Client, everybody: tuple[Person, ...]) -> None:
    some = [p for p in everybody if p.contacts and Trait.HIDDEN_DUPLICATE not in p.traits][:12]
    expected = sorted(c.id for p in some for c in p.contacts if (c.email or "").lower() == p.email.lower())
    assert search(crm_client, email=[p.email for p in some]) == expected


def test_a_pattern_finds_nobody(crm_client: httpx.Client, everybody: tuple[Person, ...]) -> None:
    assert search(crm_client, email=["hanako_keshi@customer.example"]) == [
        contact.id for contact in everybody[1].contacts[:2]
    ]
    assert search(crm_client, email=["%@customer.example"]) == []


def duplicates(client: httpx.Client, contact_id: str) -> set[str]:
    return {contact["id"] for contact in client.get(f"/v1/contacts/{contact_id}/duplicates").json()["items"]}


@pytest.mark.parametrize("trait", [Trait.DUPLICATES, Trait.HIDDEN_DUPLICATE])
def test_an_address_and_the_links_from_there_lead_to_all_contacts_of_a_person(
    crm_client: httpx.Client, everybody: tuple[Person, ...], trait: Trait
) -> None:
    for person in (p for p in everybody if trait in p.traits):
        found = set(search(crm_client, email=[person.email]))
        assert found != {contact.id for contact in person.contacts}
        found |= {linked for one in found for linked in duplicates(crm_client, one)}
        assert found == {contact.id for contact in person.contacts}


def test_links_are_followed_over_several_steps_and_in_both_directions(
    crm_client: httpx.Client, everybody: tuple[Person, ...]
) -> None:
    chain = everybody[11]
    first, second, third = (contact.id for contact in chain.contacts)
    assert [contact.duplicate_of for contact in chain.contacts] == [None, first, second]
    assert duplicates(crm_client, first) == {second, third}
    assert duplicates(crm_client, second) == {first, third}
    assert duplicates(crm_client, third) == {first, second}


def test_cards_and_activities_of_a_contact_come_in_pages(
    crm_client: httpx.Client, everybody: tuple[Person, ...]
) -> None:
    person = everybody[0]
    for kind, rows in (("cards", person.cards), ("activities", person.activities)):
        for contact in person.contacts:
            found, after = [], ""
            while after is not None:
                page = crm_client.get(f"/v1/contacts/{contact.id}/{kind}", params={"limit": 1, "after": after}).json()
                found += [row["id"] for row in page["items"]]
                after = page["next"]
            assert found == [row.id for row in rows if row.contact_id == contact.id]


def delete_all(client: httpx.Client, person: Person) -> None:
    for card in person.cards:
        assert client.delete(f"/v1/cards/{card.id}").status_code == 204
    for activity in person.activities:
        assert client.delete(f"/v1/activities/{activity.id}").status_code == 204
    for contact in person.contacts:
        assert client.delete(f"/v1/contacts/{contact.id}").status_code == 204


def test_a_contact_with_children_stays_until_each_was_deleted(
    crm_client: httpx.Client, everybody: tuple[Person, ...]
) -> None:
    person = everybody[0]
    refused = crm_client.delete(f"/v1/contacts/{person.contacts[0].id}")
    assert (refused.status_code, refused.json()["code"]) == (409, "has_children")
    delete_all(crm_client, person)
    again = crm_client.delete(f"/v1/contacts/{person.contacts[0].id}")
    assert (again.status_code, again.json()["code"]) == (404, "gone")
    refs = sorted(person.refs("crm"))
    assert crm_client.post("/v1/records:read", json={"refs": refs}).json() == {"found": {}, "gone": refs}


def test_with_the_main_contact_goes_the_way_to_its_duplicates(
    crm_client: httpx.Client, everybody: tuple[Person, ...]
) -> None:
    person = pick(everybody, Trait.HIDDEN_DUPLICATE)
    main, found = person.contacts
    for card in (c for c in person.cards if c.contact_id == main.id):
        crm_client.delete(f"/v1/cards/{card.id}")
    for activity in (a for a in person.activities if a.contact_id == main.id):
        crm_client.delete(f"/v1/activities/{activity.id}")
    assert crm_client.delete(f"/v1/contacts/{main.id}").status_code == 204
    assert crm_client.get(f"/v1/contacts/{found.id}").json()["duplicate_of"] is None


def test_a_record_is_suspended_and_resumed_under_its_marker_only(
    crm_client: httpx.Client, everybody: tuple[Person, ...]
) -> None:
    card = everybody[0].cards[0].id

    def mark(status: str, by: str) -> httpx.Response:
        return crm_client.patch(f"/v1/cards/{card}", json={"status": status, "suspended_by": by})

    before = crm_client.get(f"/v1/cards/{card}").json()
    assert mark("suspended", "case-1").json() == before | {"status": "suspended", "suspended_by": "case-1"}
    assert mark("suspended", "case-1").status_code == 200
    assert mark("suspended", "case-2").json()["code"] == "suspended_by_other"
    assert mark("active", "case-2").status_code == 409
    assert mark("active", "case-1").json() == before
    assert mark("active", "case-1").status_code == 200


def test_what_the_companys_own_people_suspended_stays_suspended(
    crm_client: httpx.Client, everybody: tuple[Person, ...]
) -> None:
    contact = pick(everybody, Trait.MANUAL, Trait.CRM).contacts[0].id
    for status in ("suspended", "active"):
        answer = crm_client.patch(f"/v1/contacts/{contact}", json={"status": status, "suspended_by": "case-1"})
        assert answer.json()["code"] == "suspended_by_other"
    assert crm_client.get(f"/v1/contacts/{contact}").json()["suspended_by"] == "manual"


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("POST", "/v1/contacts:search", b"{", 400, "bad_request"),
        ("POST", "/v1/contacts:search", b"[" * 100_000, 400, "bad_request"),
        ("POST", "/v1/contacts:search", b"{}", 400, "bad_request"),
        ("POST", "/v1/contacts:search", b'{"email": []}', 400, "bad_request"),
        ("POST", "/v1/contacts:search", b'{"email": ["a\\u0000"]}', 400, "bad_request"),
        ("POST", "/v1/contacts:search", b'{"email": ["\\ud800"]}', 400, "bad_request"),
        ("POST", "/v1/contacts:search", b'{"email": "a@b.example"}', 400, "bad_request"),
        ("POST", "/v1/contacts:search", b'{"name": ["a"]}', 400, "bad_request"),
        ("POST", "/v1/contacts:search", b'{"email": ["a"], "limit": 0}', 400, "bad_request"),
        ("POST", "/v1/contacts:search", b"x" * 300_000, 413, "too_large"),
        ("POST", "/v1/records:read", b'{"refs": ["people:1"]}', 400, "bad_request"),
        ("PATCH", "/v1/contacts/P-000001", b'{"status": "lost", "suspended_by": "x"}', 400, "bad_request"),
        ("PATCH", "/v1/contacts/P-000001", b'{"status": "suspended"}', 400, "bad_request"),
        ("GET", "/v1/contacts/P-000001/cards?limit=x", b"", 400, "bad_request"),
        ("GET", "/v1/contacts/P-999999", b"", 404, "gone"),
        ("GET", "/v1/contacts/P-999999/duplicates", b"", 404, "gone"),
        ("DELETE", "/v1/cards/B-999999", b"", 404, "gone"),
        ("GET", "/v1/people", b"", 404, "no_such_path"),
        ("PUT", "/v1/contacts/P-000001", b"{}", 405, "no_such_method"),
    ],
)
def test_a_bad_call_has_a_defined_answer_and_no_effect_on_the_next(
    crm_client: httpx.Client, method: str, path: str, body: bytes, status: int, code: str
) -> None:
    answer = crm_client.request(method, path, content=body)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert crm_client.get("/v1/contacts/P-000001").status_code == 200


def test_only_the_health_check_works_without_the_token(crm_process: Any) -> None:
    with httpx.Client(base_url=crm_process.url, trust_env=False) as client:
        assert client.get("/healthz").json() == {"status": "ok"}
        assert client.get("/v1/contacts/P-000001").status_code == 401
        wrong = {"Authorization": "Bearer wrong"}
        assert client.delete("/v1/contacts/P-000001", headers=wrong).status_code == 401


def test_an_answered_write_survives_kill_9(crm_process: Any, everybody: tuple[Person, ...]) -> None:
    people = [p for p in everybody if p.contacts][:6]
    for person in people:
        with crm_process.client() as client:
            delete_all(client, person)
        crm_process.end(signal.SIGKILL)
        crm_process.start()
        with crm_process.client() as client:
            found = client.post("/v1/records:read", json={"refs": sorted(person.refs("crm"))}).json()["found"]
            assert found == {}


def test_a_kill_in_the_middle_of_deletes_loses_none_that_was_answered(
    crm_process: Any, everybody: tuple[Person, ...]
) -> None:
    crm_process.end()
    crm_process.start(slow_ms=20)
    cards = [card.id for person in everybody for card in person.cards]
    answered = []
    enough = threading.Event()

    def delete() -> None:
        with crm_process.client() as client:
            for card in cards:
                try:
                    status = client.delete(f"/v1/cards/{card}").status_code
                except httpx.HTTPError:
                    return
                assert status == 204
                answered.append(card)
                if len(answered) == 10:
                    enough.set()

    thread = threading.Thread(target=delete)
    thread.start()
    assert enough.wait(20)
    crm_process.end(signal.SIGKILL)
    thread.join(20)
    crm_process.start()
    with crm_process.client() as client:
        gone = client.post("/v1/records:read", json={"refs": [f"cards:{c}" for c in cards]}).json()["gone"]
    assert 10 <= len(answered) < len(cards)
    assert set(gone) >= {f"cards:{card}" for card in answered}
    assert len(gone) <= len(answered) + 1


def test_sigterm_lets_a_call_finish_and_ends_with_0(crm_process: Any, everybody: tuple[Person, ...]) -> None:
    crm_process.end()
    crm_process.start(slow_ms=1500)
    card = everybody[0].cards[0].id
    answers = []

    def delete() -> None:
        with crm_process.client() as client:
            answers.append(client.delete(f"/v1/cards/{card}").status_code)

    thread = threading.Thread(target=delete)
    thread.start()
    crm_process.wait_for_log('"slowed"')
    assert crm_process.end() == 0
    thread.join(10)
    assert answers == [204]


def test_a_second_crm_on_the_same_data_is_refused_with_one_line(crm_process: Any) -> None:
    command = crm.command(crm_process.data, 0, crm_process.token_file)
    second = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert second.returncode == 2
    assert second.stderr.count("\n") == 1
    assert "another CRM runs on" in second.stderr


def test_a_missing_token_file_is_one_clear_line(tmp_path: Path) -> None:
    command = crm.command(tmp_path / "crm", 0, tmp_path / "nothing")
    ended = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1


def test_the_log_holds_no_value_that_was_searched_for(crm_process: Any, everybody: tuple[Person, ...]) -> None:
    person = everybody[0]
    with crm_process.client() as client:
        search(client, email=[person.email], phone=[person.phone])
        client.get("/v1/contacts", params={"email": person.email})
    crm_process.end()
    log = crm_process.log()
    assert any(json.loads(line).get("route") == "search" for line in log.splitlines())
    assert person.email not in log
    assert "keshi%40" not in log
    assert person.phone not in log


def test_the_module_imports_nothing_of_keshi_but_itself() -> None:
    code = (
        "import sys, keshi.dev.systems.crm.__main__, keshi.dev.systems.look, keshi.dev.systems.billing;"
        "print([m for m in sys.modules if m.startswith('keshi.') and not m.startswith('keshi.dev')])"
    )
    ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    assert ran.stdout.strip() == "[]"
