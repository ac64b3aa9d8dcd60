"""Parts always end with who started them, and say why when they end too early."""

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from keshi.dev.errors import NotReadyError, PartDiedError
from keshi.dev.processes import Part, PartSpec, answers, end_pid, tail
from keshi.dev.supervisor import Stopped, Supervisor

_BOUND = 20.0

_STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("up", flush=True)
time.sleep(600)
"""

_POLITE = """
import pathlib, signal, sys, time
def end(*_):
    with pathlib.Path(sys.argv[1]).open("a") as file:
        file.write(sys.argv[2] + "\\n")
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
print("up", flush=True)
time.sleep(600)
"""

# A program with two parts, one of which has a child of its own; it prints their pids when all are up.
_PROGRAM = """
import sys
from pathlib import Path
from keshi.dev.processes import PartSpec, tail
from keshi.dev.supervisor import Supervisor
directory = Path(sys.argv[1])
with Supervisor() as parts:
    for name in ("first", "second"):
        log = directory / f"{name}.log"
        argv = (sys.executable, "-c", sys.argv[2], str(directory / "ended"), name)
        parts.start(PartSpec(name, argv, log), ready=lambda log=log: tail(log) == ["up"])
    log = directory / "family.log"
    argv = ("/bin/sh", "-c", "sleep 600 & echo $!; wait")
    parts.start(PartSpec("family", argv, log), ready=lambda: bool(tail(log)))
    print(*parts.pids.values(), *tail(log), flush=True)
    parts.watch()
"""


def _spec(tmp_path: Path, code: str, *arguments: str, stop_seconds: float = _BOUND) -> PartSpec:
    return PartSpec("part", (sys.executable, "-c", code, *arguments), tmp_path / "part.log", stop_seconds=stop_seconds)


def _up(part: Part) -> Callable[[], bool]:
    return lambda: tail(part.spec.log) == ["up"]


def _wait_gone(pid: int) -> bool:
    """Whether a process that need not be our child ends within the bound."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([handle], [], [], _BOUND)[0])
    finally:
        os.close(handle)


def _program(tmp_path: Path) -> tuple[subprocess.Popen[str], list[int]]:
    program = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, str(tmp_path), _POLITE],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert program.stdout is not None
    return program, [int(pid) for pid in program.stdout.readline().split()]


def test_a_part_that_dies_early_shows_the_end_of_its_log_and_where_it_is(tmp_path: Path) -> None:
    lines = "".join(f"print('line {number}');" for number in range(40))
    part = Part(_spec(tmp_path, f"{lines} raise SystemExit(3)"))
    part.start()
    with pytest.raises(PartDiedError) as caught:
        part.wait_ready(lambda: False, _BOUND)
    message = str(caught.value)
    assert "part ended with exit code 3" in message
    assert str(tmp_path / "part.log") in message
    assert "line 39" in message
    assert "line 3\n" not in message


def test_a_part_that_is_never_ready_is_given_up_within_the_bound(tmp_path: Path) -> None:
    part = Part(_spec(tmp_path, _STUBBORN))
    part.start()
    try:
        with pytest.raises(NotReadyError, match=r"not ready within 0 s"):
            part.wait_ready(lambda: False, 0.2)
    finally:
        part.kill()


def test_a_part_that_ignores_the_request_to_end_is_killed(tmp_path: Path) -> None:
    part = Part(_spec(tmp_path, _STUBBORN, stop_seconds=0.3))
    part.start()
    part.wait_ready(_up(part), _BOUND)
    part.stop()
    assert not part.running()
    assert "SIGKILL" in part.obituary()


def test_a_frozen_part_ends_gracefully(tmp_path: Path) -> None:
    ended = tmp_path / "ended"
    part = Part(_spec(tmp_path, _POLITE, str(ended), "part"))
    part.start()
    part.wait_ready(_up(part), _BOUND)
    os.kill(part.pid, signal.SIGSTOP)
    part.stop()
    assert ended.read_text() == "part\n"


def test_parts_end_in_the_reverse_order_when_the_block_fails(tmp_path: Path) -> None:
    ended = tmp_path / "ended"

    def fail_with_parts_running(parts: Supervisor) -> None:
        for name in ("first", "second", "third"):
            log = tmp_path / f"{name}.log"
            argv = (sys.executable, "-c", _POLITE, str(ended), name)
            part = parts.add(Part(PartSpec(name, argv, log)))
            part.start()
            part.wait_ready(_up(part), _BOUND)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), Supervisor() as supervisor:
        fail_with_parts_running(supervisor)
    assert ended.read_text().split() == ["third", "second", "first"]


def test_the_supervisor_says_which_part_died(tmp_path: Path) -> None:
    with Supervisor() as parts:
        parts.start(PartSpec("steady", ("/bin/sleep", "600"), tmp_path / "steady.log"))
        parts.start(PartSpec("short", ("/bin/sh", "-c", "echo no such luck; exit 4"), tmp_path / "short.log"))
        with pytest.raises(PartDiedError, match=r"short ended with exit code 4(.|\n)*no such luck"):
            parts.watch(_BOUND)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_all_parts_gracefully_and_in_order(tmp_path: Path, number: signal.Signals) -> None:
    program, pids = _program(tmp_path)
    program.send_signal(number)
    assert program.wait(_BOUND) == 128 + number
    assert all(_wait_gone(pid) for pid in pids)
    assert (tmp_path / "ended").read_text().split() == ["second", "first"]
    assert program.stdout is not None
    program.stdout.close()


def test_all_parts_end_when_their_owner_is_killed(tmp_path: Path) -> None:
    program, pids = _program(tmp_path)
    assert len(pids) == 4  # three parts, and the child of one
    program.kill()
    program.wait(_BOUND)
    assert all(_wait_gone(pid) for pid in pids)
    assert not (tmp_path / "ended").exists()  # nobody was left to ask them
    assert program.stdout is not None
    program.stdout.close()


def test_a_signal_becomes_an_exit_code_and_the_handlers_return() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped) as caught, Supervisor():
        signal.raise_signal(signal.SIGTERM)
    assert caught.value.code == 143
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_process_that_is_not_ours_is_ended_by_its_pid(tmp_path: Path) -> None:
    part = Part(_spec(tmp_path, _STUBBORN))
    part.start()
    part.wait_ready(_up(part), _BOUND)
    began = time.monotonic()
    end_pid(part.pid, signal.SIGTERM, seconds=0.3)
    assert time.monotonic() - began < _BOUND
    assert not part.running()
    end_pid(part.pid)  # once more harms nobody


def test_a_url_is_ready_when_it_answers_with_success() -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/readyz" else 503)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is inherited
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    address = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        assert answers(f"{address}/readyz")()
        assert not answers(f"{address}/busy")()
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert not answers(f"{address}/readyz")()
