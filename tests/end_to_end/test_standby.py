"""Orchestrators on one file of SQLite: one works, the next stands by and takes over, however the first one ended."""

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from keshi.dev.places import free_port
from keshi.dev.programs import INVENTORY
from keshi.orchestrator.inventory import load
from keshi.orchestrator.ledger.choice import connect
from keshi.orchestrator.ledger.migrate import migrate
from keshi.runtime import topics
from keshi.runtime.sealing import new_key_line
from keshi.runtime.settings import KafkaSettings

BOUND = 60.0


class Orchestrator:
    """One process, and what its probe says."""

    def __init__(self, env: dict[str, str], log: Path) -> None:
        self.port = free_port()
        self.log = log
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "keshi.cli", "orchestrator", "run"],
                env={**os.environ, **env, "KESHI_ORCHESTRATOR_HEALTH_PORT": str(self.port)},
                stdout=out,
                stderr=subprocess.STDOUT,
            )

    def says(self, path: str = "/readyz") -> tuple[int, str]:
        """Status and text of a probe; (0, "") where nobody answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=2) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as refused:
            with refused:
                return refused.code, refused.read().decode()
        except OSError:
            return 0, ""

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(BOUND)


@pytest.fixture
def start(kafka_bootstrap: str, topic_prefix: str, tmp_path: Path) -> Iterator[Callable[[str], Orchestrator]]:
    kafka = KafkaSettings(bootstrap=kafka_bootstrap, prefix=topic_prefix)
    options = topics.TopicOptions(partitions=1, commands_partitions=1)
    topics.apply(kafka, topics.wanted(kafka, [s.name for s in load(INVENTORY).systems], options), options)
    url = f"sqlite://{tmp_path}/ledger.db"
    engine = connect(url)
    migrate(engine)
    engine.dispose()
    env = {
        "KESHI_KAFKA_BOOTSTRAP": kafka_bootstrap,
        "KESHI_KAFKA_PREFIX": topic_prefix,
        "KESHI_KAFKA_SESSION_TIMEOUT_SECONDS": "3",
        "KESHI_ORCHESTRATOR_GROUP": f"{topic_prefix}orchestrator",
        "KESHI_LEDGER_URL": url,
        "KESHI_INVENTORY": str(INVENTORY),
        "KESHI_KEK": new_key_line("test-kek"),
    }
    with ExitStack() as cleanup:

        def begin(name: str) -> Orchestrator:
            return cleanup.enter_context(running(env, tmp_path / f"{name}.log"))

        yield begin


@contextmanager
def running(env: dict[str, str], log: Path) -> Iterator[Orchestrator]:
    orchestrator = Orchestrator(env, log)
    try:
        yield orchestrator
    finally:
        orchestrator.process.kill()
        orchestrator.process.wait()


def until(orchestrator: Orchestrator, wanted: tuple[int, str]) -> None:
    end = time.monotonic() + BOUND
    while (said := orchestrator.says()) != wanted:
        assert time.monotonic() < end, (said, orchestrator.log.read_text())
        assert orchestrator.process.poll() is None, orchestrator.log.read_text()
        time.sleep(0.05)


def test_one_works_and_the_next_takes_over_from_who_was_killed(start: Callable[[str], Orchestrator]) -> None:
    first = start("first")
    until(first, (200, "working"))
    second, third = start("second"), start("third")
    until(second, (503, "standing by"))
    until(third, (503, "standing by"))
    assert second.says("/healthz") == (200, "standing by"), "nobody has to start it again"
    assert "standing_by" in second.log.read_text()

    assert third.end(signal.SIGTERM) == 0, "who stands by ends at once when asked to"
    assert first.end(signal.SIGKILL) == -signal.SIGKILL
    until(second, (200, "working"))
    assert "taking_over" in second.log.read_text()
    assert second.end(signal.SIGTERM) == 0
