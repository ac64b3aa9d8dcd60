"""`keshi config show`: every setting with value and origin, and no secret, whatever is set and however wrong it is."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from keshi.cli import run
from keshi.cli.config import all_settings

MARK = "Marked.Secret-7391"


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [n for n in os.environ if n.startswith("KESHI_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def show(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, dict[str, list[str]], str]]:
    def call(*arguments: str) -> tuple[int, dict[str, list[str]], str]:
        code = run(["config", "show", *arguments])
        said = capsys.readouterr()
        assert MARK not in said.out + said.err
        rows = [line.split("\t") for line in said.out.splitlines()[1:]]
        return code, {name: rest for name, *rest in rows}, said.err

    return call


def test_every_setting_is_there_with_its_default(show: Any) -> None:
    """Nothing is set; nothing of a deployment is needed."""
    code, rows, err = show()
    assert (code, err) == (0, "")
    assert rows["KESHI_KAFKA_BOOTSTRAP"] == ["127.0.0.1:9092", "default"]
    assert rows["KESHI_RETRY_SCHEDULE"] == ["[60, 300, 1800, 7200, 21600, 86400]", "default"]
    assert rows["KESHI_ENVIRONMENT"] == ["production", "default"]
    assert rows["KESHI_LEASE_SECONDS"] == ["10", "default"]
    assert {rows[n][0] for n in ("KESHI_LEDGER_URL", "KESHI_KEK", "KESHI_API_TOKEN", "KESHI_BILLING_DSN")} == {"unset"}


def test_what_is_shown_is_what_the_readme_lists(show: Any) -> None:
    """And so what the code reads; one that tests alone set is not told of."""
    readme = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
    listed = {line.split("`")[1] for line in readme.splitlines() if line.startswith("| `KESHI_")}
    _, rows, _ = show()
    assert set(rows) == listed


SECRETS = {
    "KESHI_KAFKA_SASL_PASSWORD": MARK,
    "KESHI_API_TOKEN": MARK,
    "KESHI_API_TOKENS": json.dumps({"crm": MARK}),
    "KESHI_LEDGER_URL": f"postgresql://a:{MARK}@b/c",
    "KESHI_KEK": MARK,
    "KESHI_BILLING_DSN": f"postgresql://a:{MARK}@b/c",
    "KESHI_CRM_TOKEN": MARK,
}


def test_a_secret_is_only_said_to_be_set(show: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where it hides in an address."""
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("KESHI_CRM_URL", f"https://user:{MARK}@crm.example/api")
    code, rows, _ = show("--changed")
    assert code == 0
    assert {rows.pop(name)[0] for name in SECRETS} == {"set"}
    assert rows == {"KESHI_CRM_URL": ["https://…@crm.example/api", "environment"]}


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_that_is_empty_is_unset(name: str, show: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "{}" if name.endswith("TOKENS") else "")
    assert show()[1][name][0] == "unset"


def test_each_wrong_value_is_told_and_the_others_are_shown(show: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the variable, what is wrong, and exit code 1; never with the value."""
    wrong = {
        "KESHI_API_PORT": "99999",
        "KESHI_RETRY_SCHEDULE": MARK,
        "KESHI_KAFKA_SECURITY_PROTOCOL": MARK,
        "KESHI_API_TOKENS": MARK,
        "KESHI_LEASE_SECONDS": MARK,
    }
    for name, value in (wrong | {"KESHI_API_HOST": "0.0.0.0"}).items():  # noqa: S104 - a value, nobody listens
        monkeypatch.setenv(name, value)
    code, rows, err = show()
    assert code == 1
    assert {rows[name][0] for name in wrong} == {"not usable"}
    assert rows["KESHI_API_HOST"] == ["0.0.0.0", "environment"]  # noqa: S104
    assert {line.split(":")[0] for line in err.splitlines()} == set(wrong)


def test_a_variable_that_nobody_reads_is_told_with_the_one_that_is_meant(
    show: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KESHI_KAFKA_BOOTSTRP", MARK)
    monkeypatch.setenv("KESHI_NEWSLETTER_URL", MARK)
    code, rows, err = show()
    assert code == 0
    assert rows["KESHI_KAFKA_BOOTSTRAP"][1] == "default"
    assert "KESHI_KAFKA_BOOTSTRP is set, and nothing here reads it: is KESHI_KAFKA_BOOTSTRAP meant?" in err
    assert "KESHI_NEWSLETTER_URL is set, and nothing here reads it (a handler" in err


def test_the_same_as_json(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret has no value there, either."""
    monkeypatch.setenv("KESHI_API_TOKEN", MARK)
    monkeypatch.setenv("KESHI_API_PORT", "-1")
    assert run(["config", "show", "--json"]) == 1
    out = capsys.readouterr().out
    assert MARK not in out
    told = {s["name"]: s for s in json.loads(out)}
    assert told["KESHI_API_TOKEN"] == {"name": "KESHI_API_TOKEN", "from": "environment", "set": True, "secret": True}
    assert told["KESHI_KAFKA_PREFIX"]["value"] == "keshi."
    assert "problem" in told["KESHI_API_PORT"]
    assert "value" not in told["KESHI_API_PORT"]


def test_settings_name_themselves_once() -> None:
    names = [s.name for s in all_settings()[0]]
    assert names == sorted(set(names))
