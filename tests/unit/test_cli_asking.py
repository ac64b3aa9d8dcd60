"""What the command line makes of questions and answers, without anything behind it."""

import csv
import json
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from keshi.cli import status, verify
from keshi.cli.errors import Failure
from keshi.cli.filters import Which, which
from keshi.cli.reading import moment_of
from keshi.cli.rows import COLUMNS, header, rows_of
from keshi.cli.verify import _problems
from keshi.orchestrator.asked import Filters
from keshi.orchestrator.views import Exported
from keshi.schemas.base import sha256
from keshi.schemas.identifiers import Identifier
from keshi.schemas.requests import RequestState

EXAMPLES = Path(__file__).resolve().parents[2] / "schemas" / "published" / "examples"


def closure() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((EXAMPLES / "RequestClosed.json").read_text(encoding="utf-8"))["data"]
    return found


def exported(**change: Any) -> Exported:
    data = closure()
    record = data["closure"]
    given = {name: record[name] for name in ("regime", "ground", "requested_by")}
    whole = {"number": 3, "request": data["state"], **given, "notified_at": None, "closure": record, **change}
    return Exported.model_validate_json(json.dumps(whole))


def read(*rows: str) -> list[dict[str, str]]:
    return list(csv.DictReader(StringIO(header() + "".join(rows))))


def test_a_row_for_each_outcome_of_each_system() -> None:
    rows = read(*rows_of(exported()))
    record = closure()["closure"]
    wanted = [(s["system"], o["category"], o["outcome"]) for s in record["systems"] for o in s["outcomes"]]
    assert [(r["system"], r["category"], r["outcome"]) for r in rows] == wanted
    assert {r["hash"] for r in rows} == {record["hash"]}
    assert tuple(rows[0]) == COLUMNS


def test_an_open_request_has_a_row_for_each_task() -> None:
    state = {**closure()["state"], "status": "open", "verdict": None, "closed_at": None, "closure_hash": None}
    state["tasks"] = [{"system": "crm", "status": "held", "attempt": 2, "reason": "over_limit"}]
    (row,) = read(*rows_of(exported(request=state, closure=None)))
    assert (row["system"], row["task"], row["outcome"], row["status"]) == ("crm", "held", "", "open")


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n"])
def test_no_cell_is_a_formula(start: str) -> None:
    """Whatever a code or reference begins with: models allow none of these, a later version might."""
    one = exported()
    bad = one.request.model_copy(update={"request_id": f"{start}HYPERLINK(1)"})
    rows = read(*rows_of(one.model_copy(update={"request": bad})))
    assert all(r["request_id"].startswith(f"'{start}") for r in rows)


def test_moments_are_days_in_a_zone_moments_or_days_from_now() -> None:
    tokyo = ZoneInfo("Asia/Tokyo")
    assert moment_of("2026-03-01", "--x", tokyo) == datetime(2026, 2, 28, 15, tzinfo=UTC)
    assert moment_of("2026-03-01T09:00:00+09:00", "--x", UTC) == datetime(2026, 3, 1, tzinfo=UTC)
    near = moment_of("+7d", "--x", UTC)
    assert near is not None
    assert abs(near - datetime.now(UTC) - timedelta(days=7)) < timedelta(minutes=1)
    assert moment_of(None, "--x", UTC) is None
    for wrong in ("2026-03-01T09:00:00", "march", "7d", "2026-13-01", ""):
        with pytest.raises(Failure, match="--x: write a day"):
            moment_of(wrong, "--x", UTC)


def test_filters_are_read_and_identifiers_never_shown() -> None:
    asked = which({"state": [], "late": False, "due_before": "+1d", "ground": "appi.22"}, "UTC")
    assert asked.filters.late is False
    assert asked.told().keys() == {"late", "due_before", "ground"}
    person = Which(Filters(), (Identifier(type="email", value="marked@person.example"),))
    assert person.told() == {"identifiers": 1}
    assert "marked" not in repr(person)


def test_an_identifier_without_a_type_is_refused_with_the_form_and_not_repeated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.stdin", StringIO("marked@person.example\nC-7391\n"))
    with pytest.raises(Failure, match=r"identifier 2: write an e-mail address.* such as customer_id=") as refused:
        which({}, "UTC", person=True)
    assert "7391" not in str(refused.value)


def test_a_list_marks_tasks_that_are_late_and_names_what_they_wait_for() -> None:
    given = {**closure()["state"], "status": "open", "verdict": None, "closed_at": None, "closure_hash": None}
    given["tasks"] = [
        {"system": "billing", "status": "waiting", "attempt": 0},
        {"system": "crm", "status": "held", "attempt": 2, "reason": "over_limit", "late": True},
        {"system": "partners", "status": "scheduled", "attempt": 2, "reason": "unavailable", "left": ["one", "two"]},
    ]
    state = RequestState.model_validate_json(json.dumps(given))
    assert status._row(state, UTC)[-1] == "billing waiting; crm held (late); partners scheduled: one, two"


def test_each_way_of_changing_a_record_is_named() -> None:
    record = closure()["closure"]

    def problems(previous: str = record["previous"], **change: Any) -> str:
        return "; ".join(_problems({**record, **change}, record["number"], previous, record["partition"]))

    def resealed(**change: Any) -> dict[str, Any]:
        body = {k: v for k, v in {**record, **change}.items() if k != "hash"}
        return {**change, "hash": sha256(body)}

    assert problems() == ""
    assert "its hash is not the one" in problems(verdict="fulfilled")
    assert problems(**resealed(plan_hash="0" * 64)) == "its plan was changed"
    assert "does not follow" in problems(previous="1" * 64)
    assert "it says that it is number 9" in problems(**resealed(number=9))
    assert "belongs to chain 77" in problems(**resealed(partition=77))


def test_saved_ends_that_are_none_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "heads.json"
    for content in ("", "{}", '[{"partition": 0}]'):
        file.write_text(content, encoding="utf-8")
        with pytest.raises(Failure, match="holds no ends of chains"):
            verify._kept(file)
