"""Where the development environment keeps its ledger when nobody says so."""

from pathlib import Path

import pytest

from keshi.dev.options import POSTGRESQL, SQLITE, UpOptions
from keshi.dev.stack import Stack


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (UpOptions(), SQLITE),
        (UpOptions(orchestrators=2), POSTGRESQL),
        (UpOptions(orchestrators=2, ledger=SQLITE), SQLITE),
        (UpOptions(ledger=POSTGRESQL), POSTGRESQL),
        (UpOptions(ledger="postgresql://h/d"), "postgresql://h/d"),
    ],
)
def test_a_file_unless_several_share_the_work_or_it_is_named(options: UpOptions, wanted: str, tmp_path: Path) -> None:
    stack = Stack(options)
    stack.directory = tmp_path
    assert stack._ledger_choice() == wanted


def test_what_is_kept_already_stays(tmp_path: Path) -> None:
    stack = Stack(UpOptions(data=tmp_path))
    stack.directory = tmp_path
    (tmp_path / "ledger").mkdir()
    assert stack._ledger_choice() == POSTGRESQL
