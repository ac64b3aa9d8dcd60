"""`keshi config show`: every setting, what it is, and where that comes from. Secrets are only said to be set or not."""

import difflib
import importlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, Final

import typer
from pydantic import SecretStr, ValidationError, create_model
from pydantic_core import PydanticUndefined
from pydantic_settings import BaseSettings, SettingsError

from keshi.cli.output import note, say_json, table
from keshi.cli.serve import TokenSettings
from keshi.runtime import settings
from keshi.runtime.settings import ConfigurationError, WorkerSettings
from keshi.runtime.telemetry import TelemetrySettings

app = typer.Typer(help="The settings, from the environment.", no_args_is_help=True)

OTHERS: Final = {
    "KESHI_ASSESSED_BY": "who judged the request (`keshi submit`)",
    "KESHI_LANGUAGE": "language of texts (`keshi closure`, `keshi person`)",
    "KESHI_ZONE": "zone of times shown, and of days given",
    "KESHI_CACHE": "where `keshi dev` keeps fetched programs",
    "KESHI_RUN_DIR": "where `keshi dev` keeps data of a run",
}
"""Read past the settings, by options and the development environment."""
FOR_TESTS: Final = "KESHI_DEV_"
"""Settings that tests of keshi set: told of only where they are."""
_SECRET_NAME: Final = re.compile(r"(^|_)(token|tokens|password|secret|key|kek|dsn|credentials)$", re.IGNORECASE)
_USER_IN_URL: Final = re.compile(r"//[^/@\s]*@")
_BUILT_IN: Final = "keshi."


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting as it takes effect.

    Attributes:
        name: Of its variable.
        value: As text; None where nothing is set. Of a secret: never.
        secret: Its value is not shown.
        origin: `environment` or `default`.
        is_set: Whether there is a value.
        problem: Why its value cannot be used.
        about: What it is for, where the code says so.
    """

    name: str
    value: str | None
    secret: bool
    origin: str
    is_set: bool
    problem: str | None = None
    about: str | None = None

    @property
    def shown(self) -> str:
        """The value for a person."""
        if self.problem:
            return "not usable"
        if self.secret or self.value is None:
            return "set" if self.is_set else "unset"
        return self.value


@app.callback()
def _config() -> None: ...


@app.command("show")
def show(
    changed: Annotated[bool, typer.Option("--changed", help="Only what the environment sets.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON list of settings.")] = False,
) -> None:
    """Show every setting with its value and where it comes from: the environment, or the default.

    Secrets are only said to be set or unset. Needs no broker, no ledger and no API.
    Exit code 1 if a value cannot be used.
    """
    found, lacking = all_settings()
    strange = strangers(found)
    rows = [s for s in found if s.origin == "environment" or not (changed or s.name.startswith(FOR_TESTS))]
    if as_json:
        say_json([_as_json(s) for s in rows])
    else:
        table(("setting", "value", "from"), [(s.name, s.shown, s.origin) for s in rows])
    for line in lacking:
        note(line)
    for name, meant in strange.items():
        hint = f": is {meant} meant?" if meant else " (a handler that is not allowed here may)"
        note(f"{name} is set, and nothing here reads it{hint}")
    wrong = [s for s in found if s.problem]
    for s in wrong:
        note(f"{s.name}: {s.problem}")
    raise typer.Exit(1 if wrong else 0)


def _as_json(s: Setting) -> dict[str, Any]:
    told: dict[str, Any] = {"name": s.name, "from": s.origin, "set": s.is_set}
    if s.secret:
        told["secret"] = True
    elif not s.problem:
        told["value"] = s.value
    return told | ({"problem": s.problem} if s.problem else {}) | ({"about": s.about} if s.about else {})


def all_settings() -> tuple[list[Setting], list[str]]:
    """All settings by name, and what could not be looked at."""
    kinds, lacking = _kinds()
    found = {s.name: s for kind in kinds for s in _of(kind)}
    for name, about in OTHERS.items():
        value = os.environ.get(name) or None
        found[name] = Setting(name, value, secret=False, origin=_origin(name), is_set=value is not None, about=about)
    return [found[name] for name in sorted(found)], lacking


def strangers(found: list[Setting]) -> dict[str, str | None]:
    """Variables of ours by their name that nothing reads, with the one that may be meant."""
    known = [s.name for s in found]
    ours = sorted(n for n in os.environ if n.upper().startswith("KESHI_") and n.upper() not in known)
    return {n: next(iter(difflib.get_close_matches(n.upper(), known, 1, 0.85)), None) for n in ours}


# --- which there are


def _kinds() -> tuple[list[type[BaseSettings]], list[str]]:
    kinds: list[type[BaseSettings]] = [*_defined_in(settings), TokenSettings, TelemetrySettings]
    lacking: list[str] = []
    for system, module in _handlers():
        try:
            kinds += _defined_in(importlib.import_module(module))
        except ImportError as e:
            lacking.append(f"the settings of {system} are not shown: {e.name or 'a part of it'} is not installed")
    return kinds, lacking


def _defined_in(module: Any) -> list[type[BaseSettings]]:
    kinds = [k for k in vars(module).values() if isinstance(k, type) and issubclass(k, BaseSettings)]
    return [k for k in kinds if k.__module__ == module.__name__]


def _handlers() -> Iterator[tuple[str, str]]:
    """Systems and modules of the handlers that may be loaded: our own, and those that are allowed here."""
    from keshi.handlers import registry  # noqa: PLC0415 - brings in what a handler needs

    allowed = {s.strip() for s in str(_one(WorkerSettings, "allowed_handlers")[0] or "").split(",")}
    try:
        points = registry.available()
    except ConfigurationError as e:
        note(str(e))
        points = {}
    yield "tests", registry.__name__
    for system, point in points.items():
        if point.module.startswith(_BUILT_IN) or system in allowed:
            yield system, point.module


# --- one kind of settings


def _of(kind: type[BaseSettings]) -> Iterator[Setting]:
    problems = _problems(kind)
    for field, info in kind.model_fields.items():
        name = f"{kind.model_config.get('env_prefix', '')}{field}".upper()
        value, problem = _one(kind, field)
        secret = "SecretStr" in str(info.annotation) or bool(_SECRET_NAME.search(field))
        text = None if secret else _text(value)
        yield Setting(
            name=name,
            value=text,
            secret=secret,
            origin=_origin(name),
            is_set=bool(_bare(value)) if secret else text is not None,
            problem=problem or problems.get(field),
            about=info.description,
        )


def _problems(kind: type[BaseSettings]) -> dict[str, str]:
    """What is wrong with the settings taken together, by field."""
    try:
        kind()
    except ValidationError as e:
        errors = e.errors(include_input=False, include_url=False, include_context=False)
        return {str(x["loc"][0]): x["msg"] for x in errors if x["loc"] and x["type"] != "missing"}
    except SettingsError:
        pass  # told of the one field it is about
    return {}


def _one(kind: type[BaseSettings], field: str) -> tuple[Any, str | None]:
    """The value of one field, whatever is wrong with the others, or why there is none."""
    info = kind.model_fields[field]
    base = type(kind.__name__, (BaseSettings,), {"model_config": kind.model_config, "__module__": __name__})
    alone = create_model(kind.__name__, __base__=base, **{field: (info.annotation, info)})  # type: ignore[call-overload]
    try:
        return getattr(alone(), field), None
    except ValidationError as e:
        first = e.errors(include_input=False, include_url=False, include_context=False)[0]
        return None, None if first["type"] == "missing" else first["msg"]
    except SettingsError:
        return None, "expected JSON, such as [60, 300] or an object"


def _origin(name: str) -> str:
    return "environment" if name in {n.upper() for n in os.environ} else "default"


def _bare(value: Any) -> Any:
    return value.get_secret_value() if isinstance(value, SecretStr) else value


def _text(value: Any) -> str | None:
    """A value as it would be written into its variable; of an address, no user and no password."""
    if value is None or value is PydanticUndefined or value in ("", {}, ()):
        return None
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        value = f"[{', '.join(_text(v) or '' for v in value)}]"
    elif isinstance(value, dict):
        value = json.dumps(value, default=str)
    text = str(value.value if isinstance(value, Enum) else value)
    return _USER_IN_URL.sub("//…@", text)
