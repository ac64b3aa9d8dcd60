"""The billing handler against the real database, judged by the look past it."""

import signal
import time
from calendar import isleap
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.reference import (
    ERASE,
    RESUME,
    SUSPEND,
    TODAY,
    EndsAt,
    attempt,
    billing_rows,
    closing,
    judged,
    killed_in_mid_act,
    kinds_of_people,
    refs,
    states,
    work,
)
from keshi.dev.systems.people import Person, Trait
from keshi.handlers.contract import Active, Limit, Located, Retained, Suspended, Union, Verified, Work
from keshi.handlers.errors import GiveToPerson, LeaseEnded, Retry
from keshi.handlers.systems.billing import Billing
from keshi.handlers.systems.retention import kept_until
from keshi.runtime.settings import ConfigurationError
from keshi.schemas.tasks import Found, RetentionRule

BILLING = Trait.BILLING


@pytest.fixture
def handler(billing_database: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Billing]:
    monkeypatch.setenv("KESHI_BILLING_DSN", billing_database.handler_dsn)
    with closing(Billing.from_environment()) as made:
        yield made


def person_with(everybody: tuple[Person, ...], *traits: Trait) -> Person:
    return next(p for p in everybody if set(traits) <= p.traits and (p.payments or BILLING not in traits))


def change(billing_database: Any, statement: str, **values: object) -> None:
    with psycopg.connect(billing_database.dsn) as connection:
        connection.execute(statement, values)


# --- erase


def test_every_kind_of_person_is_erased_and_nobody_else_is_touched(
    handler: Billing, billing_database: Any, everybody: tuple[Person, ...]
) -> None:
    chosen = kinds_of_people(everybody)
    before = billing_rows(billing_database.dsn)
    for person in chosen:
        union, verified = attempt(handler, work("billing", person))
        assert refs(union) == person.refs("billing")
        assert set(states(union, verified).values()) <= {"Gone", "Retained"}
    found = judged("billing", before, billing_rows(billing_database.dsn), {ERASE: chosen})
    assert found.ok, found.as_json()
    assert found.right["retained"] > 0
    assert found.right["gone"] > 0


@pytest.mark.parametrize("kind", ["customer_id", "email", "phone"])
def test_each_type_of_identifier_finds_everything_by_itself(
    handler: Billing, everybody: tuple[Person, ...], kind: str
) -> None:
    for person in kinds_of_people(everybody, BILLING):
        located = handler.locate(work("billing", person, ERASE, kind))
        assert refs(located.found) == person.refs("billing")
        assert located.searched == (kind,)


def test_an_address_that_looks_alike_finds_nobody_else(handler: Billing, everybody: tuple[Person, ...]) -> None:
    """The first five people differ by what `LIKE` takes for a wildcard."""
    for person in everybody[:5]:
        assert refs(handler.locate(work("billing", person, ERASE, "email")).found) == person.refs("billing")


def test_without_an_identifier_that_billing_knows_nothing_was_searched(
    handler: Billing, everybody: tuple[Person, ...]
) -> None:
    assert handler.locate(work("billing", everybody[0], identifiers=())) == Located((), ())


def test_invoices_of_a_customer_who_is_gone_are_still_found_by_the_customer_id(
    handler: Billing, everybody: tuple[Person, ...]
) -> None:
    person = person_with(everybody, BILLING, Trait.RETAINED)
    attempt(handler, work("billing", person))
    union, verified = attempt(handler, work("billing", person, ERASE, "customer_id"))
    assert union
    assert set(states(union, verified).values()) == {"Retained"}


def test_what_is_kept_names_its_ground_and_the_last_day_of_the_period(
    handler: Billing, everybody: tuple[Person, ...]
) -> None:
    person = person_with(everybody, BILLING, Trait.RETAINED, Trait.AGED)
    union, verified = attempt(handler, work("billing", person))
    issued = {str(i.id): i.issued_on for i in person.invoices}
    issued_of = {("invoices", ref): day for ref, day in issued.items()}
    issued_of |= {("payments", str(p.id)): issued[str(p.invoice_id)] for p in person.payments}
    kept = [(f, s) for f, s in zip(union, verified.states, strict=True) if isinstance(s, Retained)]
    assert {f.category for f, _ in kept} == {"invoices", "payments"}
    for f, state in kept:
        end = issued_of[f.category, f.ref].replace(year=issued_of[f.category, f.ref].year + 7)
        assert state == Retained("jp.tax-records", end - timedelta(days=1), restricted=True)


def test_an_invoice_that_is_kept_but_not_restricted_does_not_count_as_retained(
    handler: Billing, billing_database: Any, everybody: tuple[Person, ...]
) -> None:
    person = person_with(everybody, BILLING, Trait.RETAINED)
    task = work("billing", person)
    union, _ = attempt(handler, task)
    change(billing_database, "UPDATE invoices SET restricted = false WHERE customer_id = %(c)s", c=person.customer_id)
    seen = states(union, handler.verify(task, union))
    assert {seen[f"invoices:{i.id}"] for i in person.invoices} <= {"Active", "Gone"}
    assert "Active" in seen.values()


def test_when_the_period_is_over_the_kept_rest_goes(
    handler: Billing, billing_database: Any, everybody: tuple[Person, ...]
) -> None:
    person = person_with(everybody, BILLING, Trait.RETAINED)
    union, _ = attempt(handler, work("billing", person))
    later = work("billing", person, as_of=TODAY + timedelta(days=8 * 365), identifiers=())
    _, verified = attempt(handler, later, union)
    assert set(states(union, verified).values()) == {"Gone"}
    assert not person.refs("billing") & billing_rows(billing_database.dsn).systems["billing"].keys()


def test_without_a_rule_nothing_is_kept(handler: Billing, everybody: tuple[Person, ...]) -> None:
    union, verified = attempt(handler, work("billing", person_with(everybody, BILLING, Trait.RETAINED), retention=()))
    assert set(states(union, verified).values()) == {"Gone"}


def test_only_the_categories_of_the_task_are_located(handler: Billing, everybody: tuple[Person, ...]) -> None:
    located = handler.locate(work("billing", everybody[0], categories=("usage",)))
    assert {f.category for f in located.found} == {"usage"}


def test_a_customer_who_still_has_usage_is_left_for_the_next_attempt(
    handler: Billing, everybody: tuple[Person, ...]
) -> None:
    """A row that came after locating is never deleted on the way: it has to be located, too."""
    person = person_with(everybody, BILLING)
    task = work("billing", person)
    union = tuple(f for f in handler.locate(task).found if f.ref != str(person.usage[0].id))
    with pytest.raises(Retry) as failure:
        handler.act(task, union)
    assert failure.value.code == "still_referenced"
    both, verified = attempt(handler, task, union)
    assert refs(both) == person.refs("billing")
    assert set(states(both, verified).values()) <= {"Gone", "Retained"}


def test_nothing_outside_the_union_is_erased(
    handler: Billing, billing_database: Any, everybody: tuple[Person, ...]
) -> None:
    person = person_with(everybody, BILLING)
    before = billing_rows(billing_database.dsn)
    only = Found(category="usage", ref=str(person.usage[0].id))
    handler.act(work("billing", person), (only,))
    after = billing_rows(billing_database.dsn)
    assert before.systems["billing"].keys() - after.systems["billing"].keys() == {f"usage:{only.ref}"}


# --- crashes and leases


def test_killed_in_mid_act_the_next_attempt_completes_it_over_the_union(
    handler: Billing, billing_database: Any, everybody: tuple[Person, ...], tmp_path: Path
) -> None:
    person = person_with(everybody, BILLING, Trait.RETAINED, Trait.AGED)
    before = billing_rows(billing_database.dsn)
    task = work("billing", person)
    union = handler.locate(task).found
    environment = {"KESHI_BILLING_DSN": billing_database.handler_dsn}
    assert killed_in_mid_act(task, union, environment, tmp_path) == -signal.SIGKILL
    half = billing_rows(billing_database.dsn)
    assert half.systems != before.systems
    assert not judged("billing", before, half, {ERASE: [person]}).ok
    both, verified = attempt(handler, task, union)
    assert set(states(both, verified).values()) == {"Gone", "Retained"}
    assert judged("billing", before, billing_rows(billing_database.dsn), {ERASE: [person]}).ok


def test_a_lease_that_ends_at_any_step_leaves_what_a_later_attempt_completes(
    handler: Billing, billing_database: Any, everybody: tuple[Person, ...]
) -> None:
    people = [p for p in everybody if {Trait.RETAINED, Trait.AGED} <= p.traits and p.payments]
    before = billing_rows(billing_database.dsn)
    for step in range(1, 6):
        task = work("billing", people[step], limit=EndsAt(step))
        union = handler.locate(task).found
        with pytest.raises(LeaseEnded):
            handler.act(task, union)
        at_the_end = billing_rows(billing_database.dsn)
        with pytest.raises(LeaseEnded):
            handler.act(task, union)
        assert billing_rows(billing_database.dsn).systems == at_the_end.systems
        attempt(handler, work("billing", people[step]), union)
    found = judged("billing", before, billing_rows(billing_database.dsn), {ERASE: people[1:6]})
    assert found.ok, found.as_json()


def test_a_process_frozen_right_before_its_commit_commits_nothing(
    handler: Billing, billing_database: Any, everybody: tuple[Person, ...]
) -> None:
    """The server ends the transaction: the frozen process had looked at the clock before it froze."""

    class Frozen(Limit):
        looks = 0

        def require(self) -> float:
            self.looks += 1
            left = super().require()
            if self.looks == 3:  # the one between the statement and its commit
                time.sleep(left + 0.3)
            return left

    person = person_with(everybody, BILLING)
    before = billing_rows(billing_database.dsn)
    task = work("billing", person, SUSPEND, limit=Frozen(0.7))
    with pytest.raises(LeaseEnded):
        handler.act(task, (Found(category="customers", ref=person.customer_id or ""),))
    assert billing_rows(billing_database.dsn).systems == before.systems


def test_a_row_that_somebody_else_holds_is_waited_for_no_longer_than_the_task_has(
    handler: Billing, billing_database: Any, everybody: tuple[Person, ...]
) -> None:
    person = person_with(everybody, BILLING)
    union = handler.locate(work("billing", person)).found
    began = time.monotonic()
    with psycopg.connect(billing_database.dsn) as other:
        other.execute("SELECT 1 FROM customers WHERE customer_id = %s FOR UPDATE", (person.customer_id,))
        with pytest.raises(LeaseEnded):
            handler.act(work("billing", person, SUSPEND, limit=Limit(0.8)), union)
    assert time.monotonic() - began < 5


def test_connections_that_the_server_ended_are_replaced(
    handler: Billing, billing_database: Any, everybody: tuple[Person, ...]
) -> None:
    task = work("billing", everybody[0])
    located = handler.locate(task)
    change(
        billing_database,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE application_name = 'keshi' AND datname = current_database()",
    )
    assert set(handler.locate(task).found) == set(located.found)


# --- suspend and resume


def test_suspended_then_resumed_everything_is_as_it_was_and_marks_of_others_stay(
    handler: Billing, billing_database: Any, everybody: tuple[Person, ...]
) -> None:
    chosen = kinds_of_people(everybody, BILLING)
    before = billing_rows(billing_database.dsn)
    suspended = {}
    for person in chosen:
        union, verified = attempt(handler, work("billing", person, SUSPEND))
        assert set(verified.states) == {Suspended()}
        suspended[person.number] = tuple(f for f in union if f.was == "active")
    during = billing_rows(billing_database.dsn)
    assert judged("billing", before, during, {SUSPEND: chosen}).ok
    for person in chosen:
        task = work("billing", person, RESUME, remembered=suspended[person.number])
        ours = tuple(f for f in handler.locate(task).found if refs([f]) <= refs(task.remembered))
        assert refs(ours) == refs(task.remembered)
        handler.act(task, ours)
        assert set(handler.verify(task, ours).states) == {Active()}
    after = billing_rows(billing_database.dsn)
    assert judged("billing", during, after, {RESUME: chosen}).ok
    assert after.systems == before.systems


def test_the_mark_names_the_request_and_a_second_request_leaves_it(
    handler: Billing, billing_database: Any, everybody: tuple[Person, ...]
) -> None:
    person = person_with(everybody, BILLING)
    first, second = (work("billing", person, SUSPEND) for _ in range(2))
    attempt(handler, first)
    union, _ = attempt(handler, second)
    assert {f.was for f in union} == {"suspended"}
    rows = billing_rows(billing_database.dsn).systems["billing"]
    assert {rows[ref]["suspended_by"] for ref in person.refs("billing")} == {f"keshi:{first.request_id}"}


def test_a_mark_of_somebody_else_is_not_lifted_and_a_person_is_asked(
    handler: Billing, billing_database: Any, everybody: tuple[Person, ...]
) -> None:
    person = person_with(everybody, BILLING, Trait.MANUAL)
    union, _ = attempt(handler, work("billing", person, SUSPEND))
    with pytest.raises(GiveToPerson) as failure:
        handler.act(work("billing", person, RESUME), union)
    assert failure.value.code == "suspended_by_other"
    rows = billing_rows(billing_database.dsn).systems["billing"]
    marks = {ref for ref in person.refs("billing") if rows[ref]["suspended_by"]}
    assert marks == {f"customers:{person.customer_id}"}


def test_erasing_suspended_records_leaves_none(
    handler: Billing, billing_database: Any, everybody: tuple[Person, ...]
) -> None:
    person = person_with(everybody, BILLING, Trait.RETAINED)
    before = billing_rows(billing_database.dsn)
    attempt(handler, work("billing", person, SUSPEND))
    union, verified = attempt(handler, work("billing", person))
    assert set(states(union, verified).values()) == {"Gone", "Retained"}
    assert judged("billing", before, billing_rows(billing_database.dsn), {ERASE: [person]}).ok


# --- lists


def test_a_list_is_answered_as_its_tasks_one_by_one(handler: Billing, everybody: tuple[Person, ...]) -> None:
    tasks = [work("billing", p) for p in everybody] + [work("billing", everybody[0], identifiers=())]
    together, single = handler.locate_list(tasks), [handler.locate(t) for t in tasks]
    for one, other in zip(together, single, strict=True):
        assert isinstance(one, Located)
        assert (set(one.found), one.searched) == (set(other.found), other.searched)
    unions = [(t, located.found) for t, located in zip(tasks, single, strict=True)]
    handler.act_list(unions[::2])
    assert handler.verify_list(unions) == [handler.verify(t, u) for t, u in unions]
    assert handler.verify_list([]) == []
    assert handler.locate_list([]) == []


def test_a_task_of_a_list_whose_time_is_over_harms_no_other(handler: Billing, everybody: tuple[Person, ...]) -> None:
    tasks = [work("billing", everybody[0]), work("billing", everybody[1], limit=Limit(0))]
    first, second = handler.locate_list(tasks)
    assert isinstance(first, Located)
    assert isinstance(second, LeaseEnded)
    union = first.found
    good, bad = handler.verify_list([(tasks[0], union), (tasks[1], union)])
    assert isinstance(good, Verified)
    assert isinstance(bad, LeaseEnded)


# --- planted bugs


class Idle(Billing):
    """Reports without deleting."""

    def erase(self, task: Work, union: Union) -> None:
        pass


def test_a_handler_that_deletes_nothing_is_found_by_its_own_check_and_by_the_look(
    handler: Billing, billing_database: Any, everybody: tuple[Person, ...]
) -> None:
    person = person_with(everybody, BILLING, Trait.RETAINED)
    before = billing_rows(billing_database.dsn)
    with closing(Idle.from_environment()) as idle:
        union, verified = attempt(idle, work("billing", person))
    assert set(states(union, verified).values()) == {"Active"}
    wrong = judged("billing", before, billing_rows(billing_database.dsn), {ERASE: [person]}).wrong
    assert set(wrong) == person.refs("billing")


def test_a_category_that_billing_does_not_have_is_never_taken_for_gone(
    handler: Billing, everybody: tuple[Person, ...]
) -> None:
    with pytest.raises(GiveToPerson):
        handler.verify(work("billing", everybody[0]), (Found(category="baskets", ref="1"),))


# --- settings and failures


@pytest.mark.parametrize("dsn", ["", "not a connection string"])
def test_without_a_connection_string_one_line_says_what_to_set(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KESHI_BILLING_DSN", dsn)
    with pytest.raises(ConfigurationError) as failure:
        Billing.from_environment()
    assert "KESHI_BILLING_DSN" in str(failure.value)
    assert "\n" not in str(failure.value)


def test_a_database_that_is_not_there_is_tried_again_and_not_ready(
    everybody: tuple[Person, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KESHI_BILLING_DSN", "postgresql://nobody:secret@127.0.0.1:1/none")
    with closing(Billing.from_environment()) as lost:
        assert not lost.ready()
        with pytest.raises((Retry, LeaseEnded)) as failure:
            lost.locate(work("billing", everybody[0], limit=Limit(1)))
        assert "secret" not in str(failure.value)


def test_readiness_is_told(handler: Billing) -> None:
    assert handler.ready()


# --- retention, pure


@given(
    made=st.dates(date(2000, 1, 1), date(2040, 12, 31)),
    years=st.lists(st.integers(1, 30), min_size=1, max_size=3),
    age=st.integers(-30, 40 * 366),
)
def test_the_longest_rule_keeps_a_record_to_its_last_day_and_no_longer(made: date, years: list[int], age: int) -> None:
    rules = tuple(RetentionRule(category="invoices", ground=f"law.{y}", years=y) for y in years)
    as_of = made + timedelta(days=age)
    base = Work(request_id="r", system="s", action=ERASE, categories=(), identifiers=(), as_of=as_of, retention=rules)
    longest = max(years)
    end = made.replace(year=made.year + longest, day=28 if (made.month, made.day) == (2, 29) else made.day)
    if (made.month, made.day) == (2, 29) and isleap(end.year):
        end = end.replace(day=29)
    kept = kept_until(base, made, ("invoices", "payments"))
    assert (kept is not None) == (as_of < end)
    if kept:
        assert kept[0].years == longest
        assert kept[1] == end - timedelta(days=1)
    assert kept_until(base, made, ("usage",)) is None
