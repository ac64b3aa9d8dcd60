"""The suite that handlers inherit: a right handler passes it, and each planted bug is found by the rule it breaks."""

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import date
from pathlib import Path
from uuid import uuid4

import pytest

from keshi.handlers.contract import Active, Gone, Handler, Limit, Located, Retained, Suspended, Union, Verified, Work
from keshi.handlers.testing import HandlerSuite, Scene
from keshi.schemas.commands import Action
from keshi.schemas.identifiers import Identifier
from keshi.schemas.outcomes import Outcome
from keshi.schemas.tasks import Found

UNTIL = date(2031, 3, 31)
TABLES = ("letters", "invoices")


class Shelf(Handler):
    """A right one, over a database file: letters go, half of the invoices are kept and restricted."""

    system = "shelf"
    actions = frozenset({Action.ERASE, Action.SUSPEND_USE, Action.RESUME_USE})

    def __init__(self, path: Path) -> None:
        self.path = path

    def run(self, task: Work, statement: str, *values: object) -> list[tuple]:
        with closing(sqlite3.connect(self.path, timeout=task.time_left())) as db, db:
            return db.execute(statement, values).fetchall()

    def locate(self, task: Work) -> Located:
        found = []
        for value in task.values("customer_id"):
            for table in TABLES:
                rows = self.run(task, f"SELECT id, state FROM {table} WHERE customer = ?", value)
                found += [
                    Found(category=table, ref=ref, was="suspended" if state == "suspended" else "active")
                    for ref, state in rows
                ]
        return Located(tuple(found), searched=("customer_id",) if task.values("customer_id") else ())

    def erase(self, task: Work, union: Union) -> None:
        for item in union:
            task.checkpoint()
            self.run(task, f"UPDATE {item.category} SET state = 'restricted' WHERE id = ? AND kept", item.ref)
            self.run(task, f"DELETE FROM {item.category} WHERE id = ? AND NOT kept", item.ref)

    def suspend_use(self, task: Work, union: Union) -> None:
        for item in union:
            task.checkpoint()
            self.run(task, f"UPDATE {item.category} SET state = 'suspended' WHERE id = ?", item.ref)

    def resume_use(self, task: Work, union: Union) -> None:
        for item in union:
            task.checkpoint()
            self.run(task, f"UPDATE {item.category} SET state = 'active' WHERE id = ?", item.ref)

    def verify(self, task: Work, union: Union) -> Verified:
        return Verified(tuple(self.state(task, item) for item in union))

    def state(self, task: Work, item: Found) -> Gone | Active | Suspended | Retained:
        rows = self.run(task, f"SELECT state FROM {item.category} WHERE id = ?", item.ref)
        if not rows:
            return Gone()
        state = rows[0][0]
        if state == "restricted":
            return Retained("jp.tax", UNTIL, restricted=True)
        return Suspended() if state == "suspended" else Active()


class ShelfSuite(HandlerSuite):
    """Not collected by its name: the tests below run it by hand, against right and wrong handlers."""

    def __init__(self, path: Path, kind: type[Shelf] = Shelf) -> None:
        self.path, self.kind = path, kind
        with closing(sqlite3.connect(path)) as db, db:
            db.execute("PRAGMA journal_mode=WAL")
            for table in TABLES:
                db.execute(f"CREATE TABLE {table} (id TEXT PRIMARY KEY, customer TEXT, state TEXT, kept INTEGER)")
        self.put("bystander")

    def put(self, customer: str) -> None:
        with closing(sqlite3.connect(self.path)) as db, db:
            for table in TABLES:
                for n in range(2):
                    kept = table == "invoices" and n == 0
                    db.execute(f"INSERT INTO {table} VALUES (?, ?, 'active', ?)", (f"{n}-{customer}", customer, kept))

    def fresh(self) -> Handler:
        return self.kind(self.path)

    def arrange(self, action: Action) -> Scene:
        customer = f"c-{uuid4().hex[:8]}"
        self.put(customer)
        ends = {
            Action.ERASE: {
                "letters": {Outcome.ERASED: 2},
                "invoices": {Outcome.ERASED: 1, Outcome.RETAINED_BY_LAW: 1},
            },
            Action.SUSPEND_USE: {t: {Outcome.SUSPENDED: 2} for t in TABLES},
            Action.RESUME_USE: {t: {Outcome.RESUMED: 2} for t in TABLES},
        }
        task = Work(
            request_id=str(uuid4()),
            system="shelf",
            action=action,
            categories=TABLES,
            identifiers=(Identifier(type="customer_id", value=customer),),
            as_of=date(2026, 1, 1),
        )
        return Scene(task, dict.fromkeys(TABLES, 2), ends[action])

    def bystanders(self) -> str:
        with closing(sqlite3.connect(self.path)) as db:
            rows = [
                db.execute(f"SELECT * FROM {t} WHERE customer = 'bystander' ORDER BY id").fetchall() for t in TABLES
            ]
        return json.dumps(rows)


RULES = sorted(name for name in vars(HandlerSuite) if name.startswith("test_"))


@pytest.mark.parametrize("rule", RULES)
def test_a_right_handler_passes(tmp_path: Path, rule: str) -> None:
    getattr(ShelfSuite(tmp_path / "db"), rule)()


class SaysSo(Shelf):
    """Reports without deleting."""

    def erase(self, task: Work, union: Union) -> None:
        task.checkpoint()


class MissesOne(Shelf):
    """Does not find the last record."""

    def locate(self, task: Work) -> Located:
        located = super().locate(task)
        return replace(located, found=located.found[:-1])


class LooksAgain(Shelf):
    """Acts on what it finds now, and first removes what it finds things by."""

    def erase(self, task: Work, union: Union) -> None:
        found = self.locate(task).found
        for table in TABLES:
            task.checkpoint()
            self.run(task, f"UPDATE {table} SET customer = NULL WHERE customer = ?", *task.values("customer_id"))
        super().erase(task, found)


class Relocates(Shelf):
    """Acts on what it finds now."""

    def erase(self, task: Work, union: Union) -> None:
        super().erase(task, self.locate(task).found)


class Unstoppable(Shelf):
    """Looks at the time, and never right before it writes."""

    def erase(self, task: Work, union: Union) -> None:
        task.time_left()
        super().erase(replace(task, limit=Limit(60)), union)


class NoHurry(Shelf):
    """Never looks at the time."""

    def erase(self, task: Work, union: Union) -> None:
        super().erase(replace(task, limit=Limit(60)), union)


class TooMuch(Shelf):
    """Takes somebody else's letters too."""

    def erase(self, task: Work, union: Union) -> None:
        super().erase(task, union)
        self.run(task, "DELETE FROM letters")


class Believes(Shelf):
    """Verifies by what was asked, not by what is there."""

    def verify(self, task: Work, union: Union) -> Verified:
        return Verified((Gone(),) * len(union))


class Sorts(Shelf):
    """Says the states in an order of its own."""

    def verify(self, task: Work, union: Union) -> Verified:
        return super().verify(task, tuple(sorted(union, key=lambda f: (f.category, f.ref))))


class OnlyOnce(Shelf):
    """Cannot be repeated."""

    def suspend_use(self, task: Work, union: Union) -> None:
        for item in union:
            task.checkpoint()
            other = "CASE state WHEN 'active' THEN 'suspended' ELSE 'active' END"
            self.run(task, f"UPDATE {item.category} SET state = {other} WHERE id = ?", item.ref)


class SearchesNothing(Shelf):
    """Does not say by what it searched."""

    def locate(self, task: Work) -> Located:
        return replace(super().locate(task), searched=())


class FindsAnybody(Shelf):
    """Finds somebody for everybody."""

    def locate(self, task: Work) -> Located:
        located = super().locate(task)
        return located if located.found else replace(located, found=(Found(category="letters", ref="0-bystander"),))


@pytest.mark.parametrize(
    ("kind", "rule", "says"),
    [
        (SaysSo, HandlerSuite.test_the_full_cycle_ends_with_the_right_outcomes, "ended with not_verified"),
        (MissesOne, HandlerSuite.test_locate_finds_all_of_it_and_changes_nothing, "exactly the records"),
        (LooksAgain, HandlerSuite.test_a_crash_in_the_middle_of_an_act_loses_nothing, "ended with not_verified"),
        (Relocates, HandlerSuite.test_an_act_reaches_what_is_no_longer_found, "every record of the union"),
        (Unstoppable, HandlerSuite.test_a_crash_in_the_middle_of_an_act_loses_nothing, "meets a checkpoint"),
        (NoHurry, HandlerSuite.test_an_act_whose_time_is_over_changes_nothing, "raises LeaseEnded"),
        (TooMuch, HandlerSuite.test_the_full_cycle_ends_with_the_right_outcomes, "nobody else's data"),
        (Believes, HandlerSuite.test_locate_finds_all_of_it_and_changes_nothing, "is active"),
        (Sorts, HandlerSuite.test_verify_says_the_state_of_each_item_in_the_order_given, "keeps the order"),
        (OnlyOnce, HandlerSuite.test_an_act_may_be_repeated, "ended with not_verified"),
        (SearchesNothing, HandlerSuite.test_locate_finds_all_of_it_and_changes_nothing, "by which types"),
        (FindsAnybody, HandlerSuite.test_nobody_is_found_as_nobody, "not there"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_each_planted_bug_is_found_by_its_rule(
    tmp_path: Path, kind: type[Shelf], rule: Callable[[HandlerSuite], None], says: str
) -> None:
    with pytest.raises(AssertionError, match=says) as caught:
        rule(ShelfSuite(tmp_path / "db", kind))
    assert "c-" not in str(caught.value)
