"""What a run of `keshi submit --file` has done, in a small file: the next run does not send it again.

One line of JSON says for which topic, then a line for each step: a letter, a request id, a kind. Nothing else, and
nothing of a person. Lines are only added, so that a run may be killed at any moment; half a line is dropped.
"""

import fcntl
import json
import os
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

from keshi.cli.lines import Good
from keshi.client import Mark, Reached
from keshi.client.stream import Wait
from keshi.runtime.settings import ConfigurationError

_LETTERS: Final = {Reached.SENT: "s", Reached.ACCEPTED: "a", Reached.CLOSED: "c"}
_FAR: Final = {"": 0, "s": 1, "a": 2, "c": 3}
_VERSION: Final = 1
_SYNC_SECONDS: Final = 0.5
_MAX_LINE: Final = 200


class Remembered:
    """How far each command of a file has come. Used with `with`; one process at a time.

    Args:
        path: Where it is kept; None keeps it in memory alone.
        topic_id: UUID of the topic `commands`: what another cluster took says nothing about this one.
        mark: The end of `requests` before anything was sent; kept from the first run on.

    Raises:
        ConfigurationError: it is another topic's, no such file, in use, or cannot be written.
    """

    def __init__(self, path: Path | None, topic_id: str, mark: Mark) -> None:
        self.mark = mark
        self._reached: dict[tuple[str, str], str] = {}
        self._file: IO[bytes] | None = None
        self._synced = 0.0
        if path is None:
            return
        try:
            self._file = self._open(path)
            self._read(path, self._file, topic_id)
        except OSError as e:
            self._let_go()
            raise ConfigurationError(f"cannot keep {path} ({e.strerror}): name another place with --state") from None
        except ConfigurationError:
            self._let_go()
            raise

    def _open(self, path: Path) -> IO[bytes]:
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise ConfigurationError(f"{path} is in use: another `keshi submit` is at work on this file") from None
        return file

    def _read(self, path: Path, file: IO[bytes], topic_id: str) -> None:
        head = file.readline(100_000)
        if not head.endswith(b"\n"):  # new, or killed before its first line was whole
            file.seek(0)
            file.truncate()
            file.write(json.dumps({"keshi": _VERSION, "topic": topic_id, "mark": str(self.mark)}).encode() + b"\n")
            self._sync()
            return
        try:
            told = json.loads(head)
            version, of_topic, self.mark = told["keshi"], told["topic"], Mark.parse(told["mark"])
        except (ValueError, KeyError, TypeError):
            version = None
        if version != _VERSION:
            raise ConfigurationError(f"{path} is not what an earlier run left: name another place with --state")
        if of_topic != topic_id:
            raise ConfigurationError(
                f"{path} tells of another topic or cluster, to which this file was sent: for this one name another "
                f"place with --state"
            )
        end = file.tell()
        while (line := file.readline(_MAX_LINE)).endswith(b"\n"):
            end = file.tell()
            letter, _, rest = line.decode("ascii", "replace").strip().partition(" ")
            request_id, _, kind = rest.partition(" ")
            if _FAR.get(letter, 0) > _FAR[self._reached.get((request_id, kind), "")]:
                self._reached[request_id, kind] = letter
        file.truncate(end)
        file.seek(end)

    def is_done(self, line: Good, wait: Wait) -> bool:
        """Whether nothing is left to do for a command, if this is what is waited for."""
        wanted = {"none": "s", "accepted": "a", "closed": "c"}[wait]
        if line.kind == "RecordNotice" or (line.kind == "WithdrawRequest" and wait == "accepted"):
            wanted = "s"  # nothing more is ever said of it
        return self._far(line) >= _FAR[wanted]

    def is_accepted(self, line: Good) -> bool:
        """Whether keshi has it: it need not be sent again."""
        return self._far(line) >= _FAR["a"]

    def _far(self, line: Good) -> int:
        return _FAR[self._reached.get((line.request_id, line.kind), "")]

    def add(self, line: Good, reached: Reached) -> None:
        """A command has come so far. Failures are not kept."""
        letter = _LETTERS.get(reached, "")
        if _FAR[letter] <= self._far(line):
            return
        self._reached[line.request_id, line.kind] = letter
        if self._file is not None:
            self._file.write(f"{letter} {line.request_id} {line.kind}\n".encode())
            self._file.flush()  # from here on it outlives this process; from the next sync on, this machine
            if time.monotonic() - self._synced > _SYNC_SECONDS:
                self._sync()

    def _sync(self) -> None:
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._synced = time.monotonic()

    def _let_go(self) -> None:
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self._sync()
        self._let_go()
