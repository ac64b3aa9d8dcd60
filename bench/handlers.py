"""Five handlers over a table each, as a platform team would write them: a list is one statement in each step."""

from collections.abc import Sequence
from typing import ClassVar, Self

import orjson
from psycopg import sql
from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from keshi.handlers.connectors.sql import Database
from keshi.handlers.contract import Active, Gone, Handler, Located, Results, Union, Verified, Work, hurried
from keshi.runtime.settings import load
from keshi.schemas.commands import Action
from keshi.schemas.tasks import Found

SEARCHED = ("customer_id", "email")
ACTIVE, GONE = Active(), Gone()

# `task` is the place in the list. The two ways to a person are two index scans; a row found by both comes once.
_LOCATE = """
WITH wanted AS (SELECT * FROM json_to_recordset(%(wanted)s::json) AS w (task int, kind text, value text))
SELECT task, id::text AS ref FROM wanted JOIN {table} ON customer_id = value WHERE kind = 'customer_id'
UNION SELECT task, id::text FROM wanted JOIN {table} ON lower(email) = lower(value) WHERE kind = 'email'
"""
_ERASE = "DELETE FROM {table} WHERE id = ANY (ARRAY(SELECT json_array_elements_text(%(ids)s::json)::bigint))"
_LEFT = (
    "SELECT id::text AS ref FROM {table} WHERE id = ANY (ARRAY(SELECT json_array_elements_text(%(ids)s::json)::bigint))"
)


class Settings(BaseSettings):
    """`KESHI_BENCH_…`."""

    model_config = SettingsConfigDict(env_prefix="KESHI_BENCH_", frozen=True, hide_input_in_errors=True)

    dsn: SecretStr = SecretStr("")


class Table(Handler):
    """The handler of one table. Each step of a whole list is one statement."""

    table: ClassVar[str]
    actions: ClassVar[frozenset[Action]] = frozenset({Action.ERASE})

    def __init__(self, database: Database) -> None:
        self._db = database
        table = sql.Identifier(self.table)
        self._locate, self._erase, self._left = (sql.SQL(text).format(table=table) for text in (_LOCATE, _ERASE, _LEFT))

    @classmethod
    def from_environment(cls) -> Self:
        return cls(Database(load(Settings).dsn.get_secret_value(), setting="KESHI_BENCH_DSN"))

    def locate(self, task: Work) -> Located:
        return self._located([task])[0]

    def erase(self, task: Work, union: Union) -> None:
        self._erased([(task, union)])

    def verify(self, task: Work, union: Union) -> Verified:
        return self._verified([(task, union)])[0]

    def locate_list(self, tasks: Sequence[Work]) -> Results[Located]:
        return [*self._located(tasks)]

    def act_list(self, tasks: Sequence[tuple[Work, Union]]) -> Results[None]:  # type: ignore[override]
        self._erased(tasks)
        return [None] * len(tasks)

    def verify_list(self, tasks: Sequence[tuple[Work, Union]]) -> Results[Verified]:
        return [*self._verified(tasks)]

    def ready(self) -> bool:
        return self._db.ready()

    def close(self) -> None:
        self._db.close()

    def _located(self, tasks: Sequence[Work]) -> list[Located]:
        wanted = [
            {"task": n, "kind": i.type, "value": i.value}
            for n, task in enumerate(tasks)
            for i in task.identifiers
            if i.type in SEARCHED
        ]
        found: list[list[Found]] = [[] for _ in tasks]
        for row in self._db.run(hurried(tasks), self._locate, {"wanted": _json(wanted)}).rows:
            found[row["task"]].append(Found(category=self.table, ref=row["ref"]))
        return [
            Located(tuple(records), searched=tuple(kind for kind in task.types() if kind in SEARCHED))
            for task, records in zip(tasks, found, strict=True)
        ]

    def _erased(self, tasks: Sequence[tuple[Work, Union]]) -> None:
        task = hurried(task for task, _ in tasks)
        task.checkpoint()
        self._db.run(task, self._erase, {"ids": _ids(tasks)})

    def _verified(self, tasks: Sequence[tuple[Work, Union]]) -> list[Verified]:
        rows = self._db.run(hurried(task for task, _ in tasks), self._left, {"ids": _ids(tasks)}).rows
        left = {row["ref"] for row in rows}
        return [Verified(tuple(ACTIVE if f.ref in left else GONE for f in union)) for _, union in tasks]


class Billing(Table):
    system: ClassVar[str] = "billing"
    table: ClassVar[str] = "invoices"


class Crm(Table):
    system: ClassVar[str] = "crm"
    table: ClassVar[str] = "contacts"


class CallRecordings(Table):
    system: ClassVar[str] = "call_recordings"
    table: ClassVar[str] = "calls"


class MaTool(Table):
    system: ClassVar[str] = "ma_tool"
    table: ClassVar[str] = "activities"


class Affiliates(Table):
    system: ClassVar[str] = "affiliates"
    table: ClassVar[str] = "shares"


ALL: tuple[type[Table], ...] = (Billing, Crm, CallRecordings, MaTool, Affiliates)
"""The handlers, in the order of the inventory."""


def _ids(tasks: Sequence[tuple[Work, Union]]) -> str:
    return _json([f.ref for _, union in tasks for f in union])


def _json(data: object) -> str:
    return orjson.dumps(data).decode()
