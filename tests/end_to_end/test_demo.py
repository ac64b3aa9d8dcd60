"""The demo, as a stranger runs it; and that its look believes no handler."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from keshi.dev.systems.people import Trait, people
from keshi.handlers import registry
from keshi.runtime.settings import ConfigurationError

SECONDS = 240


def demo(*options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("KESHI_KAFKA_")}
    env |= {"COLUMNS": "200"} | environment
    argv = [sys.executable, "-m", "keshi.cli", "dev", "demo", *options]
    return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=SECONDS, check=False)


def found(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The last line of output: what the look found in each system."""
    assert done.stdout, done.stderr
    systems: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert set(systems) == {"billing", "crm", "call_recordings", "ma_tool", "affiliates"}
    return systems


def test_a_handler_in_the_place_of_another_is_for_development_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KESHI_DEV_HANDLERS", "billing=planted:Liar")
    monkeypatch.delenv("KESHI_ENVIRONMENT", raising=False)
    with pytest.raises(ConfigurationError, match="KESHI_DEV_HANDLERS is set outside development"):
        registry.available()
    monkeypatch.setenv("KESHI_ENVIRONMENT", "development")
    assert registry.available()["billing"].value == "planted:Liar"
    monkeypatch.setenv("KESHI_DEV_HANDLERS", "planted:Liar")
    with pytest.raises(ConfigurationError, match="system=module:Class"):
        registry.available()


def test_the_right_people_are_gone_or_suspended_and_everybody_else_is_as_before() -> None:
    """From nothing to nothing, on servers of its own."""
    done = demo()
    assert done.returncode == 0, done.stderr
    for system in found(done).values():
        assert system["wrong_count"] == 0
        assert system["bystanders_before"] == system["bystanders_after"]
        for goal, expected in system["expected"].items():
            assert system[goal] == expected
    systems = found(done)
    assert min(systems["billing"][goal] for goal in ("gone", "suspended", "resumed", "retained")) > 0
    assert min(systems["call_recordings"][goal] for goal in ("gone", "suspended", "resumed")) > 0
    assert min(systems["ma_tool"][goal] for goal in ("gone", "suspended", "resumed", "stopped")) > 0
    assert systems["affiliates"]["gone"] > 0
    assert done.stdout.count("fulfilled") > 15
    assert "Closure record of" in done.stdout
    assert "jp.tax-records" in done.stdout


def test_a_handler_that_lies_or_misses_a_duplicate_is_found_out(kafka_bootstrap: str) -> None:
    """All requests close, the records look well, and the look into the systems says what is left."""
    done = demo(
        "--people",
        "60",
        KESHI_KAFKA_BOOTSTRAP=kafka_bootstrap,
        KESHI_DEV_HANDLERS="billing=planted:Liar,crm=planted:Careless",
        PYTHONPATH=str(Path(__file__).parent),
    )
    assert done.returncode == 1, done.stderr
    systems = found(done)
    billing, crm = systems["billing"], systems["crm"]
    assert billing["gone"] == 0
    assert billing["retained"] == 0
    assert billing["wrong_count"] == billing["expected"]["gone"] + billing["expected"]["retained"]
    assert 0 < crm["gone"] < crm["expected"]["gone"]
    everybody = people(60, today=datetime.now(UTC).date())
    last = {p.contacts[-1].id for p in everybody if Trait.DUPLICATES in p.traits}
    contacts = {ref.partition(":")[2] for ref in crm["wrong"] if ref.startswith("contacts:")}
    assert contacts
    assert contacts <= last
