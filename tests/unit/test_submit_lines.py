"""A file of commands before anything is sent: its lines judged, and what earlier runs left read back."""

import io
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ulid import ULID

from keshi.cli import lines, run
from keshi.cli.lines import Bad, ChangedError, Good, again, judged, lines_of
from keshi.cli.remembered import Remembered
from keshi.client import Mark, Reached
from keshi.runtime.settings import ConfigurationError

EXAMPLES = Path(__file__).resolve().parents[2] / "schemas" / "published" / "examples"
MARK = "hanako-7391"
TOPIC = "0b7b5d3c-53b6-4c47-8a6c-6d6a4f7a1c11"


def line(kind: str = "EraseSubject", request_id: str | None = None, **data: Any) -> bytes:
    tree = json.loads((EXAMPLES / f"{kind}.json").read_bytes())
    tree["data"] |= {"request_id": request_id or str(ULID())} | data
    return json.dumps(tree).encode()


def judge(*raw: bytes) -> list[Good | Bad]:
    return list(judged(lines_of(io.BytesIO(b"\n".join(raw)))))


# --- lines


def test_every_kind_that_a_sender_has_is_good() -> None:
    kinds = ["EraseSubject", "SuspendUse", "ResumeUse", "StopProvision", "WithdrawRequest", "RecordNotice"]
    found = judge(*(line(kind) for kind in kinds))
    assert [type(f) for f in found] == [Good] * len(kinds)
    assert [f.kind for f in found if isinstance(f, Good)] == kinds


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (MARK.encode(), ("not_json", None)),
        (b'{"data": {}}', ("not_a_cloudevent", None)),
        (line("DecideTask"), ("type_unknown", "type")),
        (line(identifiers=[{"type": "email", "value": MARK}]), ("identifier_invalid", "data.identifiers.0")),
        (line(regime="gdpr"), ("ground_unknown", "data.ground")),
        (line(assessed={"by": "staff:kato", "at": MARK}), ("field_invalid", "data.assessed.at")),
        (line(**{MARK: MARK}), ("field_unknown", "data")),
        (line(identifiers=[{"type": "x-a", "value": "x" * 300_000}]), ("too_large", None)),
        (b'{"a": "' + b"\xff" * 9 + b'"}', ("not_json", None)),
        (b"[" * 100_000, ("not_json", None)),
    ],
)
def test_a_bad_line_has_its_number_a_code_and_a_field(raw: bytes, expected: tuple[str, str | None]) -> None:
    """What stands on it is not repeated; the lines around it are good."""
    first, bad, last = judge(line(), raw, line())
    assert isinstance(first, Good)
    assert isinstance(last, Good)
    assert isinstance(bad, Bad)
    assert (bad.number, bad.code, bad.field) == (2, *expected)
    assert bad.detail
    assert MARK not in repr(bad)
    assert last.number == 3


def test_empty_lines_and_other_endings_are_no_fault() -> None:
    """As editors and other systems leave them."""
    found = judge(b"\xef\xbb\xbf" + line() + b"\r", b"", b"  \t", line() + b"  ", b"")
    assert [(type(f), f.number) for f in found] == [(Good, 1), (Good, 4)]


def test_the_same_command_twice_is_told_with_the_line_of_the_first() -> None:
    """In whatever way its id is written. Another kind of command for the same request is no repeat."""
    name = str(ULID())
    found = judge(line(request_id=name), line("WithdrawRequest", name), line(request_id=name.lower()))
    assert [type(f) for f in found] == [Good, Good, Bad]
    bad = found[2]
    assert isinstance(bad, Bad)
    assert (bad.code, bad.request_id) == ("request_id_repeated", name)
    assert "line 1" in bad.detail


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_no_bytes_break_it(raw: bytes) -> None:
    assert all(isinstance(f, Bad) for f in judge(raw))


def test_lines_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MAX_LINES", 3)
    assert len(list(lines_of(io.BytesIO(b"1\n2\n3\n")))) == 3
    with pytest.raises(ConfigurationError, match="split it"):
        list(lines_of(io.BytesIO(b"1\n2\n3\n4\n")))
    monkeypatch.setattr(lines, "MAX_STREAM_BYTES", 3)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"1234")))
    with pytest.raises(ConfigurationError, match="write it to a file"), lines.opened("-"):
        pass


def test_a_line_that_was_changed_meanwhile_is_not_sent() -> None:
    """What was checked is what is sent."""
    first, second = line(), line()
    before = [g for g in judge(first, second) if isinstance(g, Good)]
    assert [raw for _, raw in again(io.BytesIO(first + b"\n" + second), before)] == [first, second]
    assert [raw for _, raw in again(io.BytesIO(first + b"\n" + second), before[1:])] == [second]
    changed = again(io.BytesIO(first + b"\n" + line()), before)
    assert next(changed)[1] == first
    with pytest.raises(ChangedError):
        next(changed)


# --- what was done before


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "requests.jsonl.state"


def good(kind: str = "EraseSubject") -> Good:
    return Good(1, str(ULID()), kind, 7)


def remember(path: Path | None, topic: str = TOPIC, mark: Mark | None = None) -> Remembered:
    return Remembered(path, topic, mark or Mark({0: 5}))


def test_what_was_reached_is_there_in_the_next_run(path: Path) -> None:
    """With the mark of the first one; for its user's eyes only."""
    sent, accepted, closed, new = (good() for _ in range(4))
    with remember(path) as kept:
        kept.add(sent, Reached.SENT)
        kept.add(accepted, Reached.ACCEPTED)
        kept.add(closed, Reached.ACCEPTED)
        kept.add(closed, Reached.CLOSED)
        kept.add(closed, Reached.ACCEPTED)
        kept.add(new, Reached.REJECTED)
    with remember(path, mark=Mark({0: 99})) as kept:
        assert kept.mark == Mark({0: 5})
        done = {w: [kept.is_done(g, w) for g in (sent, accepted, closed, new)] for w in ("none", "accepted", "closed")}
        assert done == {
            "none": [True, True, True, False],
            "accepted": [False, True, True, False],
            "closed": [False, False, True, False],
        }
        assert [kept.is_accepted(g) for g in (sent, accepted, closed, new)] == [False, True, True, False]
    assert path.stat().st_mode & 0o777 == 0o600
    _, *steps = path.read_text().splitlines()
    assert len(steps) == 4
    assert all(re.fullmatch(r"[sac] [0-9A-Z]{26} [A-Za-z]+", step) for step in steps)


def test_what_is_never_answered_is_done_when_it_is_sent(path: Path) -> None:
    withdrawal, notice = good("WithdrawRequest"), good("RecordNotice")
    with remember(path) as kept:
        kept.add(withdrawal, Reached.SENT)
        kept.add(notice, Reached.SENT)
        assert [kept.is_done(g, "accepted") for g in (withdrawal, notice)] == [True, True]
        assert [kept.is_done(g, "closed") for g in (withdrawal, notice)] == [False, True]


@settings(deadline=None, max_examples=60)
@given(cut=st.integers(0, 400))
def test_a_run_that_was_killed_at_any_byte_can_be_followed(cut: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whole lines count, half of one does not, and new ones go behind them."""
    path = tmp_path_factory.mktemp("cut") / "state"
    said = [good() for _ in range(5)]
    with remember(path) as kept:
        for one in said:
            kept.add(one, Reached.ACCEPTED)
    whole = path.read_bytes()
    path.write_bytes(whole[:cut])
    with remember(path) as kept:
        known = [kept.is_accepted(one) for one in said]
        assert sum(known) == max(0, whole[:cut].count(b"\n") - 1)
        kept.add(new := good(), Reached.ACCEPTED)
    with remember(path) as kept:
        assert [kept.is_accepted(one) for one in said] == known
        assert kept.is_accepted(new)


def test_two_runs_at_once_are_refused(path: Path) -> None:
    with remember(path), pytest.raises(ConfigurationError, match="in use"):
        remember(path)
    with remember(path):
        pass


def test_what_another_topic_took_does_not_count(path: Path) -> None:
    """The same file, sent to a test cluster first: its state must not keep anything from the real one."""
    with remember(path):
        pass
    with pytest.raises(ConfigurationError, match="another topic or cluster"):
        remember(path, topic="another")
    path.write_text("a file of somebody's\n")
    with pytest.raises(ConfigurationError, match="not what an earlier run left"):
        remember(path)
    with pytest.raises(ConfigurationError, match="--state"):
        remember(path.parent / "nowhere" / "state")


def test_without_a_file_it_is_kept_in_memory() -> None:
    one = good()
    with remember(None) as kept:
        kept.add(one, Reached.ACCEPTED)
        assert kept.is_accepted(one)


# --- the command, without a broker


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [n for n in os.environ if n.startswith("KESHI_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def test_a_dry_run_tells_all_bad_lines(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Needs no broker, writes nothing, and ends as the real run would."""
    bad = [line(regime="gdpr") for _ in range(25)]
    Path("r.jsonl").write_bytes(b"\n".join([line(), *bad, MARK.encode()]))
    assert run(["submit", "--file", "r.jsonl", "--dry-run"]) == 3
    said = capsys.readouterr()
    assert len(said.out.splitlines()) == 1 + 26
    assert said.out.splitlines()[1].split("\t")[0::2] == [
        "2",
        "ground_unknown",
        "no rule file has this ground in this regime",
    ]
    assert "1 lines are in order, 26 are bad" in said.err
    assert run(["submit", "--file", "r.jsonl", "--dry-run", "--json"]) == 3
    told = json.loads(capsys.readouterr().out)
    assert (told["lines"], told["good"], told["bad"][-1]["line"]) == (27, 1, 27)
    Path("good.jsonl").write_bytes(line())
    assert run(["submit", "--file", "good.jsonl", "--dry-run"]) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["good.jsonl", "r.jsonl"]
    assert MARK not in said.out + said.err


def test_bad_lines_keep_everything_from_being_sent(capsys: pytest.CaptureFixture[str]) -> None:
    """Before a broker is even asked for; the first of them are told."""
    Path("r.jsonl").write_bytes(b"\n".join([line(), *([MARK.encode()] * 30)]))
    assert run(["submit", "--file", "r.jsonl"]) == 3
    err = capsys.readouterr().err
    assert "line 2: not_json" in err
    assert "and 10 more: --dry-run shows all" in err
    assert "30 of 31 lines are bad: nothing was sent" in err
    assert MARK not in err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--file", "nosuch.jsonl"), "cannot read nosuch.jsonl"),
        (("--file", "x.jsonl", "erase", "--customer-id", "C-1"), "give one of them"),
        (("--wait", "closed"), "--file"),
        (("--file", "x.jsonl", "--wait", "for-ever"), "--wait"),
        (("--file", "x.jsonl", "--in-flight", "0"), "--in-flight"),
    ],
)
def test_what_cannot_begin_says_so(arguments: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["submit", *arguments]) == 2
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert says in said.err
