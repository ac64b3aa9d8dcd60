"""A tiny process that ends a part when its owner is gone, however the owner went.

The kernel's parent-death signal is tied to the *thread* that forked and is forgotten when a process
changes its user; this is tied to neither. It holds both processes by pidfd, so a number that is given
out again is never hit. Run alone (`python -I -S guardian.py OWNER PART`): it imports nothing of ours.
"""

import os
import select
import signal
import subprocess
import sys
from threading import Lock

_lock = Lock()
_started: list[int] = []


def guard(part: int, owner: int | None = None) -> None:
    """Have the group of process `part` killed when process `owner` (default: this one) is gone."""
    _reap()
    process = subprocess.Popen(  # noqa: S603 - our own file and two numbers
        [sys.executable, "-I", "-S", __file__, str(owner or os.getpid()), str(part)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd="/",
    )
    process.returncode = 0  # it outlives us by design: no warning that nobody waited for it
    with _lock:
        _started.append(process.pid)


def _reap() -> None:
    with _lock:  # parts may be started by several threads
        for pid in tuple(_started):
            try:
                if os.waitpid(pid, os.WNOHANG)[0] == 0:
                    continue
            except ChildProcessError:
                pass
            _started.remove(pid)


def _open(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return None


def _main(owner: int, part: int) -> None:
    part_fd = _open(part)
    if part_fd is None:
        return
    owner_fd = _open(owner)
    if owner_fd is not None:
        poll = select.poll()
        poll.register(owner_fd, select.POLLIN)
        poll.register(part_fd, select.POLLIN)
        gone = {fd for fd, _ in poll.poll()}
        if part_fd in gone:
            return
    try:
        os.killpg(part, signal.SIGKILL)
    except ProcessLookupError:
        signal.pidfd_send_signal(part_fd, signal.SIGKILL)


if __name__ == "__main__":
    _main(int(sys.argv[1]), int(sys.argv[2]))
