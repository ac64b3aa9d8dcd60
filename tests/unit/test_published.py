"""What others build on: the published schemas and examples are current, and say the same as the code that reads."""

import hashlib
import hmac
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import date, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, FormatChecker

from keshi.dev.systems.people import KNOWN_CUSTOMER_ID, KNOWN_EMAIL
from keshi.schemas.admissible import check
from keshi.schemas.commands import SubjectCommand
from keshi.schemas.messages import MESSAGES
from keshi.schemas.publishing import documents
from keshi.schemas.reading import Unreadable, read
from keshi.schemas.tasks import MAX_LIST_BYTES

ROOT = Path(__file__).resolve().parents[2]
PUBLISHED = ROOT / "schemas" / "published"
KINDS = sorted(MESSAGES)
FORMATS = FormatChecker(formats=())


def name(kind: str) -> str:
    return kind.split(".")[1]


@FORMATS.checks("date-time", raises=ValueError)
def _date_time(value: object) -> bool:
    if isinstance(value, str):
        return bool(re.match(r"\d{4}-\d\d-\d\d[Tt]", value)) and datetime.fromisoformat(value).tzinfo is not None
    return True


@FORMATS.checks("date", raises=ValueError)
def _date(value: object) -> bool:
    return not isinstance(value, str) or bool(date.fromisoformat(value))


@cache
def validator(kind: str) -> Draft202012Validator:
    schema = json.loads((PUBLISHED / f"{kind.removeprefix('keshi.')}.json").read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema, format_checker=FORMATS)


def raw(kind: str) -> bytes:
    return (PUBLISHED / "examples" / f"{name(kind)}.json").read_bytes()


def test_the_files_are_current() -> None:
    """Otherwise: `keshi schemas publish`."""
    there = {
        p.relative_to(PUBLISHED).as_posix(): p.read_text(encoding="utf-8") for p in PUBLISHED.rglob("*") if p.is_file()
    }
    assert there == documents()


@pytest.mark.parametrize("kind", KINDS)
def test_an_example_is_valid_and_can_be_read(kind: str) -> None:
    """By the published schema, formats included, and by the code: one line, whole, of this very type."""
    assert raw(kind).count(b"\n") == 1
    assert not list(validator(kind).iter_errors(json.loads(raw(kind))))
    envelope, data = read(raw(kind), MESSAGES, limit=MAX_LIST_BYTES)
    assert (envelope.type, type(data)) == (kind, MESSAGES[kind])
    if isinstance(data, SubjectCommand):
        check(data)
        assert data.due is None


def test_the_example_names_the_known_sample_person() -> None:
    _, data = read(raw("keshi.EraseSubject.v1"), MESSAGES, limit=MAX_LIST_BYTES)
    assert {(i.type, i.value) for i in data.identifiers} == {  # type: ignore[attr-defined] # known by its type
        ("email", KNOWN_EMAIL),
        ("customer_id", KNOWN_CUSTOMER_ID),
    }


def test_the_example_of_a_closure_has_the_hashes_that_it_names() -> None:
    """Over the JSON as it travels. Somebody who writes a check in another language can try it on this one."""
    closure = json.loads(raw("keshi.RequestClosed.v1"))["data"]["closure"]
    assert closure.pop("hash") == hashlib.sha256(rfc8785.dumps(closure)).hexdigest()
    assert closure["plan_hash"] == hashlib.sha256(rfc8785.dumps(closure["plan"])).hexdigest()


def test_the_example_of_a_report_is_signed_as_the_contract_says() -> None:
    """HMAC-SHA-256 under the lease's secret, over the canonical JSON of the report as it travels, without `hmac`."""
    report = json.loads(raw("keshi.TasksReported.v1"))["data"]["reports"][0]
    secret = hashlib.sha256(b"example secret").digest()
    assert report.pop("hmac") == hmac.new(secret, rfc8785.dumps(report), hashlib.sha256).hexdigest()


def places(node: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield place
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, inner in items:
        yield from places(inner, (*place, key))


def at(node: Any, place: tuple[Any, ...]) -> Any:
    for step in place:
        node = node[step]
    return node


# Names of categories stand as keys there: any name is good.
OPEN = {"counts"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_field_too_many_is_refused_by_both_anywhere(kind: str) -> None:
    for place in places(json.loads(raw(kind))):
        tree = json.loads(raw(kind))
        inner = at(tree, place)
        if not isinstance(inner, dict) or (place and place[-1] in OPEN):
            continue
        inner["nobody_knows"] = 1
        assert not validator(kind).is_valid(tree), place
        with pytest.raises(Unreadable):
            read(json.dumps(tree).encode(), MESSAGES, limit=MAX_LIST_BYTES)


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_schema_needs_the_code_needs(kind: str) -> None:
    """And the other way round. Two fields of the envelope have one possible value, and may be left out in reading."""
    for place in places(json.loads(raw(kind))):
        if not place or not isinstance(place[-1], str) or place == ("specversion",) or set(place) & OPEN:
            continue
        tree = json.loads(raw(kind))
        del at(tree, place[:-1])[place[-1]]
        taken, allowed = readable(tree), validator(kind).is_valid(tree)
        assert allowed or not taken, place
        # Some fields are needed by what others say; a schema would be hard to read that says so.
        assert taken or not allowed or place[-1] in {"ground", "until", "mandate_evidence"}, place


def readable(tree: Any) -> bool:
    try:
        read(json.dumps(tree).encode(), MESSAGES, limit=10 * MAX_LIST_BYTES)
    except Unreadable:
        return False
    return True


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 2**54),
    st.text(max_size=4).filter(lambda t: not re.fullmatch(r"[-+0-9.\s]+", t)),  # pydantic: seconds since 1970
    st.sampled_from(
        ["erase", "appi", "crm", "2026-04-01", "2026-04-01T00:00:00Z", "2026-04-01T00:00:00", "a:b", "f" * 64]
    ),
    st.just([]),
    st.just({}),
)


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_what_the_code_reads_the_schema_allows(kind: str, data: st.DataObject) -> None:
    """A sender who checks against the schema is never told that something good is bad."""
    tree = json.loads(raw(kind))
    for _ in range(data.draw(st.integers(1, 2))):
        place = data.draw(st.sampled_from([p for p in places(tree) if p and p != ("type",)]))
        at(tree, place[:-1])[place[-1]] = data.draw(VALUES)
    if readable(tree):
        assert not list(validator(kind).iter_errors(tree))


# --- the base install

BARE = """
import importlib, pkgutil, sys

BLOCKED = {"faust", "mode", "aiokafka", "fastapi", "starlette", "uvicorn", "uvloop"}
BLOCKED |= {"sqlalchemy", "alembic", "psycopg", "boto3"}

class Lacks:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Lacks())
packages = ["keshi.schemas", "keshi.runtime", "keshi.client", "keshi.handlers.worker", "keshi.cli"]
names = ["keshi.handlers.contract", "keshi.handlers.errors", "keshi.handlers.registry"]
for package in packages:
    found = importlib.import_module(package)
    names += [m.name for m in pkgutil.iter_modules(found.__path__, package + ".") if m.name != "keshi.cli.__main__"]
for name in names:
    importlib.import_module(name)
assert not BLOCKED & {n.partition(".")[0] for n in sys.modules}

from keshi.cli import run
assert run(["version"]) == 0
for command in (["orchestrator", "run"], ["api", "run"], ["ledger", "check"]):
    assert run(command) == 2, command
"""


def test_the_base_install_needs_no_extra() -> None:
    """Client, worker, schemas and the command line import without Faust, web framework or SQL; a command that
    needs them says in one line what to install."""
    env = {n: v for n, v in os.environ.items() if not n.startswith("KESHI_")}
    done = subprocess.run(
        [sys.executable, "-c", BARE], env=env, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("keshi: ") and "pip install 'keshi[orchestrator]'" in line for line in lines), lines
