"""What both reference systems hold, read past keshi: own connections, own queries, nothing of keshi imported."""

import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

Ref = tuple[str, str]
"""Table and key of a row."""
Row = dict[str, Any]
Rows = dict[Ref, Row]


@dataclass(frozen=True)
class Stores:
    """Every row of every table of both systems, as plain JSON values."""

    billing: Rows = field(repr=False)
    crm: Rows = field(repr=False)

    def of(self, system: str) -> Rows:
        """The rows of `billing` or `crm`."""
        return {"billing": self.billing, "crm": self.crm}[system]

    def copy(self) -> "Stores":
        """One that can be changed by itself."""
        return Stores(*({ref: dict(row) for ref, row in rows.items()} for rows in (self.billing, self.crm)))


def read(billing_dsn: str, crm_store: Path) -> Stores:
    """Read both systems, each in one consistent view.

    Args:
        billing_dsn: of the database's owner: the handler's role may not see every table.
        crm_store: the CRM's file.
    """
    return Stores(_billing(billing_dsn), _crm(crm_store))


def _billing(dsn: str) -> Rows:
    rows: Rows = {}
    with psycopg.connect(dsn, connect_timeout=10) as db:
        db.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        db.read_only = True
        db.execute("SET TIME ZONE 'UTC'")
        tables = db.execute(
            "SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE c.relkind IN ('r', 'p', 'm') AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'"
        ).fetchall()
        for schema, table in tables:
            every = sql.SQL("SELECT to_jsonb(t) FROM {} AS t").format(sql.Identifier(schema, table))
            for (row,) in db.execute(every):
                rows[_ref(table if schema == "public" else f"{schema}.{table}", row, len(rows))] = row
    return rows


def _crm(store: Path) -> Rows:
    rows: Rows = {}
    with closing(sqlite3.connect(f"{store.resolve().as_uri()}?mode=ro", uri=True, isolation_level=None)) as db:
        db.row_factory = sqlite3.Row
        db.execute("BEGIN")
        names = db.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND substr(name, 1, 7) <> 'sqlite_'")
        for (table,) in names.fetchall():
            quoted = '"' + table.replace('"', '""') + '"'
            for found in db.execute(f"SELECT * FROM {quoted}"):
                row = json.loads(json.dumps(dict(found), default=repr))
                rows[_ref(table, row, len(rows))] = row
    return rows


def _ref(table: str, row: Row, place: int) -> Ref:
    key = row["customer_id"] if table == "customers" else row.get("id", f"row-{place}")
    return table, str(key)
