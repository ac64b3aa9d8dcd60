"""The CRM handler against the real CRM process, judged by the look past it."""

import json
import signal
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing as closed
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from contract.reference import (
    ERASE,
    RESUME,
    SUSPEND,
    TODAY,
    EndsAt,
    attempt,
    closing,
    crm_rows,
    judged,
    killed_in_mid_act,
    kinds_of_people,
    refs,
    work,
)
from keshi.dev.systems.people import Person, Trait, people
from keshi.handlers.connectors.rest import Rest
from keshi.handlers.contract import Active, Gone, Limit, Located, Suspended, Union, Verified, Work
from keshi.handlers.errors import GiveToPerson, HandlerError, LeaseEnded, Retry, RetryAfter
from keshi.handlers.systems.crm import Crm
from keshi.runtime.settings import ConfigurationError
from keshi.schemas.identifiers import Identifier
from keshi.schemas.tasks import Found, Mode

CRM = Trait.CRM


@pytest.fixture
def environment(crm_process: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    found = {"KESHI_CRM_URL": crm_process.url, "KESHI_CRM_TOKEN_FILE": str(crm_process.token_file)}
    for name, value in found.items():
        monkeypatch.setenv(name, value)
    return found


@pytest.fixture
def handler(environment: dict[str, str]) -> Iterator[Crm]:
    with closing(Crm.from_environment()) as made:
        yield made


def person_with(everybody: tuple[Person, ...], *traits: Trait) -> Person:
    return next(p for p in everybody if {CRM, *traits} <= p.traits and p.activities)


# --- erase


def test_every_kind_of_person_is_erased_and_nobody_else_is_touched(
    handler: Crm, crm_process: Any, everybody: tuple[Person, ...]
) -> None:
    chosen = kinds_of_people(everybody)
    before = crm_rows(crm_process.data)
    for person in chosen:
        union, verified = attempt(handler, work("crm", person))
        assert refs(union) == person.refs("crm")
        assert set(verified.states) <= {Gone()}
    found = judged("crm", before, crm_rows(crm_process.data), {ERASE: chosen})
    assert found.ok, found.as_json()
    assert found.right["gone"] > 0


@pytest.mark.parametrize("kind", ["customer_id", "email", "phone"])
def test_each_type_of_identifier_finds_all_duplicates_by_itself(
    handler: Crm, everybody: tuple[Person, ...], kind: str
) -> None:
    """Linked or not, by the address in any case, and the one that shares nothing but a link."""
    for person in everybody:
        if kind in person.identifiers:
            located = handler.locate(work("crm", person, ERASE, kind))
            assert refs(located.found) == person.refs("crm"), person.number
            assert located.searched == (kind,)


def test_without_an_identifier_that_the_crm_knows_nothing_was_searched(
    handler: Crm, everybody: tuple[Person, ...]
) -> None:
    assert handler.locate(work("crm", everybody[0], identifiers=())) == Located((), ())


def test_only_the_categories_of_the_task_are_located(handler: Crm, everybody: tuple[Person, ...]) -> None:
    located = handler.locate(work("crm", everybody[0], categories=("cards",)))
    assert {f.category for f in located.found} == {"cards"}


def test_hundreds_of_records_are_located_and_verified_over_many_pages(
    crm_process: Any, environment: dict[str, str], everybody: tuple[Person, ...]
) -> None:
    crm_process.end()
    contact = everybody[0].contacts[0].id
    many = {f"A-{n}" for n in range(900_000, 900_650)}
    with closed(sqlite3.connect(crm_process.data / "crm.sqlite3")) as store, store:
        store.executemany(
            "INSERT INTO activities (id, contact_id, kind, at, note) VALUES (?, ?, 'call', '2026-01-01', '-')",
            [(ref, contact) for ref in many],
        )
    crm_process.start()
    with closing(Crm.from_environment()) as handler:
        task = work("crm", everybody[0])
        union = handler.locate(task).found
        assert refs(union) == everybody[0].refs("crm") | {f"activities:{ref}" for ref in many}
        assert set(handler.verify(task, union).states) == {Active()}


def test_nothing_outside_the_union_is_erased(handler: Crm, crm_process: Any, everybody: tuple[Person, ...]) -> None:
    """A card that came after locating stands in the way of its contact, and stays until it is located, too."""
    person = person_with(everybody)
    task = work("crm", person)
    late = person.cards[0].id
    union = tuple(f for f in handler.locate(task).found if f.ref != late)
    with pytest.raises(Retry) as failure:
        handler.act(task, union)
    assert failure.value.code == "has_children"
    assert f"cards:{late}" in crm_rows(crm_process.data).systems["crm"]
    both, verified = attempt(handler, task, union)
    assert refs(both) == person.refs("crm")
    assert set(verified.states) == {Gone()}


# --- what it teaches


def change(crm_process: Any, *statements: tuple[str, tuple[Any, ...]]) -> None:
    """Write into the store of a CRM that is down for the moment, as people do into the CRM itself."""
    crm_process.end()
    with closed(sqlite3.connect(crm_process.data / "crm.sqlite3")) as store, store:
        for statement, values in statements:
            store.execute(statement, values)
    crm_process.start()


def learned(handler: Crm, task: Work) -> set[tuple[str, str]]:
    return {(i.type, i.value) for i in handler.locate(task).learned}


@pytest.mark.parametrize("mode", list(Mode))
def test_everything_that_the_contacts_say_of_the_person_is_told(
    handler: Crm, everybody: tuple[Person, ...], mode: Mode
) -> None:
    """Numbers, addresses and customer ids of all duplicates, also those that only a link leads to."""
    person = person_with(everybody, Trait.OFFICE_PHONE, Trait.BILLING)
    assert person.office_phone
    located = handler.locate(work("crm", person, ERASE, "email", mode=mode))
    assert {(i.type, i.value) for i in located.learned} == {
        ("phone", person.phone),
        ("phone", person.office_phone),
        ("customer_id", person.customer_id),
        ("email", f"moved.{person.number:06d}@office.example"),
    }
    assert located.searched == ("email",)
    assert bool(located.found) == (mode is not Mode.IDENTIFY)


def test_what_the_task_brought_is_not_told_again(handler: Crm, everybody: tuple[Person, ...]) -> None:
    for person in everybody:
        told = learned(handler, work("crm", person))
        assert not told & set(person.identifiers.items())


def test_what_is_no_identifier_is_passed_over(
    crm_process: Any, environment: dict[str, str], everybody: tuple[Person, ...]
) -> None:
    """People type what they like into a CRM."""
    person = person_with(everybody, Trait.OFFICE_PHONE)
    odd = [
        ("not a number", "+81 (0)", "\t"),
        ("090-0000-0001", "nobody", ""),
        ("+0", "a@b", " "),
        ("+81" + "9" * 40, "@", "x" * 500),
        ("", "two@at@signs.example", "\x00"),
        ("", "long" * 300 + "@customer.example", ""),
        ("", "nul\x00@customer.example", ""),
        ("+81 90-0999 9999", " spaced@customer.example ", "  C-9  "),
    ]
    insert = (
        "INSERT INTO contacts (id, name, company, duplicate_of, phone, email, customer_id)"
        " VALUES (?, '-', '-', ?, ?, ?, ?)"
    )
    change(
        crm_process,
        *((insert, (f"P-9{n:05d}", person.contacts[0].id, *values)) for n, values in enumerate(odd)),
    )
    with closing(Crm.from_environment()) as handler:
        told = learned(handler, work("crm", person, ERASE, "email"))
    assert person.office_phone
    assert {v for t, v in told if t == "phone"} == {person.phone, person.office_phone, "+819009999999"}
    assert {v for t, v in told if t == "customer_id"} == {person.customer_id, "C-9"} - {None}
    assert {v for t, v in told if t == "email"} == {
        f"moved.{person.number:06d}@office.example",
        "spaced@customer.example",
    }


def test_a_number_that_other_people_have_too_is_not_told(
    crm_process: Any, environment: dict[str, str], everybody: tuple[Person, ...]
) -> None:
    """The switchboard of a company: by it, calls of all its people would be erased."""
    person = person_with(everybody, Trait.OFFICE_PHONE)
    other = next(p for p in everybody if p.contacts and p is not person)
    change(
        crm_process,
        ("UPDATE contacts SET phone = ? WHERE id = ?", (person.office_phone, other.contacts[0].id)),
    )
    with closing(Crm.from_environment()) as handler:
        told = learned(handler, work("crm", person, ERASE, "email"))
    assert {v for t, v in told if t == "phone"} == {person.phone}


def test_who_is_not_there_teaches_nothing(handler: Crm) -> None:
    stranger = (Identifier(type="email", value="nobody@stranger.example"),)
    located = handler.locate(work("crm", people(1, today=TODAY)[0], identifiers=stranger))
    assert located == Located((), ("email",))


# --- crashes and leases


def test_killed_in_mid_act_the_next_attempt_completes_it_over_the_union(
    handler: Crm, crm_process: Any, environment: dict[str, str], everybody: tuple[Person, ...], tmp_path: Path
) -> None:
    person = person_with(everybody, Trait.DUPLICATES)
    before = crm_rows(crm_process.data)
    task = work("crm", person)
    union = handler.locate(task).found
    assert killed_in_mid_act(task, union, environment, tmp_path) == -signal.SIGKILL
    half = crm_rows(crm_process.data)
    assert 0 < len(person.refs("crm") & half.systems["crm"].keys()) < len(union)
    both, verified = attempt(handler, task, union)
    assert set(verified.states) == {Gone()}
    assert len(both) == len(union)
    assert judged("crm", before, crm_rows(crm_process.data), {ERASE: [person]}).ok


def test_a_link_that_went_in_the_first_attempt_hides_nothing_from_the_second(
    handler: Crm, crm_process: Any, everybody: tuple[Person, ...]
) -> None:
    """The found contact goes first, and with it all that led to the other: only the union knows that one."""
    person = person_with(everybody, Trait.HIDDEN_DUPLICATE)
    before = crm_rows(crm_process.data)
    task = work("crm", person)
    union = handler.locate(task).found
    found = next(c.id for c in person.contacts if c.email == person.email)
    first = tuple(f for f in union if f.ref == found or f.category != "contacts")
    handler.act(task, first)
    assert handler.locate(task).found == ()
    _, verified = attempt(handler, task, union)
    assert set(verified.states) == {Gone()}
    assert judged("crm", before, crm_rows(crm_process.data), {ERASE: [person]}).ok


def test_a_lease_that_ends_at_any_step_leaves_what_a_later_attempt_completes(
    handler: Crm, crm_process: Any, everybody: tuple[Person, ...]
) -> None:
    person = person_with(everybody, Trait.DUPLICATES)
    before = crm_rows(crm_process.data)
    union = handler.locate(work("crm", person)).found
    for step in range(1, len(union) + 1):
        with pytest.raises(LeaseEnded):
            handler.act(work("crm", person, limit=EndsAt(step)), union)
        with pytest.raises(LeaseEnded):
            handler.act(work("crm", person, limit=Limit(0)), union)
        assert len(person.refs("crm") & crm_rows(crm_process.data).systems["crm"].keys()) == len(union) - step
    _, verified = attempt(handler, work("crm", person), union)
    assert set(verified.states) == {Gone()}
    assert judged("crm", before, crm_rows(crm_process.data), {ERASE: [person]}).ok


def test_a_slow_crm_is_waited_for_no_longer_than_the_task_has(
    handler: Crm, crm_process: Any, everybody: tuple[Person, ...]
) -> None:
    union = handler.locate(work("crm", everybody[0])).found
    crm_process.end()
    crm_process.start(slow_ms=3_000)
    with pytest.raises(LeaseEnded):
        handler.act(work("crm", everybody[0], limit=Limit(0.5)), union)


# --- suspend and resume


def test_suspended_then_resumed_everything_is_as_it_was_and_marks_of_others_stay(
    handler: Crm, crm_process: Any, everybody: tuple[Person, ...]
) -> None:
    chosen = kinds_of_people(everybody, CRM)
    before = crm_rows(crm_process.data)
    suspended = {}
    for person in chosen:
        union, verified = attempt(handler, work("crm", person, SUSPEND))
        assert set(verified.states) == {Suspended()}
        suspended[person.number] = tuple(f for f in union if f.was == "active")
    during = crm_rows(crm_process.data)
    assert judged("crm", before, during, {SUSPEND: chosen}).ok
    for person in chosen:
        task = work("crm", person, RESUME, remembered=suspended[person.number])
        ours = tuple(f for f in handler.locate(task).found if refs([f]) <= refs(task.remembered))
        assert refs(ours) == refs(task.remembered)
        handler.act(task, ours)
        assert set(handler.verify(task, ours).states) == {Active()}
    after = crm_rows(crm_process.data)
    assert judged("crm", during, after, {RESUME: chosen}).ok
    assert after.systems == before.systems


def test_the_mark_names_the_request_and_a_second_request_leaves_it(
    handler: Crm, crm_process: Any, everybody: tuple[Person, ...]
) -> None:
    person = person_with(everybody)
    first, second = (work("crm", person, SUSPEND) for _ in range(2))
    attempt(handler, first)
    union, verified = attempt(handler, second)
    assert {f.was for f in union} == {"suspended"}
    assert set(verified.states) == {Suspended()}
    rows = crm_rows(crm_process.data).systems["crm"]
    assert {rows[ref]["suspended_by"] for ref in person.refs("crm")} == {f"keshi:{first.request_id}"}


def test_a_mark_of_somebody_else_is_not_lifted_and_a_person_is_asked(
    handler: Crm, crm_process: Any, everybody: tuple[Person, ...]
) -> None:
    person = person_with(everybody, Trait.MANUAL)
    union, _ = attempt(handler, work("crm", person, SUSPEND))
    with pytest.raises(GiveToPerson) as failure:
        handler.act(work("crm", person, RESUME), union)
    assert failure.value.code == "suspended_by_other"
    rows = crm_rows(crm_process.data).systems["crm"]
    marks = {rows[ref]["suspended_by"] for ref in person.refs("crm")}
    assert marks == {None, "manual"}


# --- lists


def test_a_list_is_verified_as_its_tasks_one_by_one(handler: Crm, everybody: tuple[Person, ...]) -> None:
    tasks = [work("crm", p) for p in everybody[:10]]
    unions = [(t, handler.locate(t).found) for t in tasks]
    handler.act_list(unions[::2])
    assert handler.verify_list(unions) == [handler.verify(t, u) for t, u in unions]
    assert handler.verify_list([]) == []


def test_a_task_of_a_list_whose_time_is_over_harms_no_other(handler: Crm, everybody: tuple[Person, ...]) -> None:
    task, late = work("crm", everybody[0]), work("crm", everybody[0], limit=Limit(0))
    union = handler.locate(task).found
    good, bad = handler.verify_list([(task, union), (late, union)])
    assert isinstance(good, Verified)
    assert isinstance(bad, LeaseEnded)


# --- planted bugs


class Idle(Crm):
    """Reports without deleting."""

    def erase(self, task: Work, union: Union) -> None:
        pass


class Shortsighted(Crm):
    """Misses the second duplicate."""

    def _contacts(self, task: Work) -> list[dict[str, Any]]:
        return sorted(super()._contacts(task), key=lambda contact: contact["id"])[:2]


def test_a_handler_that_deletes_nothing_is_found_by_its_own_check_and_by_the_look(
    environment: dict[str, str], crm_process: Any, everybody: tuple[Person, ...]
) -> None:
    person = person_with(everybody)
    before = crm_rows(crm_process.data)
    with closing(Idle.from_environment()) as idle:
        union, verified = attempt(idle, work("crm", person))
    assert set(verified.states) == {Active()}
    assert set(judged("crm", before, crm_rows(crm_process.data), {ERASE: [person]}).wrong) == person.refs("crm")
    assert refs(union) == person.refs("crm")


def test_a_handler_that_misses_the_second_duplicate_is_found_by_the_look(
    environment: dict[str, str], crm_process: Any, everybody: tuple[Person, ...]
) -> None:
    person = next(p for p in everybody if Trait.DUPLICATES in p.traits)
    missed = max(c.id for c in person.contacts)
    before = crm_rows(crm_process.data)
    with closing(Shortsighted.from_environment()) as blind:
        _, verified = attempt(blind, work("crm", person))
    assert set(verified.states) == {Gone()}
    assert f"contacts:{missed}" in judged("crm", before, crm_rows(crm_process.data), {ERASE: [person]}).wrong


# --- settings and failures


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({}, "KESHI_CRM_TOKEN"),
        ({"KESHI_CRM_TOKEN": "t"}, "KESHI_CRM_URL"),
        ({"KESHI_CRM_TOKEN": "t", "KESHI_CRM_URL": "crm.example"}, "KESHI_CRM_URL"),
        ({"KESHI_CRM_TOKEN_FILE": "/nowhere/token", "KESHI_CRM_URL": "http://crm.example"}, "KESHI_CRM_TOKEN_FILE"),
    ],
)
def test_what_is_missing_at_the_start_is_named_in_one_line(
    given: dict[str, str], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("KESHI_CRM_URL", "KESHI_CRM_TOKEN", "KESHI_CRM_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as failure:
        Crm.from_environment()
    assert named in str(failure.value)
    assert "\n" not in str(failure.value)


def test_readiness_needs_the_crm_and_a_token_that_it_takes(handler: Crm, crm_process: Any) -> None:
    assert handler.ready()
    with closing(Crm(Rest(crm_process.url, "not the token", setting="-"))) as stranger:
        assert not stranger.ready()
    crm_process.end()
    assert not handler.ready()


def test_a_crm_that_is_not_there_is_tried_again(handler: Crm, crm_process: Any, everybody: tuple[Person, ...]) -> None:
    crm_process.end(signal.SIGKILL)
    with pytest.raises(Retry):
        handler.locate(work("crm", everybody[0]))
    crm_process.start()
    assert handler.locate(work("crm", everybody[0])).found


class _Scripted(BaseHTTPRequestHandler):
    """A server that misbehaves as told: what no CRM in order does."""

    answers: list[tuple[int, dict[str, str], bytes]]

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        status, headers, body = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def scripted() -> Iterator[Any]:
    """Starts a CRM that gives these answers, the last one for ever; returns its handler."""
    servers: list[ThreadingHTTPServer] = []
    handlers: list[Crm] = []

    def start(*answers: tuple[int, dict[str, str], bytes]) -> Crm:
        server = ThreadingHTTPServer(("127.0.0.1", 0), type("Script", (_Scripted,), {"answers": [*answers]}))
        servers.append(server)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}).start()
        handlers.append(Crm(Rest(f"http://127.0.0.1:{server.server_port}", "t", setting="-")))
        return handlers[-1]

    yield start
    for handler in handlers:
        handler.close()
    for server in servers:
        server.shutdown()
        server.server_close()


def page(*items: dict[str, Any], after: str | None = None) -> bytes:
    return json.dumps({"items": items, "next": after}).encode()


@pytest.mark.parametrize(
    ("answer", "kind", "code"),
    [
        ((429, {"Retry-After": "7"}, b"{}"), RetryAfter, "unavailable"),
        ((503, {}, b""), Retry, "unavailable"),
        ((500, {}, b"some private text"), Retry, "http_500"),
        ((401, {}, b"{}"), Retry, "http_401"),
        ((404, {}, b"{}"), Retry, "http_404"),
        ((400, {}, b"{}"), GiveToPerson, "http_400"),
        ((302, {"Location": "http://elsewhere.example/"}, b""), GiveToPerson, "http_302"),
        ((200, {}, b"<html>"), Retry, "answer_not_json"),
        ((200, {}, b"9" * 9_000_000), GiveToPerson, "answer_too_large"),
        ((200, {}, page(after="P-1")), GiveToPerson, "paging_stands_still"),
    ],
)
def test_each_answer_says_what_is_to_be_done(
    scripted: Any,
    everybody: tuple[Person, ...],
    answer: tuple[int, dict[str, str], bytes],
    kind: type[HandlerError],
    code: str,
) -> None:
    with pytest.raises(HandlerError) as failure:
        scripted(answer).locate(work("crm", everybody[0]))
    assert type(failure.value) is kind
    assert failure.value.code == code
    assert str(failure.value) == code
    if isinstance(failure.value, RetryAfter):
        assert failure.value.seconds == 7


def test_what_only_looks_alike_is_not_taken(scripted: Any, everybody: tuple[Person, ...]) -> None:
    """A search that answers with more than was asked for leads to nobody else."""
    other = {"id": "P-1", "email": "ahanako.keshi@customer.example", "phone": None, "customer_id": None}
    located = scripted((200, {}, page(other))).locate(work("crm", everybody[0]))
    assert located.found == ()


def test_a_record_of_which_the_crm_says_nothing_is_not_taken_for_gone(
    scripted: Any, everybody: tuple[Person, ...]
) -> None:
    union = (Found(category="cards", ref="B-000001"),)
    handler = scripted((200, {}, json.dumps({"found": {}, "gone": []}).encode()))
    with pytest.raises(Retry) as failure:
        handler.verify(work("crm", everybody[0]), union)
    assert failure.value.code == "answer_incomplete"


def test_an_answer_that_trickles_is_not_waited_for_past_the_time(everybody: tuple[Person, ...]) -> None:
    """Each byte comes in time; all of them together would not."""
    end = threading.Event()

    class Trickle(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            while not end.wait(0.05):
                try:
                    self.wfile.write(b" ")
                except OSError:
                    return

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Trickle)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}).start()
    try:
        address = f"http://127.0.0.1:{server.server_port}"
        with closing(Crm(Rest(address, "t", setting="-"))) as handler, pytest.raises(LeaseEnded):
            handler.locate(work("crm", everybody[0], limit=Limit(0.5)))
    finally:
        end.set()
        server.shutdown()
        server.server_close()


def test_a_failed_call_repeats_nothing_of_what_was_sent_or_answered(
    scripted: Any, everybody: tuple[Person, ...]
) -> None:
    person = everybody[0]
    with pytest.raises(HandlerError) as failure:
        scripted((500, {}, person.email.encode())).locate(work("crm", person))
    error: BaseException | None = failure.value
    while error:
        assert person.email not in repr(error)
        assert not isinstance(error, httpx.HTTPError)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
