"""The MA tool as a process, shared by the tests of a file: each takes people of its own."""

from __future__ import annotations

import json
import secrets
import select
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from datetime import date
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from keshi.dev.systems import ma_tool
from keshi.dev.systems.look import Snapshot
from keshi.dev.systems.ma_tool.people import held
from keshi.dev.systems.ma_tool.settle import rows
from keshi.dev.systems.ma_tool.store import FILE, seed
from keshi.dev.systems.people import Person, people

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

TODAY = date(2026, 4, 1)
START_SECONDS = 30
QUICK = ma_tool.Pace(calls_per_second=100_000, burst=100_000, tick_ms=30)
"""As fast as it can be: what a test wants slow it says."""


class RunningMa:
    """One MA tool over one data directory; it can be killed and started again on its port."""

    def __init__(self, data: Path, everybody: tuple[Person, ...]) -> None:
        self.data = data
        self.everybody = everybody
        self.token = secrets.token_urlsafe(16)
        self.token_file = data.with_name("ma.token")
        self.token_file.write_text(self.token)
        self._log = data.with_name("ma.log")
        self._left = list(everybody[5:])  # the first ones are there for all to look at
        self._process: subprocess.Popen[str] | None = None
        self.url = ""

    # --- the process

    def start(self, pace: ma_tool.Pace = QUICK, *, planted: str = "") -> None:
        """Start it; `planted` is code that runs before, such as one that puts a bug into it."""
        port = int(self.url.rpartition(":")[2]) if self.url else 0
        command = ma_tool.command(self.data, port, self.token_file, pace)
        if planted:
            code = f"import sys; {planted}\nfrom keshi.dev.systems.ma_tool.__main__ import main; sys.exit(main())"
            command = [sys.executable, "-c", code, *command[3:]]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        assert self._process.stdout
        ready, _, _ = select.select([self._process.stdout], [], [], START_SECONDS)
        line = self._process.stdout.readline() if ready else ""
        assert line, self.log()
        self.url = json.loads(line)["url"]

    def end(self, number: int = signal.SIGTERM) -> int:
        assert self._process
        assert self._process.stdout
        if self._process.poll() is None:
            self._process.send_signal(number)
        code = self._process.wait(timeout=20)
        self._process.stdout.close()
        return code

    @contextmanager
    def otherwise(self, pace: ma_tool.Pace = QUICK, *, planted: str = "") -> Iterator[None]:
        """For a while at another pace."""
        self.end()
        self.start(pace, planted=planted)
        try:
            yield
        finally:
            self.end(signal.SIGKILL)
            self.start()

    def log(self) -> str:
        return self._log.read_text()

    def client(self) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.token}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=20, trust_env=False)

    @property
    def environment(self) -> dict[str, str]:
        """Settings of the handler."""
        return {"KESHI_MA_TOOL_URL": self.url, "KESHI_MA_TOOL_TOKEN_FILE": str(self.token_file)}

    # --- past its API

    def look(self) -> Snapshot:
        return Snapshot({"ma_tool": rows(self.data)})

    def sql(self, statement: str, *values: object) -> list[dict[str, Any]]:
        with closing(sqlite3.connect(self.data / FILE, timeout=10)) as store, store:
            store.row_factory = sqlite3.Row
            return [dict(row) for row in store.execute(statement, values)]

    # --- who is in it

    def person(self, fits: Callable[[Person], object] = lambda _: True) -> Person:
        """Somebody whom no test has had."""
        found = next(p for p in self._left if held(p)["contacts"] and fits(p))
        self._left.remove(found)
        return found


def until(what: Callable[[], Any], seconds: float = 20) -> Any:
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
    return found


@pytest.fixture(scope="module")
def ma(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningMa]:
    directory = tmp_path_factory.mktemp("ma")
    everybody = people(240, today=TODAY)
    seed(directory / "data", everybody)
    running = RunningMa(directory / "data", everybody)
    running.start()
    yield running
    running.end(signal.SIGKILL)
