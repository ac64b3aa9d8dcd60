"""Two companies, one request: over the real orchestrator, a real worker and two running affiliates."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
import yaml
from ulid import ULID

from keshi.client import Client, EraseSubject
from keshi.dev.options import UpOptions
from keshi.dev.stack import Stack
from keshi.dev.systems.affiliates import COMPANIES, sample
from keshi.dev.systems.affiliates.behaviour import Behaviour, Mood, behave
from keshi.dev.systems.people import Person
from keshi.schemas.closure import ClosureRecord
from kit.affiliates import OCEANIA, SAKURA

INVENTORY = {
    "version": 1,
    "company": "Mihon Shoji K.K. (invented)",
    "systems": [
        {
            "name": "affiliates",
            "title": "Joint-use affiliates (OpenDSR)",
            "owner": "data partnerships",
            "role": "joint_user",
            "country": "JP",
            "actions": ["erase"],
            "identifiers": ["email", "phone", "customer_id"],
            "categories": [
                {"name": SAKURA, "title": "Sakura Logistics", "holder": {"role": "joint_user", "country": "JP"}},
                {
                    "name": OCEANIA,
                    "title": "Oceania Loyalty",
                    "holder": {"role": "recipient_abroad", "country": "AU", "basis": "consent (APPI 28)"},
                },
            ],
        }
    ],
}
TUNING = {"KESHI_RETRY_SCHEDULE": "[0.5]", "KESHI_MAX_ATTEMPTS": "60", "KESHI_LEASE_SECONDS": "3"}


@pytest.fixture(scope="module")
def stack(kafka_bootstrap: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    path = tmp_path_factory.mktemp("affiliates") / "inventory.yaml"
    path.write_text(yaml.safe_dump(INVENTORY), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("KESHI_KAFKA_BOOTSTRAP", kafka_bootstrap)
        options = UpOptions(inventory=path, people=40, partitions=2, prefix=f"t{uuid4().hex[:12]}.", env=TUNING)
        with Stack(options) as running:
            yield running


@pytest.fixture
def company(stack: Stack) -> Iterator[Callable[..., None]]:
    """Changes how one behaves, for this test."""

    def change(name: str, **how: Any) -> None:
        data = Path(stack.settled["affiliates"].inside["data"][name])
        behave(data, Behaviour(**({"after_ms": 0} | how)))

    for name in COMPANIES:
        change(name)
    yield change
    for name in COMPANIES:
        change(name)


@pytest.fixture
def api(stack: Stack) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {stack.credentials.decider}"}
    with httpx.Client(base_url=stack.api_url, headers=headers, timeout=10, trust_env=False) as client:
        yield client


def erase(stack: Stack, person: Person) -> str:
    """Asks for it; the id of the request."""
    request = str(ULID())
    command = {
        "request_id": request,
        "identifiers": [{"type": t, "value": v} for t, v in person.identifiers.items()],
        "regime": "appi",
        "ground": "appi.35-5",
        "requested_by": {"kind": "person"},
        "assessed": {"by": "staff:kato", "at": datetime.now(UTC).isoformat()},
        "arrived": {"at": datetime.now(UTC).isoformat(), "channel": "web:form"},
    }
    with closing(Client(stack.kafka)) as client:
        client.submit(EraseSubject.model_validate_json(json.dumps(command)))
    return request


def until(what: Callable[[], Any], seconds: float = 60) -> Any:
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)
    return found


def task_of(api: httpx.Client, request: str) -> dict[str, Any]:
    reply = api.get(f"/v1/requests/{request}")
    found: dict[str, Any] = reply.json()["state"]["tasks"][0] if reply.status_code == 200 else {}
    return found


def looked_after(api: httpx.Client, request: str, attempt: int) -> bool:
    """Whether it was looked at once more."""
    return bool(task_of(api, request)["attempt"] > attempt)


def record_of(api: httpx.Client, request: str) -> ClosureRecord | None:
    reply = api.get(f"/v1/closures/{request}")
    return ClosureRecord.model_validate_json(reply.text) if reply.is_success else None


def outcomes(record: ClosureRecord) -> dict[str, tuple[str, str | None]]:
    return {o.category: (o.outcome.value, o.reason) for s in record.systems for o in s.outcomes}


def left(stack: Stack, person: Person) -> set[str]:
    """The companies that still hold something."""
    return {r.partition(".")[0] for r in sample.refs(person) & set(stack.settled["affiliates"].rows())}


def member_of(stack: Stack, *companies: str, place: int = 0) -> Person:
    found = [p for p in stack.sample.people() if {c for c in COMPANIES if sample.belongs(c, p)} == set(companies)]
    return found[place]


def test_when_both_have_answered_the_record_has_an_outcome_for_each(
    stack: Stack, api: httpx.Client, company: Callable[..., None]
) -> None:
    both, one = member_of(stack, SAKURA, OCEANIA), member_of(stack, OCEANIA)
    requests = {p.number: erase(stack, p) for p in (both, one)}
    records = {number: until(partial(record_of, api, request)) for number, request in requests.items()}
    done = ("erased", "declared_signed")
    assert outcomes(records[both.number]) == {SAKURA: done, OCEANIA: done}
    assert outcomes(records[one.number]) == {SAKURA: ("not_found", "declared_signed"), OCEANIA: done}
    assert not left(stack, both) | left(stack, one)
    assert {r.verdict.value for r in records.values()} == {"fulfilled"}
    log = (stack.logs / "worker-affiliates.log").read_text()
    assert "affiliate_answered" in log
    assert not [v for p in (both, one) for v in p.identifiers.values() if v in log]


def test_received_and_then_nothing_is_late_and_not_done_until_it_answers(
    stack: Stack, api: httpx.Client, company: Callable[..., None]
) -> None:
    person = member_of(stack, SAKURA, OCEANIA, place=1)
    company(OCEANIA, mood=Mood.SILENT, expected_seconds=2)
    request = erase(stack, person)
    until(lambda: left(stack, person) == {OCEANIA})
    late = until(lambda: (t := task_of(api, request)).get("late") and t)
    assert late["left"] == [OCEANIA]
    assert late["status"] in {"scheduled", "open"}
    for _ in range(3):
        until(partial(looked_after, api, request, task_of(api, request)["attempt"]))
        assert task_of(api, request)["late"], "it stays late from look to look"
    assert record_of(api, request) is None
    assert left(stack, person) == {OCEANIA}
    assert request in api.get("/v1/requests", params={"late": "true"}).text
    company(OCEANIA)
    record = until(lambda: record_of(api, request))
    assert set(outcomes(record).values()) == {("erased", "declared_signed")}
    assert not left(stack, person)


@pytest.mark.parametrize(("mood", "error", "place"), [("down", "unavailable", 3), ("hangs", "read_timeout", 4)])
def test_who_gives_no_answer_is_named_while_attempts_fail(
    stack: Stack, api: httpx.Client, company: Callable[..., None], mood: str, error: str, place: int
) -> None:
    person = member_of(stack, SAKURA, OCEANIA, place=place)
    company(OCEANIA, mood=Mood(mood))
    request = erase(stack, person)
    until(lambda: task_of(api, request).get("left") == [OCEANIA])
    failed = until(lambda: (t := task_of(api, request)).get("reason") == error and t)
    assert (failed["left"], failed.get("late")) == ([OCEANIA], None)
    found = api.get("/v1/requests", params={"open_in": "affiliates"}).json()["requests"]
    assert [r["state"]["tasks"][0]["left"] for r in found if r["state"]["request_id"] == request] == [[OCEANIA]]
    company(OCEANIA)
    record = until(lambda: record_of(api, request))
    assert set(outcomes(record).values()) == {("erased", "declared_signed")}
    assert request not in api.get("/v1/requests", params={"open_in": "affiliates"}).text


def test_who_refuses_is_a_persons_business_and_what_the_other_did_stays_on_record(
    stack: Stack, api: httpx.Client, company: Callable[..., None]
) -> None:
    person = member_of(stack, SAKURA, OCEANIA, place=2)
    company(OCEANIA, mood=Mood.REJECTS)
    request = erase(stack, person)
    held = until(lambda: (t := task_of(api, request)).get("status") == "held" and t)
    assert (held["reason"], held["left"]) == ("handler_asks", [OCEANIA])
    decision = {
        "system": "affiliates",
        "decision": "refuse",
        "ground": "own.not-this-person",
        "reason": "They know somebody else by this address.",
    }
    reply = api.post(f"/v1/requests/{request}/decisions", json=decision)
    assert reply.status_code == 202, reply.text
    record = until(lambda: record_of(api, request))
    assert outcomes(record) == {SAKURA: ("erased", "declared_signed"), OCEANIA: ("refused", None)}
    assert record.verdict.value == "fulfilled_with_exceptions"
    assert left(stack, person) == {OCEANIA}
