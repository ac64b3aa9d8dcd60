"""Which handlers may run: what is installed, what is named, what is allowed."""

import pytest

from keshi.handlers.registry import allowed, available, load
from keshi.runtime.settings import ConfigurationError


def test_built_in_handlers_come_through_the_entry_points() -> None:
    assert {"billing", "crm"} <= set(available())


@pytest.mark.parametrize(
    ("named", "setting", "served"),
    [
        (["crm"], "", ("crm",)),
        (["crm", "crm", "billing"], "", ("crm", "billing")),
        ([], "crm, billing", ("crm", "billing")),
        (["crm"], "crm,billing", ("crm",)),
    ],
)
def test_what_is_named_runs_within_what_is_allowed(named: list[str], setting: str, served: tuple[str, ...]) -> None:
    assert allowed(named, setting) == served


@pytest.mark.parametrize(("named", "setting"), [([], ""), (["crm"], "billing")])
def test_what_is_not_allowed_does_not_run(named: list[str], setting: str) -> None:
    with pytest.raises(ConfigurationError, match="KESHI_WORKER_ALLOWED_HANDLERS"):
        allowed(named, setting)


def test_a_system_without_a_handler_is_named_with_those_that_there_are() -> None:
    with pytest.raises(ConfigurationError, match=r"no handler for nowhere .*billing"):
        load(["nowhere"])
