"""`keshi dev up`, as a program that drives it sees it."""

import json
import os
import select
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from keshi.dev.places import run_directory

READY_SECONDS = 150
BOUND = 60
TWO_SYSTEMS = ("--inventory", str(Path(__file__).parents[1] / "two_systems.yaml"))


@contextmanager
def up(*options: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    argv = [sys.executable, "-m", "keshi.cli", "dev", "up", "--people", "40", *options]
    env = {name: value for name, value in os.environ.items() if not name.startswith("KESHI_KAFKA_")}
    process = subprocess.Popen(
        argv, env=env | environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0
    )
    try:
        yield process
    finally:
        process.kill()  # its guardians end what it has started
        process.communicate()


def line_of(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout
    ready, _, _ = select.select([process.stdout], [], [], READY_SECONDS)
    line = process.stdout.readline() if ready else ""
    assert line, process.communicate(timeout=1)[1] if process.poll() is not None else "not ready in time"
    parsed: dict[str, Any] = json.loads(line)
    return parsed


def until(what: Callable[[], bool], seconds: float = BOUND) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def working_in(directory: Path) -> set[int]:
    """Processes that were started with this directory in their arguments, or in it."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (process / "cmdline").read_bytes()
            place = str((process / "cwd").readlink())
        except OSError:
            continue
        if str(directory).encode() in arguments or place.startswith(str(directory)):
            found.add(int(process.name))
    return found - {os.getpid()}


@pytest.fixture
def directory() -> Iterator[Path]:
    made = run_directory("keshi-test-up-")
    yield made
    shutil.rmtree(made, ignore_errors=True)


def test_one_line_of_json_says_all_that_another_program_needs(
    kafka_bootstrap: str, topic_prefix: str, database: str, directory: Path
) -> None:
    """On a cluster and a database that exist; a part that is killed comes back; Ctrl-C ends all."""
    env = {"KESHI_KAFKA_BOOTSTRAP": kafka_bootstrap, "KESHI_KAFKA_PREFIX": topic_prefix}
    with up(*TWO_SYSTEMS, "--json", "--ledger", database, "--data", str(directory), **env) as process:
        told = line_of(process)
        parts = {"orchestrator", "api", "worker-billing", "worker-crm", "billing", "crm"}
        assert told["kafka_bootstrap"] == kafka_bootstrap
        assert told["ledger_url"] == database
        assert set(told["pids"]) == parts
        assert all(runs(pid) for pid in told["pids"].values())
        assert set(told["systems"]) == {"billing", "crm"}

        api = httpx.Client(base_url=told["api_url"], headers={"Authorization": f"Bearer {told['api_token']}"})
        with api:
            assert api.get("/readyz").status_code == 200
            assert api.get("/v1/requests").json()["requests"] == []
        assert httpx.get(f"{told['api_url']}/v1/requests").status_code == 401
        with psycopg.connect(told["systems"]["billing"]["dsn"]) as billing:
            assert billing.execute("SELECT count(*) FROM customers").fetchone() == (36,)
        assert httpx.get(f"{told['systems']['crm']['url']}/healthz").status_code == 200
        secret = [path for path in (directory / "keys").rglob("*") if path.is_file()]
        assert secret
        assert {stat.S_IMODE(path.stat().st_mode) for path in secret} == {0o600}

        killed = told["pids"]["worker-crm"]
        os.kill(killed, signal.SIGKILL)
        until(lambda: not runs(killed))
        assert process.stderr
        for line in process.stderr:  # ends with the process, at the latest
            if "worker-crm was started again" in line:
                break
        assert working_in(directory) >= set(told["pids"].values()) - {killed}

        process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=BOUND)
        assert process.returncode == 0, rest
        assert not working_in(directory)


def test_ctrl_c_while_things_are_being_started_leaves_nothing_behind(directory: Path) -> None:
    """With servers of its own; the signal comes when the first part has become ready."""
    with up(*TWO_SYSTEMS, "--data", str(directory)) as process:
        assert process.stderr
        assert "ready after" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=BOUND)
        assert process.returncode == 0, rest
        assert not working_in(directory)


def test_what_cannot_be_started_is_one_line_that_says_what_to_do(directory: Path) -> None:
    with up("--ledger", "postgresql://nobody@127.0.0.1:1/nothing", "--data", str(directory)) as process:
        out, said = process.communicate(timeout=READY_SECONDS)
    assert process.returncode == 1
    assert out == ""
    assert "Traceback" not in said
    assert "ledger" in said.splitlines()[-1]
    assert not working_in(directory)
