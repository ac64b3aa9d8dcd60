"""The file that a ledger on SQLite lives in: which one a URL names, and whether it can work there."""

import fcntl
import os
import sqlite3
from pathlib import Path

from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from keshi.runtime.settings import ConfigurationError

OLDEST = (3, 37, 0)
"""The first SQLite with strict tables."""
NETWORK = frozenset({"9p", "afs", "ceph", "cifs", "glusterfs", "lustre", "nfs", "nfs4", "smb3", "smbfs"})
"""File systems on which SQLite's write-ahead log does not work: its index is memory that processes share."""
_EXPECTED = "expected sqlite:///path/from/the/root.db"
_SETTING = "KESHI_LEDGER_URL"


def path_of(url: str) -> Path:
    """The file that a URL names. Three slashes or four: the path begins at the root.

    Raises:
        ConfigurationError: it names none, or has more in it than a path.
    """
    try:
        parsed = make_url(url)
    except SQLAlchemyError:
        raise ConfigurationError(f"{_SETTING}: {_EXPECTED}") from None
    plain = not (parsed.host or parsed.username or parsed.password or parsed.query)
    name = (parsed.database or "").lstrip("/")
    if parsed.drivername != "sqlite" or not plain or not name or name.startswith((":memory:", "file:")):
        raise ConfigurationError(f"{_SETTING}: {_EXPECTED}")
    return Path("/", name)


def check_place(path: Path) -> None:
    """Whether a ledger can be kept there. The file itself may be missing.

    Raises:
        ConfigurationError: it cannot; the line says why.
    """
    if sqlite3.sqlite_version_info < OLDEST:
        have, want = sqlite3.sqlite_version, ".".join(map(str, OLDEST))
        raise ConfigurationError(f"{_SETTING}: SQLite is {have}, keshi needs {want} or later")
    folder = path.parent
    if not folder.is_dir():
        raise ConfigurationError(f"{_SETTING}: there is no directory {folder}")
    # SQLite keeps its log beside the file: a file that can be written is not enough.
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigurationError(f"{_SETTING}: this process may not write into the directory {folder}")
    if path.exists() and not (path.is_file() and os.access(path, os.R_OK | os.W_OK)):
        raise ConfigurationError(f"{_SETTING}: {path} is no file that this process may read and write")
    if (kind := file_system(folder)) in NETWORK:
        raise ConfigurationError(
            f"{_SETTING}: {folder} lies on a network file system ({kind}): keep it on a local disk"
        )


def file_system(folder: Path, mounts: Path = Path("/proc/self/mounts")) -> str | None:
    """The kind of file system that a directory lies on; None where the system does not say."""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    # A mount point has its blanks as octal escapes, as in fstab(5).
    found = [(Path(fields[1].replace("\\040", " ")), fields[2]) for line in lines if len(fields := line.split()) > 2]  # noqa: PLR2004
    around = [(len(point.parts), kind) for point, kind in found if folder.resolve().is_relative_to(point)]
    # Of two on one place the later one lies on top.
    return max(enumerate(around), key=lambda pair: (pair[1][0], pair[0]))[1][1] if around else None


def create(path: Path) -> None:
    """Make the file, for this user's eyes only, unless it is there.

    Raises:
        ConfigurationError: it cannot be made.
    """
    try:
        # Never opened where it exists: closing a descriptor of it would drop SQLite's locks of this process.
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        return
    except OSError as e:
        raise ConfigurationError(f"{_SETTING}: {path} cannot be made: {e.strerror}") from None


class FileLock:
    """Held by one process, until it lets go or ends: the kernel takes it back also from one that was killed.

    Its file stays: one that were removed could be locked twice.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def acquire(self) -> bool:
        """Take it if nobody has it. True also where it is ours already.

        Raises:
            ConfigurationError: the file cannot be made.
        """
        try:
            if self._descriptor is None:
                self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as e:
            raise ConfigurationError(f"{_SETTING}: {self._path} cannot be locked: {e.strerror}") from None
        return True

    def release(self) -> None:
        """Let another have it."""
        if self._descriptor is not None:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        """Let another have it, for good."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
