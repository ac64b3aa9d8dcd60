"""The lines of `keshi submit --file`: read one by one, bounded, and judged by the same code as in keshi's intake."""

import io
import os
import sys
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from keshi.runtime.settings import ConfigurationError
from keshi.schemas.admissible import NotAdmissible, check
from keshi.schemas.commands import COMMANDS, SubjectCommand
from keshi.schemas.envelope import MAX_COMMAND_BYTES
from keshi.schemas.reading import Unreadable, read
from keshi.schemas.requests import RejectionCode

MAX_LINES: Final = 1_000_000
MAX_STREAM_BYTES: Final = 512 * 1024 * 1024
"""Of standard input or a pipe, which cannot be read twice and is held in memory: never on a disk."""
_BOM: Final = b"\xef\xbb\xbf"
_SENDABLE: Final = {kind: model for kind, model in COMMANDS.items() if kind != "keshi.DecideTask.v1"}
REPEATED: Final = "request_id_repeated"


@dataclass(frozen=True, slots=True)
class Good:
    """A line that can be sent. Holds nothing of the person."""

    number: int
    request_id: str
    kind: str
    checksum: int


@dataclass(frozen=True, slots=True)
class Bad:
    """A line that keshi would refuse, and why; nothing of it is repeated."""

    number: int
    code: str
    field: str | None
    detail: str
    request_id: str | None = None


class ChangedError(Exception):
    """The file was changed while it was being read."""


@contextmanager
def opened(file: str) -> Iterator[IO[bytes]]:
    """A file, or standard input (`-`), that can be read twice.

    Raises:
        ConfigurationError: it cannot be read, or a stream is too long to be held.
    """
    try:
        if file == "-":
            yield _held(sys.stdin.buffer)
            return
        with Path(file).open("rb") as found:
            yield found if found.seekable() else _held(found)
    except OSError as e:
        raise ConfigurationError(f"--file: cannot read {_name(file)} ({e.strerror})") from None


def _held(stream: IO[bytes]) -> IO[bytes]:
    held = stream.read(MAX_STREAM_BYTES + 1)
    if len(held) > MAX_STREAM_BYTES:
        raise ConfigurationError(f"--file: a stream may have {MAX_STREAM_BYTES >> 20} MiB: write it to a file")
    return io.BytesIO(held)


def _name(file: str) -> str:
    return "standard input" if file == "-" else os.fspath(file)


def lines_of(file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Number (from 1) and bytes of each line that is not empty. What is too long comes cut off, and is too long still.

    Raises:
        ConfigurationError: there are too many.
    """
    file.seek(0)
    number = 0
    while raw := file.readline(MAX_COMMAND_BYTES + 2):
        number += 1
        if number > MAX_LINES:
            raise ConfigurationError(f"--file: more than {MAX_LINES} lines: split it")
        whole = raw
        while not whole.endswith(b"\n") and (whole := file.readline(MAX_COMMAND_BYTES)):
            pass
        line = (raw.removeprefix(_BOM) if number == 1 else raw).strip(b" \t\r\n")
        if line:
            yield number, line


def judged(lines: Iterable[tuple[int, bytes]]) -> Iterator[Good | Bad]:
    """Each line: what it is, or why it is none. A command that was there before under its request id is bad, too."""
    seen: dict[tuple[str, str], int] = {}
    for number, raw in lines:
        found = _judge(number, raw)
        if isinstance(found, Good):
            first = seen.setdefault((found.request_id, found.kind), number)
            if first != number:
                detail = f"the same command stands on line {first}, under the same request id"
                found = Bad(number, REPEATED, "data.request_id", detail, found.request_id)
        yield found


def _judge(number: int, raw: bytes) -> Good | Bad:
    try:
        _, command = read(raw, _SENDABLE, limit=MAX_COMMAND_BYTES)
    except Unreadable as e:
        return Bad(number, str(e.reason), e.field, _said(e), e.request_id)
    name = _request_id(command)
    if isinstance(command, SubjectCommand):
        try:
            check(command)
        except NotAdmissible as e:
            return Bad(number, e.code.value, e.field, e.detail, name)
    return Good(number, name, type(command).__name__, zlib.crc32(raw))


def _request_id(command: Any) -> str:
    return str(command.request_id)


def _said(error: Unreadable) -> str:
    if error.reason == RejectionCode.TYPE_UNKNOWN:
        return f"not one of {', '.join(_SENDABLE)}"
    if error.reason == "not_a_cloudevent":
        return "a line is one whole CloudEvent: specversion, id, source, type, data"
    return error.detail.removeprefix("Value error, ")


def again(file: IO[bytes], wanted: Iterable[Good]) -> Iterator[tuple[Good, bytes]]:
    """The bytes of these lines, which are in their order, read a second time.

    Raises:
        ChangedError: one is not what it was.
    """
    lines = lines_of(file)
    for good in wanted:
        raw = next((line for number, line in lines if number == good.number), b"")
        if zlib.crc32(raw) != good.checksum:
            raise ChangedError
        yield good, raw
