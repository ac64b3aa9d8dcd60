"""The MA tool over the real orchestrator and a real worker: a job asked after to its end, marks, partners' lists."""

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
import yaml
from ulid import ULID

from keshi.client import Client
from keshi.dev.options import UpOptions
from keshi.dev.stack import Stack
from keshi.dev.systems.look import Expectation, compare, snapshot
from keshi.dev.systems.ma_tool.people import held
from keshi.dev.systems.ma_tool.store import FILE
from keshi.dev.systems.people import Person, Trait
from keshi.schemas.commands import COMMANDS

INVENTORY = {
    "version": 1,
    "company": "Mihon Shoji K.K. (invented)",
    "systems": [
        {
            "name": "crm",
            "title": "CRM",
            "owner": "sales platform team",
            "role": "own",
            "country": "JP",
            "provides_to_third_parties": False,
            "actions": ["erase"],
            "identifiers": ["customer_id", "email", "phone"],
            "learns": ["customer_id", "email"],
            "after": ["ma_tool"],
            "categories": [{"name": name, "title": name.title()} for name in ("contacts", "cards", "activities")],
        },
        {
            "name": "ma_tool",
            "title": "Marketing automation (HTTP API, deletes in jobs)",
            "owner": "marketing platform team",
            "role": "processor",
            "country": "IE",
            "basis": "APPI 28: a country with an equal system (EEA)",
            "actions": ["erase", "suspend_use", "resume_use", "stop_provision"],
            "identifiers": ["email", "customer_id", "cookie_id"],
            "categories": [
                {"name": name, "title": name.title(), "purposes": ["marketing"]}
                for name in ("contacts", "cookies", "behaviour", "lists", "mails")
            ],
        },
    ],
}
CATEGORIES = {"contacts", "cookies", "behaviour", "lists", "mails"}
# A check waits for the end of the lease of the act before it.
TUNING = {"KESHI_RETRY_SCHEDULE": "[0.5]", "KESHI_LEASE_SECONDS": "3"}


@pytest.fixture(scope="module")
def stack(kafka_bootstrap: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    path = tmp_path_factory.mktemp("ma") / "inventory.yaml"
    path.write_text(yaml.safe_dump(INVENTORY), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("KESHI_KAFKA_BOOTSTRAP", kafka_bootstrap)
        options = UpOptions(inventory=path, people=40, partitions=2, prefix=f"t{uuid4().hex[:12]}.", env=TUNING)
        with Stack(options) as running:
            yield running


def until(what: Callable[[], Any], seconds: float = 60) -> Any:
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)
    return found


class Desk:
    """Sends commands about people, and looks where they are."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.client = Client(stack.kafka)
        self.api = httpx.Client(
            base_url=stack.api_url, headers={"Authorization": f"Bearer {stack.api_token}"}, trust_env=False
        )

    def send(self, kind: str, person: Person, known_by: str = "email", **change: Any) -> str:
        request, now = str(ULID()), datetime.now(UTC).isoformat()
        data = {
            "request_id": request,
            "identifiers": [{"type": known_by, "value": person.identifiers[known_by]}],
            "regime": "appi",
            "ground": "appi.35-5",
            "requested_by": {"kind": "person", "identity_evidence": ["dsar:id-check-1"]},
            "assessed": {"by": "staff:kato", "at": now},
            "arrived": {"at": now, "channel": "web:privacy-form"},
            **change,
        }
        command: Any = COMMANDS[f"keshi.{kind}.v1"].model_validate(data, strict=False)
        self.client.submit(command)
        return request

    def state(self, request: str) -> Any:
        answer = self.api.get(f"/v1/requests/{request}")
        return answer.json()["state"] if answer.status_code == 200 else None

    def task(self, request: str) -> Any:
        """How the MA tool's task stands; nothing before there is one."""
        tasks = (self.state(request) or {"tasks": []})["tasks"]
        return next((t for t in tasks if t["system"] == "ma_tool"), None)

    def outcomes(self, request: str) -> dict[str, set[str]]:
        """When it is closed: what the MA tool's categories ended as."""
        state = until(lambda: (s := self.state(request)) and s["status"] == "closed" and s)
        assert state["verdict"].startswith("fulfilled")
        found: dict[str, set[str]] = {}
        for outcome in self.task(request)["outcomes"]:
            found.setdefault(outcome["outcome"], set()).add(outcome["category"])
        return found

    def sql(self, statement: str, *values: object) -> None:
        with closing(sqlite3.connect(Path(self.stack.settled["ma_tool"].inside["data"]) / FILE, timeout=10)) as db, db:
            db.execute(statement, values)


@pytest.fixture(scope="module")
def desk(stack: Stack) -> Iterator[Desk]:
    made = Desk(stack)
    yield made
    made.api.close()
    made.client.close()


def test_a_job_is_asked_after_until_it_is_over_and_all_else_closes_meanwhile(stack: Stack, desk: Desk) -> None:
    """An ad partner that takes its time holds the job of the erasure: it is under way, and nobody calls it done."""
    taken = {Trait.HIDDEN_DUPLICATE, Trait.MANUAL}
    people = [p for p in stack.sample.people() if held(p)["contacts"] and not p.traits & taken]
    slow, erased, suspended, resumed, stopped = people[:5]
    systems = [stack.settled["ma_tool"]]
    contact = held(slow)["contacts"][0]["id"]
    before = snapshot(systems)
    hold = "UPDATE audiences SET status = 'removal_asked', asked_at = ? WHERE contact_id = ?"
    desk.sql(hold, "2999-01-01T00:00:00+00:00", contact)
    waiting = desk.send("EraseSubject", slow)
    others = {
        desk.send("EraseSubject", erased): "erased",
        desk.send("SuspendUse", suspended): "suspended",
        desk.send("SuspendUse", resumed): "suspended",
        desk.send("StopProvision", stopped): "provision_stopped",
    }
    for request, outcome in others.items():
        assert desk.outcomes(request) == {outcome: CATEGORIES}
        if outcome == "provision_stopped":  # the CRM provides nothing, and says so in the inventory
            assert desk.state(request)["verdict"] == "fulfilled"
    assert desk.outcomes(desk.send("ResumeUse", resumed)) == {"resumed": CATEGORIES}

    task = until(lambda: (t := desk.task(waiting))["reason"] == "under_way" and t)
    assert (task["status"], task["left"]) == ("scheduled", ["contacts"])
    desk.sql(hold, "2026-01-01T00:00:00+00:00", contact)
    assert desk.outcomes(waiting) == {"erased": CATEGORIES}

    expected = [(slow, "erase"), (erased, "erase"), (suspended, "suspend_use"), (stopped, "stop_provision")]
    found = compare(
        before,
        snapshot(systems),
        [*((person, Expectation(what)) for person, what in expected), (resumed, Expectation.RESUME_USE)],
        today=stack.sample.today,
    )
    assert found.ok, found.as_json()


def test_a_job_that_failed_is_begun_again_by_itself(stack: Stack, desk: Desk) -> None:
    """A mail that is scheduled between locating and deleting holds its contact: the next attempt finds it, too."""
    person = next(p for p in reversed(stack.sample.people()) if Trait.DUPLICATES in p.traits and p.number > 20)
    contact = held(person)["contacts"][0]["id"]
    hold = "UPDATE audiences SET status = 'removal_asked', asked_at = ? WHERE contact_id = ?"
    desk.sql(hold, "2999-01-01T00:00:00+00:00", contact)
    request = desk.send("EraseSubject", person)
    until(lambda: (t := desk.task(request)) and (t["status"], t["reason"]) == ("scheduled", "accepted"))
    late = "INSERT INTO mails VALUES ('S-late', ?, 'x@customer.example', 'c', '2036-01-01', NULL, NULL)"
    desk.sql(late, contact)
    desk.sql(hold, "2026-01-01T00:00:00+00:00", contact)
    assert desk.outcomes(request) == {"erased": CATEGORIES}
    counts = {o["category"]: o["count"] for o in desk.task(request)["outcomes"]}
    assert counts["mails"] == len(held(person)["mails"]) + 1
    record = desk.api.get(f"/v1/requests/{request}/closure").json()
    assert person.email not in str(record)


def test_who_is_known_there_by_a_former_address_alone_is_found_by_what_the_crm_knows(stack: Stack, desk: Desk) -> None:
    """The command brings a number, which the MA tool could not even be searched by."""
    person = next(p for p in stack.sample.people() if Trait.HIDDEN_DUPLICATE in p.traits and held(p)["contacts"])
    before = snapshot([stack.settled["ma_tool"]])
    assert desk.outcomes(desk.send("EraseSubject", person, known_by="phone")) == {"erased": CATEGORIES}
    after = snapshot([stack.settled["ma_tool"]])
    assert compare(before, after, [(person, Expectation.ERASE)], today=stack.sample.today).ok
