"""The API as its callers meet it: a real process over HTTP, on a real ledger and a real broker."""

import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from kafka import TopicPartition

from keshi.dev.postgres import create_database, drop_database
from keshi.orchestrator import events as ev
from keshi.orchestrator.ledger.migrate import migrate
from keshi.orchestrator.ledger.port import Batch, ClosureRow, ObligationRow, QuarantineRow
from keshi.orchestrator.ledger.postgres import PostgresLedger, connect
from keshi.orchestrator.tokens import Role, new_token
from keshi.runtime import topics
from keshi.runtime.kafka import new_consumer
from keshi.runtime.settings import KafkaSettings
from keshi.schemas.closure import GENESIS, Clocks, ClosureRecord, DecisionRecord, Located, SystemRecord
from keshi.schemas.commands import COMMANDS, Action, Arrival, Assessment, Decision, Regime, Requester, Scope
from keshi.schemas.envelope import MAX_COMMAND_BYTES
from keshi.schemas.outcomes import CategoryOutcome, DecidedBy, Outcome, Verdict
from keshi.schemas.reading import read
from keshi.schemas.tasks import BeginResponse, Found, Go, UnwrapResponse
from kit.seeding import ARRIVED, HANAKO, Seeder, new_keys, plan

PROBLEM = "application/problem+json"
NOBODY = "01900000-0000-7000-8000-000000000000"
ROLES = {
    "billing": (Role.WORKER, "billing"),
    "crm": (Role.WORKER, "crm"),
    "reader": (Role.READER, None),
    "operator": (Role.OPERATOR, None),
    "decider": (Role.DECIDER, None),
}


@dataclass
class Api:
    """One process, and who calls it."""

    process: "subprocess.Popen[str]"
    tokens: dict[str, str]
    log: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        said: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._hear, args=(said,), daemon=True).start()
        self._logging = threading.Thread(target=lambda: self.log.extend(self.process.stderr or ()), daemon=True)
        self._logging.start()
        try:
            port = int(said.get(timeout=60))
        except queue.Empty:
            self.process.kill()
            pytest.fail(f"the API did not start: {self.log}")
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False)

    def _hear(self, said: "queue.Queue[str]") -> None:
        for line in self.process.stdout or ():
            said.put(line)

    def call(self, who: str, method: str, path: str, **more: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.tokens[who]}"} if who else {}
        return self.http.request(method, path, headers={**headers, **more.pop("headers", {})}, **more)

    def get(self, who: str, path: str) -> httpx.Response:
        return self.call(who, "GET", path)

    def post(self, who: str, path: str, body: Any) -> httpx.Response:
        return self.call(who, "POST", path, json=body)

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            code = self.process.wait(30)
        finally:
            self.process.kill()
        self.http.close()
        self._logging.join(10)
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe:
                pipe.close()
        return code


@dataclass
class Place:
    """What API processes of these tests share."""

    dsn: str
    kafka: KafkaSettings
    seed: Seeder
    tokens_file: Path
    tokens: dict[str, str]

    def start(self, **environment: str) -> Api:
        given = {
            "TEST_LEDGER": self.dsn,
            "TEST_TOKENS": str(self.tokens_file),
            "KESHI_KAFKA_BOOTSTRAP": self.kafka.bootstrap,
            "KESHI_KAFKA_PREFIX": self.kafka.prefix,
            "PYTHONPATH": str(Path(__file__).parents[1]),
        }
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", str(Path(__file__).with_name("api_process.py"))],
            env={**os.environ, **given, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        return Api(process, self.tokens)


@pytest.fixture(scope="module")
def place(postgres_server: str, kafka_bootstrap: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    name = f"t{uuid4().hex}"
    create_database(postgres_server, name)
    dsn = postgres_server.rsplit("/", 1)[0] + f"/{name}"
    kafka = KafkaSettings(bootstrap=kafka_bootstrap, prefix=f"t{uuid4().hex[:12]}.")
    topics.apply(kafka, topics.wanted(kafka, [], topics.TopicOptions())[:1], topics.TopicOptions())
    engine = connect(dsn)
    migrate(engine)
    ledger = PostgresLedger(engine)
    made = {who: new_token(f"test:{who}", role, system) for who, (role, system) in ROLES.items()}
    file = tmp_path_factory.mktemp("api") / "tokens.yaml"
    file.write_text("\n".join(t.line for t in made.values()), encoding="utf-8")
    tokens = {who: t.token for who, t in made.items()}
    yield Place(dsn, kafka, Seeder(ledger, new_keys(ledger)), file, {**tokens, "stranger": "keshi_reader_no"})
    engine.dispose()
    drop_database(postgres_server, name)


@pytest.fixture(scope="module")
def api(place: Place) -> Iterator[Api]:
    api = place.start()
    yield api
    assert api.end() == 0
    assert not re.search("hanako|sample@|000417|4711|keshi_(worker|reader|decider)", "".join(api.log))


def problem(response: httpx.Response, status: int, code: str) -> Any:
    """It is this problem, in the one form that all have."""
    assert (response.status_code, response.headers["Content-Type"]) == (status, PROBLEM), response.text
    body = response.json()
    assert (body["type"], body["status"]) == (f"urn:keshi:problem:{code}", status)
    assert body["title"]
    return body


def begin(request_id: str, *refs: str, **more: Any) -> dict[str, Any]:
    manifest = [{"category": "invoices", "ref": r} for r in refs]
    task = {"request_id": request_id, "system": "billing", "attempt": 1, "begin_id": uuid4().hex}
    return {**task, "manifest": manifest, **more}


# --- workers


def test_a_worker_unwraps_and_begins_a_list(place: Place, api: Api) -> None:
    one, two = place.seed.request(partition=1), place.seed.request(partition=1)
    refs = [{"request_id": r, "system": "billing", "attempt": 1} for r in (one, two)]
    unwrapped = api.post("billing", "/v1/tasks:unwrap", {"tasks": refs})
    assert unwrapped.status_code == 200
    assert [t.identifiers for t in UnwrapResponse.model_validate_json(unwrapped.content).tasks] == [HANAKO, HANAKO]
    begun = api.post("billing", "/v1/tasks:begin", {"tasks": [begin(one, "4711-1"), begin(two)]})
    assert begun.headers["Cache-Control"] == "no-store"
    first, second = BeginResponse.model_validate_json(begun.content).tasks
    assert isinstance(first, Go)
    assert first.union == (Found(category="invoices", ref="4711-1"),)
    assert isinstance(second, Go)
    assert second.union == ()


def test_a_worker_gets_nothing_of_another_system(place: Place, api: Api) -> None:
    one = place.seed.request()
    refs = [{"request_id": one, "system": "billing", "attempt": 1}]
    (task,) = api.post("crm", "/v1/tasks:unwrap", {"tasks": refs}).json()["tasks"]
    assert (task["open"], task["reason"], task["identifiers"]) == (False, "unknown", [])
    (answer,) = api.post("crm", "/v1/tasks:begin", {"tasks": [begin(one, "4711-1")]}).json()["tasks"]
    assert (answer["answer"], answer["reason"]) == ("stop", "unknown")


def test_a_question_that_contradicts_the_plan_names_its_field(place: Place, api: Api) -> None:
    one = place.seed.request()
    asked = begin(one, "4711-1", manifest=[{"category": "contacts", "ref": "4711-1"}])
    told = problem(api.post("billing", "/v1/tasks:begin", {"tasks": [asked]}), 422, "begin_invalid")
    assert told["errors"][0]["field"] == "tasks.0.manifest.0.category"


# --- who may do what


@pytest.mark.parametrize(
    ("who", "method", "path", "status", "code"),
    [
        ("", "GET", "/v1/requests", 401, "unauthenticated"),
        ("stranger", "POST", "/v1/tasks:begin", 401, "unauthenticated"),
        ("reader", "POST", "/v1/tasks:begin", 403, "forbidden"),
        ("decider", "POST", "/v1/tasks:unwrap", 403, "forbidden"),
        ("billing", "GET", "/v1/requests", 403, "forbidden"),
        ("billing", "GET", f"/v1/closures/{NOBODY}", 403, "forbidden"),
        ("operator", "GET", f"/v1/closures/{NOBODY}", 403, "forbidden"),
        ("reader", "POST", f"/v1/requests/{NOBODY}/decisions", 403, "forbidden"),
        ("operator", "POST", f"/v1/requests/{NOBODY}/decisions", 403, "forbidden"),
        ("reader", "GET", "/v1/nothing", 404, "not_found"),
        ("reader", "DELETE", "/v1/requests", 405, "method_not_allowed"),
        ("billing", "GET", "/v1/tasks:begin", 405, "method_not_allowed"),
        ("reader", "GET", f"/v1/requests/{NOBODY}", 404, "request_unknown"),
        ("reader", "GET", f"/v1/closures/{NOBODY}", 404, "request_unknown"),
        ("reader", "GET", "/v1/requests/hanako", 422, "invalid"),
    ],
)
def test_who_may_not_is_told_so(api: Api, who: str, method: str, path: str, status: int, code: str) -> None:
    response = api.call(who, method, path, **({"json": {}} if method == "POST" else {}))
    told = problem(response, status, code)
    assert "hanako" not in json.dumps(told)
    if status == 401:
        assert response.headers["WWW-Authenticate"] == "Bearer"


# --- what is sent badly


@pytest.mark.parametrize(
    ("body", "field", "reason"),
    [
        (b"", "", "json_invalid"),
        (b"{not json", "", "json_invalid"),
        (b"[]", "", "model_type"),
        (b'{"tasks": []}', "tasks", "too_short"),
        (b'{"tasks": [{"hanako.sample@mail.example": 1}]}', "tasks.0", "a field that this version does not have"),
        (b'{"tasks": [{"request_id": "hanako.sample"}]}', "tasks.0.request_id", "string_pattern_mismatch"),
        (b'{"tasks": [{"request_id": "\\ud800"}]}', "", "json_invalid"),
    ],
)
def test_what_cannot_be_read_is_named_and_never_repeated(api: Api, body: bytes, field: str, reason: str) -> None:
    response = api.call("billing", "POST", "/v1/tasks:begin", content=body)
    told = problem(response, 422, "invalid")
    assert any(e["field"] == field and reason in e["reason"] for e in told["errors"]), told
    assert "hanako" not in response.text


def test_no_more_of_a_body_is_read_than_allowed(api: Api) -> None:
    large = b"x" * (8 * 1024 * 1024 + 1)
    problem(api.call("billing", "POST", "/v1/tasks:begin", content=large), 413, "too_large")

    def unannounced() -> Iterator[bytes]:
        for start in range(0, len(large), 1 << 20):
            yield large[start : start + (1 << 20)]

    problem(api.call("billing", "POST", "/v1/tasks:begin", content=unannounced()), 413, "too_large")


@pytest.mark.parametrize("query", ["limit=201", "limit=0", "limit=x", "state=perhaps", "late=perhaps"])
def test_a_query_out_of_bounds_names_its_field(api: Api, query: str) -> None:
    told = problem(api.get("reader", f"/v1/requests?{query}"), 422, "invalid")
    assert told["errors"][0]["field"].startswith(f"query.{query.partition('=')[0]}")


@pytest.mark.parametrize("query", ["hanako=1", "before=3", "email=hanako.sample@mail.example"])
def test_a_query_that_is_none_of_ours_is_refused_and_not_repeated(api: Api, query: str) -> None:
    """A filter that is misspelt must not list everything."""
    response = api.get("reader", f"/v1/requests?{query}")
    problem(response, 422, "invalid")
    assert "hanako" not in response.text


# --- readers


def test_requests_are_read_page_by_page_latest_first(place: Place, api: Api) -> None:
    made = [place.seed.request(partition=n % 4) for n in range(5)]
    first = api.get("reader", "/v1/requests?limit=2").json()
    second = api.get("operator", f"/v1/requests?limit=2&cursor={first['next']}").json()
    seen = [r["state"]["request_id"] for r in (*first["requests"], *second["requests"])]
    assert seen == made[:0:-1]
    numbers = [r["number"] for r in (*first["requests"], *second["requests"])]
    assert numbers == sorted(numbers, reverse=True)
    everything = api.get("reader", "/v1/requests?limit=200").json()
    assert everything.get("next") is None
    assert made[0] in {r["state"]["request_id"] for r in everything["requests"]}


def test_a_request_shows_its_tasks_and_what_waits_for_a_person(place: Place, api: Api) -> None:
    one = place.seed.request(made=plan(limit=1))
    api.post("billing", "/v1/tasks:begin", {"tasks": [begin(one, "4711-1", "4711-2")]})
    digest = hold(place, one)
    found = api.get("reader", f"/v1/requests/{one.upper()}").json()
    assert {t["system"]: t["status"] for t in found["state"]["tasks"]} == {
        "billing": "held",
        "crm": "open",
        "recordings": "waiting",
    }
    (held,) = found["held"]
    assert (held["system"], held["reason"], held["count"], held["digest"]) == ("billing", "over_limit", 2, digest)
    assert held["decisions"] == ["approve", "refuse", "retry"]
    assert "4711" not in json.dumps(found)


def hold(place: Place, request_id: str) -> str:
    """The engine held this task for its many records."""
    with place.seed.ledger.reader() as view:
        found = view.leases([request_id])[request_id].newest_evidence("billing")
    assert found is not None
    place.seed.happen(
        request_id,
        ev.TaskHeld(
            system="billing", attempt=1, reason="over_limit", count=2, digest=found.digest, next_at=place.seed.now
        ),
    )
    return found.digest


def close(place: Place, request_id: str, reason: str) -> str:
    """The engine closed this request, with one decision of a person and one obligation; the record as sealed."""
    now = datetime(2026, 4, 1, 3, 4, 5, 678901, tzinfo=UTC)
    made = plan()
    outcome = CategoryOutcome(
        category="invoices", outcome=Outcome.REFUSED, decided_by=DecidedBy.PERSON, ground="gdpr.17-3-e"
    )
    decision = DecisionRecord(
        decision=Decision.REFUSE,
        person="staff:kato",
        at=now,
        ground="gdpr.17-3-e",
        reason=place.seed.keys.seal_text(request_id, reason),
    )
    record = ClosureRecord(
        request_id=request_id,
        action=Action.ERASE,
        scope=Scope(),
        regime=Regime.GDPR,
        ground="gdpr.17",
        requested_by=Requester(kind="person"),
        assessed=Assessment(by="staff:kato", at=ARRIVED),
        arrival=Arrival(at=ARRIVED, channel="form:web"),
        subject=("e" * 64,),
        clocks=Clocks(arrived=ARRIVED, accepted=now, due=now, closed=now),
        withdrawn=False,
        plan=made,
        plan_hash="0" * 64,
        systems=(
            SystemRecord(
                system="billing", outcomes=(outcome,), located=Located(counts={"invoices": 2}), decisions=(decision,)
            ),
        ),
        verdict=Verdict.REFUSED,
        partition=0,
        number=place.seed.state(request_id).number or 1,
        previous=GENESIS,
        hash="a" * 64,
    )
    text = record.model_dump_json()
    opened = ev.ObligationOpened(
        request_id=request_id,
        system="billing",
        category="invoices",
        what="retention",
        count=1,
        ground="jp.tax-7",
        until=date(2033, 3, 31),
    )
    obligation = ObligationRow(
        uuid4().hex, request_id, 0, "billing", "retention", "open", now, "x.y.z", opened.model_dump_json()
    )
    closed = ev.RequestClosed(verdict=Verdict.REFUSED, number=record.number, previous=record.previous, hash=record.hash)
    place.seed.happen(request_id, closed)
    with place.seed.cycle(0) as tx:
        row = ClosureRow(request_id, 0, record.number, record.hash, text)
        tx.write(Batch(closures=[row], obligations=[obligation], keys_destroyed=[request_id]))
    return text


def test_a_closure_is_read_byte_for_byte_and_its_reasons_beside_it(place: Place, api: Api) -> None:
    one = place.seed.request()
    problem(api.get("reader", f"/v1/closures/{one}"), 404, "not_closed")
    reason = "裁判所の命令 / kept for a claim"
    record = close(place, one, reason)
    assert api.get("reader", f"/v1/closures/{one}").content == record.encode()
    with_reasons = api.get("decider", f"/v1/closures/{one}?reasons=true")
    assert f'"closure":{record},' in with_reasons.text
    (said,) = with_reasons.json()["reasons"]
    assert (said["system"], said["decision"], said["person"], said["reason"]) == ("billing", 0, "staff:kato", reason)
    (obligation,) = api.get("reader", f"/v1/requests/{one}").json()["obligations"]
    assert (obligation["kind"], obligation["until"], obligation["status"]) == ("retention", "2033-03-31", "open")
    listed = {
        r["state"]["request_id"] for r in api.get("reader", "/v1/requests?state=open&limit=200").json()["requests"]
    }
    assert one not in listed
    assert api.post("billing", "/v1/tasks:begin", {"tasks": [begin(one)]}).json()["tasks"][0]["reason"] == "closed"


# --- who asks for many


def ids(response: httpx.Response) -> list[str]:
    assert response.status_code == 200, response.text
    return [r["state"]["request_id"] for r in response.json()["requests"]]


def test_requests_are_found_by_what_is_asked_for(place: Place, api: Api) -> None:
    """Each filter reaches the ledger; together they narrow; what was asked for of outcomes is shown."""
    one, other = place.seed.request(), place.seed.request(action=Action.SUSPEND_USE)
    close(place, one, "of no matter")
    ended = ev.TaskEnded(
        system="crm",
        outcomes=(
            CategoryOutcome(
                category="contacts", outcome=Outcome.REFUSED, decided_by=DecidedBy.PERSON, ground="own.not-this-person"
            ),
        ),
    )
    place.seed.happen(other, ended)
    for query, found, left_out in (
        ("state=closed", one, other),
        ("state=open&state=waiting", other, one),
        ("action=suspend_use", other, one),
        ("ground=own.not-this-person", other, one),
        ("system=crm&outcome=refused", other, one),
        ("closed_from=2026-01-01T00:00:00Z", one, other),
        ("due_before=2099-01-01T00:00:00Z", other, one),
        ("regime=appi&late=false&held=false&arrived_until=2099-01-01T00:00:00Z", other, None),
    ):
        listed = ids(api.get("reader", f"/v1/requests?limit=200&{query}"))
        assert found in listed, query
        assert left_out not in listed, query
    (line,) = (
        r
        for r in api.get("reader", "/v1/requests?outcome=refused&limit=200").json()["requests"]
        if r["state"]["request_id"] == other
    )
    (matched,) = line["matched"]
    assert (matched["system"], matched["category"], matched["ground"]) == ("crm", "contacts", "own.not-this-person")
    assert other in ids(api.get("operator", "/v1/requests?ground=own.not-this-person"))


def test_a_cursor_is_good_for_its_own_question_alone(place: Place, api: Api) -> None:
    for _ in range(3):
        place.seed.request()
    first = api.get("reader", "/v1/requests?limit=1&state=open").json()["next"]
    assert api.get("reader", f"/v1/requests?limit=2&state=open&cursor={first}").status_code == 200
    number, _, mac = first.partition(".")
    for query in (
        f"state=closed&cursor={first}",
        f"cursor={first}",
        f"state=open&cursor={number}.{mac[::-1]}",
        f"state=open&cursor=A{number}.{mac}",
        "state=open&cursor=hanako",
        "state=open&cursor=.",
        "state=open&cursor=%C3%A9.%C3%A9",
    ):
        response = api.get("reader", f"/v1/requests?{query}")
        problem(response, 422, "cursor_invalid")
        assert "hanako" not in response.text
    problem(api.get("reader", f"/v1/requests?cursor={'x' * 401}"), 422, "invalid")


def test_a_person_is_found_by_any_identifier_open_and_closed(place: Place, api: Api) -> None:
    """In the body, normalised, also long after; together with filters; and page by page."""
    one, other = place.seed.request(), place.seed.request()
    close(place, one, "of no matter")
    email = next(i.value for i in HANAKO if i.type == "email")
    asked = {"identifiers": [{"type": "email", "value": email.upper()}], "limit": 200}
    assert {one, other} <= set(ids(api.post("reader", "/v1/requests:search", asked)))
    assert one in ids(api.post("decider", "/v1/requests:search", {**asked, "state": ["closed"]}))
    assert other not in ids(api.post("decider", "/v1/requests:search", {**asked, "state": ["closed"]}))
    page = api.post("reader", "/v1/requests:search", {**asked, "limit": 1}).json()
    rest = api.post("reader", "/v1/requests:search", {**asked, "limit": 1, "cursor": page["next"]})
    assert ids(rest) != [page["requests"][0]["state"]["request_id"]]
    stranger = {"identifiers": [{"type": "email", "value": "nobody@customer.example"}]}
    assert ids(api.post("reader", "/v1/requests:search", stranger)) == []
    stolen = api.post("reader", "/v1/requests:search", {**stranger, "cursor": page["next"]})
    problem(stolen, 422, "cursor_invalid")
    problem(api.post("operator", "/v1/requests:search", asked), 403, "forbidden")


@pytest.mark.parametrize(
    ("body", "field", "reason"),
    [
        ({"identifiers": []}, "identifiers", "too_short"),
        ({}, "identifiers", "Field required"),
        ({"identifiers": [{"type": "email", "value": "hanako"}]}, "identifiers.0", "is not an e-mail address"),
        ({"identifiers": [{"type": "hanako", "value": "x"}]}, "identifiers.0.type", "string_pattern_mismatch"),
        ({"identifiers": [{"type": "email", "value": "a@b.example"}], "hanako": 1}, "", "a field that this version"),
    ],
)
def test_a_search_that_cannot_be_read_repeats_nothing(api: Api, body: Any, field: str, reason: str) -> None:
    response = api.post("reader", "/v1/requests:search", body)
    told = problem(response, 422, "invalid")
    assert any(e["field"] == field and reason in e["reason"] for e in told["errors"]), told
    assert "hanako" not in response.text


def test_an_account_says_all_that_is_known_open_and_closed(place: Place, api: Api) -> None:
    """With the words of those who decided for readers and deciders; operators get none of it."""
    one = place.seed.request()
    account = api.get("reader", f"/v1/requests/{one}/account").json()
    assert account["closure"] is None
    assert {s["system"]: s["status"] for s in account["account"]["systems"]}["billing"] == "open"
    words = "裁判所の命令 / kept for a claim"
    record = close(place, one, words)
    told = api.get("decider", f"/v1/requests/{one}/account")
    assert f'"closure":{record}}}' in told.text
    (decision,) = (d for s in told.json()["account"]["systems"] for d in s["decisions"])
    assert (decision["person"], decision["words"]) == ("staff:kato", words)
    assert told.json()["account"]["obligations"][0]["until"] == "2033-03-31"
    problem(api.get("operator", f"/v1/requests/{one}/account"), 403, "forbidden")
    problem(api.get("reader", f"/v1/requests/{uuid4()}/account"), 404, "request_unknown")


def test_an_export_has_records_verbatim_and_stays_on_record(place: Place, api: Api) -> None:
    one = place.seed.request()
    record = close(place, one, "of no matter")
    page = api.post("reader", "/v1/requests:export", {"state": ["closed"], "limit": 200})
    assert f'"closure":{record}}}' in page.text
    assert one in {r["request"]["request_id"] for r in page.json()["requests"]}
    note = {
        "purpose": "authority:ppc-1",
        "form": "csv",
        "filters": '{"state":["closed"]}',
        "requests": 1,
        "lines": 1,
        "sha256": "a" * 64,
    }
    made = api.post("reader", "/v1/exports", note)
    assert (made.status_code, made.json()["person"], made.json()["purpose"]) == (201, "test:reader", "authority:ppc-1")
    listed = api.get("decider", "/v1/exports?limit=1").json()
    assert listed["exports"][0] == made.json()
    told = problem(api.post("reader", "/v1/exports", {**note, "purpose": "for hanako"}), 422, "invalid")
    assert told["errors"][0]["field"] == "purpose"


def test_operators_see_how_keshi_runs(place: Place, api: Api) -> None:
    place.seed.request(partition=1)
    with place.seed.cycle(1) as tx:
        lost = QuarantineRow("commands", 1, 7, "not_json", None, 12, place.seed.keys.seal_payload(b"hanako"))
        tx.write(Batch(quarantine=[lost]))
    lanes = api.get("operator", "/v1/lanes").json()["lanes"]
    assert any(x["stage"] == "reports" and x["partition"] == 1 and x["next_due"] for x in lanes)
    found = api.get("operator", "/v1/quarantine?limit=1")
    (message,) = found.json()["messages"]
    assert (message["stage"], message["offset"], message["reason"]) == ("commands", 7, "not_json")
    assert lost.sealed not in found.text


# --- people who decide


def decision(**more: Any) -> dict[str, Any]:
    return {"system": "billing", "decision": "approve", "reason": "seen by two, 承認", **more}


def test_a_decision_is_signed_with_its_person_and_stands_on_the_topic(place: Place, api: Api) -> None:
    one = place.seed.request(made=plan(limit=1))
    path = f"/v1/requests/{one}/decisions"
    problem(api.post("decider", path, decision()), 409, "task_not_held")
    api.post("billing", "/v1/tasks:begin", {"tasks": [begin(one, "4711-1", "4711-2")]})
    digest = hold(place, one)
    accepted = api.post("decider", path, decision())
    assert accepted.status_code == 202
    where = accepted.json()["command"]
    raw = command_at(place.kafka, where["partition"], where["offset"])
    assert "seen by two" not in raw.decode()
    _, command = read(raw, COMMANDS, limit=MAX_COMMAND_BYTES)
    data: Any = command
    assert (data.request_id, data.system, data.decision, data.person) == (one, "billing", "approve", "test:decider")
    assert (data.attempt, data.manifest_digest) == (1, digest)
    assert place.seed.keys.decision_signature(data.model_dump(mode="json")) == data.signature
    assert place.seed.keys.open_text(one, data.reason) == "seen by two, 承認"


def command_at(kafka: KafkaSettings, partition: int, offset: int) -> bytes:
    consumer = new_consumer(kafka, None)
    try:
        where = TopicPartition(kafka.topic("commands"), partition)
        consumer.assign([where])
        consumer.seek(where, offset)
        (record, *_) = consumer.poll(timeout_ms=20_000)[where]
        value: bytes = record.value
        return value
    finally:
        consumer.close(autocommit=False)


def test_a_decision_that_does_not_fit_is_refused_at_once(place: Place, api: Api) -> None:
    one = place.seed.request()
    place.seed.happen(one, ev.TaskHeld(system="billing", attempt=1, reason="attempts_spent", next_at=place.seed.now))
    path = f"/v1/requests/{one}/decisions"
    problem(api.post("decider", f"/v1/requests/{uuid4()}/decisions", decision()), 404, "request_unknown")
    problem(api.post("decider", path, decision(system="crm")), 409, "task_not_held")
    problem(api.post("decider", path, decision()), 409, "decision_not_applicable")
    problem(api.post("decider", path, decision(decision="refuse")), 422, "invalid")
    problem(api.post("decider", path, decision(decision="refuse", ground="own.nothing")), 422, "ground_unknown")
    problem(api.post("decider", path, decision(decision="retry", reason="")), 422, "invalid")
    problem(api.post("decider", path, decision(reason="x" * 70_000)), 413, "too_large")
    assert api.post("decider", path, decision(decision="retry")).status_code == 202


def test_a_decision_without_a_broker_is_not_said_to_be_taken(place: Place) -> None:
    one = place.seed.request()
    place.seed.happen(one, ev.TaskHeld(system="billing", attempt=1, reason="attempts_spent", next_at=place.seed.now))
    api = place.start(KESHI_KAFKA_BOOTSTRAP="127.0.0.1:9")
    try:
        response = api.post("decider", f"/v1/requests/{one}/decisions", decision(decision="retry"))
        problem(response, 503, "broker_unavailable")
        assert response.headers["Retry-After"]
    finally:
        assert api.end() == 0


# --- the process


def test_probes_need_no_token(api: Api) -> None:
    assert api.get("", "/healthz").json() == {"status": "ok"}
    assert api.get("", "/readyz").json() == {"status": "ready"}


def test_the_openapi_document_is_whole(api: Api) -> None:
    document = api.get("", "/openapi.json").json()
    assert set(document["paths"]) == {
        "/v1/tasks:unwrap",
        "/v1/tasks:begin",
        "/v1/requests",
        "/v1/requests:search",
        "/v1/requests:export",
        "/v1/requests/{request_id}",
        "/v1/requests/{request_id}/account",
        "/v1/requests/{request_id}/decisions",
        "/v1/closures/{request_id}",
        "/v1/chains",
        "/v1/chains/{partition}",
        "/v1/exports",
        "/v1/lanes",
        "/v1/quarantine",
        "/healthz",
        "/readyz",
    }
    known = set(document["components"]["schemas"])
    named = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document)))
    assert named <= known, named - known
    for path, methods in document["paths"].items():
        for operation in methods.values() if path.startswith("/v1/") else ():
            assert operation["security"] == [{"token": []}]
            assert {"401", "403", "503"} <= set(operation["responses"])
            assert all(set(r["content"]) == {PROBLEM} for s, r in operation["responses"].items() if s >= "400")


def test_a_call_that_is_being_answered_at_sigterm_is_answered(place: Place) -> None:
    one = place.seed.request(partition=2)
    api = place.start()
    with ThreadPoolExecutor(1) as pool:
        with place.seed.cycle(2) as tx:
            tx.lock_partition()
            call = pool.submit(api.post, "billing", "/v1/tasks:begin", {"tasks": [begin(one)]})
            wait_until(lambda: _waiting_for_locks(place))
            api.process.send_signal(signal.SIGTERM)
        assert call.result(timeout=20).json()["tasks"][0]["answer"] == "go"
    assert api.end() == 0


def _waiting_for_locks(place: Place) -> int:
    engine = connect(place.dsn)
    try:
        with engine.connect() as c:
            found = c.exec_driver_sql(
                "SELECT count(*) FROM pg_locks JOIN pg_database d ON d.oid = database "
                "WHERE locktype = 'advisory' AND NOT granted AND datname = current_database()"
            )
            return int(found.scalar_one())
    finally:
        engine.dispose()


def wait_until(condition: Callable[[], Any], seconds: float = 20) -> None:
    done = threading.Event()
    for _ in range(int(seconds / 0.05)):
        if condition():
            return
        done.wait(0.05)
    pytest.fail("not in time")


def test_killed_in_the_middle_of_begin_nothing_is_recorded_and_the_same_question_gets_its_go(
    place: Place, tmp_path: Path
) -> None:
    """No answer means no act, and costs nothing."""
    one = place.seed.request()
    asked = begin(one, "4711-1")
    (tmp_path / "api.mid_begin").write_text("kill", encoding="ascii")
    api = place.start(KESHI_FAILPOINTS_DIR=str(tmp_path), KESHI_ENVIRONMENT="development")
    with pytest.raises(httpx.HTTPError):
        api.post("billing", "/v1/tasks:begin", {"tasks": [asked]})
    assert api.end() == -signal.SIGKILL
    with place.seed.ledger.reader() as view:
        assert not view.leases([one])
    again = place.start(KESHI_FAILPOINTS_DIR=str(tmp_path), KESHI_ENVIRONMENT="development")
    try:
        assert again.post("billing", "/v1/tasks:begin", {"tasks": [asked]}).json()["tasks"][0]["answer"] == "go"
    finally:
        assert again.end() == 0


def test_without_its_ledger_the_api_says_so_and_lives(place: Place, postgres_server: str) -> None:
    name = f"t{uuid4().hex}"
    create_database(postgres_server, name)
    dsn = postgres_server.rsplit("/", 1)[0] + f"/{name}"
    engine = connect(dsn)
    migrate(engine)
    engine.dispose()
    api = place.start(TEST_LEDGER=dsn)
    try:
        assert api.get("", "/readyz").status_code == 200
        drop_database(postgres_server, name)
        lost = api.post("billing", "/v1/tasks:begin", {"tasks": [begin(str(uuid4()))]})
        problem(lost, 503, "ledger_unavailable")
        assert lost.headers["Retry-After"]
        wait_until(lambda: api.get("", "/readyz").status_code == 503)
        assert api.get("", "/healthz").status_code == 200
    finally:
        assert api.end(signal.SIGINT) == 0
