"""What the bench runs: a broker, two PostgreSQL servers with fsync on, and keshi's processes as in a deployment."""

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench import handlers
from keshi.dev import fetch, places
from keshi.dev.broker import Broker, BrokerOptions
from keshi.dev.credentials import Credentials, prepare
from keshi.dev.postgres import PostgresOptions, PostgresServer
from keshi.dev.processes import Part, PartSpec, answers
from keshi.dev.supervisor import Supervisor
from keshi.orchestrator.ledger.migrate import migrate
from keshi.orchestrator.ledger.postgres import connect
from keshi.runtime import topics
from keshi.runtime.settings import KafkaSettings, load

ROOT = Path(__file__).resolve().parent.parent
INVENTORY = Path(__file__).with_name("inventory.yaml")
SYSTEMS = tuple(handler.system for handler in handlers.ALL)
PREFIX = "keshi."
LOGS = ROOT / ".cache" / "bench-logs"

_READY_SECONDS = 60.0
_KESHI = (sys.executable, "-P", "-m", "keshi.cli")
_MEMORY = {"shared_buffers": "256MB"}
"""fsync, full_page_writes and synchronous_commit stay as PostgreSQL has them: on."""


@dataclass(frozen=True)
class StackOptions:
    """How keshi is deployed.

    Attributes:
        workers: processes that serve the five systems: 5 (one each, as `keshi dev up` runs them) down to 1.
        orchestrators: processes that share the partitions: two, so that one may fail or be replaced.
        partitions: of each topic.
        env: further environment of keshi's processes.
        statements: have the ledger's server count what its statements cost.
    """

    workers: int = 5
    orchestrators: int = 2
    partitions: int = 4
    env: Mapping[str, str] = field(default_factory=dict)
    statements: bool = False


@dataclass(frozen=True)
class Stack:
    """What runs.

    Attributes:
        kafka: where the broker is.
        ledger_dsn: the ledger's database.
        systems_dsn: the database of the five systems, as its owner.
        supervisor: owns all parts.
        logs: where the logs of keshi's processes lie.
    """

    kafka: KafkaSettings
    ledger_dsn: str = field(repr=False)
    systems_dsn: str = field(repr=False)
    supervisor: Supervisor
    logs: Path

    @property
    def pids(self) -> dict[str, int]:
        """The pid of each part by its name."""
        return self.supervisor.pids

    @property
    def ours(self) -> tuple[str, ...]:
        """The names of keshi's own processes."""
        return tuple(name for name in self.pids if name.startswith(("orchestrator", "api", "worker")))


@contextmanager
def running(options: StackOptions, say: Callable[[str], None]) -> Iterator[Stack]:
    """Start everything, and end it whatever happens. The data are removed then; `LOGS` keeps the logs.

    Raises:
        DevError: something could not be started; the message says what to do.
    """
    directory = places.run_directory("keshi-bench-")
    try:
        with Supervisor() as supervisor:
            say("starting broker, databases, orchestrator, API and workers")
            yield _start(options, directory, supervisor)
    finally:
        shutil.rmtree(LOGS, ignore_errors=True)
        shutil.copytree(directory / "logs", LOGS, dirs_exist_ok=True)
        shutil.rmtree(directory, ignore_errors=True)


def _start(options: StackOptions, directory: Path, supervisor: Supervisor) -> Stack:
    fetch.java()
    fetch.kafka_jars()
    fetch.postgres_home()
    broker = supervisor.add(Broker(BrokerOptions(directory / "kafka")))
    counting = {"shared_preload_libraries": "pg_stat_statements"} if options.statements else {}
    ledger, systems = (
        supervisor.add(_server(directory, name, settings))
        for name, settings in (("ledger", {**_MEMORY, **counting}), ("systems", _MEMORY))
    )
    with ThreadPoolExecutor() as pool:  # each takes seconds of its own, most of them waiting
        for started in [pool.submit(part.start) for part in (broker, ledger, systems)]:
            started.result()
    kafka = load(KafkaSettings, bootstrap=broker.bootstrap, prefix=PREFIX)
    wanted = topics.TopicOptions(partitions=options.partitions, commands_partitions=options.partitions)
    topics.apply(kafka, topics.wanted(kafka, SYSTEMS, wanted), wanted)
    ledger_url = ledger.create_database("keshi")
    engine = connect(ledger_url, pool_size=1)
    migrate(engine)
    engine.dispose()
    systems_dsn = systems.create_database("systems")
    credentials = prepare(directory / "keys", SYSTEMS)
    programs = _Programs(options, directory, kafka, ledger_url, systems_dsn, credentials, places.free_port())
    parts = [(supervisor.add(Part(spec)), port) for spec, port in programs.all()]
    for part, _ in parts:
        part.start()
    for part, port in parts:
        part.wait_ready(answers(f"http://127.0.0.1:{port}/readyz"), _READY_SECONDS)
    return Stack(kafka, ledger_url, systems_dsn, supervisor, directory / "logs")


def _server(directory: Path, name: str, settings: Mapping[str, str]) -> PostgresServer:
    server = PostgresServer(PostgresOptions(directory / name, settings=settings))
    server.name = name
    return server


@dataclass(frozen=True)
class _Programs:
    """The specifications of keshi's processes: commands and settings as in a deployment."""

    options: StackOptions
    directory: Path
    kafka: KafkaSettings
    ledger_url: str = field(repr=False)
    systems_dsn: str = field(repr=False)
    credentials: Credentials
    api_port: int

    def all(self) -> list[tuple[PartSpec, int]]:
        """Each with the port of its probe."""
        ledger = {
            "KESHI_LEDGER_URL": self.ledger_url,
            "KESHI_INVENTORY": str(INVENTORY),
            "KESHI_TOKENS_FILE": str(self.credentials.tokens_file),
            "KESHI_KEK_FILE": str(self.credentials.kek_file),
            "KESHI_ORCHESTRATOR_GROUP": f"{PREFIX}orchestrator",
        }
        api = {**ledger, "KESHI_API_PORT": str(self.api_port)}
        return [
            *(self._orchestrator(number, ledger) for number in range(self.options.orchestrators)),
            (self._spec("api", ("api", "run"), api), self.api_port),
            *(self._worker(name, systems) for name, systems in shares(self.options.workers)),
        ]

    def _orchestrator(self, number: int, ledger: Mapping[str, str]) -> tuple[PartSpec, int]:
        port = places.free_port()
        env = {**ledger, "KESHI_ORCHESTRATOR_HEALTH_PORT": str(port)}
        name = "orchestrator" if self.options.orchestrators == 1 else f"orchestrator-{number + 1}"
        return self._spec(name, ("orchestrator", "run"), env), port

    def _worker(self, name: str, systems: Sequence[str]) -> tuple[PartSpec, int]:
        port = places.free_port()
        env = {
            "KESHI_WORKER_HEALTH_PORT": str(port),
            "KESHI_API_URL": f"http://127.0.0.1:{self.api_port}",
            "KESHI_API_TOKENS": json.dumps({system: self.credentials.workers[system] for system in systems}),
            "KESHI_API_TOKEN": self.credentials.workers[systems[0]],
            "KESHI_BENCH_DSN": self.systems_dsn,
            "KESHI_DEV_HANDLERS": ",".join(
                f"{h.system}={h.__module__}:{h.__qualname__}" for h in handlers.ALL if h.system in systems
            ),
        }
        return self._spec(name, ("handler", "run", *systems), env), port

    def _spec(self, name: str, arguments: tuple[str, ...], env: Mapping[str, str]) -> PartSpec:
        return PartSpec(
            name=name,
            argv=(*_KESHI, *arguments),
            log=self.directory / "logs" / f"{name}.log",
            env={**keshi_environment(self.kafka.bootstrap, PREFIX), **env, **self.options.env},
            cwd=self.directory,
        )


def shares(workers: int) -> list[tuple[str, tuple[str, ...]]]:
    """Which worker process serves which systems: a name and its systems."""
    if workers == 1:
        return [("worker", SYSTEMS)]
    return [(f"worker-{n + 1}", SYSTEMS[n::workers]) for n in range(workers)]


def keshi_environment(bootstrap: str, prefix: str) -> dict[str, str]:
    """What every process gets; settings of whoever runs the bench do not reach into it."""
    outside = {name: value for name, value in os.environ.items() if not name.startswith("KESHI_")}
    return {
        **outside,
        "KESHI_ENVIRONMENT": "development",  # handlers from outside a package are allowed there alone
        "KESHI_KAFKA_BOOTSTRAP": bootstrap,
        "KESHI_KAFKA_PREFIX": prefix,
        "PYTHONPATH": str(ROOT),
    }
