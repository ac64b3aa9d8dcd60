"""The DSAR team's page says what is so: its message can be sent, its tables are those of the code, its programs are."""

import json
import re
from pathlib import Path
from typing import Any

from keshi.schemas.admissible import check
from keshi.schemas.commands import COMMANDS, Regime, Requester, Scope, SubjectCommand
from keshi.schemas.envelope import MAX_COMMAND_BYTES
from keshi.schemas.identifiers import KNOWN_TYPES
from keshi.schemas.reading import read
from keshi.schemas.requests import EVENTS, RejectionCode

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "send-a-command.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)


def rows(heading: str) -> list[list[str]]:
    """Of the table with this heading line."""
    _, _, rest = PAGE.partition(f"{heading}\n")
    assert rest
    lines = rest.splitlines()[1:]
    end = next(n for n, line in enumerate(lines) if not line.startswith("|"))
    return [[c.strip() for c in line.strip("|").split("|")] for line in lines[:end]]


def words(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_the_message_can_be_sent() -> None:
    (text,) = blocks("json")
    _, command = read(text.encode(), COMMANDS, limit=MAX_COMMAND_BYTES)
    assert isinstance(command, SubjectCommand)
    check(command)


def test_the_commands_are_those_that_a_sender_has() -> None:
    listed = [words(r[0])[0] for r in rows("| type | what is asked |")]
    assert {f"keshi.{name}.v1" for name in listed} == COMMANDS.keys() - {"keshi.DecideTask.v1"}


def test_the_fields_are_those_of_the_message() -> None:
    """With what is needed, and every value that there is to choose."""
    listed = {words(r[0])[0]: (r[1], words(r[2])) for r in rows("| field | | what |")}
    fields = SubjectCommand.model_fields
    assert list(listed) == list(fields)
    assert {n for n, (needed, _) in listed.items() if needed == "needed"} == {
        n for n, f in fields.items() if f.is_required()
    }
    assert set(KNOWN_TYPES) <= set(listed["identifiers"][1])
    assert {r.value for r in Regime} == set(listed["regime"][1])
    kinds: Any = Requester.model_json_schema()["properties"]["kind"]["enum"]
    assert set(kinds) <= set(listed["requested_by"][1])


def test_the_answers_are_those_of_the_topic() -> None:
    listed = [words(r[0])[0] for r in rows("| type | when | what to do |")]
    assert {f"keshi.{name}.v1" for name in listed} == EVENTS.keys() - {"keshi.Quarantined.v1"}


def test_every_rejection_has_a_way_out() -> None:
    """But for those of decisions, which a sender never makes."""
    listed = [w for r in rows("| codes | what to do |") for w in words(r[0])]
    assert len(listed) == len(set(listed))
    assert set(listed) == {c.value for c in RejectionCode} - {"signature_invalid", "decision_not_applicable"}


def test_every_scope_that_is_shown_is_one() -> None:
    shown = [json.loads(words(r[0])[0]) for r in rows("| scope | only |")]
    for scope in shown:
        assert Scope.model_validate_json(json.dumps(scope)).narrowed
    assert {name for scope in shown for name in scope} == set(Scope.model_fields)


def test_its_python_is_whole() -> None:
    """Run against everything in tests/end_to_end/test_cli.py."""
    found = blocks("python")
    assert len(found) == 3
    for code in found:
        names: dict[str, Any] = {"__name__": "page"}
        exec(compile(code, "docs/send-a-command.md", "exec"), names)  # noqa: S102 - our own document
        assert any(callable(v) for n, v in names.items() if n in {"erase", "sweep", "follow"})
