"""How long the law keeps a record. Pure."""

from collections.abc import Iterable
from datetime import date, timedelta

from keshi.handlers.contract import Work
from keshi.schemas.tasks import RetentionRule


def kept_until(task: Work, made_on: date, categories: Iterable[str]) -> tuple[RetentionRule, date] | None:
    """The rule that keeps a record on the day of the task, and the last day of its period; None where none does.

    Args:
        task: Its rules and its day count.
        made_on: The day from which the period runs.
        categories: Whose rules apply; of several the longest wins.
    """
    rules = sorted((rule for c in categories for rule in task.rules(c)), key=lambda rule: (-rule.years, rule.ground))
    for rule in rules:
        last = _years_on(made_on, rule.years) - timedelta(days=1)
        return (rule, last) if task.as_of <= last else None
    return None


def _years_on(day: date, years: int) -> date:
    """The same day in a later year; 29 February becomes the 28th."""
    try:
        return day.replace(year=day.year + years)
    except ValueError:
        return day.replace(year=day.year + years, day=28)
