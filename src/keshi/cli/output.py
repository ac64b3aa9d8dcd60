"""How commands show things: tables to a terminal, plain lines with tabs when piped, JSON where asked for."""

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text


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
    drawn = Table(title=title, title_justify="left", show_edge=False, pad_edge=False, header_style="bold")
    for n, column in enumerate(columns):
        drawn.add_column(column, overflow="fold", no_wrap=n == 0)  # the first names the row: to be copied whole
    for row in shown:
        drawn.add_row(*(Text(cell) for cell in row))
    Console(highlight=False).print(drawn)


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
