"""The documents say what is so: commands, settings, paths and tables in them are held against the code."""

import ast
import io
import json
import re
import shlex
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import redirect_stdout
from datetime import UTC, date, datetime
from enum import Enum
from itertools import chain, combinations, product
from pathlib import Path
from typing import Any, get_args
from unittest.mock import patch

import pytest
from pydantic import SecretStr
from pydantic_core import PydanticUndefined
from pydantic_settings import BaseSettings
from typer.main import get_command

from keshi.cli import serve
from keshi.cli.app import app
from keshi.dev import fetch
from keshi.handlers import contract
from keshi.handlers.systems import affiliates, billing, call_recordings, crm, ma_tool
from keshi.orchestrator.api.problems import TITLES
from keshi.orchestrator.tokens import RIGHTS, Role
from keshi.runtime import failpoints, settings, telemetry
from keshi.schemas.base import canonical, sha256
from keshi.schemas.closure import GENESIS, ClosureRecord, Located, ObligationRecord, SystemRecord, record_hash
from keshi.schemas.commands import COMMANDS, Action
from keshi.schemas.envelope import wrap
from keshi.schemas.grounds import grounds
from keshi.schemas.inventory import Inventory, Plan, PlannedTask
from keshi.schemas.outcomes import NOT_PROVIDED, CategoryOutcome, DecidedBy, Outcome, Residue, Verdict, verdict
from keshi.schemas.requests import EVENTS, RejectionCode

ROOT = Path(__file__).resolve().parents[2]
PAGES = tuple(
    sorted(
        p.relative_to(ROOT).as_posix()
        for p in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "helm" / "README.md")
    )
)
SOURCES = ("src/keshi", "orchestrator", "handlers", "schemas")
NONE = "\N{EN DASH}"
"""What a cell says that has nothing to say."""
EXAMPLE_SETTINGS = ("KESHI_NEWSLETTER", "KESHI_HELPDESK")
"""Of the handler that docs/handlers.md invents."""


def text(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def prose(page: str) -> str:
    """The page without its fenced blocks."""
    return re.sub(r"^ *```.*?^ *```$", "", text(page), flags=re.DOTALL | re.MULTILINE)


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of one language, without their indentation."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```$", text(page), flags=re.DOTALL | re.MULTILINE)
    return [re.sub(rf"^{indent}", "", body, flags=re.MULTILINE) for indent, body in found]


def spans(page: str) -> list[str]:
    """What stands between backticks in a line."""
    return re.findall(r"`([^`\n]+)`", prose(page))


def table(page: str, *heads: str) -> list[list[str]]:
    """The rows of the table whose heading is this."""
    lines = iter(text(page).splitlines())
    wanted = list(heads)
    for line in lines:
        if _cells(line) == wanted:
            next(lines)
            return [_cells(row) for row in _while_table(lines)]
    raise AssertionError(f"{page} has no table with the heading {wanted}")


def _while_table(lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        if not line.startswith("|"):
            return
        yield line


def _cells(line: str) -> list[str]:
    return [c.strip() for c in line.strip().strip("|").split("|")] if line.startswith("|") else []


def words(cell: str) -> list[str]:
    """What stands between backticks in a cell."""
    return re.findall(r"`([^`]+)`", cell)


def first_words(rows: Iterable[Sequence[str]]) -> list[str]:
    return [w for row in rows for w in words(row[0])]


def source() -> str:
    """All code, as one text."""
    paths = chain.from_iterable((ROOT / s).rglob("*.py") for s in SOURCES)
    return "\n".join(p.read_text(encoding="utf-8") for p in paths)


# --- commands


def calls(page: str) -> list[str]:
    """Every call of `keshi` that a page names: in spans, and in shell blocks."""
    named = [s for s in spans(page) if re.match(r"keshi [a-z]", s)]
    lines = [line for b in blocks(page, "sh") for line in b.replace("\\\n", " ").splitlines()]
    found = [m[1] for line in lines if (m := re.search(r"(?:^|[\s/])(keshi [a-z].*)$", line.partition(" #")[0]))]
    return [re.split(r" [|<>&]", c)[0] for c in (*named, *found)]


def check_call(command: Any, tokens: list[str]) -> None:
    """Follow the words of a call down the tree of commands, and look its options up."""
    subcommands = getattr(command, "commands", None)
    if subcommands is not None:
        if not tokens:
            return
        if tokens[0].startswith("-"):  # the group's own, as of `keshi submit --file`
            _check_options(command, tokens)
            return
        for name in tokens[0].split("|"):
            assert name in subcommands, f"there is no command {name}; there are {sorted(subcommands)}"
            check_call(subcommands[name], tokens[1:])
        return
    _check_options(command, tokens)


def _check_options(command: Any, tokens: list[str]) -> None:
    options = {o: p for p in command.params for o in (*p.opts, *p.secondary_opts) if o.startswith("-")}
    arguments = iter(p for p in command.params if p.param_type_name == "argument")
    rest = iter(tokens)
    for token in rest:
        name, equals, _ = token.partition("=")
        if not name.startswith("--"):
            _check_word(next(arguments, None), token)
        elif name != "--help":
            assert name in options, f"there is no option {name}; there are {sorted(options)}"
            if not equals and not options[name].is_flag:
                next(rest, None)


def _check_word(argument: Any, word: str) -> None:
    assert argument is not None, f"{word} is one argument too many"
    kind = getattr(getattr(argument, "type_descriptor", None), "annotation", None)
    if isinstance(kind, type) and issubclass(kind, Enum) and word.islower():
        for one in word.split("|"):
            assert one in {m.value for m in kind}


@pytest.mark.parametrize("page", PAGES)
def test_every_command_that_is_named_exists_with_its_options(page: str) -> None:
    for call in calls(page):
        try:
            check_call(get_command(app), shlex.split(call)[1:])
        except (AssertionError, ValueError) as e:
            pytest.fail(f"{page}: `{call}`: {e}")


def leaves(command: Any, path: tuple[str, ...] = ("keshi",)) -> Iterator[str]:
    subcommands = getattr(command, "commands", None)
    if subcommands is None or (command.invoke_without_command and path != ("keshi",)):
        yield " ".join(path)
    for name, sub in (subcommands or {}).items():
        yield from leaves(sub, (*path, name))


def test_every_command_that_exists_is_in_the_readme() -> None:
    listed = first_words(table("README.md", "command", "what it does"))
    calls_ = [w for w in listed if w.startswith("keshi ")]
    assert sorted(calls_) == sorted(leaves(get_command(app)))


def test_a_command_that_does_not_exist_would_be_found() -> None:
    for wrong in ("submit forget", "status --loud", "decide R crm perhaps --reason x", "keys"):
        if wrong != "keys":  # a group may be named
            with pytest.raises(AssertionError):
                check_call(get_command(app), shlex.split(wrong))
    check_call(get_command(app), ["keys"])


@pytest.mark.parametrize("page", PAGES)
def test_every_target_of_make_exists(page: str) -> None:
    targets = set(re.findall(r"^([a-z]+):", text("Makefile"), flags=re.MULTILINE))
    lines = [line for b in blocks(page, "sh") for line in b.splitlines()]
    named = {m[1] for s in (*spans(page), *lines) if (m := re.match(r"make ([a-z]+)", s))}
    assert named <= targets


# --- settings


def variables() -> dict[str, str]:
    """Every setting by its variable, with its default as the README shows it."""
    kinds: list[type[BaseSettings]] = [
        *(k for k in vars(settings).values() if isinstance(k, type) and issubclass(k, BaseSettings)),
        affiliates.Settings,
        billing.Settings,
        call_recordings.Settings,
        call_recordings.StoreSettings,
        crm.Settings,
        ma_tool.Settings,
        serve.TokenSettings,
        telemetry.TelemetrySettings,
    ]
    return {
        f"{k.model_config.get('env_prefix', '')}{name}".upper(): shown(f.default)
        for k in kinds
        if k is not BaseSettings
        for name, f in k.model_fields.items()
    }


def shown(default: Any) -> str:
    if isinstance(default, SecretStr):
        default = default.get_secret_value()
    if default is None or default is PydanticUndefined or default in ("", {}):
        return NONE
    if isinstance(default, tuple | bool):
        return f"`{json.dumps(default)}`"
    return f"`{default.value if isinstance(default, Enum) else default}`"


def read_elsewhere() -> set[str]:
    """Variables that are read past the settings: by the development environment, and by options."""
    code = source()
    named = re.findall(r'environ(?:\.get\(|\[)"(KESHI_[A-Z_]+)"', code)
    return {*named, *re.findall(r'envvar="(KESHI_[A-Z_]+)"', code)}


def test_the_table_of_settings_is_that_of_the_code() -> None:
    rows = {words(r[0])[0]: r[1] for r in table("README.md", "variable", "default", "who", "what")}
    known = variables()
    assert rows.keys() == known.keys() | read_elsewhere()
    assert {n: d for n, d in rows.items() if n in known} == known


@pytest.mark.parametrize("page", PAGES)
def test_every_variable_that_is_named_exists(page: str) -> None:
    named = {n for n in re.findall(r"KESHI_[A-Z0-9_]*[A-Z0-9]", text(page)) if not n.startswith(EXAMPLE_SETTINGS)}
    assert named <= variables().keys() | read_elsewhere()


# --- paths and links


@pytest.mark.parametrize("page", PAGES)
def test_every_path_that_is_named_exists(page: str) -> None:
    rooms = {p.name for p in ROOT.iterdir() if p.is_dir() and p.name not in {".git", ".venv", ".cache"}}
    files = {p.name for p in ROOT.iterdir() if p.is_file()}
    for span in spans(page):
        path = span.partition(" ")[0].rstrip("/")
        if not re.fullmatch(r"[A-Za-z0-9._/-]+", path):
            continue
        if path.split("/")[0] in rooms and ("/" in span or path in rooms):
            assert (ROOT / path).exists() or (ROOT / "src" / "keshi" / path).exists(), f"{page}: {span}"
        elif re.fullmatch(r"[A-Z]+(\.md)?|[a-z]+\.(toml|lock)", path) and "." in path:
            assert path in files, f"{page}: {span}"


@pytest.mark.parametrize("page", PAGES)
def test_every_path_in_a_shell_block_exists(page: str) -> None:
    for block in blocks(page, "sh"):
        for path in re.findall(r"(?<![\w./$}-])((?:schemas|tests|docs|src)/[\w./-]+)", block):
            assert (ROOT / path).exists(), f"{page}: {path}"


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", prose(page)):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        there = (ROOT / page).parent / path if path else ROOT / page
        assert there.exists(), f"{page}: {target}"
        if anchor:
            heads = re.findall(r"^#+ (.+)$", there.read_text(encoding="utf-8"), flags=re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in heads}


@pytest.mark.parametrize("page", PAGES)
def test_no_page_speaks_of_the_place_it_was_written_at(page: str) -> None:
    assert not re.search(r"(?<![\w.~])/(?:work|tmp|root|home)\b", text(page))
    assert not re.search(r"(?<![\w&])#\d+\b|\bissues? \d", text(page))


# --- tables


def test_the_verdict_table_is_that_of_the_code() -> None:
    """Over every set of outcomes, with and without residue, somebody who provides nothing, narrowed and not."""
    conditions = ("residue", "not provided", "narrowed")
    rows = table("docs/records.md", "every outcome is one of", "one of them is", *conditions, "verdict")
    rules = [(set(words(a)), set(words(o)), tuple(when), Verdict(words(v)[0])) for a, o, *when, v in rows]
    unprovided = CategoryOutcome(category="c", outcome=Outcome.OUT_OF_SCOPE, reason=NOT_PROVIDED)
    made = {o: CategoryOutcome.model_construct(category="c", outcome=o, count=1) for o in Outcome}
    sets = chain.from_iterable(combinations(Outcome, n) for n in range(1, len(Outcome) + 1))
    for found, residue, nothing, narrowed in product(list(sets), (False, True), (False, True), (False, True)):
        outcomes = [made[o] for o in found] + [unprovided] * nothing
        wanted = _by_table(rules, set(found), (residue, nothing, narrowed or Outcome.OUT_OF_SCOPE in found))
        assert verdict(outcomes, narrowed=narrowed, residue=residue) is wanted, (outcomes, residue, narrowed)


Rule = tuple[set[str], set[str], tuple[str, ...], Verdict]


def _by_table(rules: Sequence[Rule], found: set[Outcome], conditions: tuple[bool, ...]) -> Verdict:
    asked = {o.value for o in found} - {Outcome.OUT_OF_SCOPE.value}
    says = {"yes": True, "no": False}
    for among, one_of_them, when, becomes in rules:
        if among and not (asked and asked <= among):
            continue
        if one_of_them and not asked & one_of_them:
            continue
        if all(says.get(word, is_so) == is_so for word, is_so in zip(when, conditions, strict=True)):
            return becomes
    raise AssertionError("the table has no row for it")


def test_outcomes_and_whose_word_they_are() -> None:
    assert first_words(table("docs/records.md", "outcome", "meaning")) == [o.value for o in Outcome]
    assert first_words(table("docs/records.md", "decided_by", "meaning")) == [d.value for d in DecidedBy]


def test_every_field_of_a_record_is_explained() -> None:
    lines = text("docs/records.md").partition("Each entry of `systems`")
    record = {w for row in re.findall(r"^\| (`.*?) \|", lines[0], flags=re.MULTILINE) for w in words(row)}
    system = first_words(table_behind(lines[2]))
    assert record == set(ClosureRecord.model_fields)
    assert set(system) == set(SystemRecord.model_fields)
    kinds = get_args(ObligationRecord.model_fields["kind"].annotation)
    assert set(first_words(table("docs/records.md", "kind", "what is left", "when it is due"))) == set(kinds)


def table_behind(part: str) -> list[list[str]]:
    lines = iter(part.splitlines())
    for line in lines:
        if line.startswith("| ---"):
            return [_cells(row) for row in _while_table(lines)]
    raise AssertionError("no table")


def test_the_rejection_codes_are_those_of_the_code() -> None:
    listed = first_words(table("docs/bad-input.md", "code", "what was wrong", "field"))
    assert listed == [c.value for c in RejectionCode]


def test_the_reasons_of_quarantine_are_words_of_the_code() -> None:
    reasons = first_words(table("docs/bad-input.md", "reason", "what it was"))
    literals = strings()
    assert not [r for r in reasons if r not in literals]
    code = "".join(p.read_text(encoding="utf-8") for p in (ROOT / "orchestrator").glob("*.py"))
    assert set(re.findall(r'BadPart\(\s*"(\w+)"', code)) <= set(reasons)


def test_the_errors_of_the_api_are_those_of_the_code() -> None:
    rows = table("docs/bad-input.md", "code", "status", "meaning")
    assert {words(r[0])[0]: int(r[1]) for r in rows} == {c: status for c, (status, _) in TITLES.items()}


def test_the_messages_are_those_of_the_schemas() -> None:
    rows = {words(r[0])[0]: words(r[2]) for r in table("README.md", "topic", "from → to", "messages")}
    assert {f"keshi.{m}.v1" for m in rows["commands"]} == set(COMMANDS)
    assert {f"keshi.{m}.v1" for t in ("requests", "quarantine") for m in rows[t]} == set(EVENTS)
    published = {p.name.split(".")[0] for p in (ROOT / "schemas" / "published").glob("*.v*.json")}
    assert {m for messages in rows.values() for m in messages} == published


def test_the_roles_are_those_of_the_code() -> None:
    assert first_words(table("docs/operations.md", "role", "may")) == [r.value for r in Role]
    assert RIGHTS.keys() == set(Role)


def test_the_reasons_of_holding_and_the_grounds_of_refusing() -> None:
    held = first_words(table("docs/operations.md", "reason", "meaning", "what can be decided"))
    assert not [r for r in held if r not in strings()]
    paragraph = text("docs/operations.md").partition("`refuse` needs a ground that allows it: ")[2].partition(". ")[0]
    listed = paragraph.partition("If something")[0]
    assert set(words(listed)) == {g.id for g in grounds().values() if g.refuses}


def test_the_events_to_watch_are_logged() -> None:
    rows = table("docs/operations.md", "event", "from", "meaning")
    assert not [e for e in first_words(rows) if e not in strings()]


def test_the_failpoints_are_those_of_the_code() -> None:
    assert set(first_words(table("CONTRIBUTING.md", "failpoint", "where"))) == failpoints.NAMES


def test_every_invariant_has_a_test_that_carries_its_name() -> None:
    named = re.findall(r"^- \*\*([a-z-]+)\*\*:", text("README.md"), flags=re.MULTILINE)
    tests = text("tests/end_to_end/test_invariants.py")
    assert len(named) == 8
    assert not [n for n in named if f"def test_{n.replace('-', '_')}" not in tests]


def test_the_states_of_a_record_are_those_of_the_contract() -> None:
    listed = [w.partition("(")[0] for w in first_words(table("docs/handlers.md", "state", "meaning"))]
    assert set(listed) == {kind.__name__ for kind in get_args(contract.State)}


def test_the_walk_through_names_what_is_there() -> None:
    """The broker's jars where they are fetched to, and the request of the published example."""
    versions = set(re.findall(r"/kafka-([0-9.]+)/", text("README.md")))
    assert versions == {fetch.KAFKA_VERSION}
    example = json.loads(text("schemas/published/examples/EraseSubject.json"))
    assert f"`{example['data']['request_id']}`" in text("README.md")
    assert text("schemas/published/examples/EraseSubject.json").count("\n") <= 1


def test_the_changelog_has_this_version() -> None:
    version = tomllib.loads(text("pyproject.toml"))["project"]["version"]
    assert f"## [{version}]" in text("CHANGELOG.md")


def test_the_extras_that_are_named_exist() -> None:
    extras = tomllib.loads(text("pyproject.toml"))["project"]["optional-dependencies"]
    assert not [e for p in PAGES for e in re.findall(r"keshi\[(\w+)\]", text(p)) if e not in extras]


_strings: set[str] = set()


def strings() -> set[str]:
    """Every string and every name of an error or failure that the code holds."""
    if not _strings:
        tree = ast.parse(source())
        _strings.update(n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str))
    return _strings


# --- code in the documents


def test_the_handler_in_the_documents_is_one() -> None:
    """It is made from its settings, and abstract in nothing."""
    (code,) = [b for b in blocks("docs/handlers.md", "python") if "class Newsletter" in b]
    found: dict[str, Any] = {"__name__": "newsletter"}
    exec(compile(code, "docs/handlers.md", "exec"), found)  # noqa: S102 - our own document
    with patch.dict("os.environ", {"KESHI_NEWSLETTER_URL": "http://127.0.0.1:9", "KESHI_NEWSLETTER_TOKEN": "x"}):
        handler = found["Newsletter"].from_environment()
    assert isinstance(handler, contract.Handler)
    assert handler.actions == {Action.ERASE}
    handler.close()


def test_the_handler_of_the_readme_is_that_of_the_contract() -> None:
    (shown_,) = [b for b in blocks("README.md", "python") if "class Newsletter" in b]
    explained = re.search(r"```python\n(.*?)```", contract.__doc__ or "", flags=re.DOTALL)
    assert explained
    assert without_comments(shown_) == without_comments(explained[1])


def without_comments(code: str) -> list[str]:
    return [stripped for line in code.splitlines() if (stripped := line.partition("#")[0].strip())]


def test_the_check_of_a_record_needs_nothing_of_keshi(monkeypatch: pytest.MonkeyPatch) -> None:
    """It accepts a record as the API and as Kafka give it, and no other one."""
    (code,) = [b for b in blocks("docs/records.md", "python") if "rfc8785" in b]
    assert "keshi." not in code
    record = a_record()
    from_api = record.model_dump_json(exclude_none=True)
    on_kafka = json.loads(wrap(record, kind="RequestClosed", id="1", source="urn:example:here"))
    for body in (from_api, json.dumps(on_kafka["data"])):
        assert run_check(code, body, monkeypatch).startswith("in order: 2 1 follows")
    for changed in ({"verdict": "no_data_held"}, {"number": 2}):
        with pytest.raises(AssertionError, match="record was changed"):
            run_check(code, json.dumps(json.loads(from_api) | changed), monkeypatch)


def run_check(code: str, body: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr("sys.stdin", io.StringIO(body))
    said = io.StringIO()
    with redirect_stdout(said):
        exec(compile(code, "docs/records.md", "exec"), {})  # noqa: S102 - our own document
    return said.getvalue()


def a_record() -> ClosureRecord:
    """A whole one, with something in every part that may be absent, and much that is."""
    at = datetime(2026, 11, 2, 9, 0, tzinfo=UTC)
    outcome = CategoryOutcome(
        category="invoices",
        outcome=Outcome.RETAINED_BY_LAW,
        count=1,
        ground="jp.tax-records",
        until=date(2030, 1, 31),
        items=(0,),
    )
    plan = Plan(
        inventory="1" * 64,
        action=Action.ERASE,
        scope={},  # type: ignore[arg-type] # pydantic makes the empty scope of it
        tasks=(PlannedTask(system="billing", categories=("invoices",), identifiers=("email",), record_limit=10),),
    )
    record = ClosureRecord.model_validate(
        {
            "request_id": "01KN33YH80E7QZ3V5W9T2B4M6A",
            "action": "erase",
            "scope": {},
            "regime": "appi",
            "ground": "appi.35-5",
            "requested_by": {"kind": "person"},
            "assessed": {"by": "staff:aoi", "at": at},
            "arrival": {"at": at, "channel": "channel:web-form"},
            "subject": ["2" * 64],
            "clocks": dict.fromkeys(("arrived", "accepted", "due", "closed"), at),
            "withdrawn": False,
            "plan": plan,
            "plan_hash": sha256(plan),
            "systems": [
                SystemRecord(
                    system="billing",
                    outcomes=(outcome,),
                    located=Located(counts={"invoices": 1}),
                    residue=(Residue(place="audit_log", reason="kept_by_vendor"),),
                )
            ],
            "verdict": "fulfilled_with_exceptions",
            "partition": 2,
            "number": 1,
            "previous": GENESIS,
            "hash": "0" * 64,
        },
        strict=False,
    )
    assert canonical(plan)
    return record.model_copy(update={"hash": record_hash(record)})


def test_the_inventory_that_is_named_as_an_example_is_one() -> None:
    from keshi.orchestrator.inventory import load  # noqa: PLC0415 - reads a file

    assert isinstance(load(ROOT / "src/keshi/dev/inventory.yaml"), Inventory)


# --- telemetry


def test_the_tables_of_telemetry_are_those_of_the_code() -> None:
    metrics = {words(r[0])[0]: (words(r[1])[0], r[2]) for r in table("docs/operations.md", "metric", "unit", "what")}
    assert metrics == {m.value: said for m, said in {**telemetry.COUNTERS, **telemetry.GAUGES}.items()}
    spans_ = {name for r in table("docs/operations.md", "span", "from") for name in words(r[0])}
    assert spans_ == {f"keshi.{stage}" for stage in telemetry.Stage}
