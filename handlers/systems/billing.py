"""billing: customers, invoices, payments and usage in an SQL database.

- Found by customer id, e-mail address (in any case) and phone number. Invoices, payments and usage hang on the
  customer id; invoices outlive their customer's row, so that a customer id is searched for by itself, too.
- An invoice is kept as long as the law asks for it, its payments with it. Kept is restricted; the rest goes:
  payments, invoices, usage, and the customer last, because the others refer to it.
- Use is suspended by a mark on each row. A mark that isn't ours stays.
"""

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Self

from psycopg import sql
from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from keshi.handlers.connectors.sql import Database
from keshi.handlers.contract import (
    Active,
    Gone,
    Handler,
    Located,
    Results,
    Retained,
    State,
    Suspended,
    Union,
    Verified,
    Work,
    hurried,
)
from keshi.handlers.errors import GiveToPerson, LeaseEnded
from keshi.handlers.systems.retention import kept_until
from keshi.runtime.settings import load
from keshi.schemas.commands import Action
from keshi.schemas.tasks import Found

OURS = "keshi:"
"""How our marks begin; the request's id follows."""
SEARCHED = ("customer_id", "email", "phone")
STATUTORY = ("invoices", "payments")
KEYS = {"payments": "id", "invoices": "id", "usage": "id", "customers": "customer_id"}
"""Tables in the order in which rows may go, each with its key."""

# One statement for a whole list: `task` is the place in it.
_LOCATE = """
WITH wanted AS (
    SELECT * FROM unnest(%(task)s::int[], %(type)s::text[], %(value)s::text[]) AS w (task, type, value)
), owners AS (
    SELECT task, value AS customer_id FROM wanted WHERE type = 'customer_id'
    UNION SELECT task, customer_id FROM wanted JOIN customers ON lower(email) = lower(value) WHERE type = 'email'
    UNION SELECT task, customer_id FROM wanted JOIN customers ON phone = value WHERE type = 'phone'
)
SELECT task, 'customers' AS category, customer_id AS ref, suspended_by FROM owners JOIN customers USING (customer_id)
UNION ALL SELECT task, 'invoices', id::text, suspended_by FROM owners JOIN invoices USING (customer_id)
UNION ALL SELECT task, 'payments', id::text, suspended_by FROM owners JOIN payments USING (customer_id)
UNION ALL SELECT task, 'usage', id::text, suspended_by FROM owners JOIN usage USING (customer_id)
"""
_READ = """
SELECT 'customers' AS category, customer_id AS ref, suspended_by, false AS restricted, NULL::date AS issued_on
FROM customers WHERE customer_id = ANY (%(customers)s::text[])
UNION ALL SELECT 'invoices', id::text, suspended_by, restricted, issued_on
FROM invoices WHERE id = ANY (%(invoices)s::text[]::bigint[])
UNION ALL SELECT 'payments', p.id::text, p.suspended_by, p.restricted, i.issued_on
FROM payments p JOIN invoices i ON i.id = p.invoice_id WHERE p.id = ANY (%(payments)s::text[]::bigint[])
UNION ALL SELECT 'usage', id::text, suspended_by, false, NULL
FROM usage WHERE id = ANY (%(usage)s::text[]::bigint[])
"""
_RESTRICT = sql.SQL("UPDATE {table} SET restricted = true WHERE {these} AND NOT restricted")
_DELETE = sql.SQL("DELETE FROM {table} WHERE {these}")
_SUSPEND = sql.SQL(
    "UPDATE {table} SET suspended_by = %(mark)s, suspended_at = now() WHERE {these} AND suspended_by IS NULL"
)
_RESUME = sql.SQL(
    "UPDATE {table} SET suspended_by = NULL, suspended_at = NULL WHERE {these} AND starts_with(suspended_by, %(mark)s)"
)

Key = tuple[str, str]
Rows = dict[Key, dict[str, Any]]


class Settings(BaseSettings):
    """`KESHI_BILLING_…`."""

    model_config = SettingsConfigDict(env_prefix="KESHI_BILLING_", frozen=True, hide_input_in_errors=True)

    dsn: SecretStr = SecretStr("")


class Billing(Handler):
    """The handler of the billing database."""

    system: ClassVar[str] = "billing"
    actions: ClassVar[frozenset[Action]] = frozenset({Action.ERASE, Action.SUSPEND_USE, Action.RESUME_USE})

    def __init__(self, database: Database) -> None:
        self._db = database

    @classmethod
    def from_environment(cls) -> Self:
        return cls(Database(load(Settings).dsn.get_secret_value(), setting="KESHI_BILLING_DSN"))

    def locate(self, task: Work) -> Located:
        return self._located([task])[0]

    def erase(self, task: Work, union: Union) -> None:
        rows = self._read([(task, union)])
        kept = {key for key, row in rows.items() if _kept(task, row)}
        for table in STATUTORY:
            self._change(task, _RESTRICT, table, kept)
        for table in KEYS:
            self._change(task, _DELETE, table, rows.keys() - kept)

    def suspend_use(self, task: Work, union: Union) -> None:
        for table in KEYS:
            self._change(task, _SUSPEND, table, _keys(union), mark=f"{OURS}{task.request_id}")

    def resume_use(self, task: Work, union: Union) -> None:
        for table in KEYS:
            self._change(task, _RESUME, table, _keys(union), mark=OURS)
        if any(row["suspended_by"] for row in self._read([(task, union)]).values()):
            raise GiveToPerson("suspended_by_other")

    def verify(self, task: Work, union: Union) -> Verified:
        return self._verified([(task, union)])[0]

    def locate_list(self, tasks: Sequence[Work]) -> Results[Located]:
        try:
            return [*self._located(tasks)]
        except (GiveToPerson, LeaseEnded):
            return super().locate_list(tasks)  # one by one: each fails for itself

    def verify_list(self, tasks: Sequence[tuple[Work, Union]]) -> Results[Verified]:
        try:
            return [*self._verified(tasks)]
        except (GiveToPerson, LeaseEnded):
            return super().verify_list(tasks)

    def ready(self) -> bool:
        return self._db.ready()

    def close(self) -> None:
        self._db.close()

    def _located(self, tasks: Sequence[Work]) -> list[Located]:
        wanted = [(n, kind, value) for n, t in enumerate(tasks) for kind in SEARCHED for value in t.values(kind)]
        found: list[list[Found]] = [[] for _ in tasks]
        if wanted:
            task, kinds, values = (list(column) for column in zip(*wanted, strict=True))
            rows = self._db.run(hurried(tasks), _LOCATE, {"task": task, "type": kinds, "value": values}).rows
            for row in rows:
                found[row["task"]].append(_found(row))
        return [
            Located(
                found=tuple(f for f in records if f.category in task.categories),
                searched=tuple(kind for kind in SEARCHED if task.values(kind)),
            )
            for task, records in zip(tasks, found, strict=True)
        ]

    def _verified(self, tasks: Sequence[tuple[Work, Union]]) -> list[Verified]:
        rows = self._read(tasks)
        return [Verified(tuple(_state(task, rows.get((f.category, f.ref))) for f in union)) for task, union in tasks]

    def _read(self, tasks: Sequence[tuple[Work, Union]]) -> Rows:
        keys = {key for _, union in tasks for key in _keys(union)}
        if not keys:
            return {}
        if any(category not in KEYS for category, _ in keys):
            raise GiveToPerson("category_unknown")  # not to be taken for gone
        values = {table: _refs(table, keys) for table in KEYS}
        found = self._db.run(hurried(task for task, _ in tasks), _READ, values).rows
        return {(row["category"], row["ref"]): row for row in found}

    def _change(self, task: Work, statement: sql.SQL, table: str, keys: Iterable[Key], **values: str) -> None:
        refs = _refs(table, keys)
        if not refs:
            return
        kind = sql.SQL("text[]" if table == "customers" else "text[]::bigint[]")
        these = sql.SQL("{key} = ANY (%(refs)s::{kind})").format(key=sql.Identifier(KEYS[table]), kind=kind)
        query = statement.format(table=sql.Identifier(table), these=these)
        if self._db.run(task, query, {"refs": refs, **values}).count:
            task.checkpoint()


def _found(row: dict[str, Any]) -> Found:
    return Found(category=row["category"], ref=row["ref"], was="suspended" if row["suspended_by"] else "active")


def _keys(union: Union) -> set[Key]:
    return {(f.category, f.ref) for f in union}


def _refs(table: str, keys: Iterable[Key]) -> list[str]:
    return sorted(ref for category, ref in keys if category == table)


def _kept(task: Work, row: dict[str, Any]) -> Retained | None:
    """The law keeps an invoice from its issue on, and its payments as long."""
    rule = kept_until(task, row["issued_on"], STATUTORY) if row["issued_on"] else None
    return rule and Retained(rule[0].ground, rule[1], restricted=row["restricted"])


def _state(task: Work, row: dict[str, Any] | None) -> State:
    if row is None:
        return Gone()
    if task.action is Action.ERASE and row["restricted"] and (kept := _kept(task, row)):
        return kept
    return Suspended() if row["suspended_by"] else Active()
