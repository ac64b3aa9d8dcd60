"""Where the development environment keeps things, on which ports, and as whom a server runs."""

import os
import pwd
import random
import socket
import tempfile
from dataclasses import dataclass
from pathlib import Path

from keshi.dev.errors import DevError

_TRIES = 200


@dataclass(frozen=True)
class User:
    """Who a server runs as when root starts it."""

    name: str
    uid: int
    gid: int


def unprivileged_user() -> User | None:
    """The user a server that refuses root runs as; None where this process is not root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return User(name, entry.pw_uid, entry.pw_gid)
    raise DevError("running as root, and there is no user 'postgres' or 'nobody' to run PostgreSQL as: add one")


def reachable(path: Path, user: User | None) -> bool:
    """Whether the user may enter this directory: each parent must let them through."""
    if user is None:
        return True
    resolved = path.resolve()
    return all(_may_enter(part, user) for part in (resolved, *resolved.parents) if part.exists())


def _may_enter(directory: Path, user: User) -> bool:
    status = directory.stat()
    if status.st_uid == user.uid:
        return bool(status.st_mode & 0o100)
    if status.st_gid == user.gid:
        return bool(status.st_mode & 0o010)
    return bool(status.st_mode & 0o001)


def cache_dir() -> Path:
    """Where fetched programs are kept: `KESHI_CACHE`, else the user's cache (root: the machine's)."""
    named = os.environ.get("KESHI_CACHE")
    if named:
        return Path(named).expanduser().absolute()
    if os.geteuid() == 0:
        # Root's home is closed to the unprivileged user that PostgreSQL runs as.
        return Path("/var/cache/keshi")
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "keshi"


def run_directory(prefix: str = "keshi-") -> Path:
    """Make a fresh directory for data and logs that an unprivileged server can reach.

    Parents such as pytest's are closed to others, so it lies directly in `KESHI_RUN_DIR`, the
    temporary directory or `/var/tmp`, whichever is first of use. The caller removes it.
    """
    user = unprivileged_user()
    named = os.environ.get("KESHI_RUN_DIR")
    bases = [Path(named)] if named else [Path(tempfile.gettempdir()), Path("/var/tmp")]  # noqa: S108 - made by mkdtemp
    for base in bases:
        if base.is_dir() and os.access(base, os.W_OK) and reachable(base, user):
            directory = Path(tempfile.mkdtemp(prefix=prefix, dir=base))
            if user is not None:
                directory.chmod(0o711)  # to be passed through, not to be read
            return directory
    who = user.name if user else "you"
    names = ", ".join(map(str, bases))
    raise DevError(f"no directory for data that {who} can reach among {names}: set KESHI_RUN_DIR to one")


def free_port() -> int:
    """A loopback port that nothing listens on.

    It lies outside the range the kernel takes for outgoing connections, so that a server killed
    and started again on the same port does not find it taken by a client in between.
    """
    low, high = _ephemeral_range()
    candidates = [port for port in range(15_000, 60_000) if not low <= port <= high]
    source = random.SystemRandom()
    for _ in range(_TRIES):
        port = source.choice(candidates or range(15_000, 60_000))
        if port_is_free(port):
            return port
    raise DevError(f"no free loopback port in {_TRIES} tries: end what listens on this machine")


def port_is_free(port: int) -> bool:
    """Whether a server could listen on this loopback port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: connections of one that has just ended may linger, and are in nobody's way.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _ephemeral_range() -> tuple[int, int]:
    try:
        low, high = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return 32_768, 60_999
    return int(low), int(high)
