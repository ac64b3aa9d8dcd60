"""Writes what follows from the code: names of settings into the values schema, and the table of values in the README.

`python -m tests.chart.generate`; the tests say when it is to be run.
"""

import importlib
import json
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import yaml
from pydantic import SecretStr
from pydantic_settings import BaseSettings

import keshi.cli.serve
import keshi.handlers
import keshi.orchestrator
import keshi.runtime

HELM: Final = Path(__file__).resolve().parents[2] / "helm"
SCHEMA: Final = HELM / "keshi" / "values.schema.json"
README: Final = HELM / "README.md"
TABLE_HEAD: Final = "| value | default | what |\n| --- | --- | --- |\n"
SHARED: Final = ("image", "secret", "kafkaUser", "serviceAccount", "resources", "rule", "peer")
"""Definitions that stand for themselves in the table."""
NONE: Final = "\N{EN DASH}"
_NEVER: Final = re.compile(r"KESHI_(ENVIRONMENT|FAILPOINTS_DIR|DEV_.*)")
"""For tests of keshi itself."""


def settings() -> dict[str, tuple[type[BaseSettings], Any]]:
    """Every variable that keshi's own code reads through its settings: the class, and the type of the field."""
    for package in (keshi.runtime, keshi.handlers, keshi.orchestrator):
        _import_all(package)
    found: dict[str, tuple[type[BaseSettings], Any]] = {}
    for kind in _subclasses(BaseSettings):
        if kind.__module__.startswith("keshi.") and not kind.__module__.startswith("keshi.dev"):
            prefix = kind.model_config.get("env_prefix", "")
            found |= {f"{prefix}{n}".upper(): (kind, f.annotation) for n, f in kind.model_fields.items()}
    return found


def _import_all(package: ModuleType) -> None:
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        # Alembic alone can import a migration.
        if ".migrations" not in module.name and not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def _subclasses(kind: type[BaseSettings]) -> Iterator[type[BaseSettings]]:
    for sub in kind.__subclasses__():
        yield sub
        yield from _subclasses(sub)


def decided_by_the_chart() -> set[str]:
    """Every variable that stands in a template."""
    texts = (p.read_text(encoding="utf-8") for p in (HELM / "keshi" / "templates").iterdir())
    return {n for text in texts for n in re.findall(r"KESHI_[A-Z_]*[A-Z]", text)}


def operators_choice() -> list[str]:
    """Settings of all parts that are neither secrets nor files, and that the chart leaves to the operator."""
    decided = decided_by_the_chart()
    return sorted(
        name
        for name, (kind, annotation) in settings().items()
        if name.startswith("KESHI_")
        and name not in decided
        and not _NEVER.fullmatch(name)
        and not kind.__module__.startswith("keshi.handlers.systems")
        and not any(special in str(annotation) for special in (SecretStr.__name__, Path.__name__))
    )


def schema_text(schema: dict[str, Any]) -> str:
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def wanted_schema() -> str:
    """The schema with the settings that there are."""
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    schema["definitions"]["settings"]["enum"] = operators_choice()
    return schema_text(schema)


def rows() -> list[tuple[str, str, str]]:
    """Every value: its path, its default as JSON, what it means. Shapes that several share come once, at the end."""
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    values = yaml.safe_load((HELM / "keshi" / "values.yaml").read_text(encoding="utf-8"))
    shared = [
        (f"….{name}.{field}", NONE, below["description"])
        for name in SHARED
        for field, below in schema["definitions"][name]["properties"].items()
    ]
    return [*_rows(schema, schema, values, ""), *shared]


def _rows(schema: dict[str, Any], node: dict[str, Any], value: Any, path: str) -> Iterator[tuple[str, str, str]]:
    if path == "handlers":
        yield path, ", ".join(value), node["description"]
        return
    shared = node.get("$ref", "").rpartition("/")[2] in SHARED
    there = resolved(schema, node)
    if not shared and "properties" in there:
        for name, below in value.items():
            yield from _rows(schema, there["properties"][name], below, f"{path}.{name}".lstrip("."))
        return
    yield path, json.dumps(_said(value), ensure_ascii=False), node["description"]


def _said(value: Any) -> Any:
    """A default without what it leaves empty."""
    if not isinstance(value, dict):
        return value
    return {k: said for k, v in value.items() if (said := _said(v)) not in ("", [], {})}


def resolved(schema: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    """The definition that a node refers to, or the node."""
    ref = node.get("$ref")
    return schema["definitions"][ref.rpartition("/")[2]] if ref else node


def wanted_readme() -> str:
    """The README with the values that there are."""
    text = README.read_text(encoding="utf-8")
    before, head, after = text.partition(TABLE_HEAD)
    _, end, rest = after.partition("\n\n")
    cells = ((p, d if d == NONE else f"`{d}`", w) for p, d, w in rows())
    table = "".join(f"| `{p}` | {d} | {w} |\n" for p, d, w in cells)
    return before + head + table.rstrip("\n") + end + rest


if __name__ == "__main__":
    SCHEMA.write_text(wanted_schema(), encoding="utf-8")
    README.write_text(wanted_readme(), encoding="utf-8")
