"""`inventory.yaml`: read, checked whole, each problem with its line, its place and its remedy. No I/O but `load`'s."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import BaseModel, ValidationError

from keshi.orchestrator.inventory_rules import Finding, Place, findings
from keshi.runtime.settings import ConfigurationError
from keshi.schemas.identifiers import KNOWN_TYPES
from keshi.schemas.inventory import Category, ExpectedResidue, Holder, Inventory, Retention, System

MAX_BYTES: Final = 2_000_000
MAX_NODES: Final = 300_000
MAX_DEPTH: Final = 20
"""Both far above any company's; an alias that contains itself ends here."""

_LEVELS: Final[Mapping[tuple[str, ...], type[BaseModel]]] = {
    (): Inventory,
    ("systems",): System,
    ("systems", "categories"): Category,
    ("systems", "categories", "holder"): Holder,
    ("systems", "categories", "retention"): Retention,
    ("systems", "residue"): ExpectedResidue,
}
_FORMS: Final[Mapping[str, str]] = {
    "country": 'two capital letters of ISO 3166-1, in quotes where YAML has a word of its own ("NO")',
    "identifiers": f"one of {', '.join(KNOWN_TYPES)}, or an own type that begins with `x-`",
    "learns": f"one of {', '.join(KNOWN_TYPES)}, or an own type that begins with `x-`",
    "ground": "the id of a ground in a rule file, such as jp.tax-records",
}
_WORD: Final = "a word of small letters, digits and `_` that begins with a letter"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        line: Of the YAML, from 1.
        place: In words, such as `system crm, after 1`.
        what: What is wrong.
        remedy: What to do.
        note: Worth a look, and no obstacle.
    """

    line: int
    place: str
    what: str
    remedy: str
    note: bool = False


@dataclass(frozen=True, slots=True)
class _Tree:
    data: Any
    lines: Mapping[Place, int]

    def line(self, place: Place) -> int:
        """Of a place, or of the closest one around it."""
        for length in range(len(place), -1, -1):
            if place[:length] in self.lines:
                return self.lines[place[:length]]
        return 1


def load(path: Path) -> Inventory:
    """Read the inventory.

    Raises:
        ConfigurationError: it is missing or has a problem; says the first one, and where to see them all.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigurationError(f"KESHI_INVENTORY: {path} is too large to be an inventory")
        text = path.read_text(encoding="utf-8")
    except OSError:
        raise ConfigurationError(
            f"KESHI_INVENTORY: cannot read {path}: set it to the file that lists your systems"
        ) from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"KESHI_INVENTORY: {path} is not UTF-8") from None
    found = [p for p in problems(text) if not p.note]
    if found:
        first = found[0]
        more = f"; and {len(found) - 1} more" if len(found) > 1 else ""
        raise ConfigurationError(
            f"{path}, line {first.line}: {first.place}: {first.what}; {first.remedy}{more}: "
            f"see `keshi inventory check {path}`"
        )
    return Inventory.model_validate(yaml.safe_load(text), strict=False)


def problems(text: str) -> list[Problem]:
    """All that is wrong with an inventory, in the order of its lines; empty when it can be used."""
    try:
        tree, twice = _read(text)
    except _Unreadable as e:
        return [e.problem]
    found = [*twice, *_form(tree)]
    for finding in findings(tree.data):
        found.append(_located(tree, finding))  # noqa: PERF401 - reads as what it is
    return sorted(dict.fromkeys(found), key=lambda p: p.line)


# --- YAML


class _Unreadable(Exception):  # noqa: N818 - carries a finding
    def __init__(self, line: int, what: str, remedy: str) -> None:
        super().__init__(what)
        self.problem = Problem(line, "the file", what, remedy)


def _read(text: str) -> tuple[_Tree, list[Problem]]:
    try:
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                raise _Unreadable(1, "it is empty", "list your systems under `systems:`")
            lines, twice = _walk(node)
            data = loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as e:
        mark = e.problem_mark or e.context_mark
        line = mark.line + 1 if mark else 1
        raise _Unreadable(line, f"not YAML: {e.problem or e.context}", "put the syntax right") from None
    except (yaml.YAMLError, ValueError):
        raise _Unreadable(1, "not YAML: a character or value that YAML does not allow", "take it out") from None
    except RecursionError:
        raise _Unreadable(1, "it is nested too deeply", "take the levels out that an inventory has not") from None
    if not isinstance(data, dict):
        raise _Unreadable(1, "it is no mapping", "begin with `version: 1`, `company:` and `systems:`")
    return _Tree(data, lines), twice


def _walk(root: yaml.Node) -> tuple[dict[Place, int], list[Problem]]:
    lines: dict[Place, int] = {(): root.start_mark.line + 1}
    twice: list[Problem] = []
    stack: list[tuple[Place, yaml.Node]] = [((), root)]
    while stack:
        place, node = stack.pop()
        if len(lines) > MAX_NODES or len(place) > MAX_DEPTH:
            raise _Unreadable(1, "it is too large or too deep, or contains itself", "take aliases (`*name`) out")
        if isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                lines[(*place, index)] = item.start_mark.line + 1
                stack.append(((*place, index), item))
        elif isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                inner = (*place, str(key.value) if isinstance(key, yaml.ScalarNode) else "?")
                line = key.start_mark.line + 1
                if inner in lines:
                    what = f"the field {inner[-1]} stands there twice"
                    twice.append(Problem(line, describe(place, None), what, f"keep the one of line {lines[inner]}"))
                lines[inner] = line
                stack.append((inner, value))
    return lines, twice


# --- the form: what the schema says


def _form(tree: _Tree) -> Iterator[Problem]:
    try:
        Inventory.model_validate(tree.data, strict=False)
    except ValidationError as e:
        for error in e.errors(include_input=False, include_url=False):
            place = tuple(error["loc"])
            # The rules say the former, with their line; the latter counts items that have errors of their own.
            if error["type"] != "value_error" and not (error["type"] == "too_short" and _at(tree.data, place)):
                what, remedy = _explain(place, error)
                yield Problem(tree.line(place), describe(place, tree.data), what, remedy)


def _at(data: Any, place: Place) -> Any:
    for step in place:
        try:
            data = data[step]
        except (LookupError, TypeError):
            return None
    return data


def _explain(place: Place, error: Mapping[str, Any]) -> tuple[str, str]:  # noqa: PLR0911 - a table of cases
    field = next((str(p) for p in reversed(place) if isinstance(p, str)), "")
    kind = error["type"]
    if kind == "missing":
        return f"{field} is missing", f"add `{field}:`"
    if kind == "extra_forbidden":
        return f"there is no field {field} here", _other_field(place, field)
    if kind == "enum":
        return "is not one of its words", f"use {error['ctx']['expected'].replace(chr(39), '')}"
    if kind == "string_pattern_mismatch":
        return "does not have its form", f"write {_FORMS.get(field, _WORD)}"
    if kind == "string_type":
        return "is no text", f"write it in quotes: {_FORMS.get(field, 'YAML took it for something else')}"
    if kind == "tuple_type":
        return "is no list", f"write `{field}: [one, other]`"
    if kind in {"model_type", "dict_type"}:
        return "is no mapping", "write its fields, `name: value`"
    return str(error["msg"]).replace("Input", "it").replace("Tuple", "the list"), "change it so that it is"


def _other_field(place: Place, field: str) -> str:
    level = _LEVELS.get(tuple(p for p in place[:-1] if isinstance(p, str)))
    known = list(level.model_fields) if level else []
    close = get_close_matches(field, known, n=1)
    if close:
        return f"did you mean `{close[0]}`?"
    return f"take it out; there are {', '.join(known)}" if known else "take it out"


def _located(tree: _Tree, finding: Finding) -> Problem:
    return Problem(
        tree.line(finding.place), describe(finding.place, tree.data), finding.what, finding.remedy, finding.note
    )


_ONE: Final[Mapping[str, str]] = {"systems": "system", "categories": "category"}


def describe(place: Sequence[str | int], data: Any) -> str:
    """A place in words: `system crm, category contacts, retention 1, ground`."""
    words: list[str] = []
    node = data
    for step in place:
        if isinstance(step, int):
            node = node[step] if isinstance(node, list) and step < len(node) else None
            name = node.get("name") if isinstance(node, dict) else None
            words[-1] = f"{_ONE.get(words[-1], words[-1])} {name if isinstance(name, str) else step + 1}"
        else:
            words.append(step)
            node = node.get(step) if isinstance(node, dict) else None
    return ", ".join(words) or "the file"
