"""How keshi's own processes are started: the same commands and settings that a deployment uses."""

import os
import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from keshi.dev import places
from keshi.dev.credentials import Credentials
from keshi.dev.processes import PartSpec, answers
from keshi.dev.systems.site import Settled
from keshi.runtime.settings import KafkaSettings

INVENTORY = Path(__file__).with_name("inventory.yaml")

_KESHI = (sys.executable, "-P", "-m", "keshi.cli")
_WORKER_STOP_SECONDS = 30.0
"""A worker finishes the acts that run, and reports them."""
_PATIENCE = {
    # Nobody at a keyboard waits a minute for the next attempt; each can be set otherwise.
    "KESHI_RETRY_SCHEDULE": "[2, 5, 10, 30, 60]",
    "KESHI_RECHECK_SECONDS": "2",
    "KESHI_SILENCE_SECONDS": "20",
}
_SOMEBODY = {"KESHI_ASSESSED_BY": "staff:dev"}
"""Who judged a command that is sent by hand."""


@dataclass(frozen=True)
class Program:
    """One process of keshi: how it is started, and where it answers."""

    spec: PartSpec
    address: str

    @property
    def ready(self) -> Callable[[], bool]:
        """A check that it does its work, or could at once: of orchestrators on one SQLite file one works."""
        return answers(f"{self.address}/readyz", spare=b"standing by")


@dataclass(frozen=True)
class Programs:
    """Makes the specifications of all processes of one environment.

    Attributes:
        directory: their working directory; the logs lie in `logs` below it.
        kafka: where the broker is.
        ledger_url: where the ledger is.
        credentials: see there.
        inventory: the systems that there are.
        settled: the reference systems, by name.
        api_port: where the API will answer.
        failpoints_dir: where failpoints are armed.
        env: what wins over everything else.
    """

    directory: Path
    kafka: KafkaSettings
    ledger_url: str = field(repr=False)
    credentials: Credentials
    inventory: Path
    settled: Mapping[str, Settled]
    api_port: int
    failpoints_dir: Path | None = None
    env: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def api_url(self) -> str:
        return f"http://127.0.0.1:{self.api_port}"

    def api(self) -> Program:
        env = {**self._ledger(), "KESHI_API_HOST": "127.0.0.1", "KESHI_API_PORT": str(self.api_port)}
        return self._program("api", ("api", "run"), env, self.api_port)

    def orchestrator(self, number: int) -> Program:
        port = places.free_port()
        env = {**self._ledger(), "KESHI_ORCHESTRATOR_HEALTH_PORT": str(port)}
        return self._program(_numbered("orchestrator", number), ("orchestrator", "run"), env, port)

    def worker(self, system: str, number: int) -> Program:
        port = places.free_port()
        env = {
            "KESHI_WORKER_HEALTH_PORT": str(port),
            **self._worker(system),
            **self.settled[system].handler,
        }
        return self._program(_numbered(f"worker-{system}", number), ("handler", "run", system), env, port)

    def write(self, system: str) -> Path:
        """A file of `NAME=value` lines with what a worker of somebody's own system needs, to be read by a shell."""
        return self._write(f"worker-{system}", {**_PATIENCE, **self._common(), **self._worker(system)})

    def write_mine(self) -> Path:
        """The same for commands of keshi in another terminal, which may send, read and decide."""
        return self._write("mine", {**self._common(), **self._api(self.credentials.decider), **_SOMEBODY})

    def write_operator(self) -> Path:
        """The same for who looks after it: lanes and quarantine."""
        return self._write("operator", {**self._common(), **self._api(self.credentials.operator)})

    def _write(self, name: str, settings: Mapping[str, str]) -> Path:
        path = self.directory / "keys" / f"{name}.env"
        path.touch(mode=0o600)
        path.write_text("".join(f"{n}={shlex.quote(value)}\n" for n, value in settings.items()), encoding="utf-8")
        return path

    def _worker(self, system: str) -> dict[str, str]:
        return self._api(self.credentials.workers[system])

    def _api(self, token: str) -> dict[str, str]:
        return {"KESHI_API_URL": self.api_url, "KESHI_API_TOKEN": token}

    def _ledger(self) -> dict[str, str]:
        return {
            "KESHI_LEDGER_URL": self.ledger_url,
            "KESHI_INVENTORY": str(self.inventory),
            "KESHI_TOKENS_FILE": str(self.credentials.tokens_file),
            "KESHI_KEK_FILE": str(self.credentials.kek_file),
            "KESHI_ORCHESTRATOR_GROUP": f"{self.kafka.prefix}orchestrator",
        }

    def _program(self, name: str, arguments: tuple[str, ...], env: Mapping[str, str], port: int) -> Program:
        spec = PartSpec(
            name=name,
            argv=(*_KESHI, *arguments),
            log=self.directory / "logs" / f"{name}.log",
            env={**_PATIENCE, **os.environ, **self._common(), **env, **self.env},
            cwd=self.directory,
            stop_seconds=_WORKER_STOP_SECONDS,
        )
        return Program(spec, f"http://127.0.0.1:{port}")

    def _common(self) -> dict[str, str]:
        common = {
            "KESHI_ENVIRONMENT": "development",
            "KESHI_KAFKA_BOOTSTRAP": self.kafka.bootstrap,
            "KESHI_KAFKA_PREFIX": self.kafka.prefix,
            "PYTHONUNBUFFERED": "1",
        }
        if self.failpoints_dir:
            common["KESHI_FAILPOINTS_DIR"] = str(self.failpoints_dir)
        return common


def _numbered(name: str, number: int) -> str:
    return name if number == 1 else f"{name}-{number}"
