"""The billing database: what is in it, and what the handler's role may and may not do."""

import time
from datetime import date
from typing import Any

import psycopg
import pytest

from keshi.dev.systems import billing
from keshi.dev.systems.people import Person, Trait, people


def count(connection: psycopg.Connection, table: str) -> int:
    return len(connection.execute(f"SELECT 1 FROM {table}").fetchall())


def test_every_record_of_every_person_is_there(billing_database: Any, everybody: tuple[Person, ...]) -> None:
    with psycopg.connect(billing_database.handler_dsn) as connection:
        assert count(connection, "customers") == sum(p.customer is not None for p in everybody)
        for table in ("invoices", "payments", "usage"):
            assert count(connection, table) == sum(len(getattr(p, table)) for p in everybody)


def test_a_customer_is_found_by_address_in_any_case(billing_database: Any, everybody: tuple[Person, ...]) -> None:
    person = next(p for p in everybody if Trait.OTHER_CASE in p.traits)
    query = "SELECT customer_id FROM customers WHERE lower(email) = lower(%s)"
    with psycopg.connect(billing_database.handler_dsn) as connection:
        assert connection.execute(query, (person.email,)).fetchall() == [(person.customer_id,)]


def test_the_handlers_role_deletes_and_marks_and_a_retained_invoice_outlives_its_customer(
    billing_database: Any, everybody: tuple[Person, ...]
) -> None:
    person = next(p for p in everybody if Trait.RETAINED in p.traits)
    who = (person.customer_id,)
    with psycopg.connect(billing_database.handler_dsn) as connection:
        connection.execute("DELETE FROM usage WHERE customer_id = %s", who)
        connection.execute("DELETE FROM customers WHERE customer_id = %s", who)
        connection.execute("UPDATE invoices SET restricted = true WHERE customer_id = %s", who)
        connection.execute(
            "UPDATE payments SET suspended_by = 'case-1', suspended_at = now() WHERE customer_id = %s", who
        )
    with psycopg.connect(billing_database.dsn) as connection:
        kept = connection.execute("SELECT count(*) FROM invoices WHERE restricted AND customer_id = %s", who).fetchone()
        assert kept == (len(person.invoices),)


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO usage (customer_id, day, units) VALUES ('C-000001', '2026-01-01', 1)",
        "UPDATE customers SET name = 'x'",
        "UPDATE invoices SET amount_yen = 0",
        "TRUNCATE usage",
        "CREATE TABLE aside AS SELECT * FROM customers",
        "DROP TABLE usage",
        "CREATE ROLE more",
    ],
)
def test_the_handlers_role_can_do_nothing_else(billing_database: Any, statement: str) -> None:
    with (
        psycopg.connect(billing_database.handler_dsn) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute(statement)


def test_a_marker_has_a_time_and_a_customer_with_usage_stays(
    billing_database: Any, everybody: tuple[Person, ...]
) -> None:
    with psycopg.connect(billing_database.handler_dsn, autocommit=True) as connection:
        with pytest.raises(psycopg.errors.CheckViolation):
            connection.execute("UPDATE customers SET suspended_by = 'case-1' WHERE suspended_by IS NULL")
        with pytest.raises(psycopg.errors.ForeignKeyViolation):
            connection.execute("DELETE FROM customers WHERE customer_id = %s", (everybody[0].customer_id,))


def test_making_it_again_changes_the_password_and_no_row(billing_database: Any, everybody: tuple[Person, ...]) -> None:
    again = billing.create(billing_database.dsn, password="other p@ss/word", role=billing_database.role)
    with psycopg.connect(again) as connection:
        assert count(connection, "customers") == sum(p.customer is not None for p in everybody)
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(billing_database.handler_dsn)


def test_a_new_row_gets_a_number_past_the_sample(billing_database: Any, everybody: tuple[Person, ...]) -> None:
    with psycopg.connect(billing_database.dsn) as connection:
        new = connection.execute(
            "INSERT INTO usage (customer_id, day, units) VALUES ('C-000001', '2026-01-01', 1) RETURNING id"
        ).fetchone()
    assert new
    assert new[0] > max(row.id for p in everybody for row in p.usage)


def test_a_thousand_people_are_written_in_a_few_seconds(database: str) -> None:
    billing.create(database, password="unused", role="keshi_billing_speed")
    try:
        began = time.monotonic()
        billing.seed(database, people(1000, today=date(2026, 4, 1)))
        assert time.monotonic() - began < 10
    finally:
        with psycopg.connect(database) as connection:
            connection.execute("DROP OWNED BY keshi_billing_speed")
            connection.execute("DROP ROLE keshi_billing_speed")
