"""Call recordings over the real stack: found by a number that only the CRM knows, gone in all their versions."""

import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import httpx
import pytest
import yaml
from ulid import ULID

from keshi.client import Client, EraseSubject, ResumeUse, SuspendUse
from keshi.dev.options import UpOptions
from keshi.dev.stack import Stack
from keshi.dev.systems.call_recordings.sample import calls, refs
from keshi.dev.systems.look import Expectation, compare, snapshot
from keshi.dev.systems.people import Person
from keshi.schemas.closure import ClosureRecord
from keshi.schemas.outcomes import Verdict

S3 = "call_recordings-s3"
COMMON = {"owner": "one team", "role": "own", "country": "JP", "actions": ["erase", "suspend_use", "resume_use"]}
INVENTORY = {
    "version": 1,
    "company": "Mihon Shoji K.K. (invented)",
    "systems": [
        {
            "name": "crm",
            "title": "CRM",
            **COMMON,
            "identifiers": ["customer_id", "email", "phone"],
            "learns": ["phone"],
            "after": ["call_recordings"],
            "categories": [{"name": n, "title": n} for n in ("contacts", "cards", "activities")],
        },
        {
            "name": "call_recordings",
            "title": "Call recordings",
            **COMMON,
            "identifiers": ["phone"],
            "categories": [{"name": n, "title": n} for n in ("calls", "recordings", "transcripts")],
        },
    ],
}


@pytest.fixture(scope="module")
def stack(kafka_bootstrap: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    path = tmp_path_factory.mktemp("recordings") / "inventory.yaml"
    path.write_text(yaml.safe_dump(INVENTORY), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("KESHI_KAFKA_BOOTSTRAP", kafka_bootstrap)
        tuning = {"KESHI_RETRY_SCHEDULE": "[0.5]", "KESHI_MAX_ATTEMPTS": "60", "KESHI_WORKER_RETRY_SECONDS": "2"}
        options = UpOptions(inventory=path, people=20, partitions=2, prefix=f"t{uuid4().hex[:12]}.", env=tuning)
        with Stack(options) as running:
            yield running


def send(stack: Stack, kind: Any, person: Person) -> str:
    """A command by e-mail address alone; the id of the request."""
    request, now = str(ULID()), datetime.now(UTC).isoformat()
    command = {
        "request_id": request,
        "identifiers": [{"type": "email", "value": person.email}],
        "regime": "appi",
        "ground": "appi.35-5",
        "requested_by": {"kind": "person"},
        "assessed": {"by": "staff:kato", "at": now},
        "arrived": {"at": now, "channel": "web:form"},
    }
    with closing(Client(stack.kafka)) as client:
        client.submit(kind.model_validate_json(json.dumps(command)))
    return request


def record_of(stack: Stack, request: str, seconds: float = 60) -> ClosureRecord:
    headers = {"Authorization": f"Bearer {stack.credentials.decider}"}
    with httpx.Client(base_url=stack.api_url, headers=headers, timeout=10, trust_env=False) as api:
        reply = until(lambda: (r := api.get(f"/v1/closures/{request}")).is_success and r, seconds)
    return ClosureRecord.model_validate_json(reply.text)


def until(what: Callable[[], Any], seconds: float = 60) -> Any:
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
    return found


def caller(stack: Stack, place: int) -> Person:
    """Somebody who has called by a number that only a contact in the CRM has, with a recording in three versions."""
    fitting = [
        p
        for p in stack.sample.people()
        if p.office_phone in {c.phone for c in calls(p)}
        and any(c.recording and len(c.recording.versions) == 3 for c in calls(p))
    ]
    return fitting[place]


def outcomes(record: ClosureRecord) -> dict[str, tuple[str, int]]:
    return {
        o.category: (o.outcome.value, o.count)
        for s in record.systems
        if s.system == "call_recordings"
        for o in s.outcomes
    }


def wanted(person: Person, outcome: str) -> dict[str, tuple[str, int]]:
    """Keys count once, however many versions they have."""
    keys = {ref.partition("?")[0] for ref in refs(person)}
    return {c: (outcome, sum(k.startswith(f"{c}:") for k in keys)) for c in ("calls", "recordings", "transcripts")}


def test_a_call_is_found_by_the_number_that_only_the_crm_knew_and_gone_in_all_versions(stack: Stack) -> None:
    person = caller(stack, 0)
    before = snapshot(stack.settled.values())
    assert len(refs(person) & before.systems["call_recordings"].keys()) == len(refs(person))
    record = record_of(stack, send(stack, EraseSubject, person))
    assert record.verdict is Verdict.FULFILLED
    assert outcomes(record) == wanted(person, "erased")
    system = next(s for s in record.systems if s.system == "call_recordings")
    assert system.searched == ("phone",)
    after = snapshot(stack.settled.values())
    assert not refs(person) & after.systems["call_recordings"].keys()
    found = compare(before, after, [(person, Expectation.ERASE)], today=stack.sample.today)
    assert found.ok, found.as_json()


def test_what_is_suspended_is_lifted_by_the_address_alone_and_exactly_as_it_was(stack: Stack) -> None:
    person = caller(stack, 1)
    before = snapshot(stack.settled.values())
    record = record_of(stack, send(stack, SuspendUse, person))
    assert outcomes(record) == wanted(person, "suspended")
    during = snapshot(stack.settled.values())
    found = compare(before, during, [(person, Expectation.SUSPEND_USE)], today=stack.sample.today)
    assert found.ok, found.as_json()
    record = record_of(stack, send(stack, ResumeUse, person))
    assert outcomes(record) == wanted(person, "resumed")
    assert snapshot(stack.settled.values()).systems == before.systems


def test_a_store_that_is_killed_and_started_again_loses_nothing_and_closes_nothing(stack: Stack) -> None:
    """The attempt fails and is made again; the server has all its versions when it is back."""
    person = caller(stack, 2)
    before = snapshot(stack.settled.values())
    stack.stop(S3, gracefully=False)
    request = send(stack, EraseSubject, person)
    headers = {"Authorization": f"Bearer {stack.credentials.decider}"}
    with httpx.Client(base_url=stack.api_url, headers=headers, timeout=10, trust_env=False) as api:

        def attempts() -> int:
            reply = api.get(f"/v1/requests/{request}")
            tasks = reply.json()["state"]["tasks"] if reply.is_success else []
            return next((t["attempt"] for t in tasks if t["system"] == "call_recordings"), 0)

        until(lambda: attempts() > 1)
        assert api.get(f"/v1/closures/{request}").status_code == 404
    stack.start(S3)
    assert record_of(stack, request).verdict is Verdict.FULFILLED
    killed = stack.pids[S3]
    stack.kill(S3, signal.SIGKILL)
    until(lambda: stack.pids.get(S3, killed) != killed)
    stack.wait_ready(S3)
    after = snapshot(stack.settled.values())
    assert compare(before, after, [(person, Expectation.ERASE)], today=stack.sample.today).ok
