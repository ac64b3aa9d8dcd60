"""Legal grounds, from dated rule files: values of the law live in data, not in code."""

from collections.abc import Mapping
from datetime import date
from functools import cache
from importlib.resources import files
from typing import Annotated

import yaml
from pydantic import Field

from keshi.schemas.base import Model, RuleId
from keshi.schemas.commands import Action, Regime


class Ground(Model):
    """One reason in law or contract.

    `actions` it allows; `due_days` after arrival, with `alarm_days` on the way; `retains` where it makes a
    company keep a record, `refuses` where it backs a refusal.
    """

    id: RuleId
    regime: Regime
    title: str
    actions: tuple[Action, ...] = ()
    due_days: Annotated[int, Field(ge=1, le=3650)] = 30
    alarm_days: tuple[Annotated[int, Field(ge=1, le=3650)], ...] = ()
    retains: bool = False
    refuses: bool = False


class RuleFile(Model):
    """A rule file and the day from which it counts."""

    effective: date
    grounds: tuple[Ground, ...]


@cache
def grounds() -> Mapping[str, Ground]:
    """All grounds by id. Of two files that name one id the later counts."""
    found: dict[str, Ground] = {}
    loaded = (
        RuleFile.model_validate(yaml.safe_load(f.read_text(encoding="utf-8")), strict=False)
        for f in (files("keshi.schemas") / "rules").iterdir()
        if f.name.endswith(".yaml")
    )
    for rule_file in sorted(loaded, key=lambda r: r.effective):
        found.update({g.id: g for g in rule_file.grounds})
    return found
