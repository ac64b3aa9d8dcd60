"""billing: an SQL system on PostgreSQL, as a company might have grown it.

What its owner decided, and whoever erases from it has to respect:

- An invoice is a tax record. It is kept for seven years after its issue: until then it stays when its
  customer is erased, with `restricted` set. It carries its own copy of name and address, and so does not need
  the customer's row, which goes.
- The payments of an invoice belong to the same statutory record: while the invoice stays, they stay with it,
  `restricted` as well.
- Use is suspended record by record: `suspended_by` names who asked, `suspended_at` since when. The marker
  `manual` is set by the company's own people, and only they lift it.
"""

from __future__ import annotations

from dataclasses import astuple
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from keshi.dev.systems import roles

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from keshi.dev.systems.people import Person

ROLE = "keshi_billing"
"""The handler's role: it reads, deletes, and updates suspension and restriction. Nothing else."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS customers (
    customer_id  text PRIMARY KEY,
    name         text NOT NULL,
    email        text NOT NULL,
    phone        text NOT NULL,
    address      text NOT NULL,
    suspended_by text,
    suspended_at timestamptz,
    CHECK ((suspended_by IS NULL) = (suspended_at IS NULL))
);
CREATE INDEX IF NOT EXISTS customers_email ON customers (lower(email));
CREATE INDEX IF NOT EXISTS customers_phone ON customers (phone);

-- No foreign key to customers: an invoice outlives its customer's row.
CREATE TABLE IF NOT EXISTS invoices (
    id           bigint PRIMARY KEY,
    customer_id  text NOT NULL,
    issued_on    date NOT NULL,
    amount_yen   bigint NOT NULL,
    name         text NOT NULL,
    address      text NOT NULL,
    restricted   boolean NOT NULL DEFAULT false,
    suspended_by text,
    suspended_at timestamptz,
    CHECK ((suspended_by IS NULL) = (suspended_at IS NULL))
);
CREATE INDEX IF NOT EXISTS invoices_customer ON invoices (customer_id);

CREATE TABLE IF NOT EXISTS payments (
    id           bigint PRIMARY KEY,
    customer_id  text NOT NULL,
    invoice_id   bigint NOT NULL REFERENCES invoices,
    paid_on      date NOT NULL,
    method       text NOT NULL,
    amount_yen   bigint NOT NULL,
    restricted   boolean NOT NULL DEFAULT false,
    suspended_by text,
    suspended_at timestamptz,
    CHECK ((suspended_by IS NULL) = (suspended_at IS NULL))
);
CREATE INDEX IF NOT EXISTS payments_customer ON payments (customer_id);
CREATE INDEX IF NOT EXISTS payments_invoice ON payments (invoice_id);

CREATE TABLE IF NOT EXISTS usage (
    id           bigserial PRIMARY KEY,
    customer_id  text NOT NULL REFERENCES customers,
    day          date NOT NULL,
    units        integer NOT NULL,
    suspended_by text,
    suspended_at timestamptz,
    CHECK ((suspended_by IS NULL) = (suspended_at IS NULL))
);
CREATE INDEX IF NOT EXISTS usage_customer ON usage (customer_id);
"""

_UPDATABLE = {
    "customers": ("suspended_by", "suspended_at"),
    "invoices": ("restricted", "suspended_by", "suspended_at"),
    "payments": ("restricted", "suspended_by", "suspended_at"),
    "usage": ("suspended_by", "suspended_at"),
}


def create(dsn: str, *, password: str, role: str = ROLE) -> str:
    """Makes the tables and the handler's role in an existing database; may be repeated.

    Args:
        dsn: connection of the database's owner, who may create roles.
        password: for the role; sent to the server only as a SCRAM verifier.
        role: a role belongs to the whole server: tests that share one give each database its own.

    Returns:
        The connection string of the handler's role.
    """
    with psycopg.connect(dsn) as connection:
        connection.execute(_SCHEMA)
    return roles.create(dsn, role, password, _UPDATABLE)


def seed(dsn: str, people: Iterable[Person]) -> None:
    """Writes the people's records in one transaction; the tables must not hold them yet."""
    everybody = tuple(people)
    with psycopg.connect(dsn) as connection:
        _copy(connection, "customers", [astuple(p.customer) for p in everybody if p.customer])
        _copy(connection, "invoices", [astuple(row) for p in everybody for row in p.invoices])
        _copy(connection, "payments", [astuple(row) for p in everybody for row in p.payments])
        _copy(connection, "usage", [astuple(row) for p in everybody for row in p.usage])
        connection.execute("SELECT setval('usage_id_seq', (SELECT coalesce(max(id), 1) FROM usage))")
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("ANALYZE")  # a fresh table has no statistics, and is scanned whole


_COLUMNS = {
    "customers": ("customer_id", "name", "email", "phone", "address", "suspended_by", "suspended_at"),
    "invoices": ("id", "customer_id", "issued_on", "amount_yen", "name", "address"),
    "payments": ("id", "customer_id", "invoice_id", "paid_on", "method", "amount_yen"),
    "usage": ("id", "customer_id", "day", "units"),
}


def _copy(connection: psycopg.Connection, table: str, rows: Sequence[tuple[object, ...]]) -> None:
    columns = sql.SQL(", ").join(map(sql.Identifier, _COLUMNS[table]))
    statement = sql.SQL("COPY {} ({}) FROM STDIN").format(sql.Identifier(table), columns)
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        for row in rows:
            copy.write_row(row)
