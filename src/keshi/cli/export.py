"""`keshi export`, `keshi exports`: many requests with their records, as a file; and what was exported before."""

import hashlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, BinaryIO, Final

import typer
from pydantic import ValidationError

from keshi.cli import filters as f
from keshi.cli.errors import Failure
from keshi.cli.http import Api, parsed
from keshi.cli.output import note, say, table
from keshi.cli.reading import AS_JSON, ZONE, day_and_time, zone_of
from keshi.cli.rows import header, line_of, rows_of
from keshi.orchestrator.asked import MAX_PAGE, Export
from keshi.orchestrator.views import ExportedPage, ExportNote, ExportPage, ExportView
from keshi.schemas.base import canonical

_TRIES: Final = 4
_MISUSED: Final = 2


class Form(StrEnum):
    """Of the file."""

    JSONL = "jsonl"
    CSV = "csv"


def export(
    form: Annotated[
        Form, typer.Option("--format", help="One request a line with its whole record, or one row for each outcome.")
    ] = Form.JSONL,
    output: Annotated[str, typer.Option("--output", "-o", metavar="FILE", help="`-` is standard output.")] = "-",
    purpose: Annotated[
        str, typer.Option(metavar="REF", help="What for: kind:id, such as authority:ppc-2026-014. Kept on record.")
    ] = "internal:review",
    state: f.STATE = None,
    action: f.ACTION = None,
    regime: f.REGIME = None,
    ground: f.GROUND = None,
    system: f.SYSTEM = None,
    outcome: f.OUTCOME = None,
    late: f.LATE = None,
    held: f.HELD = None,
    open_in: f.OPEN_IN = None,
    due_before: f.DUE_BEFORE = None,
    arrived_from: f.ARRIVED_FROM = None,
    arrived_until: f.ARRIVED_UNTIL = None,
    closed_from: f.CLOSED_FROM = None,
    closed_until: f.CLOSED_UNTIL = None,
    person: f.PERSON = False,
    identifiers_file: f.IDENTIFIERS_FILE = None,
    zone: ZONE = "UTC",
) -> None:
    """Write requests with their closure records to a file, and put on record that it was done.

    A file appears whole or not at all, so it is safe to call this again. Every export is registered: who, when, what
    for, what was asked for, how much, and the SHA-256 of what was written (see `keshi exports`).

    Needs KESHI_API_URL and KESHI_API_TOKEN (of a reader or a decider).
    """
    given = {
        "state": state,
        "action": action,
        "regime": regime,
        "ground": ground,
        "system": system,
        "outcome": outcome,
        "late": late,
        "held": held,
        "open_in": open_in,
        "due_before": due_before,
        "arrived_from": arrived_from,
        "arrived_until": arrived_until,
        "closed_from": closed_from,
        "closed_until": closed_until,
    }
    asked = f.which(given, zone, person=person, file=identifiers_file)
    _purposeful(purpose)
    with Api() as api:
        with _written(output) as file:
            counted = _write(api, asked, form, file)
        made = ExportNote(
            purpose=purpose,
            form=form.value,
            filters=canonical(asked.told()).decode(),
            requests=counted.requests,
            lines=counted.lines,
            sha256=counted.digest.hexdigest(),
        )
        kept = parsed(ExportView, _again(lambda: api.post("/v1/exports", made)))
    note(f"{kept.requests:,} requests, {kept.lines:,} lines, sha256 {kept.sha256}: export {kept.number} on record")


def _purposeful(purpose: str) -> None:
    try:
        ExportNote(purpose=purpose, form="csv", filters="", requests=0, lines=0, sha256="0" * 64)
    except ValidationError:
        raise Failure("--purpose: write it as kind:id, such as authority:ppc-2026-014", _MISUSED) from None


class _Counted:
    """What is written, with how much it is and its hash."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.requests = 0
        self.lines = 0
        self.digest = hashlib.sha256()

    def write(self, text: str, lines: int) -> None:
        """Write so many lines."""
        raw = text.encode()
        self._file.write(raw)
        self.digest.update(raw)
        self.lines += lines


def _write(api: Api, asked: f.Which, form: Form, file: BinaryIO) -> _Counted:
    counted = _Counted(file)
    if form is Form.CSV:
        counted.write(header(), 0)
    shown = time.monotonic()
    for text in _pages(api, asked):
        page = parsed(ExportedPage, text)
        if form is Form.CSV:
            for one in page.requests:
                rows = list(rows_of(one))
                counted.write("".join(rows), len(rows))
        else:
            # As the API wrote it: the record in it keeps its hash.
            for line in line_of(text):
                counted.write(f"{line}\n", 1)
        counted.requests += len(page.requests)
        if time.monotonic() - shown > 1:
            shown = time.monotonic()
            note(f"{counted.requests:,} requests so far")
    return counted


def _pages(api: Api, asked: f.Which) -> Iterator[str]:
    cursor: str | None = None
    while True:
        body = Export(**asked.filters.model_dump(), identifiers=asked.identifiers, limit=MAX_PAGE, cursor=cursor)
        text = _again(lambda b=body: api.post("/v1/requests:export", b))  # type: ignore[misc] # mypy cannot see a lambda's defaults
        yield text
        cursor = parsed(ExportedPage, text).next
        if cursor is None:
            return


def _again(call: Callable[[], str]) -> str:
    """Ask again a few times: a page costs nothing, a whole export does."""
    for attempt in range(1, _TRIES):
        try:
            return call()
        except Failure as e:
            if not e.passing:
                raise
            note(f"{e}; asking again")
            time.sleep(attempt)
    return call()


@contextmanager
def _written(output: str) -> Iterator[BinaryIO]:
    """A file that appears when it is whole, and for its owner's eyes; or standard output."""
    if output == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    path = Path(output)
    draft = path.with_name(f".{path.name}.part")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    except OSError:
        raise Failure(f"--output: cannot write {path}", _MISUSED) from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    draft.replace(path)


def exports(
    file: Annotated[
        Path | None, typer.Option("--check", metavar="FILE", help="Say which export this file is, if it is one.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many to show.")] = 50,
    zone: ZONE = "UTC",
    as_json: AS_JSON = False,
) -> None:
    """Show what was exported: by whom, when, what for, what was asked for, and the hash of what was written.

    Needs KESHI_API_URL and KESHI_API_TOKEN (of a reader or a decider).
    """
    with Api() as api:
        found = list(_registered(api, None if file else limit))
    if file is not None:
        digest = _sha256(file)
        found = [e for e in found if e.sha256 == digest]
        if not found:
            raise Failure(f"no export on record has the hash of this file ({digest}): it is none, or it was changed")
    if as_json:
        say(ExportPage(exports=tuple(found)).model_dump_json(exclude_none=True))
        return
    table(
        ("export", "at", "by", "purpose", "asked for", "format", "requests", "lines", "sha256"),
        [
            (
                *(e.number, day_and_time(e.at, zone_of(zone)), e.person, e.purpose, e.filters),
                *(e.form, e.requests, e.lines, e.sha256),
            )
            for e in found
        ],
    )


def _registered(api: Api, limit: int | None) -> Iterator[ExportView]:
    before: int | None = None
    while True:
        ask = MAX_PAGE if limit is None else min(MAX_PAGE, limit)
        page = parsed(ExportPage, api.get("/v1/exports", limit=ask, before=before))
        yield from page.exports
        limit = None if limit is None else limit - len(page.exports)
        before = page.next
        if before is None or limit == 0:
            return


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        raise Failure(f"--check: cannot read {path}", _MISUSED) from None
