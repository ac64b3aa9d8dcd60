"""The command line without anything behind it: help, checks, one-line errors, and no word of a person in them."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.main import get_command

from keshi.cli import run
from keshi.cli.app import app
from keshi.cli.decisions import REFUSES
from keshi.cli.topics import milliseconds
from keshi.orchestrator.tokens import Role, load_tokens
from keshi.runtime.sealing import key_ring
from keshi.runtime.settings import KeySettings
from keshi.schemas.admissible import check
from keshi.schemas.commands import COMMANDS
from keshi.schemas.envelope import MAX_COMMAND_BYTES
from keshi.schemas.grounds import grounds
from keshi.schemas.reading import read

BY = ("--assessed-by", "staff:kato")
MARK = "Marked.Person-7391"


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [n for n in os.environ if n.startswith("KESHI_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def keshi(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def call(*arguments: str) -> tuple[int, str, str]:
        code = run(arguments)
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, (*path, name))


EVERY = dict(commands(get_command(app)))


@pytest.mark.parametrize("path", EVERY, ids=" ".join)
def test_every_command_has_a_complete_help(path: tuple[str, ...], keshi: Any) -> None:
    """It says what it does, and each of its options says what it is for."""
    code, out, err = keshi(*path, "--help")
    assert (code, err) == (0, "")
    assert "Usage: keshi" in out
    command = EVERY[path]
    assert command.help
    for parameter in command.params:
        assert getattr(parameter, "help", None) or parameter.name == "file", (path, parameter.name)


def test_what_refuses_stands_in_the_help_and_in_the_error(keshi: Any) -> None:
    assert set(REFUSES.split(", ")) == {g.id for g in grounds().values() if g.refuses}
    code, _, err = keshi("decide", "01KN33YH80E7QZ3V5W9T2B4M6A", "crm", "refuse", "--reason", "hers")
    assert (code, err) == (2, f"keshi: --ground: a refusal needs one of {REFUSES}\n")


def test_the_installed_program_runs() -> None:
    """`keshi` as a shell finds it, and as a module."""
    for program in ([str(Path(sys.executable).with_name("keshi"))], [sys.executable, "-m", "keshi.cli"]):
        done = subprocess.run([*program, "version"], capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stdout.count("\n"), done.stderr) == (0, 1, "")


def test_without_a_command_it_shows_its_help_and_fails(keshi: Any) -> None:
    code, out, err = keshi("submit")
    assert code == 2
    assert "suspend-use" in out
    assert err == ""


NOT_SET_UP = {
    ("orchestrator", "run"): "KESHI_INVENTORY",
    ("api", "run"): "KESHI_",
    ("handler", "run"): "KESHI_WORKER_ALLOWED_HANDLERS",
    ("handler", "run", "nosuch"): "nosuch",
    ("handler", "run", "billing"): "KESHI_BILLING_DSN",
    ("ledger", "check"): "KESHI_LEDGER_URL",
    ("ledger", "migrate"): "KESHI_LEDGER_URL",
    ("topics", "apply"): "KESHI_INVENTORY",
    ("status",): "KESHI_API_TOKEN",
    ("inventory", "check"): "KESHI_INVENTORY",
    ("submit", "erase", "--email", "a@b.example"): "--assessed-by",
    ("submit", "erase", *BY): "--email",
    ("tokens", "new", "staff:kato", "--role", "worker"): "system",
    ("tokens", "new", "a b", "--role", "reader"): "name",
    ("keys", "new", "two words"): "ID",
    ("submit", "erase", "--nosuch"): "--nosuch",
    ("nosuch",): "nosuch",
    ("topics", "apply", "--commands-retention", "soon"): "7d",
}


@pytest.mark.parametrize("arguments", NOT_SET_UP, ids=" ".join)
def test_what_cannot_begin_says_so_in_one_line(arguments: tuple[str, ...], keshi: Any) -> None:
    """Exit code 2, nothing on standard output, and the line names what to set."""
    code, out, err = keshi(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("keshi: ")
    assert err.count("\n") == 1
    assert NOT_SET_UP[arguments] in err


@pytest.mark.parametrize(
    ("variable", "value", "arguments"),
    [
        ("KESHI_LEDGER_URL", f"postgresql://a:{MARK}@127.0.0.1:1/x", ("ledger", "check")),
        ("KESHI_LEDGER_URL", f"{MARK}://x", ("ledger", "migrate")),
        ("KESHI_API_TOKEN", MARK, ("status",)),
        ("KESHI_API_TIMEOUT_SECONDS", MARK, ("status",)),
        ("KESHI_API_TOKENS", MARK, ("handler", "run", "crm")),
    ],
)
def test_a_wrong_setting_is_named_and_never_shown(
    variable: str, value: str, arguments: tuple[str, ...], keshi: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KESHI_API_URL", "http://127.0.0.1:1")
    monkeypatch.setenv(variable, value)
    code, out, err = keshi(*arguments)
    assert code in {1, 2}
    assert MARK not in out + err
    assert err.startswith("keshi: ")
    assert err.count("\n") == 1
    assert "KESHI_" in err


# --- submit


def event(out: str) -> tuple[Any, Any]:
    assert out.count("\n") == 1
    return read(out.encode(), COMMANDS, limit=MAX_COMMAND_BYTES)


def test_a_dry_run_prints_a_command_that_keshi_takes(keshi: Any) -> None:
    """All options arrive in the message, and it passes the checks of intake."""
    code, out, err = keshi(
        *("submit", "suspend-use", "--dry-run", *BY),
        *("--email", "A@b.example", "--email", "c@d.example", "--phone", "+819012345678"),
        *("--identifier", "x-member=77=1", "--category", "contacts", "--regime", "gdpr", "--ground", "gdpr.18"),
        *("--requested-by", "agent", "--identity-evidence", "e:1", "--mandate-evidence", "m:1"),
        *("--assessed-at", "2026-04-01T10:00:00Z", "--arrived-at", "2026-04-01T09:00:00+09:00"),
        *("--channel", "channel:letter", "--due", "2026-05-01T00:00:00Z", "--language", "en"),
        *("--request-id", "5F0C2A6E-3B7D-4C1A-9E58-D2417F60B3A9"),
    )
    assert (code, err) == (0, "")
    envelope, command = event(out)
    check(command)
    assert envelope.type == "keshi.SuspendUse.v1"
    assert command.model_dump(mode="json", exclude_none=True) == {
        "request_id": "5f0c2a6e-3b7d-4c1a-9e58-d2417f60b3a9",
        "identifiers": [
            {"type": "email", "value": "A@b.example"},
            {"type": "email", "value": "c@d.example"},
            {"type": "phone", "value": "+819012345678"},
            {"type": "x-member", "value": "77=1"},
        ],
        "scope": {"categories": ["contacts"]},
        "regime": "gdpr",
        "ground": "gdpr.18",
        "requested_by": {"kind": "agent", "identity_evidence": ["e:1"], "mandate_evidence": ["m:1"]},
        "assessed": {"by": "staff:kato", "at": "2026-04-01T10:00:00Z"},
        "arrived": {"at": "2026-04-01T09:00:00+09:00", "channel": "channel:letter"},
        "due": "2026-05-01T00:00:00Z",
        "notice_language": "en",
    }


@pytest.mark.parametrize(
    ("kind", "more", "regime", "ground"),
    [
        ("erase", (), "appi", "appi.35-5"),
        ("resume-use", (), "appi", "appi.35-5"),
        ("stop-provision", (), "appi", "appi.35-5"),
        ("erase", ("--regime", "ccpa"), "ccpa", "ccpa.deletion"),
        ("erase", ("--ground", "gdpr.17"), "gdpr", "gdpr.17"),
    ],
)
def test_regime_and_ground_say_each_other(kind: str, more: Any, regime: str, ground: str, keshi: Any) -> None:
    _, out, _ = keshi("submit", kind, "--customer-id", "C-1", "--dry-run", *BY, *more)
    command = event(out)[1]
    assert (command.regime, command.ground) == (regime, ground)


def test_identifiers_come_from_standard_input(keshi: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """So that nobody sees them in the list of processes; a file does as well."""
    given_list = json.dumps([{"type": "email", "value": "a@b.example"}])
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given_list.encode())))
    _, out, _ = keshi("submit", "erase", "--identifiers-file", "-", "--dry-run", *BY)
    assert event(out)[1].identifiers[0].value == "a@b.example"
    (tmp_path / "ids.json").write_text(given_list)
    _, out, _ = keshi("submit", "erase", "--identifiers-file", "ids.json", "--customer-id", "C-1", "--dry-run", *BY)
    assert {i.type for i in event(out)[1].identifiers} == {"email", "customer_id"}


ID = ("--customer-id", "C-1")
REFUSED = {
    "identifier_invalid": (("--email", MARK), "--email"),
    "text_invalid": (("--customer-id", "a\udcffb"), "data.identifiers.0.value"),
    "field_invalid": ((*ID, "--arrived-at", "2026-04-01T09:00:00"), "--arrived-at"),
    "ground_unknown": ((*ID, "--ground", "appi.99"), "--ground"),
    "ground_not_for_action": ((*ID, "--ground", "gdpr.18"), "--ground"),
    "identifier_in_reference": (("--customer-id", MARK, "--channel", f"channel:{MARK}"), "--channel"),
    "field_unknown": (("--identifiers-file", "unknown.json"), "--email"),
    "field_missing": (("--identifiers-file", "missing.json"), "--email"),
}


@pytest.mark.parametrize("code", REFUSED)
def test_a_bad_command_is_refused_here_with_the_code_that_keshi_would_answer(
    code: str, keshi: Any, tmp_path: Path
) -> None:
    """Exit code 3 and one line: code, field and option; what was typed is not repeated."""
    (tmp_path / "unknown.json").write_text(json.dumps([{"type": "email", "value": "a@b.example", MARK: 1}]))
    (tmp_path / "missing.json").write_text(json.dumps([{"type": "email"}]))
    arguments, place = REFUSED[code]
    ended, out, err = keshi("submit", "erase", "--dry-run", *BY, *arguments)
    assert (ended, out) == (3, "")
    assert err.startswith(f"keshi: {code} at data.")
    assert err.count("\n") == 1
    assert place in err
    assert MARK not in err


@pytest.mark.parametrize(
    "arguments",
    [
        ("erase", MARK),
        ("erase", "--emial", f"{MARK}@x.example"),
        ("erase", f"--emial={MARK}@x.example"),
        ("erase", "--identifier", MARK),
        ("erase", "--identifier", f"{MARK}={MARK}"),
        ("erase", "--timeout", MARK, *ID),
        ("erase", "--regime", MARK, *ID),
        ("erase", "--requested-by", MARK, *ID),
        ("erase", "--request-id", MARK, *ID),
        ("erase", "--category", MARK, *ID),
        ("erase", "--identifiers-file", "marked.json"),
        ("withdraw", MARK),
        ("withdraw", "01KN33YH80E7QZ3V5W9T2B4M6A", MARK),
    ],
)
def test_no_mistake_makes_it_repeat_what_was_typed(arguments: tuple[str, ...], keshi: Any, tmp_path: Path) -> None:
    (tmp_path / "marked.json").write_text(f'{{"{MARK}"')
    code, out, err = keshi("submit", *arguments, *(BY if arguments[0] == "erase" else ()))
    assert code in {2, 3}
    assert MARK not in out + err
    assert err.count("\n") == 1


def test_an_error_of_its_own_shows_its_class_and_place_alone(keshi: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The text of an exception may hold anybody's data."""

    def broken(*_: object) -> None:
        raise RuntimeError(MARK)

    monkeypatch.setattr("keshi.cli.submit.read_command", broken)
    code, out, err = keshi("submit", "erase", *ID, *BY)
    assert (code, out) == (1, "")
    assert "RuntimeError in " in err
    assert MARK not in err


# --- the rest


def test_a_new_key_can_be_used(keshi: Any, tmp_path: Path) -> None:
    code, out, _ = keshi("keys", "new", "kek-1")
    assert code == 0
    (tmp_path / "kek").write_text(out)
    assert key_ring(KeySettings(kek_file=tmp_path / "kek")).current == "kek-1"


def test_a_new_token_opens_with_its_line(keshi: Any, tmp_path: Path) -> None:
    """The token is shown once; the file holds its hash alone."""
    _, out, _ = keshi("tokens", "new", "worker:crm", "--role", "worker", "--system", "crm")
    token, line = out.splitlines()
    (tmp_path / "tokens.yaml").write_text(line + "\n")
    assert token not in line
    found = load_tokens(tmp_path / "tokens.yaml").find(token)
    assert found
    assert (found.name, found.role, found.system) == ("worker:crm", Role.WORKER, "crm")
    _, out, _ = keshi("tokens", "new", "staff:kato", "--role", "decider", "--json")
    assert set(json.loads(out)) == {"token", "line"}


@pytest.mark.parametrize(
    ("text", "expected"), [("90s", 90_000), ("15m", 900_000), ("12h", 43_200_000), ("7d", 604_800_000)]
)
def test_times_are_written_with_a_unit(text: str, expected: int) -> None:
    assert milliseconds(text) == expected


@given(st.text(max_size=12))
def test_no_text_breaks_the_reading_of_a_time(text: str) -> None:
    try:
        assert milliseconds(text) > 0
    except Exception as e:  # noqa: BLE001 - which it is, is the question
        assert type(e).__name__ == "BadParameter"  # noqa: PT017


def test_the_schemas_are_written_and_checked(keshi: Any, tmp_path: Path) -> None:
    """A file that was changed, is missing or is left over is found by --check, and put right without it."""
    code, out, _ = keshi("schemas", "publish", "--directory", "p")
    assert code == 0
    assert out.count("written: ") == len(list((tmp_path / "p").rglob("*.json")))
    assert keshi("schemas", "publish", "--directory", "p", "--check")[0] == 0
    (tmp_path / "p" / "EraseSubject.v1.json").write_text("{}")
    (tmp_path / "p" / "Old.v1.json").write_text("{}")
    (tmp_path / "p" / "examples" / "EraseSubject.json").unlink()
    code, out, err = keshi("schemas", "publish", "--directory", "p", "--check")
    assert code == 1
    assert out.splitlines() == [
        "not current: EraseSubject.v1.json",
        "not current: examples/EraseSubject.json",
        "left over: Old.v1.json",
    ]
    assert "keshi schemas publish" in err
    keshi("schemas", "publish", "--directory", "p")
    assert keshi("schemas", "publish", "--directory", "p", "--check")[0] == 0
