"""The command line and the client against everything that runs: send, wait, look, decide."""

import csv
import json
import re
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from io import BytesIO, StringIO, TextIOWrapper
from pathlib import Path
from threading import Timer
from typing import Any
from uuid import uuid4

import pytest
import yaml
from ulid import ULID

from contract.stores import Postgres, Sqlite
from keshi.cli import run
from keshi.client import Client, Mark, NotOverError, Submitted
from keshi.client.commands import event_of
from keshi.dev.options import UpOptions
from keshi.dev.stack import Stack
from keshi.orchestrator.ledger.choice import connect
from keshi.runtime.kafka import new_producer
from keshi.schemas.base import sha256
from keshi.schemas.commands import COMMANDS, EraseSubject
from keshi.schemas.envelope import MAX_COMMAND_BYTES
from keshi.schemas.outcomes import Verdict
from keshi.schemas.reading import read
from keshi.schemas.requests import RequestClosed, RequestRejected

SECONDS = "60"
TWO_SYSTEMS = Path(__file__).parents[1] / "two_systems.yaml"
PARTITIONS = 2


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str

    @property
    def rows(self) -> list[list[str]]:
        return [line.split("\t") for line in self.out.splitlines()]

    def __getitem__(self, name: str) -> str:
        """What a table of facts says."""
        return next(row[1] for row in self.rows if row[0] == name)


@pytest.fixture(scope="module")
def stack(kafka_bootstrap: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Everything but a broker of its own. The CRM may find two records of one person, and has to ask for more."""
    inventory = yaml.safe_load(TWO_SYSTEMS.read_text(encoding="utf-8"))
    next(s for s in inventory["systems"] if s["name"] == "crm")["record_limit"] = 2
    path = tmp_path_factory.mktemp("cli") / "inventory.yaml"
    path.write_text(yaml.safe_dump(inventory), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("KESHI_KAFKA_BOOTSTRAP", kafka_bootstrap)
        options = UpOptions(inventory=path, people=20, partitions=PARTITIONS, prefix=f"t{uuid4().hex[:12]}.")
        with Stack(options) as running:
            yield running


@pytest.fixture
def keshi(stack: Stack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    monkeypatch.setenv("KESHI_KAFKA_BOOTSTRAP", stack.kafka.bootstrap)
    monkeypatch.setenv("KESHI_KAFKA_PREFIX", stack.kafka.prefix)
    monkeypatch.setenv("KESHI_API_URL", stack.addresses["api"])
    monkeypatch.setenv("KESHI_API_TOKEN", stack.credentials.decider)
    monkeypatch.setenv("KESHI_LEDGER_URL", stack.ledger_url)
    monkeypatch.setenv("KESHI_ASSESSED_BY", "staff:kato")

    def call(*arguments: str, stdin: str = "") -> Ended:
        monkeypatch.setattr(sys, "stdin", TextIOWrapper(BytesIO(stdin.encode())))
        code = run(arguments)
        said = capsys.readouterr()
        return Ended(code, said.out, said.err)

    return call


def nobody() -> str:
    """Somebody whom no system knows."""
    return f"nobody-{uuid4().hex}@customer.example"


def test_a_command_is_sent_waited_for_and_shown(keshi: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """`submit --wait`, then `status` and `closure` say the same; `closure --json` is the record with its hash."""
    sent = keshi("submit", "erase", "--email", nobody(), "--wait", "--timeout", SECONDS)
    assert sent.code == 0, sent.err
    assert "waiting for the closure" in sent.err
    assert re.search(r"^accepted: due 20\d\d-\S*Z, open in 2 systems$", sent.err, re.MULTILINE), sent.err
    request = sent.rows[0][0]
    assert "No data held." in sent.out
    assert sent.out == f"{request}\n{keshi('closure', request).out}"

    status = keshi("status", request)
    assert (status.code, status["status"], status["verdict"]) == (0, "closed", "no_data_held")
    assert request in {row[0] for row in keshi("status").rows}
    assert request not in {row[0] for row in keshi("status", "--open").rows}
    assert json.loads(keshi("status", request, "--json").out)["state"]["request_id"] == request

    shown = keshi("closure", request, "--format", "table")
    record = json.loads(keshi("closure", request, "--json").out)
    assert (shown.code, shown["hash"]) == (0, f"{record['hash']} (checked)")
    named = record.pop("hash")
    assert sha256(record) == named

    told = ("--closure-language", "ja", "--zone", "Asia/Tokyo")
    japanese = keshi("submit", "erase", "--email", nobody(), *told, "--wait", "--timeout", SECONDS)
    assert "該当データなし" in japanese.out
    assert "日本時間" in japanese.out
    monkeypatch.delenv("KESHI_API_TOKEN")
    tables = keshi("submit", "erase", "--email", nobody(), "--wait", "--timeout", SECONDS)
    assert (tables.code, tables["verdict"]) == (0, "no_data_held"), tables.err
    assert ["crm", "contacts", "not_found"] in [row[:3] for row in tables.rows]
    assert "not in words, as `keshi closure` tells it: no token: set KESHI_API_TOKEN" in tables.err


def test_the_same_as_json(keshi: Any) -> None:
    """One JSON object, with the whole closure; identifiers come from standard input."""
    given = json.dumps([{"type": "email", "value": nobody()}])
    request = str(uuid4())
    ended = keshi(
        *("submit", "suspend-use", "--identifiers-file", "-", "--request-id", request),
        *("--json", "--wait", "--timeout", SECONDS),
        stdin=given,
    )
    assert (ended.code, ended.err, ended.out.count("\n")) == (0, "", 1)
    told = json.loads(ended.out)
    assert (told["request_id"], told["result"], told["closure"]["action"]) == (request, "closed", "suspend_use")
    assert told["topic"].endswith("commands")


def test_a_rejection_is_one_line_and_exit_code_3(keshi: Any) -> None:
    """Of a purpose that nothing serves; of a withdrawal that is too late; of an id that was taken."""
    asked = keshi("submit", "erase", "--email", nobody(), "--purpose", "nothing", "--wait", "--timeout", SECONDS)
    assert asked.code == 3
    assert "rejected: purpose_unknown at data.scope.purposes.0" in asked.err
    closed = keshi("submit", "erase", "--email", nobody(), "--wait", "--timeout", SECONDS).rows[0][0]
    late = keshi("submit", "withdraw", closed, "--wait", "--json", "--timeout", SECONDS)
    assert (late.code, json.loads(late.out)["code"]) == (3, "already_closed")
    again = keshi("submit", "erase", "--email", nobody(), "--request-id", closed, "--wait", "--timeout", SECONDS)
    assert again.code == 3
    assert "request_id_conflict" in again.err


def test_what_takes_longer_is_exit_code_4_and_goes_on(keshi: Any, stack: Stack) -> None:
    """Nobody works for the CRM: the wait is over, the request is shown as open, and can be taken back."""
    stack.freeze("worker-crm")
    try:
        ended = keshi("submit", "erase", "--email", nobody(), "--wait", "--timeout", "1")
        request = ended.rows[0][0]
        assert ended.code == 4
        assert "it goes on" in ended.err
        row = next(row for row in keshi("status", "--open").rows if row[0] == request)
        assert "crm open" in row[-1]
        thaw = Timer(1.5, stack.thaw, ("worker-crm",))
        thaw.start()
        back = keshi("submit", "withdraw", request, "--wait", "--timeout", SECONDS)
        thaw.join()
    finally:
        stack.thaw("worker-crm")
    assert back.code == 0, back.err
    assert "The person took the request back." in back.out
    rows = keshi("closure", request, "--format", "table").rows
    ended = [tuple(row[:2]) for row in rows if row[:1] in (["crm"], ["billing"]) and len(row) > 7]
    assert len(ended) == len(set(ended)) > 0, "each category once"


def test_a_person_decides_about_what_waits(keshi: Any, until: Any) -> None:
    """More records than the inventory lets a worker touch: held, shown with what can be decided, approved, closed.

    It was late before it came, and shows so.
    """
    late = ("--arrived-at", "2026-04-01T09:00:00+09:00", "--due", "2026-04-15T00:00:00Z")
    ended = keshi("submit", "erase", "--customer-id", "C-000001", *late, "--wait", "--timeout", "5")
    request = ended.rows[0][0]
    assert ended.code == 4

    until(lambda: "Waiting for a person" in keshi("status", request).out)
    until(lambda: keshi("status", request)["status"] == "open (overdue)")
    status = keshi("status", request)
    assert ["crm", "1", "over_limit"] in [row[:3] for row in status.rows]
    assert f"keshi decide {request} crm approve" in status.err

    refusal = keshi("decide", request, "crm", "refuse", "--reason", "no ground")
    assert (refusal.code, "ground" in refusal.err) == (2, True)
    wrong = keshi("decide", request, "billing", "retry", "--reason", "why not")
    assert (wrong.code, "task_not_held" in wrong.err) == (1, True)
    decided = keshi("decide", request, "crm", "approve", "--reason", "-", stdin="Checked by hand: all hers.\n")
    assert decided.code == 0, decided.err

    until(lambda: keshi("status", request)["status"] == "closed (overdue)")
    told = keshi("closure", request, "--only", "decided", "--only", "late")
    assert (told.code, told.err) == (0, "")
    assert "“Checked by hand: all hers.”" in told.out
    assert "It was already late when it reached keshi" in told.out
    shown = keshi("closure", request, "--format", "table")
    assert "Checked by hand: all hers." in shown.out
    assert "Checked by hand" not in keshi("closure", request, "--json").out
    assert shown["verdict"] in {"fulfilled", "fulfilled_with_exceptions"}


def test_requests_are_found_by_what_is_asked_for(keshi: Any, stack: Stack) -> None:
    """By filters, page by page, by person; never with an identifier on the command line; and watched until closed."""
    email = nobody()
    one = keshi("submit", "suspend-use", "--email", email, "--wait", "--timeout", SECONDS).rows[0][0]
    other = keshi("submit", "erase", "--email", nobody(), "--wait", "--timeout", SECONDS).rows[0][0]

    def found(*arguments: str, **more: Any) -> list[str]:
        ended = keshi("status", *arguments, **more)
        assert ended.code == 0, ended.err
        return [row[0] for row in ended.rows[1:]]

    assert one in found("--action", "suspend_use", "--state", "closed")
    assert other not in found("--action", "suspend_use")
    assert {one, other} <= set(found("--closed-from", "-1d", "--closed-until", "+1d", "--in-time"))
    assert other in found("--outcome", "not_found", "--system", "crm", "--regime", "appi")
    assert {one, other} <= set(found("--ground", "appi.35-5", "--system", "crm"))
    assert found("--late", "--due-before", "2020-01-01", "--zone", "Asia/Tokyo", "--held") == []
    shown = keshi("status", "--outcome", "not_found", "--system", "crm", "--limit", "1")
    assert "crm contacts: not_found" in shown.rows[1][-1]

    page = keshi("status", "--limit", "1")
    cursor = page.err.split()[-1]
    assert [row[0] for row in page.rows[1:]] == [other]
    assert found("--limit", "1", "--cursor", cursor) == [one]
    assert "[cursor_invalid]" in keshi("status", "--open", "--cursor", cursor).err

    assert found("--person", stdin=f"{email.upper()}\n\n") == [one]
    listed = json.dumps([{"type": "email", "value": email}])
    assert found("--identifiers-file", "-", "--state", "open", stdin=listed) == []
    assert keshi("status", "--person", stdin="\n").code == 2
    wrong = keshi("status", "--person", stdin="+81900\n")
    assert (wrong.code, "81900" in wrong.err) == (2, False)
    assert keshi("status", one, "--watch").code == 0
    assert keshi("status", "--state", "closed", "--watch").code == 0
    assert email not in "".join(p.read_text(errors="replace") for p in stack.logs.glob("*.log"))


def test_everything_about_a_person_in_words(keshi: Any) -> None:
    """All their requests, in both languages; as JSON; and nobody is nobody."""
    email = nobody()
    one, two = (
        keshi("submit", kind, "--email", email, "--wait", "--timeout", SECONDS).rows[0][0]
        for kind in ("suspend-use", "erase")
    )
    told = keshi("person", stdin=f"email={email}\n")
    assert told.code == 0, told.err
    assert told.out.startswith("2 requests name this person.")
    assert told.out.index(f"Closure record of request {two}") < told.out.index(f"Closure record of request {one}")
    assert told.out.count("worked out anew and is the one that it names") == 2
    listed = json.dumps([{"type": "email", "value": email}])
    japanese = keshi(
        *("person", "--identifiers-file", "-", "--language", "ja", "--zone", "Asia/Tokyo", "--only", "summary"),
        stdin=listed,
    )
    assert "この本人に関する請求は2件あります。" in japanese.out
    assert "消去：該当データなし。" in japanese.out  # noqa: RUF001 - as it is written
    assert email not in told.out + japanese.out
    whole = json.loads(keshi("person", "--json", stdin=email).out)
    assert [r["closure"]["request_id"] for r in whole["requests"]] == [two, one]
    assert keshi("person", stdin=nobody()).out == "keshi has no request that names this person.\n"
    assert keshi("closure", one, "--only", "everything").code == 2


def test_an_export_is_a_whole_file_and_on_record(keshi: Any, tmp_path: Path) -> None:
    """Records keep their hash; rows are safe for spreadsheets; who did it is known; a changed file is none."""
    request = keshi("submit", "erase", "--customer-id", "C-000009", "--wait", "--timeout", SECONDS).rows[0][0]
    lines = tmp_path / "all.jsonl"
    made = keshi("export", "--output", str(lines), "--state", "closed", "--purpose", "authority:ppc-2026-014")
    assert (made.code, made.out) == (0, ""), made.err
    written = [json.loads(line) for line in lines.read_text(encoding="utf-8").splitlines()]
    record = next(w["closure"] for w in written if w["request"]["request_id"] == request)
    said = record.pop("hash")
    assert sha256(record) == said
    assert lines.stat().st_mode & 0o777 == 0o600

    rows = list(csv.DictReader(StringIO(keshi("export", "--format", "csv", "--closed-from", "-1d").out)))
    mine = [r for r in rows if r["request_id"] == request]
    ended = {(s["system"], o["category"], o["outcome"]) for s in record["systems"] for o in s["outcomes"]}
    assert {(r["system"], r["category"], r["outcome"]) for r in mine} == ended
    assert all(r["hash"] == said for r in mine)

    register = keshi("exports", "--limit", "2").rows
    assert [r[3] for r in register[1:]] == ["internal:review", "authority:ppc-2026-014"]
    assert register[2][2] == "staff:decider"
    assert register[2][4] == '{"state":["closed"]}'
    assert "authority:ppc-2026-014" in keshi("exports", "--check", str(lines)).out
    lines.write_text(lines.read_text(encoding="utf-8").replace("erase", "erasé", 1), encoding="utf-8")
    assert (keshi("exports", "--check", str(lines)).code) == 1
    assert keshi("export", "--purpose", "for Hanako").code == 2
    assert keshi("export", "--output", str(tmp_path / "no" / "such.csv")).code == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["all.jsonl"]


def test_who_changed_a_record_is_found_out(keshi: Any, stack: Stack, tmp_path: Path) -> None:
    """A record that was changed, taken out, or all made anew: by hashes, by the chain, by ends that were saved."""
    request = keshi("submit", "erase", "--email", nobody(), "--wait", "--timeout", SECONDS).rows[0][0]
    heads = tmp_path / "heads.json"
    whole = keshi("verify", "--save", str(heads))
    assert whole.code == 0, whole.err
    assert {row[2] for row in whole.rows[1:]} == {"in order"}
    assert keshi("verify", "--heads", str(heads)).code == 0
    assert json.loads(keshi("verify", "--json").out)["wrong"] == {}

    saved = heads.read_text(encoding="utf-8")
    heads.write_text(re.sub(r'"head": "[0-9a-f]{64}"', f'"head": "{"f" * 64}"', saved), encoding="utf-8")
    anew = keshi("verify", "--heads", str(heads))
    assert (anew.code, "not the one whose hash was saved" in anew.err) == (1, True)
    assert keshi("verify", "--heads", str(tmp_path / "none")).code == 2

    store = store_at(stack.ledger_url)
    try:
        store.tamper(
            "closures", f"record = replace(record, 'no_data_held', 'fulfilled') WHERE request_id = '{request}'"
        )
        found = keshi("verify")
        assert (found.code, "its hash is not the one that it names" in found.err) == (1, True), found.err
        told = keshi("closure", request, "--only", "told")
        assert told.code == 1
        assert "NO. IT WAS CHANGED AFTER IT WAS SEALED" in told.out
        store.tamper(
            "closures", f"record = replace(record, 'fulfilled', 'no_data_held') WHERE request_id = '{request}'"
        )
        assert keshi("verify").code == 0
    finally:
        store.close()


def test_what_is_noted_for_asking_can_be_worked_out_anew(stack: Stack) -> None:
    """From states, cases and plans, as the migration does that brought the notes: after all that happened here."""
    step: Any = import_module("keshi.orchestrator.ledger.migrations.versions.0003_asking")
    store = store_at(stack.ledger_url)
    try:
        for table, key in (("people", "number, holder"), ("endings", "number, outcome, system, ground")):
            noted = [tuple(r) for r in store.sql(f"SELECT {key} FROM {table} ORDER BY {key}")]
            with connect(stack.ledger_url).connect() as c:
                anew = [tuple(row[k] for k in key.split(", ")) for page in step._pages(c) for row in page[table]]
            assert noted == sorted(anew)
            assert noted
        (counted,) = store.sql("SELECT count(*), count(closed) FROM cases")
        (states,) = store.sql(
            "SELECT count(*), count(CASE WHEN status = 'closed' THEN 1 END) FROM requests WHERE accepted IS NOT NULL"
        )
        assert tuple(counted) == tuple(states)
    finally:
        store.close()


def store_at(url: str) -> Any:
    return Sqlite(Path(url.removeprefix("sqlite://"))) if url.startswith("sqlite") else Postgres(url)


def test_operators_see_how_keshi_runs(keshi: Any, stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """And readers do not; operators see no records, and find no people."""
    assert "[forbidden]" in keshi("lanes").err
    monkeypatch.setenv("KESHI_API_TOKEN", stack.credentials.operator)
    lanes = keshi("lanes")
    assert {row[0] for row in lanes.rows[1:]} == {"commands", "reports"}
    assert keshi("quarantine").rows[0][0] == "number"
    request = keshi("status").rows[1][0]
    assert keshi("status", request).code == 0
    for arguments in (("closure", request), ("export",), ("exports",), ("verify",), ("status", "--person")):
        assert "[forbidden]" in keshi(*arguments, stdin=nobody()).err


@pytest.fixture
def until() -> Callable[[Callable[[], bool]], None]:
    def wait(what: Callable[[], bool]) -> None:
        end = time.monotonic() + float(SECONDS)
        while not what():
            assert time.monotonic() < end, "waited in vain"
            time.sleep(0.2)

    return wait


def test_what_the_api_refuses_is_one_line(keshi: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the code of the problem, and exit code 1."""
    unknown = str(ULID())
    for arguments in (("status", unknown), ("closure", unknown), ("decide", unknown, "crm", "retry", "--reason", "x")):
        ended = keshi(*arguments)
        assert (ended.code, ended.out, ended.err.count("\n")) == (1, "", 1)
        assert "[request_unknown]" in ended.err
    monkeypatch.setenv("KESHI_API_TOKEN", "wrong")
    assert "[unauthenticated]" in keshi("status").err


def test_the_infrastructure_is_checked(keshi: Any) -> None:
    """Ledger and topics are as they should be, and so told."""
    assert "in order" in keshi("ledger", "check").out
    assert "as before" in keshi("ledger", "migrate").out
    same = ("--partitions", str(PARTITIONS), "--commands-partitions", str(PARTITIONS))
    as_now = keshi("topics", "apply", "--inventory", str(TWO_SYSTEMS), *same, "--dry-run")
    assert (as_now.code, as_now.out) == (0, "")


# --- the client


def command(**more: Any) -> EraseSubject:
    whole = {
        "request_id": str(ULID()),
        "identifiers": [{"type": "email", "value": nobody()}],
        "regime": "appi",
        "ground": "appi.35-5",
        "requested_by": {"kind": "person"},
        "assessed": {"by": "staff:kato", "at": "2026-04-01T00:00:00Z"},
        "arrived": {"at": "2026-04-01T00:00:00Z", "channel": "channel:test"},
    }
    return EraseSubject.model_validate_json(json.dumps(whole | more))


@pytest.fixture
def client(stack: Stack) -> Iterator[Client]:
    with Client(stack.kafka) as connected:
        yield connected


def test_the_client_hears_what_became_of_a_command(client: Client) -> None:
    """From a mark on, and afterwards from the start of the topic; a repeat is answered with the same closure."""
    asked = command()
    mark = client.mark()
    sent = client.submit(asked)
    answer = client.wait(asked.request_id, 60, since=mark, command=sent)
    assert isinstance(answer, RequestClosed)
    later = client.wait(asked.request_id.lower(), 60)
    assert isinstance(later, RequestClosed)
    mark = client.mark()
    repeated = client.wait(asked.request_id, 60, since=mark, command=client.submit(asked))
    assert isinstance(repeated, RequestClosed)
    assert answer.closure.hash == later.closure.hash == repeated.closure.hash


def test_only_the_rejection_of_its_own_command_counts(client: Client) -> None:
    """A command that was refused, then sent again rightly under the same id, ends as closed."""
    request = str(ULID())
    refused = client.submit(command(request_id=request, scope={"purposes": ["mail"]}))
    first = client.wait(request, 60, command=refused)
    assert isinstance(first, RequestRejected)
    assert isinstance(client.wait(request, 60), RequestRejected)
    good = client.submit(command(request_id=request))
    assert isinstance(client.wait(request, 60, command=good), RequestClosed)
    assert isinstance(client.wait(request, 60), RequestClosed)


def test_a_wait_for_nobody_ends(client: Client) -> None:
    with pytest.raises(NotOverError):
        client.wait(str(ULID()), 1)
    with pytest.raises(ValueError, match="UUID or a ULID"):
        client.wait("hanako", 1)


def test_closures_come_one_after_the_other_and_once_dealt_with_not_again(client: Client) -> None:
    """A listener that stops in the middle gets what it had not dealt with; a group of its own gets all."""
    asked = [command() for _ in range(3)]
    for one in asked:
        client.submit(one)
    for one in asked:
        client.wait(one.request_id, 60)
    mine = {one.request_id for one in asked}
    group = f"listener-{uuid4().hex}"

    stopped = client.closures(group, idle_seconds=20)
    next(stopped)
    stopped.close()
    heard = [c.closure.request_id for c in client.closures(group, idle_seconds=5)]
    assert mine <= set(heard)
    assert not mine & {c.closure.request_id for c in client.closures(group, idle_seconds=5)}


def test_a_command_goes_by_its_request_and_can_be_read(stack: Stack) -> None:
    """The event that is sent is the one that --dry-run shows; its id says the same of the same."""
    asked = command()
    event = event_of(asked, source="urn:test", traceparent=f"00-{'1' * 32}-{'2' * 16}-01")
    envelope, read_back = read(event, COMMANDS, limit=MAX_COMMAND_BYTES)
    assert read_back == asked
    assert (envelope.id, envelope.source) == (f"{asked.request_id}/EraseSubject", "urn:test")
    assert envelope.traceparent


def test_both_modes_of_a_cloudevent_are_taken_from_one_topic(stack: Stack, client: Client) -> None:
    """Mixed, with one between them that contradicts itself: that one is told, the others are carried out.

    A header whose name is no UTF-8 keeps nobody.
    """
    producer = new_producer(stack.kafka)
    first, odd, wrong, last = (command() for _ in range(4))
    mark = client.mark()

    def send(event: bytes, headers: list[tuple[str, bytes]]) -> Submitted:
        meta = producer.send(stack.kafka.topic("commands"), event, partition=0, headers=headers).get(timeout=30)
        return Submitted(meta.partition, meta.offset)

    places = [
        send(first.model_dump_json(exclude_none=True).encode(), in_headers(first)),
        send(event_of(odd, source="urn:test"), [(NoText("x"), b"")]),
        send(wrong.model_dump_json(exclude_none=True).encode(), [*in_headers(wrong), ("ce_id", b"2")]),
        send(event_of(last, source="urn:test"), []),
    ]
    answers = [
        client.wait(c.request_id, 60, since=mark, command=at)
        for c, at in zip((first, odd, wrong, last), places, strict=True)
    ]
    producer.close(timeout=5)
    assert [type(a) for a in answers] == [RequestClosed, RequestClosed, RequestRejected, RequestClosed]
    rejected = answers[2]
    assert isinstance(rejected, RequestRejected)
    assert (rejected.code, rejected.field) == ("field_invalid", "id")


def in_headers(asked: EraseSubject) -> list[tuple[str, bytes]]:
    attributes = {"specversion": "1.0", "id": asked.request_id, "source": "urn:test", "type": "keshi.EraseSubject.v1"}
    return [*((f"ce_{n}", v.encode()) for n, v in attributes.items()), ("content-type", b"application/json")]


class NoText(str):
    """A header's name as another client may send it."""

    __slots__ = ()

    def encode(self, *_: object) -> bytes:
        return b"\xff\xfe"


def test_the_programs_of_the_senders_page_run(client: Client, until: Any) -> None:
    """Send and wait, many, and follow: from a database of one's own, each closure once."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "send-a-command.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {"__name__": "page"}
    for code in re.findall(r"^```python\n(.*?)^```$", page, flags=re.DOTALL | re.MULTILINE):
        exec(compile(code, "docs/send-a-command.md", "exec"), names)  # noqa: S102 - our own document
    database = sqlite3.connect(":memory:")
    follow = names["follow"]
    assert names["erase"](client, f"C-nobody-{uuid4().hex[:8]}") in set(Verdict)
    asked = [command() for _ in range(5)]
    refused = command(scope={"purposes": ["mail"]})
    assert names["sweep"](client, [*asked, refused]) == [refused.request_id]
    for one in asked:
        client.wait(one.request_id, 60)

    def kept() -> set[str]:
        follow(client, database, idle_seconds=1)
        return {row[0] for row in database.execute("SELECT request_id FROM closed")}

    until(lambda: {one.request_id for one in asked} <= kept())
    assert Mark.parse(database.execute("SELECT mark FROM place").fetchone()[0]).offsets
    database.close()
