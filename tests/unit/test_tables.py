"""Lists as a terminal shows them: what names a row and moments can be read and copied at any width."""

import io
import re
import sys
from collections.abc import Sequence

import pytest

from keshi.cli.output import table

COLUMNS = ("request", "action", "status", "verdict", "arrived", "due", "open tasks", "outcomes")
ID = "01KN33YH80E7QZ3V5W9T2B4M6A"
OUTCOMES = "partners sakura_logistics: not_started; partners oceania_loyalty: erased 1"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def seen(monkeypatch: pytest.MonkeyPatch, width: int, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """What a terminal of this width shows, without its colours."""
    terminal = Terminal()
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", terminal)
        for name, value in {"COLUMNS": str(width), "LINES": "25", "TERM": "xterm"}.items():
            patched.setenv(name, value)
        table(columns, rows)
    return re.sub(r"\x1b\[[0-9;]*m", "", terminal.getvalue())


def drawn(monkeypatch: pytest.MonkeyPatch, width: int, *, zone: str = "+09:00", columns: int = 8) -> list[list[str]]:
    """The cells of each line below the heading."""
    due = f"2026-12-13T11:57{zone}"
    rows = (
        (
            ID,
            "suspend_use",
            "closed (withdrawn)",
            "fulfilled_with_exceptions",
            f"2026-11-29T11:56{zone}",
            due,
            "",
            OUTCOMES,
        ),
        (ID, "erase", "open", "", "", due, "crm open (late)", ""),
    )
    lines = seen(monkeypatch, width, COLUMNS[:columns], [row[:columns] for row in rows]).splitlines()
    assert max(len(line) for line in lines) <= width
    return [[cell.strip() for cell in line.split("│")] for line in lines if "│" in line]


@pytest.mark.parametrize("zone", ["Z", "+09:00"])
@pytest.mark.parametrize("columns", [7, 8])
def test_moments_are_whole_and_the_other_columns_give_way(
    monkeypatch: pytest.MonkeyPatch, zone: str, columns: int
) -> None:
    lines = drawn(monkeypatch, 150, zone=zone, columns=columns)
    assert [line[4] for line in lines if line[4]] == [f"2026-11-29T11:56{zone}"]
    assert [line[5] for line in lines if line[5]] == [f"2026-12-13T11:57{zone}"] * 2
    assert "".join(line[3] for line in lines) == "fulfilled_with_exceptions"


@pytest.mark.parametrize("zone", ["Z", "+09:00"])
@pytest.mark.parametrize("width", [100, 80])
def test_where_it_is_narrow_moments_are_broken_between_day_and_time(
    monkeypatch: pytest.MonkeyPatch, zone: str, width: int
) -> None:
    lines = drawn(monkeypatch, width, zone=zone)
    assert [line[0] for line in lines if line[0]] == [ID] * 2
    assert [line[4] for line in lines if line[4]] == ["2026-11-29", f"11:56{zone}"]
    assert [line[5] for line in lines if line[5]] == ["2026-12-13", f"11:57{zone}"] * 2


def test_what_is_not_only_moments_is_folded_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [("arrived", "2026-11-29T11:56:00+09:00"), ("hash", "f" * 64)]
    assert seen(monkeypatch, 30, ("what", "value"), rows).count("f") == 64
