"""Tokens: shown once, kept hashed, each with what it may do; a file that is wrong is one clear line."""

from pathlib import Path

import pytest

from keshi.orchestrator.tokens import RIGHTS, Right, Role, load_tokens, new_token
from keshi.runtime.settings import ConfigurationError


def write(path: Path, *lines: str) -> Path:
    file = path / "tokens.yaml"
    file.write_text("\n".join(lines), encoding="utf-8")
    return file


def test_a_new_token_is_known_by_its_line_and_stands_nowhere_in_it(tmp_path: Path) -> None:
    worker = new_token("worker:billing", Role.WORKER, "billing")
    person = new_token("staff:kato", Role.DECIDER)
    tokens = load_tokens(write(tmp_path, worker.line, person.line))
    found = tokens.find(worker.token)
    assert found is not None
    assert (found.name, found.system) == ("worker:billing", "billing")
    assert found.may(Right.WORK)
    assert not found.may(Right.DECIDE)
    assert worker.token not in worker.line
    assert worker.token not in repr(worker) + repr(tokens) + repr(found)
    assert person.token != new_token("staff:kato", Role.DECIDER).token


@pytest.mark.parametrize("token", ["", "x", "keshi_reader_", "é" * 50, "\ud800", "x" * 10_000])
def test_what_is_no_token_is_nobodys(tmp_path: Path, token: str) -> None:
    assert load_tokens(write(tmp_path, new_token("staff:kato", Role.READER).line)).find(token) is None


def test_a_person_can_have_two_tokens_while_one_takes_the_place_of_the_other(tmp_path: Path) -> None:
    old, new = (new_token("staff:kato", Role.READER) for _ in range(2))
    tokens = load_tokens(write(tmp_path, old.line, new.line))
    assert tokens.find(old.token) is not None
    assert tokens.find(new.token) is not None


def test_roles_are_separate_rights() -> None:
    assert RIGHTS[Role.WORKER] == {Right.WORK}
    assert all(Right.WORK not in RIGHTS[role] for role in Role if role is not Role.WORKER)
    assert [role for role in Role if Right.DECIDE in RIGHTS[role]] == [Role.DECIDER]
    assert Right.READ_CLOSURES not in RIGHTS[Role.OPERATOR]


LINE = new_token("staff:kato", Role.READER).line


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ((), "holds no token"),
        (("{",), "not YAML"),
        (("tokens",), "valid list"),
        ((LINE, LINE), "stands there twice"),
        (("- {name: 'staff:kato', role: reader}",), "token 1, sha256: Field required"),
        ((LINE.replace("role: reader", "role: king"),), "token 1, role"),
        ((LINE.replace("staff:kato", "kato@mail.example"),), "token 1, name"),
        ((LINE, LINE.replace("role: reader", "role: worker")), "names its system"),
        ((LINE.replace("role: reader", "role: reader, system: crm"),), "names its system"),
        ((LINE.replace("role: reader", "role: reader, secret: hidden"),), "unknown field"),
    ],
)
def test_a_file_that_is_wrong_says_where_and_what_to_do(tmp_path: Path, lines: tuple[str, ...], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says) as told:
        load_tokens(write(tmp_path, *lines))
    message = str(told.value)
    assert message.startswith("KESHI_TOKENS_FILE: ")
    assert "\n" not in message
    assert not any(secret in message for secret in ("kato@mail.example", "king", "hidden"))


def test_a_missing_file_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="keshi tokens new"):
        load_tokens(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("name", "role", "system"),
    [("kato", Role.READER, None), ("staff:kato", Role.WORKER, None), ("staff:kato", Role.DECIDER, "crm")],
)
def test_no_token_is_made_that_the_file_would_not_take(name: str, role: Role, system: str | None) -> None:
    with pytest.raises(ConfigurationError):
        new_token(name, role, system)
