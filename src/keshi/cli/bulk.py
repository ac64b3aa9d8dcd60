"""`keshi submit --file`: many commands from a file of CloudEvents, one a line."""

import json
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

from keshi.cli.asked import SOURCE
from keshi.cli.errors import REJECTED, TIMED_OUT, Failure
from keshi.cli.lines import Bad, ChangedError, Good, again, judged, lines_of, opened
from keshi.cli.output import note, say, say_json, table
from keshi.cli.progress import Shown
from keshi.cli.remembered import Remembered
from keshi.client import Client, ClientError, Message, Reached, RequestRejected, Result
from keshi.client.stream import Wait
from keshi.runtime.settings import ConfigurationError, KafkaSettings, load
from keshi.runtime.topics import identity

SHOWN: Final = 20
"""Bad lines that are told on the terminal; all are in the file of rejects, or shown by --dry-run."""
IN_FLIGHT: Final[dict[Wait, int]] = {"none": 1_000, "accepted": 1_000, "closed": 10_000}


_ENDS: Final = (Reached.SENT, Reached.ACCEPTED, Reached.CLOSED, Reached.REJECTED, Reached.NOT_OVER)


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkOptions:
    """What was asked for on the command line. `state` and `rejects` stand next to the file, where nothing is said."""

    file: str
    wait: Wait
    timeout: float
    in_flight: int | None
    keep_going: bool
    state: Path | None
    rejects: Path | None
    dry_run: bool
    as_json: bool

    def beside(self, named: Path | None, ending: str) -> Path | None:
        """The file that was named, or one beside the input; None for a stream."""
        return named or (None if self.file == "-" else Path(f"{self.file}.{ending}"))


@dataclass(slots=True)
class _Tally:
    """What became of the lines so far."""

    lines: int
    bad: list[Bad]
    before: int = 0
    reached: Counter[Reached] = field(default_factory=Counter)
    rejected: list[Bad] = field(default_factory=list)
    stopped: str | None = None
    patience: float = 0.0
    taken: int = 0
    heard: float = field(default_factory=time.monotonic)

    def is_silent(self) -> bool:
        """Whether keshi has said nothing at all for as long as one answer is waited for."""
        return time.monotonic() - self.heard > self.patience

    @property
    def code(self) -> int:
        """The exit code."""
        if self.stopped:
            return 1
        if self.bad or self.rejected:
            return REJECTED
        return TIMED_OUT if self.reached[Reached.NOT_OVER] else 0

    def facts(self) -> dict[str, int]:
        """Numbers of lines. Each line counts once."""
        told = {"done_before": self.before, "bad": len(self.bad)}
        told |= {r.value: self.reached[r] for r in _ENDS}
        return {"lines": self.lines, **told, "left": self.lines - sum(told.values())}


def submit_file(options: BulkOptions) -> int:
    """Check all lines, send them, and tell what became of them.

    Returns:
        The exit code.

    Raises:
        Failure: a line is bad and --keep-going was not given: nothing was sent.
        ConfigurationError: something is not set up.
    """
    with opened(options.file) as file:
        good, bad = _checked(file)
        if options.dry_run:
            return _dry(options, len(good), bad)
        if bad and not options.keep_going:
            _tell(bad)
            raise Failure(
                f"{len(bad)} of {len(good) + len(bad)} lines are bad: nothing was sent; mend them, or leave them out "
                f"with --keep-going",
                REJECTED,
            )
        tally = _Tally(len(good) + len(bad), bad, patience=options.timeout)
        _send(options, file, good, tally)
    _close(options, tally)
    return tally.code


def _checked(file: IO[bytes]) -> tuple[list[Good], list[Bad]]:
    good: list[Good] = []
    bad: list[Bad] = []
    with Shown("checking lines", None) as shown:
        for line in judged(lines_of(file)):
            (good if isinstance(line, Good) else bad).append(line)  # type: ignore[arg-type] # as its type says
            shown.advance()
    return good, bad


def _send(options: BulkOptions, file: IO[bytes], good: Sequence[Good], tally: _Tally) -> None:
    kafka = load(KafkaSettings)
    path = options.beside(options.state, "state")
    with (
        Client(kafka, SOURCE) as client,
        Remembered(path, identity(kafka, "commands"), client.mark()) as kept,
    ):
        todo = [line for line in good if not kept.is_done(line, options.wait)]
        tally.before = len(good) - len(todo)
        results = client.submit_many(
            _messages(file, todo, kept, tally),
            wait=options.wait,
            in_flight=options.in_flight or IN_FLIGHT[options.wait],
            seconds=options.timeout,
            since=kept.mark if any(kept.is_accepted(line) for line in todo) else None,
            steps=True,
        )
        try:
            with Shown("sending", len(todo)) as shown:
                _follow(results, todo, kept, tally, shown)
        except ChangedError:
            tally.stopped = "the file was changed while it was being sent: run the same again"
        except ClientError as e:
            tally.stopped = str(e)
        except KeyboardInterrupt:
            note("keshi: interrupted; run the same again: what was accepted is not sent twice")
            raise


def _messages(file: IO[bytes], todo: Iterable[Good], kept: Remembered, tally: _Tally) -> Iterator[Message]:
    for line, raw in again(file, todo):
        tally.taken += 1
        yield Message(line.request_id, line.kind, None if kept.is_accepted(line) else raw)


def _follow(results: Iterable[Result], todo: Sequence[Good], kept: Remembered, tally: _Tally, shown: Shown) -> None:
    for result in results:
        line = todo[result.index]
        tally.heard = time.monotonic() if result.answer is not None else tally.heard
        if result.reached is not Reached.SENT or result.final:
            kept.add(line, result.reached)
        if not result.final:
            continue
        if result.reached is Reached.NOT_SENT:
            raise result.error or ClientError("not sent")
        if result.reached is Reached.NOT_OVER and tally.taken < len(todo) and tally.is_silent():
            raise ClientError("keshi answers nothing: see that its orchestrator runs. What was sent is not lost")
        tally.reached[result.reached] += 1
        if isinstance(result.answer, RequestRejected):
            answer = result.answer
            tally.rejected.append(Bad(line.number, answer.code.value, answer.field, answer.detail, line.request_id))
        shown.advance(f"{len(tally.rejected)} rejected" if tally.rejected else "")


# --- what is told


def _dry(options: BulkOptions, good: int, bad: Sequence[Bad]) -> int:
    if options.as_json:
        say_json({"lines": good + len(bad), "good": good, "bad": [_as_json(b, "here") for b in bad]})
    else:
        if bad:
            table(("line", "request", "code", "field", "detail"), [_row(b) for b in bad])
        note(f"{good} lines are in order, {len(bad)} are bad: nothing was sent")
    return REJECTED if bad else 0


def _tell(bad: Sequence[Bad]) -> None:
    for one in bad[:SHOWN]:
        note(f"line {one.number}: {one.code}{f' at {one.field}' if one.field else ''}: {one.detail}")
    if len(bad) > SHOWN:
        note(f"and {len(bad) - SHOWN} more: --dry-run shows all")


def _close(options: BulkOptions, tally: _Tally) -> None:
    told = tally.facts()
    path = options.beside(options.rejects, "rejects")
    written = _rejects(path, tally)
    if options.as_json:
        say_json(told | {"rejects": str(written) if written else None})
    else:
        say(", ".join(f"{n} {what.replace('_', ' ')}" for what, n in told.items() if n or what == "lines"))
        if written:
            note(f"the bad and the rejected are in {written}: mend those lines, and run the same again")
        elif tally.code == REJECTED:
            _tell(sorted([*tally.bad, *tally.rejected], key=lambda b: b.number))
    if tally.stopped:
        raise Failure(f"stopped with {told['left']} lines left: {tally.stopped}")
    if tally.code == TIMED_OUT:
        note("run the same again to go on waiting: what was accepted is not sent twice")


def _rejects(path: Path | None, tally: _Tally) -> Path | None:
    """Write the file of rejects, whole or not at all; take away one of an earlier run that is over."""
    if path is None:
        return None
    found = [(b, "here") for b in tally.bad] + [(b, "keshi") for b in tally.rejected]
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        if not found:
            path.unlink(missing_ok=True)
            return None
        lines = (json.dumps(_as_json(b, by), ensure_ascii=False) for b, by in sorted(found, key=lambda f: f[0].number))
        scratch.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        scratch.replace(path)
    except OSError as e:
        with suppress(OSError):
            scratch.unlink(missing_ok=True)
        raise ConfigurationError(f"cannot write {path} ({e.strerror}): name another place with --rejects") from None
    return path


def _as_json(bad: Bad, by: str) -> dict[str, Any]:
    told = {"line": bad.number, "request_id": bad.request_id, "code": bad.code, "field": bad.field}
    return {k: v for k, v in told.items() if v is not None} | {"detail": bad.detail, "found_by": by}


def _row(bad: Bad) -> tuple[object, ...]:
    return (bad.number, bad.request_id or "", bad.code, bad.field or "", bad.detail)
