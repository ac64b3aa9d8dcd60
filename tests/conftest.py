"""What tests share: one real broker and one real PostgreSQL server for all workers of a run.

The first test that needs one starts it, under a lock; the process that began the run ends both by pid.
What a machine lacks is skipped by name; with `CI=true` nothing may be skipped.
"""

import fcntl
import json
import logging
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import structlog
from structlog._config import BoundLoggerLazyProxy

from keshi.dev.broker import Broker, BrokerOptions
from keshi.dev.errors import MissingError
from keshi.dev.places import run_directory
from keshi.dev.postgres import PostgresOptions, PostgresServer, create_database, drop_database
from keshi.dev.processes import end_pid


@pytest.fixture(autouse=True)
def _logs_of_one_test_are_not_those_of_the_next() -> Iterator[None]:
    """A command that is run within a test sets up logging on the standard error of that test, which is then closed."""
    yield
    if structlog.is_configured():
        structlog.reset_defaults()
        for name, module in list(sys.modules.items()):
            known = getattr(module, "log", None) if name.startswith("keshi.") else None
            if isinstance(known, BoundLoggerLazyProxy):
                vars(known).pop("bind", None)  # what it keeps after its first use
        for handler in [h for h in logging.root.handlers if type(h) is logging.StreamHandler]:
            logging.root.removeHandler(handler)


_shared = pytest.StashKey[Path]()
_owner = pytest.StashKey[int]()


def pytest_configure(config: pytest.Config) -> None:
    workerinput = getattr(config, "workerinput", None)
    if workerinput is not None:  # a worker of pytest-xdist
        config.stash[_shared] = Path(workerinput["keshi_shared"])
        config.stash[_owner] = int(workerinput["keshi_owner"])
    else:
        config.stash[_shared] = run_directory("keshi-tests-")
        config.stash[_owner] = os.getpid()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    node.workerinput["keshi_shared"] = str(node.config.stash[_shared])
    node.workerinput["keshi_owner"] = node.config.stash[_owner]


def pytest_unconfigure(config: pytest.Config) -> None:
    shared = config.stash.get(_shared, None)
    if shared is None or config.stash[_owner] != os.getpid():
        return
    for record in sorted(shared.glob("*.json")):
        part = json.loads(record.read_text(encoding="utf-8"))
        end_pid(part["pid"], signal.Signals(part["signal"]))
    shutil.rmtree(shared, ignore_errors=True)


def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if _nothing_may_be_skipped() and reporter is not None and reporter.stats.get("skipped"):
        reporter.write_line("with CI=true a skipped test is a failure", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _nothing_may_be_skipped() -> bool:
    return os.environ.get("CI", "").lower() in {"1", "true", "yes"}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    yield from _skip_what_is_lacking()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    yield from _skip_what_is_lacking()


def _skip_what_is_lacking() -> Iterator[None]:
    """Whatever test runs into a program that this machine lacks is skipped by that program's name."""
    try:
        yield
    except MissingError as error:
        if _nothing_may_be_skipped():
            raise
        pytest.skip(str(error))


def _share(config: pytest.Config, name: str, start: Callable[[Path, int], dict[str, Any]]) -> dict[str, Any]:
    """Start a part once for all workers of this run and return what was recorded of it."""
    shared = config.stash[_shared]
    record = shared / f"{name}.json"
    with (shared / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not record.exists():
            part = start(shared / name, config.stash[_owner])
            # It holds the password of a test server: for this user's eyes only.
            descriptor = os.open(record, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(part, file)
        found: dict[str, Any] = json.loads(record.read_text(encoding="utf-8"))
        return found


def _start_broker(directory: Path, owner: int) -> dict[str, Any]:
    broker = Broker(BrokerOptions(directory, owner=owner))
    broker.start()
    broker.disown()
    return {"pid": broker.pid, "signal": signal.SIGTERM, "bootstrap": broker.bootstrap}


def _start_postgres(directory: Path, owner: int) -> dict[str, Any]:
    server = PostgresServer(PostgresOptions(directory, fsync=False, owner=owner))
    server.start()
    server.disown()
    return {"pid": server.pid, "signal": signal.SIGINT, "dsn": server.dsn()}


@pytest.fixture(scope="session")
def kafka_bootstrap(request: pytest.FixtureRequest) -> str:
    """`host:port` of a real broker, shared by all tests of this run: use `topic_prefix` for names."""
    existing = os.environ.get("KESHI_KAFKA_BOOTSTRAP")
    return existing or str(_share(request.config, "kafka", _start_broker)["bootstrap"])


@pytest.fixture(scope="session")
def postgres_server(request: pytest.FixtureRequest) -> str:
    """URL of the maintenance database of a real server, shared by all tests of this run (fsync off)."""
    return str(_share(request.config, "postgres", _start_postgres)["dsn"])


@pytest.fixture
def database(postgres_server: str) -> Iterator[str]:
    """URL of an empty database of this test's own: `postgresql://user:password@host:port/name`."""
    name = f"t{uuid4().hex}"
    create_database(postgres_server, name)
    yield postgres_server.rsplit("/", 1)[0] + f"/{name}"
    drop_database(postgres_server, name)


@pytest.fixture
def topic_prefix() -> str:
    """A prefix for topics and groups that no other test uses; ends with a dot."""
    return f"t{uuid4().hex[:12]}."
