"""The people of the bench: all invented, each with a few rows in the table of each system."""

from collections.abc import Iterator

import psycopg
from psycopg import sql

from bench.handlers import ALL

ROWS = 3
"""Of one person in each table."""

_TABLE = """
CREATE TABLE {table} (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    person int NOT NULL,
    customer_id text NOT NULL,
    email text NOT NULL,
    note text NOT NULL
)
"""
_INDEXES = (
    "CREATE INDEX ON {table} (customer_id)",
    "CREATE INDEX ON {table} (lower(email))",
)
_FILL = """
INSERT INTO {table} (person, customer_id, email, note)
SELECT p, 'C-' || lpad(p::text, 8, '0'), 'Person.' || p || '@customer.example', repeat(md5(p::text), 5)
FROM generate_series(%(first)s::int, %(last)s::int) AS p, generate_series(1, %(rows)s::int)
"""


def customer_id(person: int) -> str:
    """What the systems call this person."""
    return f"C-{person:08}"


def email(person: int) -> str:
    """In the small letters of whoever wrote it into the request; the systems have it in others."""
    return f"person.{person}@customer.example"


class People:
    """Makes people before they are needed, hands each one out once, and counts what is left of them.

    Args:
        dsn: Of the database of all five systems, as its owner.
    """

    def __init__(self, dsn: str) -> None:
        self._db = psycopg.connect(dsn, autocommit=True)
        self._made = 0
        self._used = 0
        for table in tables():
            for text in (_TABLE, *_INDEXES):
                self._db.execute(sql.SQL(text).format(table=table))

    @property
    def used(self) -> int:
        """How many were handed out."""
        return self._used

    def ensure(self, number: int) -> None:
        """Have at least so many that nobody was handed out of; the server knows how large its tables are."""
        missing = number - (self._made - self._used)
        if missing <= 0:
            return
        values = {"first": self._made + 1, "last": self._made + missing, "rows": ROWS}
        for table in tables():
            self._db.execute(sql.SQL(_FILL).format(table=table), values)
            self._db.execute(sql.SQL("VACUUM ANALYZE {table}").format(table=table))
        self._made += missing

    def __iter__(self) -> Iterator[int]:
        while self._used < self._made:
            self._used += 1
            yield self._used

    def wrong(self) -> str | None:
        """What is not as it should be: rows of those who were to go, or none of those who were not."""
        for table in tables():
            query = sql.SQL(
                "SELECT count(*) FILTER (WHERE person <= %(used)s), count(*) FILTER (WHERE person > %(used)s) FROM {t}"
            ).format(t=table)
            left, others = self._db.execute(query, {"used": self._used}).fetchone() or (0, 0)
            if left:
                return f"{left} rows of erased people are still in {table.as_string()}"
            wanted = (self._made - self._used) * ROWS
            if others != wanted:
                return f"{table.as_string()} holds {others} rows of people whom nobody asked about, not {wanted}"
        return None

    def close(self) -> None:
        """Let go of the connection."""
        self._db.close()


def tables() -> tuple[sql.Identifier, ...]:
    """The tables, one for each system."""
    return tuple(sql.Identifier(handler.table) for handler in ALL)
