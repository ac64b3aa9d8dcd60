"""The reference systems, running."""

from __future__ import annotations

import json
import secrets
import select
import shutil
import signal
import subprocess
import time
from datetime import date
from typing import TYPE_CHECKING

import httpx
import psycopg
import pytest
from psycopg import sql

from keshi.dev import s3
from keshi.dev.places import run_directory
from keshi.dev.postgres import create_database, drop_database
from keshi.dev.processes import Part, answers
from keshi.dev.systems import billing, crm
from keshi.dev.systems.call_recordings import index
from keshi.dev.systems.call_recordings.bucket import HANDLER_MAY, PLAYER_MAY, Bucket
from keshi.dev.systems.call_recordings.settle import seed as seed_calls
from keshi.dev.systems.crm.store import seed
from keshi.dev.systems.people import Person, people

TODAY = date(2026, 4, 1)
if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

START_SECONDS = 30


class RunningCrm:
    """One CRM process over one data directory; it can be killed and started again on its port."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.token = secrets.token_urlsafe(16)
        self.token_file = data.with_name(f"{data.name}.token")
        self.token_file.write_text(self.token)
        self._process: subprocess.Popen[str] | None = None
        self.url = ""

    def start(self, *, slow_ms: int = 0) -> None:
        port = int(self.url.rpartition(":")[2]) if self.url else 0
        command = crm.command(self.data, port, self.token_file, slow_ms=slow_ms)
        with self.data.with_name(f"{self.data.name}.log").open("ab") as log:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        self._process = process
        assert process.stdout
        ready, _, _ = select.select([process.stdout], [], [], START_SECONDS)
        line = process.stdout.readline() if ready else ""
        assert line, self.log()
        self.url = json.loads(line)["url"]

    def log(self) -> str:
        return self.data.with_name(f"{self.data.name}.log").read_text()

    def wait_for_log(self, text: str) -> None:
        until = time.monotonic() + START_SECONDS
        while text not in self.log():
            assert time.monotonic() < until, f"no {text} in the log"
            time.sleep(0.02)

    def end(self, number: int = signal.SIGTERM) -> int:
        process = self._process
        assert process
        assert process.stdout
        if process.poll() is None:
            process.send_signal(number)
        code = process.wait(timeout=20)
        process.stdout.close()
        return code

    def client(self) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.token}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=20, trust_env=False)


@pytest.fixture(scope="session")
def everybody() -> tuple[Person, ...]:
    return people(40, today=TODAY)


@pytest.fixture
def crm_process(tmp_path: Path, everybody: tuple[Person, ...]) -> Iterator[RunningCrm]:
    seed(tmp_path / "crm", everybody)
    running = RunningCrm(tmp_path / "crm")
    running.start()
    yield running
    running.end(signal.SIGKILL)


@pytest.fixture
def crm_client(crm_process: RunningCrm) -> Iterator[httpx.Client]:
    with crm_process.client() as client:
        yield client


class RunningBilling:
    """The billing database with sample people: the owner's connection string and the handler's."""

    def __init__(self, dsn: str, role: str) -> None:
        self.dsn = dsn
        self.role = role
        self.handler_dsn = billing.create(dsn, password=secrets.token_urlsafe(12), role=role)


@pytest.fixture
def billing_database(database: str, everybody: tuple[Person, ...]) -> Iterator[RunningBilling]:
    running = RunningBilling(database, f"keshi_billing_{secrets.token_hex(6)}")
    billing.seed(database, everybody)
    yield running
    with psycopg.connect(database) as connection:
        role = sql.Identifier(running.role)
        connection.execute(sql.SQL("DROP OWNED BY {}").format(role))
        connection.execute(sql.SQL("DROP ROLE {}").format(role))


class RunningS3:
    """A real S3 server with three accounts; it can be killed and started again on its port."""

    owner, handler, player = (s3.Account(f"test-{who}", secrets.token_urlsafe(24)) for who in ("o", "h", "p"))

    def __init__(self, directory: Path) -> None:
        s3.versitygw()  # no mock decides anything in these tests
        self.server = s3.server("s3", directory, self.owner, (self.handler, self.player))
        self.part = Part(self.server.spec)
        self.start()

    def start(self) -> None:
        self.part.start()
        self.part.wait_ready(answers(self.server.ready), START_SECONDS)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[RunningS3]:
    """Shared by all tests of this process: each makes buckets of its own."""
    directory = run_directory("keshi-test-s3-")
    running = RunningS3(directory)
    yield running
    running.part.kill()
    shutil.rmtree(directory)


class RunningRecordings:
    """The call recordings, in a bucket of this test's own."""

    def __init__(self, dsn: str, handler_dsn: str, server: RunningS3) -> None:
        self.dsn = dsn
        self.server = server
        self.handler_dsn = handler_dsn
        self.bucket = Bucket(server.server.url, server.owner, f"recordings-{secrets.token_hex(6)}")
        self.bucket.create({server.handler.access_key: HANDLER_MAY, server.player.access_key: PLAYER_MAY})

    @property
    def environment(self) -> dict[str, str]:
        """Settings of the handler."""
        return {
            "KESHI_CALL_RECORDINGS_DSN": self.handler_dsn,
            "KESHI_CALL_RECORDINGS_S3_ENDPOINT": self.server.server.url,
            "KESHI_CALL_RECORDINGS_S3_BUCKET": self.bucket.name,
            "KESHI_CALL_RECORDINGS_S3_ACCESS_KEY": self.server.handler.access_key,
            "KESHI_CALL_RECORDINGS_S3_SECRET_KEY": self.server.handler.secret_key,
        }


@pytest.fixture(scope="session")
def recordings_index(postgres_server: str) -> Iterator[tuple[str, str]]:
    """The index, shared by all tests of this process: its owner's connection string and the handler's."""
    name = role = f"calls_{secrets.token_hex(6)}"
    create_database(postgres_server, name)
    dsn = f"{postgres_server.rpartition('/')[0]}/{name}"
    yield dsn, index.create(dsn, password=secrets.token_urlsafe(12), role=role)
    drop_database(postgres_server, name)
    with psycopg.connect(postgres_server) as connection:
        connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


@pytest.fixture
def empty_recordings(recordings_index: tuple[str, str], s3_server: RunningS3) -> Iterator[RunningRecordings]:
    """Nobody has called yet."""
    running = RunningRecordings(*recordings_index, s3_server)
    yield running
    running.bucket.close()
    with psycopg.connect(running.dsn) as connection:
        connection.execute("TRUNCATE calls")


@pytest.fixture
def recordings(empty_recordings: RunningRecordings, everybody: tuple[Person, ...]) -> RunningRecordings:
    seed_calls(empty_recordings.dsn, empty_recordings.bucket, everybody)
    return empty_recordings
