"""What the five reference systems hold, read past keshi: own connections, own queries, nothing of keshi imported."""

import copy
import json
import sqlite3
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from . import bucket

Ref = tuple[str, str]
"""Table and key of a row."""
Row = dict[str, Any]
Rows = dict[Ref, Row]

_AT_WORK = {"queued", "running"}


@dataclass(frozen=True)
class Stores:
    """Every row of every table of each system, as plain JSON values.

    - Of call recordings, an object with all its versions is a row, too: `objects`, by key.
    - Of the affiliates, a table is `<company>.<table>`; of a request that came in, what it has come to counts.
    - Of the MA tool's deletion jobs only those are rows that still work: what is over is about nobody.
    """

    systems: Mapping[str, Rows] = field(repr=False)

    def of(self, system: str) -> Rows:
        """The rows of a system, as the inventory calls it."""
        return self.systems[system]

    def copy(self) -> "Stores":
        """One that can be changed by itself."""
        return copy.deepcopy(self)


def read(places: Mapping[str, Mapping[str, Any]]) -> Stores:
    """Read all systems, side by side, each in one consistent view.

    Args:
        places: by system, where its data lie, and how its owner gets at them: a handler may not see every table.
    """
    readers = {
        "billing": lambda at: _database(at["dsn"]),
        "crm": lambda at: _file(Path(at["data"]) / "crm.sqlite3"),
        "call_recordings": lambda at: _database(at["dsn"]) | {("objects", k): o for k, o in bucket.read(at).items()},
        "ma_tool": _ma_tool,
        "affiliates": _affiliates,
    }
    with ThreadPoolExecutor() as pool:
        read_ = {system: pool.submit(reader, places[system]) for system, reader in readers.items()}
        return Stores({system: rows.result() for system, rows in read_.items()})


def _ma_tool(at: Mapping[str, Any]) -> Rows:
    rows = _file(Path(at["data"]) / "ma_tool.sqlite3")
    return {ref: row for ref, row in rows.items() if ref[0] != "deletions" or row["state"] in _AT_WORK}


def _affiliates(at: Mapping[str, Any]) -> Rows:
    rows: Rows = {}
    for company, data in at["data"].items():
        for (table, key), row in _file(Path(data) / "affiliate.sqlite3").items():
            kept = {n: row[n] for n in ("status", "identities", "results_count")} if table == "requests" else row
            rows[f"{company}.{table}", key] = kept
    return rows


def _database(dsn: str) -> Rows:
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


def _file(store: Path) -> Rows:
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
