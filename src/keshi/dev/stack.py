"""Everything that keshi needs, running as real processes: for `keshi dev up`, the demo and tests."""

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event
from types import TracebackType
from typing import Any, Self

from alembic.util import CommandError
from psycopg.errors import DuplicateDatabase
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from keshi.dev import fetch, places, reference
from keshi.dev.broker import Broker, BrokerOptions
from keshi.dev.credentials import Credentials, prepare
from keshi.dev.errors import DevError, PartDiedError
from keshi.dev.keeper import Keeper, KeepOptions, Say, Startable
from keshi.dev.options import POSTGRESQL, SQLITE, UpOptions
from keshi.dev.postgres import PostgresOptions, PostgresServer
from keshi.dev.processes import Part, PartSpec, answers
from keshi.dev.programs import INVENTORY, Program, Programs
from keshi.dev.reference import without_password
from keshi.dev.supervisor import Supervisor
from keshi.dev.systems.people import Person
from keshi.dev.systems.site import Settled, Site
from keshi.orchestrator.inventory import load as load_inventory
from keshi.orchestrator.ledger.choice import connect
from keshi.orchestrator.ledger.migrate import migrate
from keshi.orchestrator.ledger.port import LedgerError
from keshi.runtime import topics
from keshi.runtime.settings import KafkaSettings, load

_READY_SECONDS = 90.0
_SYSTEM_SECONDS = 30.0
_POLL_SECONDS = 0.05
_DATABASE = "keshi"
_SMALL = {"shared_buffers": "32MB", "max_connections": "100"}


class Stack:
    """All parts of one development environment, as a context manager that starts and ends them.

    Parts are called `kafka`, `ledger`, `orchestrator`, `api`, `worker-billing` and so on for each system, and
    as the processes of the reference systems (`billing`, `crm`, …); a second one of a kind has a number behind
    its name (`orchestrator-2`). Servers that exist already (`KESHI_KAFKA_BOOTSTRAP`, `UpOptions.ledger`) are no parts,
    nor is a ledger that is a file.

    Args:
        options: what to start.
        say: told, in lines for people, when a part is ready, dies or is started again.

    Raises:
        DevError: (on entering) something could not be started; the message says what to do.
    """

    kafka: KafkaSettings
    ledger_url: str
    credentials: Credentials
    sample: reference.Sample
    settled: Mapping[str, Settled]
    programs: Programs

    def __init__(self, options: UpOptions | None = None, say: Say | None = None) -> None:
        self.options = options or UpOptions()
        self.inventory = (self.options.inventory or INVENTORY).absolute()
        self.phases: dict[str, float] = {}
        self.addresses: dict[str, str] = {}
        self.directory = Path()
        self.systems: tuple[str, ...] = ()
        self.kafka_data: Path | None = None
        self._say = say or _silent
        self._supervisor = Supervisor()
        self._keepers: dict[str, Keeper] = {}
        self._programs: dict[str, Program] = {}
        self._answering: dict[str, Callable[[], bool]] = {}
        self._closing = Event()
        self._pool = ThreadPoolExecutor(max_workers=16, thread_name_prefix="start")

    # --- beginning and end

    def __enter__(self) -> Self:
        self._supervisor.__enter__()
        try:
            self._start()
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._closing.set()
            for keeper in list(self._keepers.values()):
                keeper.let_go()
            self._ask_all_to_end()
            self._supervisor.stop_all()  # once more below: a thread may just be starting something
            self._pool.shutdown(cancel_futures=True)
            for keeper in self._keepers.values():
                keeper.join()
        finally:
            self._supervisor.__exit__(kind, error, trace)
            if self.options.data is None and self.directory != Path():
                self._remove(keep_logs=isinstance(error, DevError))

    def _remove(self, *, keep_logs: bool) -> None:
        """What failed has named its log: that one has to be there."""
        if not keep_logs:
            shutil.rmtree(self.directory, ignore_errors=True)
            return
        for path in sorted(self.directory.rglob("*"), reverse=True):
            if path.is_dir() and not path.is_symlink():
                with suppress(OSError):
                    path.rmdir()  # those with a log in them stay
            elif path.suffix != ".log":
                path.unlink(missing_ok=True)

    def _ask_all_to_end(self) -> None:
        """Processes of keshi depend on servers, and on none of each other to end well: they end side by side."""
        for part in [keeper.part for name, keeper in self._keepers.items() if name in self._programs]:
            if part.running():
                _send(part.pid, signal.SIGCONT)
                _send(part.pid, signal.SIGTERM)

    def _start(self) -> None:
        options = self.options
        self.systems = tuple(system.name for system in load_inventory(self.inventory).systems)
        self.directory = options.data.absolute() if options.data else places.run_directory("keshi-dev-")
        self.directory.mkdir(parents=True, exist_ok=True)
        self.credentials = prepare(self.directory / "keys", self.systems)
        self.sample = reference.sample(self.directory, options.people)
        if self.sample.number != options.people:
            self._say(f"{self.directory} holds {self.sample.number} sample people already: they stay.")
        if options.failpoints_dir:
            options.failpoints_dir.mkdir(parents=True, exist_ok=True)
        with self._phase("fetch"):
            self._fetch()
        with self._phase("servers"):
            self._start_servers()
        with self._phase("processes"):
            self._start_programs()

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.phases[name] = round(time.monotonic() - began, 1)

    # --- servers

    def _fetch(self) -> None:
        """In this thread, before all else: it shows how far it is, and Ctrl-C ends it."""
        if not external_kafka():
            fetch.java()
            fetch.kafka_jars()
        fetch.postgres_home()
        for name in self.systems:
            reference.PREPARE.get(name, _nothing)()

    def _start_servers(self) -> None:
        """Side by side: each takes seconds of its own, most of them waiting. What may be missing comes first."""
        chosen = self._ledger_choice()
        ledger = self._pool.submit(self._start_ledger, chosen)
        if chosen != POSTGRESQL:
            _result(ledger)
        kafka = self._pool.submit(self._start_kafka)
        if external_kafka():
            _result(kafka)
        systems = self._pool.submit(self._start_systems)
        migrated = _result(ledger)
        created = _result(kafka)
        if migrated and not created:
            self._say(
                f"The topics {self.kafka.prefix}… were there before this new ledger: commands that stand in them are "
                "carried out again, on the sample people. To keep apart, set KESHI_KAFKA_PREFIX to another prefix."
            )
        self.settled = _result(systems)
        if self.sample.fresh:
            reference.keep_sample(self.directory, self.sample)

    def _start_kafka(self) -> bool:
        """Whether the topics were made just now."""
        began = time.monotonic()
        external = external_kafka()
        if external:
            bootstrap = external
        else:
            broker = Broker(BrokerOptions(self.directory / "kafka"))
            self.kafka_data = broker.data
            self._keep(broker).start()
            bootstrap = broker.bootstrap
        chosen = self.options
        prefix = {} if chosen.prefix is None else {"prefix": chosen.prefix}
        self.kafka = load(KafkaSettings, bootstrap=bootstrap, **prefix)
        changes = {
            "commands_retention_ms": chosen.commands_retention_ms,
            "commands_segment_ms": chosen.commands_segment_ms,
        }
        options = topics.TopicOptions(
            partitions=chosen.partitions,
            commands_partitions=chosen.partitions,
            **{name: value for name, value in changes.items() if value is not None},
        )
        done = topics.apply(self.kafka, topics.wanted(self.kafka, self.systems, options), options)
        self._ready("kafka", bootstrap, began)
        return bool(done.create)

    def _start_ledger(self, url: str) -> bool:
        """Whether the ledger is a new one."""
        began = time.monotonic()
        if url == SQLITE:
            url = f"sqlite://{self.directory / 'ledger.db'}"
        elif url == POSTGRESQL:
            server = self._server("ledger")
            self._keep(server).start()
            with suppress(DuplicateDatabase):
                server.create_database(_DATABASE)
            url = server.dsn(_DATABASE)
        self.ledger_url = url
        new = _migrated(url)
        self._ready("ledger", without_password(url), began)
        return new

    def _ledger_choice(self) -> str:
        """A URL, or the kind that is kept here. What there is stays; several that share the work need a server."""
        if self.options.ledger is not None:
            return self.options.ledger
        kept = (self.directory / "ledger").exists()
        return POSTGRESQL if kept or self.options.orchestrators > 1 else SQLITE

    def _start_systems(self) -> dict[str, Settled]:
        """The reference systems, side by side. Those with tables share one server, each in a database of its own."""
        server = self._server("billing")
        self._keep(server).start()
        people = self.sample.people()
        settling = {
            name: self._pool.submit(self._settle, name, server, people)
            for name in self.systems
            if name in reference.SETTLE
        }
        return {name: _result(settled) for name, settled in settling.items()}

    def _settle(self, name: str, server: PostgresServer, people: tuple[Person, ...]) -> Settled:
        began = time.monotonic()
        directory = self.directory / "systems" / name
        directory.mkdir(parents=True, exist_ok=True)
        site = Site(
            directory=directory,
            secrets=self.credentials.directory,
            server=server,
            people=people,
            fresh=self.sample.fresh,
            start=self._run,
            slow_ms=self.options.slow_ms,
            partner_ms=self.options.partner_ms,
            inventory=self.inventory,
        )
        settled = reference.SETTLE[name](site)
        self._ready(name, settled.address, began)
        return settled

    def _run(self, spec: PartSpec, ready: str, seconds: float = _SYSTEM_SECONDS) -> None:
        part = Part(spec)
        self._answering[part.name] = answers(ready)
        self._keep(part).start()
        part.wait_ready(self._answering[part.name], seconds)

    def _server(self, name: str) -> PostgresServer:
        server = PostgresServer(PostgresOptions(self.directory / name, settings=_SMALL))
        server.name = name
        return server

    # --- processes of keshi

    def _start_programs(self) -> None:
        self.programs = Programs(
            directory=self.directory,
            kafka=self.kafka,
            ledger_url=self.ledger_url,
            credentials=self.credentials,
            inventory=self.inventory,
            settled=self.settled,
            api_port=places.free_port(),
            failpoints_dir=self.options.failpoints_dir and self.options.failpoints_dir.absolute(),
            env=self.options.env,
        )
        workers = [(system, n) for system in self.settled for n in range(1, self.options.workers + 1)]
        programs = [
            *(self.programs.orchestrator(n) for n in range(1, self.options.orchestrators + 1)),
            self.programs.api(),
            *(self.programs.worker(system, n) for system, n in workers),
        ]
        waits = [self._pool.submit(self._launch, program) for program in programs]
        for wait in waits:
            _result(wait)
        for system in self.systems:
            if system not in self.settled:
                self._say(f"{system:<18} has no worker here; one finds its settings in {self.programs.write(system)}")

    def _launch(self, program: Program) -> None:
        began = time.monotonic()
        part = self._supervisor.add(Part(program.spec))
        self._programs[part.name] = program
        answered = program.ready
        part.start()
        part.wait_ready(lambda: self._closing.is_set() or answered(), _READY_SECONDS)
        self._keep(part, supervised=True).start()  # from here on; a part that cannot start at all is not tried again
        self._ready(part.name, program.address, began)

    def add_orchestrator(self) -> str:
        """Start one more orchestrator; returns its name when it is ready."""
        return self._add(self.programs.orchestrator(self._next("orchestrator")))

    def add_worker(self, system: str) -> str:
        """Start one more worker of a system; returns its name when it is ready."""
        return self._add(self.programs.worker(system, self._next(f"worker-{system}")))

    def _add(self, program: Program) -> str:
        self._launch(program)
        return program.spec.name

    def _next(self, name: str) -> int:
        return 1 + sum(known == name or known.startswith(f"{name}-") for known in self._programs)

    # --- what can be done to a part

    @property
    def pids(self) -> dict[str, int]:
        """The pid of each running part by its name."""
        parts = {name: keeper.part for name, keeper in self._keepers.items()}
        return {name: part.pid for name, part in parts.items() if part.running()}

    def check(self) -> None:
        """See that everything runs that should.

        Raises:
            PartDiedError: for the first part that does not; the message has the end of its log.
        """
        for keeper in self._keepers.values():
            if keeper.down:
                raise PartDiedError(keeper.part.obituary())

    def kill(self, part: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal from outside; a part that dies of it is started again, if the options say so."""
        _send(self._keeper(part).part.pid, number)

    def freeze(self, part: str) -> None:
        """Stop it with SIGSTOP: it holds all it has, and does nothing."""
        self.kill(part, signal.SIGSTOP)

    def thaw(self, part: str) -> None:
        """Let a frozen part go on."""
        self.kill(part, signal.SIGCONT)

    def stop(self, part: str, *, gracefully: bool = True) -> None:
        """End it, and leave it down until `start`."""
        keeper = self._keeper(part)
        if gracefully:
            keeper.stop()
        else:
            keeper.kill()

    def start(self, part: str, seconds: float = _READY_SECONDS) -> None:
        """Start a part that is down, and wait until it is ready."""
        self._keeper(part).start()
        self.wait_ready(part, seconds)

    def restart(self, part: str, *, gracefully: bool = True, seconds: float = _READY_SECONDS) -> None:
        """End it and start it again; returns when it is ready."""
        self.stop(part, gracefully=gracefully)
        self.start(part, seconds)

    def wait_ready(self, part: str, seconds: float = _READY_SECONDS) -> None:
        """Wait until a part answers that it is ready, also across its being started again.

        Raises:
            DevError: it is not within `seconds`.
        """
        keeper = self._keeper(part)
        ready = self._readiness(part)
        until = time.monotonic() + seconds
        while not (keeper.part.running() and ready()):
            if time.monotonic() > until:
                raise DevError(f"{part} was not ready within {seconds:.0f} s; its log lies in {self.directory}")
            time.sleep(_POLL_SECONDS)

    def _readiness(self, part: str) -> Callable[[], bool]:
        if part in self._programs:
            return self._programs[part].ready
        return self._answering.get(part, lambda: True)  # a server that was started has answered already

    def _keeper(self, part: str) -> Keeper:
        try:
            return self._keepers[part]
        except KeyError:
            raise DevError(f"there is no part called {part}; there are {', '.join(self._keepers)}") from None

    def _keep(self, part: Startable, *, supervised: bool = False) -> Keeper:
        if not supervised:
            self._supervisor.add(part)
        options = KeepOptions(self.options.restart, self.options.restarts_a_minute, self._say)
        keeper = Keeper(part, options)
        if self._closing.is_set():
            keeper.let_go()
        self._keepers[part.name] = keeper
        return keeper

    def _ready(self, part: str, address: str, began: float) -> None:
        self.addresses[part] = address
        self._say(f"{part:<18} {address:<58} ready after {time.monotonic() - began:4.1f} s")

    # --- for programs that drive it

    @property
    def logs(self) -> Path:
        """Where the logs of keshi's own processes lie."""
        return self.directory / "logs"

    @property
    def api_url(self) -> str:
        return self.programs.api_url

    @property
    def api_token(self) -> str:
        """It may read and decide."""
        return self.credentials.decider

    def as_json(self) -> dict[str, Any]:
        """All that another program needs to drive and to inspect this environment. Holds secrets of it."""
        return {
            "kafka_bootstrap": self.kafka.bootstrap,
            "kafka_prefix": self.kafka.prefix,
            "api_url": self.api_url,
            "api_token": self.api_token,
            "reader_token": self.credentials.reader,
            "operator_token": self.credentials.operator,
            "ledger_url": self.ledger_url,
            "systems": {name: dict(settled.inside) for name, settled in self.settled.items()},
            "kafka_data": None if self.kafka_data is None else str(self.kafka_data),
            "directory": str(self.directory),
            "logs": str(self.logs),
            "failpoints_dir": None if self.options.failpoints_dir is None else str(self.options.failpoints_dir),
            "people": {"number": self.sample.number, "today": self.sample.today.isoformat()},
            "pids": self.pids,
        }


def external_kafka() -> str | None:
    """The cluster that is used instead of a broker of our own, if one is named."""
    return os.environ.get("KESHI_KAFKA_BOOTSTRAP") or None


def _migrated(url: str) -> bool:
    """Bring the ledger's schema up; whether there was none before."""
    engine = connect(url, pool_size=1)
    try:
        before, _ = migrate(engine)
    except OperationalError:
        raise DevError(
            f"the ledger's database at {without_password(url)} does not let us in: start it, or name another one"
        ) from None
    except (SQLAlchemyError, CommandError, LedgerError) as error:
        raise DevError(
            f"the ledger at {without_password(url)} cannot be brought up to this version of keshi "
            f"({type(error).__name__}): name an empty database, or use the version of keshi that made it"
        ) from None
    finally:
        engine.dispose()
    return before is None


def _nothing() -> None:
    """Is to be fetched."""


def _silent(_: str) -> None:
    """Nobody listens."""


def _result(future: "Future[Any]") -> Any:
    return future.result()


def _send(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        raise DevError(f"process {pid} has ended already") from None
