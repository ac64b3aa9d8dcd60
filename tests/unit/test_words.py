"""Every code that a record can hold has its sentence, in each language; what is new can be read all the same."""

import ast
import string
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime
from functools import cache
from pathlib import Path
from typing import Any, get_args
from zoneinfo import ZoneInfo

import pytest

from keshi.handlers.errors import HandlerError, slug
from keshi.handlers.worker import judge
from keshi.orchestrator.inventory import load
from keshi.orchestrator.words import LANGUAGES, Language, Words, catalogue
from keshi.schemas.closure import ObligationRecord
from keshi.schemas.commands import Action, Decision, Regime, Requester
from keshi.schemas.grounds import grounds
from keshi.schemas.identifiers import KNOWN_TYPES
from keshi.schemas.inventory import Role
from keshi.schemas.outcomes import NOT_PROVIDED, DecidedBy, Outcome, Verdict
from keshi.schemas.requests import RequestStatus, TaskStatus
from keshi.schemas.tasks import HOLDS

ROOT = Path(__file__).resolve().parents[2]
WORDS = [Words(language) for language in LANGUAGES]
KINDS = set(get_args(ObligationRecord.model_fields["kind"].annotation))

FAMILIES: dict[str, set[str]] = {
    "action": set(Action),
    "asked": set(Action),
    "regime": set(Regime),
    "requester": set(get_args(Requester.model_fields["kind"].annotation)),
    "ground": set(grounds()),
    "verdict": set(Verdict),
    "status": set(RequestStatus),
    "outcome": set(Outcome),
    "decided_by": set(DecidedBy),
    "decision": set(Decision),
    "task": set(TaskStatus),
    "identifier": set(KNOWN_TYPES),
    "role": set(Role),
    "kept": KINDS,
    "to_do": KINDS,
}


# --- codes that stand as literals in the code of keshi and of its handlers


def modules() -> Iterator[tuple[ast.Module, Mapping[str, str]]]:
    """Each module with its constants."""
    for room in ("orchestrator", "handlers"):
        for path in (ROOT / room).rglob("*.py"):
            if "testing" not in path.parts:
                tree = ast.parse(path.read_text(encoding="utf-8"))
                yield tree, dict(_constants(tree))


def _constants(tree: ast.Module) -> Iterator[tuple[str, str]]:
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
                yield from ((t.id, node.value.value) for t in targets if isinstance(t, ast.Name))


def text_of(node: ast.AST | None, constants: Mapping[str, str]) -> str | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.BoolOp):
        return text_of(node.values[-1], constants)
    return constants.get(node.id) if isinstance(node, ast.Name) else None


def called(call: ast.Call) -> str:
    return str(getattr(call.func, "attr", getattr(call.func, "id", "")))


def literals() -> Mapping[str, set[str]]:
    """By family: reasons of outcomes and residues, and what a task waits for or failed with."""
    found: dict[str, set[str]] = {"reason": set(), "waits": set(), "residue_place": set(), "residue_reason": set()}
    for tree, constants in modules():
        for node in ast.walk(tree):
            for family, value in _meant(node):
                code = text_of(value, constants)
                if code:
                    found[family].add(code)
    return found


def _meant(node: ast.AST) -> Iterator[tuple[str, ast.AST | None]]:
    """Expressions in this node that are a code, with its family."""
    if isinstance(node, ast.Tuple) and len(node.elts) == 2 and "Outcome." in ast.unparse(node.elts[0]):
        yield "reason", node.elts[1]
    if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "DECLARED":
        yield from (("reason", value) for value in getattr(node.value, "values", ()))
    if isinstance(node, ast.FunctionDef) and node.name == "inconsistency":
        yield from (("waits", inner.value) for inner in ast.walk(node) if isinstance(inner, ast.Return))
    if isinstance(node, ast.Call):
        yield from _given(node)


_POSITIONAL = {"_known": ("reason", 2), "not_started": ("reason", 1), "check_when_quiet": ("waits", 2)} | {
    "again": ("waits", 2),
    "GiveToPerson": ("waits", 0),
    "Declined": ("waits", 0),
    "Gone": ("reason", 0),
    "NotHeld": ("reason", 0),
    "Retry": ("waits", 0),
    "RetryAfter": ("waits", 1),
}


def _given(call: ast.Call) -> Iterator[tuple[str, ast.AST]]:
    name = called(call)
    if name == "made" and call.args:
        name = ast.unparse(call.args[0])
    if name == "hold":
        yield from (("waits", a) for a in call.args[1:])
    if name in _POSITIONAL and len(call.args) > _POSITIONAL[name][1]:
        family, place = _POSITIONAL[name]
        yield family, call.args[place]
    for keyword in call.keywords:
        if keyword.arg in {"reason", "place"} and name == "Residue":
            yield f"residue_{keyword.arg}", keyword.value
        elif keyword.arg == "reason" and name in {"CategoryOutcome", "_Ending"}:
            yield "reason", keyword.value
        elif keyword.arg in {"reason", "error"} and name in {"TaskGoesOn", "TaskFailed", "TaskHeld"}:
            yield "waits", keyword.value


def errors(kind: type[HandlerError] = HandlerError) -> Iterator[str]:
    for sub in kind.__subclasses__():
        if sub.__module__.startswith("keshi."):
            yield from (slug(sub.__name__), *errors(sub))


def residues() -> Iterator[tuple[str, str]]:
    for path in sorted((ROOT / "src/keshi/dev").glob("*inventory*.yaml")):
        for system in load(path).systems:
            yield from ((r.place, r.reason) for r in system.residue)


@cache
def codes() -> Mapping[str, set[str]]:
    found = {family: set(names) for family, names in literals().items()}
    found["reason"].add(NOT_PROVIDED)
    found["waits"] |= set(HOLDS) | set(errors()) - {"retry", "retry_after", "give_to_person"}
    found["residue_place"] |= {place for place, _ in residues()}
    found["residue_reason"] |= {reason for _, reason in residues()}
    return found


def test_the_search_for_codes_finds_some_of_each_kind() -> None:
    found = codes()
    assert {"category_not_asked_for", "no_identifier_learned", judge.WITHDRAWN} <= found["reason"]
    assert {"counts_differ", "attempts_spent", "not_verified", "suspended_by_other", "over_limit"} <= found["waits"]
    assert "topic_commands" in found["residue_place"]


@pytest.mark.parametrize("words", WORDS, ids=lambda w: w.language)
@pytest.mark.parametrize("family", [*FAMILIES, "reason", "waits", "residue_place", "residue_reason"])
def test_every_code_has_a_sentence(family: str, words: Words) -> None:
    wanted = FAMILIES[family] if family in FAMILIES else codes()[family]
    missing = sorted(code for code in wanted if not words.knows(family, code))
    assert not missing, f"orchestrator/words/{words.language}.yaml lacks, under `{family}`: {missing}"


def places(sentence: Any) -> set[str]:
    variants = sentence.values() if isinstance(sentence, Mapping) else [sentence]
    return {name for text in variants for _, name, _, _ in string.Formatter().parse(str(text)) if name}


def test_the_languages_say_the_same_things() -> None:
    """The same families and names, filled from the same values; numbers and dates may be built otherwise."""
    one, two = (catalogue(language) for language in LANGUAGES)
    assert one.keys() == two.keys()
    for family in one.keys() - {"units"}:
        assert one[family].keys() == two[family].keys(), family
        for name in one[family]:
            counted = {"count", "records"}
            assert places(one[family][name]) - counted == places(two[family][name]) - counted, (family, name)


@pytest.mark.parametrize("words", WORDS, ids=lambda w: w.language)
def test_every_sentence_can_be_filled(words: Words) -> None:
    for family in catalogue(words.language).keys() - {"units"}:
        for name, sentence in catalogue(words.language)[family].items():
            values = dict.fromkeys(places(sentence) - {"count", "records"}, "…")
            for count in (0, 1, 2, 1_234_567) if places(sentence) & {"count", "records"} else (None, 0, 1, 2):
                said = words.say(family, name, count, **values)
                assert said.strip(), (family, name)
                assert "{" not in said


@pytest.mark.parametrize("words", WORDS, ids=lambda w: w.language)
def test_a_code_of_a_later_version_can_be_read(words: Words) -> None:
    for family in ("outcome", "reason", "waits", "verdict", "residue_place"):
        said = words.code(family, "kept_on_tape", 3)
        assert "kept on tape" in said
        assert "kept_on_tape" in said


def test_times_name_their_zone() -> None:
    at = datetime(2026, 3, 31, 15, 4, tzinfo=UTC)
    tokyo = ZoneInfo("Asia/Tokyo")
    assert Words(Language.EN).when(at) == "31 March 2026, 15:04 UTC"
    assert Words(Language.EN, tokyo).when(at) == "1 April 2026, 00:04 JST"
    assert Words(Language.JA, tokyo).when(at) == "2026年4月1日0時04分（日本時間）"  # noqa: RUF001 - as it is written
    assert Words(Language.JA).day(date(2032, 8, 31)) == "2032年8月31日"
