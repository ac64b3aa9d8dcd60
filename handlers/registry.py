"""Which handlers there are, and which of them may run. Built-in ones come through the same door as all others."""

from collections.abc import Iterable, Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Final

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from keshi.handlers.contract import Handler
from keshi.runtime.settings import ConfigurationError, Environment, ProcessSettings
from keshi.runtime.settings import load as settings

GROUP: Final = "keshi.handlers"
"""Entry points of this group name a system each: `billing = "package.module:Class"`."""


class DevSettings(BaseSettings):
    """`KESHI_DEV_…`: for tests of keshi itself, in development alone."""

    model_config = SettingsConfigDict(env_prefix="KESHI_DEV_", frozen=True, extra="ignore")

    handlers: str = Field(default="", description="`system=module:Class`, several by comma: used in place of others")


def available() -> dict[str, EntryPoint]:
    """All handlers that are installed, by system. Loads none of them.

    Raises:
        ConfigurationError: two packages bring a handler for the same system, or `KESHI_DEV_HANDLERS` is wrong.
    """
    found: dict[str, EntryPoint] = {}
    for point in sorted(entry_points(group=GROUP), key=lambda p: (p.name, p.value)):
        other = found.setdefault(point.name, point)
        if other.value != point.value:
            raise ConfigurationError(
                f"two handlers for {point.name}: {other.value} and {point.value}; uninstall one of their packages"
            )
    return found | _in_place_of()


def _in_place_of() -> dict[str, EntryPoint]:
    """Handlers that a test puts in the place of others, such as one with a bug planted in it."""
    given = settings(DevSettings).handlers
    if not given:
        return {}
    if settings(ProcessSettings).environment is not Environment.DEVELOPMENT:
        raise ConfigurationError(
            "KESHI_DEV_HANDLERS is set outside development: unset it, or set KESHI_ENVIRONMENT=development"
        )
    found = {}
    for pair in given.split(","):
        system, _, value = pair.strip().partition("=")
        if not (system and ":" in value):
            raise ConfigurationError("KESHI_DEV_HANDLERS: write system=module:Class, several by comma")
        found[system] = EntryPoint(name=system, value=value, group=GROUP)
    return found


def allowed(named: Sequence[str], setting: str) -> tuple[str, ...]:
    """The systems to serve: those named on the command line, within `KESHI_WORKER_ALLOWED_HANDLERS`.

    Raises:
        ConfigurationError: one is named that is not on the list, or none is named at all.
    """
    listed = tuple(dict.fromkeys(s.strip() for s in setting.split(",") if s.strip()))
    if not named and not listed:
        raise ConfigurationError("name the systems to serve, or list them in KESHI_WORKER_ALLOWED_HANDLERS")
    strangers = [s for s in named if listed and s not in listed]
    if strangers:
        raise ConfigurationError(
            f"{strangers[0]} is not in KESHI_WORKER_ALLOWED_HANDLERS ({', '.join(listed)}): add it there, or leave it"
        )
    return tuple(dict.fromkeys(named)) or listed


def load(systems: Iterable[str]) -> list[Handler]:
    """Make the handlers of these systems, each from its own settings.

    Raises:
        ConfigurationError: there is none for a system, it cannot be imported, or it lacks settings.
    """
    points = available()
    handlers: list[Handler] = []
    try:
        for system in systems:
            handlers.append(_make(system, points))  # noqa: PERF401 - those made before have to be closed
    except BaseException:
        for handler in handlers:
            handler.close()
        raise
    return handlers


def _make(system: str, points: dict[str, EntryPoint]) -> Handler:
    point = points.get(system)
    if point is None:
        there = ", ".join(points) or "none"
        raise ConfigurationError(f"no handler for {system} is installed (there are: {there})")
    try:
        kind = point.load()
    except ImportError as e:
        missing = e.name or type(e).__name__
        raise ConfigurationError(
            f"the handler for {system} ({point.value}) cannot be imported, {missing} is missing: install its extra"
        ) from None
    if not (isinstance(kind, type) and issubclass(kind, Handler)):
        raise ConfigurationError(f"{point.value} is no keshi.handlers.contract.Handler")
    if getattr(kind, "system", None) != system:
        raise ConfigurationError(f"{point.value} is registered for {system} and says it is another system's")
    return kind.from_environment()
