"""The MA tool as a process: what its API says and refuses, its jobs, its limit of calls; and the look into it."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest

from keshi.dev.systems import ma_tool
from keshi.dev.systems.look import Expectation, Found, Snapshot, compare
from keshi.dev.systems.ma_tool.bucket import Bucket
from keshi.dev.systems.ma_tool.people import cookie_value, held, refs, visitor
from keshi.dev.systems.people import Person, Trait, people
from systems.running_ma import QUICK, TODAY, RunningMa, ma, until

__all__ = ["ma"]
ERASE, SUSPEND, RESUME, STOP = (Expectation(e) for e in ("erase", "suspend_use", "resume_use", "stop_provision"))


@pytest.fixture
def client(ma: RunningMa) -> Iterator[httpx.Client]:
    with ma.client() as made:
        yield made


def named(person: Person) -> list[str]:
    """References of the person's records that the API names."""
    return sorted(ref for ref in refs(person) if not ref.startswith("audiences:"))


def ids(person: Person, kind: str) -> list[str]:
    return [row["id"] for row in held(person)[kind]]


def search(client: httpx.Client, kind: str, **wanted: list[str]) -> list[str]:
    found, after = [], ""
    while after is not None:
        page = client.post(f"/v1/{kind}:search", json={**wanted, "after": after, "limit": 2})
        assert page.status_code == 200, page.text
        found += [row["id"] for row in page.json()["items"]]
        after = page.json()["next"]
    return found


def read(client: httpx.Client, wanted: list[str]) -> Any:
    return client.post("/v1/records:read", json={"refs": wanted}).json()


def delete(client: httpx.Client, key: str, wanted: list[str], reference: str = "case:1") -> Any:
    answer = client.post("/v1/deletions", json={"key": key, "reference": reference, "refs": wanted})
    assert answer.status_code == 202, answer.text
    return answer.json()


def ended(client: httpx.Client, job: Any) -> Any:
    def over() -> Any:
        found = client.get(f"/v1/deletions/{job['id']}").json()
        return found if found["state"] in {"done", "failed"} else None

    return until(over)


# --- records


def test_what_is_kept_about_a_person_is_found_by_each_field_over_all_pages(ma: RunningMa, client: httpx.Client) -> None:
    person = ma.everybody[0]
    contacts = ids(person, "contacts")
    assert search(client, "contacts", email=[person.email.upper()]) == contacts
    assert search(client, "contacts", customer_id=[str(person.customer_id)]) == contacts[:1]
    for kind in ("cookies", "lists", "mails"):
        assert search(client, kind, contact_id=contacts) == ids(person, kind)
    values = [row["cookie_id"] for row in held(person)["cookies"]]
    assert search(client, "behaviour", cookie_id=values) == ids(person, "behaviour")
    assert search(client, "contacts", email=["hanako_keshi@customer.example"]) == ids(ma.everybody[1], "contacts")
    assert search(client, "contacts", email=["hanako%"]) == []


def test_what_was_done_before_the_link_hangs_on_the_cookie_alone(ma: RunningMa, client: httpx.Client) -> None:
    person = ma.everybody[0]
    by_contact = search(client, "behaviour", contact_id=ids(person, "contacts"))
    assert set(by_contact) < set(ids(person, "behaviour"))
    somebody = next(p for p in ma.everybody if visitor(p))
    cookie = cookie_value(somebody.number, 9)
    assert len(search(client, "behaviour", cookie_id=[cookie])) == len(visitor(somebody)["behaviour"])


def test_marks_are_inherited_kept_and_lifted_by_who_set_them(ma: RunningMa, client: httpx.Client) -> None:
    person = ma.person(lambda p: not p.traits & {Trait.MANUAL, Trait.DUPLICATES})
    contact, mail = ids(person, "contacts")[0], ids(person, "mails")[0]

    def mark(kind: str, what: str, record: str, by: str) -> Any:
        return client.post(f"/v1/{kind}:{what}", json={"ids": [record], "by": by}).json()["items"][0]["suppressed"]

    own = {"ref": f"contacts:{contact}", "by": "case-1"}
    assert mark("contacts", "suppress", contact, "case-1") == [own]
    assert mark("contacts", "suppress", contact, "case-2") == [own]
    assert mark("mails", "suppress", mail, "case-2") == [{"ref": f"mails:{mail}", "by": "case-2"}, own]
    found = read(client, named(person))["found"]
    assert {ref for ref, row in found.items() if row["suppressed"]} == set(named(person))
    assert mark("contacts", "unsuppress", contact, "case-2") == [own]
    assert mark("contacts", "unsuppress", contact, "case-1") == []
    assert mark("mails", "unsuppress", mail, "case-2") == []


def test_only_who_may_be_given_is_exported_and_partners_take_from_their_lists_whom_they_may_not_have(
    ma: RunningMa, client: httpx.Client
) -> None:
    person = ma.person(lambda p: p.number % 20 == 11)
    (contact,), cookies = ids(person, "contacts"), held(person)["cookies"]

    def exported() -> dict[str, list[str]]:
        page = client.get("/v1/exports/adnet", params={"after": contact[:-2], "limit": 1}).json()
        return {row["id"]: sorted(row["cookies"]) for row in page["items"]}

    assert exported() == {contact: sorted(c["cookie_id"] for c in cookies)}
    client.post("/v1/cookies:stop-provision", json={"ids": [cookies[0]["id"]], "by": "case-1"})
    assert exported() == {contact: [c["cookie_id"] for c in cookies[1:]]}
    client.post("/v1/contacts:stop-provision", json={"ids": [contact], "by": "case-1"})
    assert contact not in exported()
    until(
        lambda: (
            {a["status"] for a in read(client, [f"contacts:{contact}"])["found"].popitem()[1]["audiences"]}
            == {"removed"}
        )
    )


# --- jobs


def test_a_job_deletes_what_it_names_and_keeps_no_name(ma: RunningMa, client: httpx.Client) -> None:
    person, other = ma.person(), ma.person()
    before = ma.look().systems["ma_tool"]
    job = ended(client, delete(client, "job-1", named(person)))
    assert (job["state"], job["deleted"], job["total"]) == ("done", len(named(person)), len(named(person)))
    assert read(client, named(person)) == {"found": {}, "gone": named(person)}
    after = ma.look().systems["ma_tool"]
    assert before.keys() - after.keys() == refs(person)
    assert {ref: row for ref, row in before.items() if ref in after} == after
    assert refs(other) <= after.keys()
    assert ma.sql("SELECT refs FROM deletions WHERE id = ?", job["id"]) == [{"refs": None}]


def test_the_same_key_is_the_same_job_and_no_other(ma: RunningMa, client: httpx.Client) -> None:
    person = ma.person()
    some = named(person)[:3]
    first = delete(client, "job-2", some)
    ended(client, first)
    assert delete(client, "job-2", some[::-1])["id"] == first["id"]
    other = client.post("/v1/deletions", json={"key": "job-2", "reference": "case:1", "refs": some[:2]})
    assert (other.status_code, other.json()["code"]) == (409, "key_in_use")
    found = client.post("/v1/deletions:search", json={"reference": ["case:1"]}).json()["items"]
    assert first["id"] in {job["id"] for job in found}


def test_a_contact_with_something_left_makes_its_job_fail_and_it_may_begin_again(
    ma: RunningMa, client: httpx.Client
) -> None:
    person = ma.person()
    left = [f"lists:{one}" for one in ids(person, "lists")]
    wanted = [ref for ref in named(person) if ref not in left]
    job = ended(client, delete(client, "job-3", wanted))
    assert (job["state"], job["error"]) == ("failed", "has_children")
    ended(client, delete(client, "job-4", left))
    assert delete(client, "job-3", wanted)["state"] in {"queued", "running", "done"}
    assert ended(client, job)["state"] == "done"


def test_a_job_waits_for_partners_and_lets_others_pass_and_goes_on_after_a_kill(ma: RunningMa) -> None:
    slow, quick = ma.person(), ma.person()
    without = [ref for ref in named(quick) if not ref.startswith("contacts:")]
    with ma.otherwise(replace(QUICK, partner_ms=600_000)), ma.client() as client:
        waiting = delete(client, "job-5", named(slow))
        assert ended(client, delete(client, "job-6", without))["state"] == "done"
        found = until(lambda: (j := client.get(f"/v1/deletions/{waiting['id']}").json())["state"] == "running" and j)
        assert found["overdue"] is False
        ma.end(signal.SIGKILL)
        ma.start()
        assert ended(client, waiting)["state"] == "done"
        assert read(client, named(slow))["found"] == {}


def test_one_hundred_records_at_a_time_and_thousands_in_all(ma: RunningMa, client: httpx.Client) -> None:
    person = ma.person()
    cookie = held(person)["cookies"][0]["cookie_id"]
    many = [f"V-many-{n}" for n in range(1_250)]
    values = ", ".join(f"('{one}', '{cookie}', NULL, '2026-01-01', 'view', '/')" for one in many)
    ma.sql(f"INSERT INTO behaviour VALUES {values}")
    wanted = named(person) + [f"behaviour:{one}" for one in many]
    assert ended(client, delete(client, "job-7", wanted))["deleted"] == len(wanted)


# --- what is not collected, and not sent


def test_what_a_visitor_does_is_collected_unless_cookie_or_contact_are_suppressed(
    ma: RunningMa, client: httpx.Client
) -> None:
    person = ma.person(lambda p: Trait.MANUAL not in p.traits)
    cookie = held(person)["cookies"][0]

    def does(value: str) -> Any:
        event = {"cookie_id": value, "kind": "view", "page": "/new"}
        return client.post("/v1/events", json=event).json()["collected"]

    assert does(cookie["cookie_id"])
    assert does("ck.unheard-of")
    assert search(client, "cookies", cookie_id=["ck.unheard-of"])
    for kind, record in (("contacts", cookie["contact_id"]), ("cookies", cookie["id"])):
        client.post(f"/v1/{kind}:suppress", json={"ids": [record], "by": "case-1"})
        before = len(search(client, "behaviour", cookie_id=[cookie["cookie_id"]]))
        assert not does(cookie["cookie_id"])
        assert len(search(client, "behaviour", cookie_id=[cookie["cookie_id"]])) == before
        client.post(f"/v1/{kind}:unsuppress", json={"ids": [record], "by": "case-1"})


# --- the limit of calls


def test_a_bucket_gives_what_it_holds_then_what_comes_back() -> None:
    now = [0.0]
    bucket = Bucket(2, 3, lambda: now[0])
    assert [bucket.take() for _ in range(4)] == [0, 0, 0, 1]
    now[0] = 0.5
    assert (bucket.left(), bucket.take(), bucket.take()) == (1, 0, 1)
    now[0] = 100.0
    assert [bucket.take() for _ in range(4)] == [0, 0, 0, 1]
    with pytest.raises(ValueError, match="at least 1"):
        Bucket(0, 1)


def test_too_many_calls_are_told_when_to_come_back(ma: RunningMa) -> None:
    with ma.otherwise(ma_tool.Pace(calls_per_second=1, burst=2)), ma.client() as client:
        answers = [client.post("/v1/records:read", json={"refs": []}) for _ in range(3)]
        assert [a.status_code for a in answers] == [200, 200, 429]
        assert (answers[2].headers["Retry-After"], answers[2].json()["code"]) == ("1", "too_many_calls")
        assert client.get("/v1/limits").json() == {"calls_left": 0}


# --- bad calls and starts


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("POST", "/v1/contacts:search", b"{", 400, "bad_request"),
        ("POST", "/v1/contacts:search", b"{}", 400, "bad_request"),
        ("POST", "/v1/contacts:search", b'{"phone": ["1"]}', 400, "bad_request"),
        ("POST", "/v1/behaviour:search", b'{"email": ["a"]}', 400, "bad_request"),
        ("POST", "/v1/records:read", b'{"refs": ["people:1"]}', 400, "bad_request"),
        ("POST", "/v1/records:read", b'{"refs": "contacts:1"}', 400, "bad_request"),
        ("POST", "/v1/lists:suppress", b'{"ids": ["L-1"], "by": "x"}', 400, "bad_request"),
        ("POST", "/v1/mails:stop-provision", b'{"ids": ["S-1"], "by": "x"}', 400, "bad_request"),
        ("POST", "/v1/contacts:suppress", b'{"ids": [], "by": "x"}', 400, "bad_request"),
        ("POST", "/v1/contacts:suppress", b'{"ids": ["M-1"]}', 400, "bad_request"),
        ("POST", "/v1/deletions", b'{"key": "k", "reference": "r", "refs": []}', 400, "bad_request"),
        ("POST", "/v1/deletions", b'{"key": "", "reference": "r", "refs": ["lists:1"]}', 400, "bad_request"),
        ("POST", "/v1/deletions:search", b'{"id": ["D"], "reference": ["r"]}', 400, "bad_request"),
        ("POST", "/v1/events", b'{"cookie_id": "", "kind": "view", "page": "/"}', 400, "bad_request"),
        ("GET", "/v1/exports/adnet?limit=x", b"", 400, "bad_request"),
        ("GET", "/v1/exports/nobody", b"", 404, "no_such_path"),
        ("GET", f"/v1/deletions/D-{'0' * 32}", b"", 404, "gone"),
        ("DELETE", "/v1/deletions", b"", 405, "no_such_method"),
        ("POST", "/v1/contacts:search", b"x" * 300_000, 413, "too_large"),
    ],
)
def test_a_bad_call_has_a_defined_answer(
    client: httpx.Client, method: str, path: str, body: bytes, status: int, code: str
) -> None:
    answer = client.request(method, path, content=body)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_only_the_health_check_works_without_the_token(ma: RunningMa) -> None:
    with httpx.Client(base_url=ma.url, trust_env=False) as stranger:
        assert stranger.get("/healthz").status_code == 200
        assert stranger.get("/v1/limits").status_code == 401


def test_what_cannot_start_says_why_in_one_line(ma: RunningMa, tmp_path: Any) -> None:
    for command, why in (
        (ma_tool.command(ma.data, 0, ma.token_file), "another MA tool runs on"),
        (ma_tool.command(tmp_path, 0, tmp_path / "nothing"), "nothing"),
        (ma_tool.command(tmp_path, 0, ma.token_file, ma_tool.Pace(burst=0)), "at least 1"),
    ):
        process = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        assert process.returncode == 2
        assert why in process.stderr
        assert process.stderr.count("\n") == 1


def test_the_log_holds_no_value_that_was_searched_for(ma: RunningMa, client: httpx.Client) -> None:
    person = ma.everybody[0]
    search(client, "contacts", email=[person.email])
    client.get(f"/v1/{person.email}")
    log = ma.log()
    assert person.email not in log
    assert any(json.loads(line).get("route") == "search" for line in log.splitlines())


def test_the_module_imports_nothing_of_keshi_but_itself() -> None:
    code = (
        "import sys, keshi.dev.systems.ma_tool.__main__;"
        "print([m for m in sys.modules if m.startswith('keshi.') and not m.startswith('keshi.dev')])"
    )
    ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    assert ran.stdout.strip() == "[]"


# --- the people, and the look


def test_nobody_shares_a_record_and_every_shape_is_there() -> None:
    everybody = people(400, today=TODAY)
    all_refs = [ref for p in everybody for ref in refs(p)]
    all_refs += [f"{table}:{row['id']}" for p in everybody for table, rows in visitor(p).items() for row in rows]
    assert len(all_refs) == len(set(all_refs))
    shapes = people(40, today=TODAY)
    contacts = [contact for p in shapes for contact in held(p)["contacts"]]
    assert any(c["suppressed_by"] for c in contacts)
    assert any(c["provision_stopped_by"] for c in contacts)
    assert any(k["suppressed_by"] for p in shapes for k in held(p)["cookies"])
    assert any(len(held(p)["cookies"]) > 2 for p in shapes)
    assert any(not held(p)["contacts"] for p in shapes)
    assert any(m["sent_at"] for p in shapes for m in held(p)["mails"])
    assert any(c["email"].startswith("old.") and c["customer_id"] is None for c in contacts)
    assert any(c["email"] != c["email"].lower() for c in contacts)
    assert all(c["email"].lower().endswith(".example") for c in contacts)


def judged(ma: RunningMa, before: Snapshot, person: Person, what: Expectation) -> Found:
    return compare(before, ma.look(), [(person, what)], today=TODAY).systems["ma_tool"]


def test_the_look_passes_what_was_done_right_and_finds_what_was_not(ma: RunningMa, client: httpx.Client) -> None:
    person = ma.person(lambda p: p.number % 20 == 11)
    contact = ids(person, "contacts")
    for what in (ERASE, SUSPEND, STOP):
        assert judged(ma, ma.look(), person, what).wrong, "nothing was done"
    before = ma.look()

    def marked(what: str, *kinds: str) -> None:
        for kind in kinds:
            client.post(f"/v1/{kind}:{what}", json={"ids": ids(person, kind), "by": "case-1"})

    marked("suppress", "mails", "contacts")
    assert set(judged(ma, before, person, SUSPEND).wrong) == {f"cookies:{i}" for i in ids(person, "cookies")}
    marked("suppress", "cookies")
    assert judged(ma, before, person, SUSPEND).ok
    during = ma.look()
    marked("unsuppress", "contacts", "cookies")
    assert set(judged(ma, during, person, RESUME).wrong) == {f"mails:{i}" for i in ids(person, "mails")}
    marked("unsuppress", "mails")
    assert judged(ma, during, person, RESUME).ok
    marked("stop-provision", "cookies", "contacts")
    until(lambda: judged(ma, before, person, STOP).ok)
    assert judged(ma, before, person, STOP).right["stopped"] > len(contact)
    ended(client, delete(client, "job-8", named(person)))
    assert judged(ma, before, person, ERASE).ok
