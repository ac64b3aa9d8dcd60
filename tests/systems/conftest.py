"""The two reference systems, running."""

from __future__ import annotations

import json
import secrets
import select
import signal
import subprocess
import typing
from datetime import date

import httpx
import pytest

from keshi.dev.systems import crm
from keshi.dev.systems.crm.store import seed
from keshi.dev.systems.people import people

TODAY = date(2026, 4, 1)
if typing.TYPE_CHECKING:
    from pathlib import Path

START_SECONDS = 30


class RunningCrm:
    """One CRM process over one data directory; it can be killed and started again on its port."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.token = secrets.token_urlsafe(16)
        self.token_file = data.with_name(f"{data.name}.token")
        self.token_file.write_text(self.token)
        self.process: subprocess.Popen | None = None
        self.url = ""

    def start(self, *, slow_ms: int = 0) -> None:
        port = int(self.url.rpartition(":")[2]) if self.url else 0
        command = crm.command(self.data, port, self.token_file, slow_ms=slow_ms)
        with self.data.with_name(f"{self.data.name}.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        ready, _, _ = select.select([self.process.stdout], [], [], START_SECONDS)
        line = self.process.stdout.readline() if ready else ""
        assert line, self.log()
        self.url = json.loads(line)["url"]

    def log(self) -> str:
        return self.data.with_name(f"{self.data.name}.log").read_text()

    def end(self, number: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(timeout=20)
        self.process.stdout.close()
        return code

    def client(self) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.token}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=20, trust_env=False)


@pytest.fixture(scope="session")
def everybody():
    return people(40, today=TODAY)


@pytest.fixture
def crm_process(tmp_path, everybody):
    seed(tmp_path / "crm", everybody)
    running = RunningCrm(tmp_path / "crm")
    running.start()
    yield running
    running.end(signal.SIGKILL)


@pytest.fixture
def crm_client(crm_process):
    with crm_process.client() as client:
        yield client
