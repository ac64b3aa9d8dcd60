"""How far a long command is: a bar on a terminal, a plain line now and then where nobody looks."""

import sys
import time
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Final, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from keshi.cli.output import note

_SECONDS: Final = 5.0
_SOON: Final = 0.1


class Shown(AbstractContextManager["Shown"]):
    """Progress on standard error.

    Args:
        what: What is done, such as `checking`.
        total: How many there are; None where that is not known.
    """

    def __init__(self, what: str, total: int | None) -> None:
        self._what = what
        self._total = total
        self._done = 0
        self._said = time.monotonic()
        self._bar: Progress | None = None
        self._task: Any = None
        if sys.stderr.isatty():
            text = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[more]}"),
            )
            self._bar = Progress(*text, TimeRemainingColumn(), console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task(what, total=total, more="")

    def advance(self, more: str = "") -> None:
        """One more is done. `more` is shown behind the numbers."""
        self._done += 1
        if time.monotonic() - self._said < (_SECONDS if self._bar is None else _SOON):
            return
        self._said = time.monotonic()
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done, more=more)
        else:
            of = f" of {self._total}" if self._total is not None else ""
            note(f"{self._what}: {self._done}{of}{', ' if more else ''}{more}")

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()
