"""Parts: processes that are started, awaited, watched and always ended again, by pid.

A part has a session and process group of its own, so that Ctrl-C reaches this process alone and the
parts are ended in order, and a guardian, so that they end also when this process is killed.
"""

import contextlib
import os
import select
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from keshi.dev.errors import NotReadyError, PartDiedError
from keshi.dev.guardian import guard
from keshi.dev.places import User

_POLL_SECONDS = 0.05
_TAIL_LINES = 15
_TAIL_BYTES = 16_384


@dataclass(frozen=True)
class PartSpec:
    """How to start a part.

    Attributes:
        name: what people call it.
        argv: program and arguments.
        log: file that takes its output; it is appended to, so that a restart keeps what came before.
        env: its whole environment; None for this process's own.
        cwd: its working directory.
        user: whom it runs as, where this process is root.
        stop_signal: what asks it to end gracefully.
        stop_seconds: how long it may take before it is killed.
        owner: pid of the process whose end ends it; None for this one.
    """

    name: str
    argv: tuple[str, ...]
    log: Path
    env: Mapping[str, str] | None = field(default=None, repr=False)  # may hold secrets
    cwd: Path | None = None
    user: User | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    stop_seconds: float = 15.0
    owner: int | None = None


class Part:
    """One process; it can be started again after it ended."""

    def __init__(self, spec: PartSpec) -> None:
        self.spec = spec
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def pid(self) -> int:
        """The pid of the running (or last) process."""
        if self._process is None:
            raise NotReadyError(f"{self.name} has not been started")
        return self._process.pid

    def start(self) -> None:
        """Start the process; does not wait until it is ready."""
        spec = self.spec
        spec.log.parent.mkdir(parents=True, exist_ok=True)
        with spec.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - argv is built by this package
                spec.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=None if spec.env is None else dict(spec.env),
                cwd=spec.cwd,
                start_new_session=True,
                user=spec.user.uid if spec.user else None,
                group=spec.user.gid if spec.user else None,
                extra_groups=[] if spec.user else None,
            )
        guard(self._process.pid, spec.owner)

    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def wait_ready(self, ready: Callable[[], bool], seconds: float) -> None:
        """Wait until `ready()` is true.

        Raises:
            PartDiedError: the process ended first.
            NotReadyError: `seconds` passed; the process still runs.
        """
        deadline = time.monotonic() + seconds
        while not ready():
            if not self.running():
                raise PartDiedError(self.obituary())
            if time.monotonic() > deadline:
                raise NotReadyError(f"{self.name} was not ready within {seconds:.0f} s.{self._log_hint()}")
            time.sleep(_POLL_SECONDS)

    def obituary(self) -> str:
        """How the process ended, the end of its log, and where the log is."""
        code = self._process.returncode if self._process else None
        if code is not None and code < 0:
            how = f"was ended by {signal.Signals(-code).name}"
        else:
            how = f"ended with exit code {code}"
        return f"{self.name} {how}.{self._log_hint()}"

    def stop(self, seconds: float | None = None) -> None:
        """End the process gracefully, and with force when that takes longer than `seconds`."""
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            _signal_group(process.pid, signal.SIGCONT)  # a frozen process could not end gracefully
            _signal_group(process.pid, self.spec.stop_signal)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(self.spec.stop_seconds if seconds is None else seconds)
        self.kill()

    def kill(self) -> None:
        """End the process and its group with SIGKILL, and wait for it."""
        if self._process is not None:
            _signal_group(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def disown(self) -> None:
        """Leave the process to its owner: nobody here waits for it any more."""
        if self._process is not None and self._process.poll() is None:
            self._process.returncode = 0

    def _log_hint(self) -> str:
        lines = tail(self.spec.log)
        shown = "\n".join(f"  | {line}" for line in lines)
        return f" Its log is {self.spec.log}" + (f", which ends with:\n{shown}" if lines else ", and is empty")


def _signal_group(leader: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, number)


def tail(log: Path, lines: int = _TAIL_LINES) -> list[str]:
    """The last lines of a log, reading a bounded number of bytes."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
            text = file.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return []
    return text.splitlines()[-lines:]


def end_pid(pid: int, number: signal.Signals = signal.SIGTERM, seconds: float = 15.0) -> None:
    """End the group of a process that is not our child, gracefully first; returns when it is gone."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        _signal_group(pid, number)
        if not _gone_within(handle, seconds):
            _signal_group(pid, signal.SIGKILL)
            _gone_within(handle, seconds)
    finally:
        os.close(handle)


def _gone_within(handle: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    return bool(poll.poll(int(seconds * 1000)))


def answers(url: str, seconds: float = 1.0, spare: bytes | None = None) -> Callable[[], bool]:
    """A readiness check: the loopback URL answers with a status below 300.

    Args:
        url: asked each time.
        seconds: for one answer.
        spare: what a process says that is ready to take over from another; it counts as ready then.
    """

    def ready() -> bool:
        try:
            with urllib.request.urlopen(url, timeout=seconds) as response:  # noqa: S310 - our own part's address
                return int(response.status) < 300  # noqa: PLR2004 - success is 2xx
        except urllib.error.HTTPError as error:
            with error:
                return spare is not None and error.read(1000) == spare
        except (urllib.error.URLError, OSError):
            return False

    return ready
