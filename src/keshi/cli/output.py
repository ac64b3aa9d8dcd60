"""How commands show things: tables to a terminal, plain lines with tabs when piped, JSON where asked for."""

import json
import re
import sys
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

_MOMENT: Final = re.compile(r"\d{4}-\d\d-\d\d(T\S+)?")
_LEAST: Final = 8
"""Characters that every other column keeps. Where there is less room, moments are broken between day and time."""
_BETWEEN: Final = 3
"""Characters between two columns."""


def say(line: str = "") -> None:
    """A line of the answer."""
    sys.stdout.write(line + "\n")


def note(line: str) -> None:
    """A line beside the answer."""
    sys.stderr.write(line + "\n")


def say_json(data: Any) -> None:
    """One line of JSON."""
    say(json.dumps(data, ensure_ascii=False, separators=(",", ":")))


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str | None = None) -> None:
    """A table; with tabs and a heading line when nobody looks at it."""
    shown = [[clean(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        for row in (columns, *shown):
            say("\t".join(row))
        return
    console = Console(highlight=False)
    # The first names the row: to be copied whole.
    whole = {0, *(n for n in range(len(columns)) if _moments([row[n] for row in shown]))}
    if not _fits(columns, shown, whole, console.width):
        shown = [[_broken(cell) for cell in row] for row in shown]
    drawn = Table(title=title, title_justify="left", show_edge=False, pad_edge=False, header_style="bold")
    for n, column in enumerate(columns):
        drawn.add_column(column, overflow="fold", no_wrap=n in whole)
    for row in shown:
        drawn.add_row(*(Text(cell) for cell in row))
    console.print(drawn)


def _moments(cells: Iterable[str]) -> bool:
    """Whether a column holds days or moments, and nothing else."""
    said = [cell for cell in cells if cell]
    return bool(said) and all(_MOMENT.fullmatch(cell) for cell in said)


def _broken(cell: str) -> str:
    return cell.replace("T", "\n") if _MOMENT.fullmatch(cell) else cell


def _fits(columns: Sequence[str], rows: Sequence[Sequence[str]], whole: AbstractSet[int], width: int) -> bool:
    """Whether a table leaves room to the other columns when these are not broken."""
    longest = [max(len(row[n]) for row in (columns, *rows)) for n in range(len(columns))]
    least = sum(size if n in whole else min(size, _LEAST) for n, size in enumerate(longest))
    return least + _BETWEEN * (len(columns) - 1) <= width


def heading(line: str) -> None:
    """A heading between tables."""
    if sys.stdout.isatty():
        Console(highlight=False).print(Text(f"\n{line}", style="bold"))
    else:
        say(f"\n{line}")


def clean(cell: object) -> str:
    """Text without anything that moves a cursor or breaks a line."""
    text = "" if cell is None else str(cell)
    return "".join(c if c.isprintable() else " " for c in text)
