"""The handler of affiliates against two running companies, judged by the look past it."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from threading import Event
from typing import Any, ClassVar
from uuid import UUID

import pytest

from contract.reference import TODAY, closing, refs
from keshi.dev.systems.affiliates import COMPANIES, sample
from keshi.dev.systems.affiliates.behaviour import Mood, Sign
from keshi.dev.systems.affiliates.certificates import Authority
from keshi.dev.systems.look import Expectation, compare
from keshi.dev.systems.people import Person, people
from keshi.handlers.connectors import opendsr
from keshi.handlers.contract import (
    Accepted,
    Active,
    Declined,
    Gone,
    Limit,
    NotHeld,
    NotSearchable,
    State,
    UnderWay,
    Union,
    Work,
)
from keshi.handlers.errors import GiveToPerson, LeaseEnded, Retry
from keshi.handlers.systems.affiliates import ASKED_ANEW, Affiliates, request_id
from keshi.handlers.testing import HandlerSuite, Scene
from keshi.handlers.worker.steps import Patience, Steps
from keshi.schemas.commands import Action
from keshi.schemas.identifiers import Identifier
from keshi.schemas.outcomes import Outcome
from kit.affiliates import OCEANIA, SAKURA, RunningAffiliates, work

EVERYBODY = people(400, today=TODAY)
_NEXT = count()
"""Each test takes people that no other has touched."""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningAffiliates]:
    made = RunningAffiliates(tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("keys"), EVERYBODY)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def _as_usual(running: RunningAffiliates, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, value in running.settled.handler.items():
        monkeypatch.setenv(name, value)
    yield
    for company in COMPANIES:
        running.behave(company)


@pytest.fixture
def handler(_as_usual: None) -> Iterator[Affiliates]:
    with closing(Affiliates.from_environment()) as made:
        yield made


def somebody(*companies: str, known: bool = True) -> Person:
    """A person who is with these and with no other; with a customer number, if `known`."""
    for place in _NEXT:
        person = EVERYBODY[place]
        fits = {c for c in COMPANIES if sample.belongs(c, person)} == set(companies)
        if fits and (person.customer_id or not known):
            return person
    raise AssertionError("more people are needed")


def in_the_end(handler: Affiliates, task: Work, union: Union, seconds: float = 20) -> dict[str, State]:
    """The states by company, when nobody is at it any more."""
    end = time.monotonic() + seconds
    while True:
        states = handler.verify(replace(task, limit=Limit(60)), union).states
        if not any(isinstance(s, UnderWay) for s in states):
            return {f.category: s for f, s in zip(union, states, strict=True)}
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def asked(handler: Affiliates, task: Work) -> Union:
    """Both have got the request."""
    union = handler.locate(task).found
    assert isinstance(handler.act(task, union), Accepted)
    return union


def seen(handler: Affiliates, task: Work, union: Union) -> dict[str, State]:
    return {f.category: s for f, s in zip(union, handler.verify(task, union).states, strict=True)}


SIGNED = Gone("declared_signed")


class TestSuite(HandlerSuite):
    """What every handler has to pass."""

    searchable: ClassVar[bool] = False
    running: RunningAffiliates

    @pytest.fixture(autouse=True)
    def _given(self, running: RunningAffiliates, _as_usual: None) -> None:
        self.running = running
        self._taken: list[Person] = []

    def fresh(self) -> Affiliates:
        return Affiliates.from_environment()

    def arrange(self, action: Action) -> Scene:
        person = EVERYBODY[next(_NEXT)]
        self._taken.append(person)
        outcomes = {c: {Outcome.ERASED if sample.belongs(c, person) else Outcome.NOT_FOUND: 1} for c in COMPANIES}
        return Scene(task=work(person, action=action), located=dict.fromkeys(COMPANIES, 1), outcomes=outcomes)

    def bystanders(self) -> object:
        mine = {r for p in self._taken for r in sample.refs(p)}
        return {r: row for r, row in self.running.rows().systems["affiliates"].items() if r not in mine}


# --- erase


@pytest.mark.parametrize("companies", [(SAKURA, OCEANIA), (SAKURA,), (OCEANIA,), ()])
def test_each_company_has_its_own_outcome_and_nobody_else_is_touched(
    handler: Affiliates, running: RunningAffiliates, companies: tuple[str, ...]
) -> None:
    person = somebody(*companies, known=bool(companies))
    before = running.rows()
    task = work(person)
    union = asked(handler, task)
    held = {c: SIGNED if c in companies else NotHeld("declared_signed") for c in COMPANIES}
    assert in_the_end(handler, task, union) == held
    found = compare(before, running.rows(), [(person, Expectation.ERASE)], today=TODAY).systems["affiliates"]
    assert found.ok, found.as_json()
    assert handler.act(task, union) is None, "asked again, both are done"
    assert all(len([r for r in running.requests(c) if r["id"] in refs_of(union)]) == 1 for c in COMPANIES)


def refs_of(union: Union) -> set[str]:
    return {f.ref for f in union}


@pytest.mark.parametrize("kind", ["email", "phone", "customer_id"])
def test_each_type_of_identifier_is_enough(handler: Affiliates, running: RunningAffiliates, kind: str) -> None:
    person = somebody(SAKURA, OCEANIA)
    task = work(person, kind)
    assert handler.locate(task).searched == (kind,)
    assert set(in_the_end(handler, task, asked(handler, task)).values()) == {SIGNED}
    assert not {f"{c}.members:{COMPANIES[c].letter}-{person.number:06d}-1" for c in COMPANIES} & ids(running)


def ids(running: RunningAffiliates) -> set[str]:
    return set(running.rows().systems["affiliates"])


def test_a_second_membership_that_only_the_telephone_number_finds_goes_too(
    handler: Affiliates, running: RunningAffiliates
) -> None:
    person = next(p for p in EVERYBODY[200:] if p.number % 5 == 0 and p.number % 3 and p.number % 4)
    task = work(person)
    in_the_end(handler, task, asked(handler, task))
    assert not sample.refs(person) & ids(running)


def test_only_those_in_scope_are_asked(handler: Affiliates, running: RunningAffiliates) -> None:
    person = somebody(SAKURA, OCEANIA)
    task = work(person, categories=(OCEANIA,))
    union = asked(handler, task)
    assert refs(union) == {f"{OCEANIA}:{request_id(task, OCEANIA)}"}
    assert in_the_end(handler, task, union) == {OCEANIA: SIGNED}
    assert {r for r in sample.refs(person) if r.startswith(SAKURA)} <= ids(running)


def test_the_id_of_a_request_follows_from_ours_and_has_the_form_that_is_asked_for() -> None:
    task = work(EVERYBODY[0])
    made = {request_id(task, c, n) for c in COMPANIES for n in range(3)}
    assert len(made) == 6
    assert made == {request_id(replace(task, attempt=7), c, n) for c in COMPANIES for n in range(3)}
    assert not made & {request_id(work(EVERYBODY[0]), c, n) for c in COMPANIES for n in range(3)}
    assert all(UUID(name).version == 4 and name == name.lower() for name in made)


# --- what an answer means


def test_received_and_then_nothing_is_under_way_then_late_and_never_done(
    handler: Affiliates, running: RunningAffiliates
) -> None:
    person = somebody(SAKURA, OCEANIA)
    running.behave(OCEANIA, mood=Mood.SILENT, expected_seconds=2)
    task = work(person)
    union = asked(handler, task)
    assert in_time(seen(handler, task, union)[OCEANIA])
    end = time.monotonic() + 20
    while in_time(seen(handler, task, union)[OCEANIA]):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
    assert seen(handler, task, union) == {SAKURA: SIGNED, OCEANIA: UnderWay(1, late=True)}
    mine = sample.refs(person)
    assert mine & ids(running) == {r for r in mine if r.startswith(OCEANIA)}
    running.behave(OCEANIA)
    assert in_the_end(handler, task, union) == {SAKURA: SIGNED, OCEANIA: SIGNED}


def in_time(state: State) -> bool:
    assert isinstance(state, UnderWay)
    return not state.late


def test_looks_become_rarer_and_come_in_time_for_the_date(handler: Affiliates, running: RunningAffiliates) -> None:
    running.behave(SAKURA, mood=Mood.SILENT, expected_seconds=3600)
    running.behave(OCEANIA, mood=Mood.SILENT, expected_seconds=5)
    task = work(somebody(SAKURA, OCEANIA))
    union = asked(handler, task)
    waits = []
    for attempt in (1, 2, 3, 4, 5, 500):
        states = seen(handler, replace(task, attempt=attempt), union)
        waits.append(tuple(s.check_after_seconds for s in states.values() if isinstance(s, UnderWay)))
    assert [sakura for sakura, _ in waits] == [1, 2, 4, 8, 10, 10]
    assert all(oceania <= 6 for _, oceania in waits)


def test_who_cancels_is_a_persons_business_and_can_be_asked_anew(
    handler: Affiliates, running: RunningAffiliates
) -> None:
    running.behave(OCEANIA, mood=Mood.REJECTS)
    person = somebody(SAKURA, OCEANIA)
    task = work(person)
    union = asked(handler, task)
    declined = {SAKURA: SIGNED, OCEANIA: Declined("affiliate_cancelled")}
    assert in_the_end(handler, task, union) == declined
    running.behave(OCEANIA)
    assert seen(handler, task, union) == declined, "nobody asks anew but by an act"
    assert isinstance(handler.act(task, union), Accepted)
    assert in_the_end(handler, task, union) == {SAKURA: SIGNED, OCEANIA: SIGNED}
    assert not sample.refs(person) & ids(running)


def test_who_cancels_each_time_is_not_asked_for_ever(handler: Affiliates, running: RunningAffiliates) -> None:
    running.behave(OCEANIA, mood=Mood.REJECTS)
    task = work(somebody(SAKURA, OCEANIA))
    union = asked(handler, task)
    for _ in range(ASKED_ANEW):
        in_the_end(handler, task, union)
        assert isinstance(handler.act(task, union), Accepted)
    in_the_end(handler, task, union)
    with pytest.raises(GiveToPerson) as failure:
        handler.act(task, union)
    assert failure.value.code == "affiliate_cancelled"


@pytest.mark.parametrize(("down", "other"), [(SAKURA, OCEANIA), (OCEANIA, SAKURA)])
def test_trouble_with_one_keeps_nobody_from_asking_the_other(
    handler: Affiliates, running: RunningAffiliates, down: str, other: str
) -> None:
    running.behave(down, mood=Mood.DOWN)
    person = somebody(SAKURA, OCEANIA)
    task = work(person)
    union = handler.locate(task).found
    for step in (handler.act, handler.verify):
        with pytest.raises(Retry) as failure:
            step(task, union)
        assert failure.value.code == "unavailable"
        assert down in failure.value.left
    assert handler.ready(), "one that is down does not keep the worker from the other"
    until(lambda: not {r for r in sample.refs(person) if r.startswith(other)} & ids(running))
    until(lambda: _left(handler, task, union) == (down,))
    running.behave(down)
    assert isinstance(handler.act(task, union), Accepted)
    assert set(in_the_end(handler, task, union).values()) == {SIGNED}


def _left(handler: Affiliates, task: Work, union: Union) -> tuple[str, ...]:
    with pytest.raises(Retry) as failure:
        handler.verify(task, union)
    return failure.value.left


@pytest.mark.parametrize(("hangs", "other"), [(SAKURA, OCEANIA), (OCEANIA, SAKURA)])
def test_one_that_does_not_answer_at_all_keeps_nobody_from_asking_the_other(
    handler: Affiliates, running: RunningAffiliates, monkeypatch: pytest.MonkeyPatch, hangs: str, other: str
) -> None:
    monkeypatch.setattr("keshi.handlers.connectors.rest.CALL_SECONDS", 0.5)
    running.behave(hangs, mood=Mood.HANGS)
    task = work(somebody(SAKURA, OCEANIA))
    union = handler.locate(task).found
    with pytest.raises(Retry) as failure:
        handler.act(task, union)
    assert (failure.value.code, failure.value.left) == ("read_timeout", (SAKURA, OCEANIA))
    until(lambda: _left(handler, task, union) == (hangs,))
    running.behave(hangs)
    assert isinstance(handler.act(task, union), Accepted | None)
    assert set(in_the_end(handler, task, union).values()) == {SIGNED}
    for name in (SAKURA, OCEANIA):
        assert [r["id"] for r in running.requests(name)].count(request_id(task, name)) == 1
        assert request_id(task, name, 1) not in {r["id"] for r in running.requests(name)}, "nobody is asked anew"


@pytest.mark.parametrize("hanging", [(SAKURA,), (OCEANIA,), (SAKURA, OCEANIA)])
def test_a_look_names_those_alone_that_hang_though_its_time_is_spent(
    handler: Affiliates, running: RunningAffiliates, monkeypatch: pytest.MonkeyPatch, hanging: tuple[str, ...]
) -> None:
    """As a worker looks: within a time that two calls without an answer fill, as they do by default."""
    task = work(somebody(SAKURA, OCEANIA))
    union = asked(handler, task)
    in_the_end(handler, task, union)
    monkeypatch.setattr("keshi.handlers.connectors.rest.CALL_SECONDS", 1)
    for company in hanging:
        running.behave(company, mood=Mood.HANGS)
    with pytest.raises(Retry) as failure:
        Steps(handler, Patience(4, 2), Event()).verify(task, union)
    assert (failure.value.code, failure.value.left) == ("read_timeout", hanging)


def test_who_is_asked_and_not_done_is_named(handler: Affiliates, running: RunningAffiliates) -> None:
    running.behave(OCEANIA, mood=Mood.SILENT)
    task = work(somebody(SAKURA, OCEANIA))
    union = handler.locate(task).found
    accepted = handler.act(task, union)
    assert isinstance(accepted, Accepted)
    assert set(accepted.left) == {SAKURA, OCEANIA}
    until(lambda: isinstance(seen(handler, task, union)[SAKURA], Gone))
    accepted = handler.act(task, union)
    assert isinstance(accepted, Accepted)
    assert accepted.left == (OCEANIA,)


def until(what: Callable[[], Any], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def test_both_down_is_not_ready(handler: Affiliates, running: RunningAffiliates) -> None:
    for company in COMPANIES:
        running.behave(company, mood=Mood.DOWN)
    assert not handler.ready()


def test_a_company_that_was_killed_answers_again_and_was_asked_once(
    handler: Affiliates, running: RunningAffiliates
) -> None:
    running.behave(SAKURA, mood=Mood.SILENT)
    task = work(somebody(SAKURA))
    union = asked(handler, task)
    running.restart(SAKURA)
    running.behave(SAKURA)
    assert isinstance(handler.act(task, union), Accepted | None)
    assert in_the_end(handler, task, union)[SAKURA] == SIGNED
    assert [r["id"] for r in running.requests(SAKURA)].count(request_id(task, SAKURA)) == 1


def test_an_id_that_came_in_between_two_calls_is_taken_as_ours(handler: Affiliates, running: RunningAffiliates) -> None:
    """Another worker, which was frozen before its lease ended, may have been quicker: 409 is no failure."""
    task = work(somebody(SAKURA))
    running.behave(SAKURA, mood=Mood.SILENT)
    asked(handler, replace(task, categories=(SAKURA,)))
    company = handler._companies[SAKURA]
    request = opendsr.new_request(
        subject_request_id=request_id(task, SAKURA),
        regulation="appi",
        submitted=datetime.now(UTC),
        identities=[{"identity_type": "email", "identity_value": "x@y.example", "identity_format": "raw"}],
        extensions={},
    )
    assert company.processor.create(task, request) is None


# --- who is asked


def test_who_knows_no_identifier_at_hand_is_not_asked(handler: Affiliates, running: RunningAffiliates) -> None:
    task = work(somebody(SAKURA), identifiers=(Identifier(type="cookie_id", value="c-1"),))
    union = handler.locate(task).found
    assert handler.locate(task).searched == ()
    assert handler.act(task, union) is None
    assert set(seen(handler, task, union).values()) == {NotSearchable()}
    assert not refs_of(union) & {r["id"] for c in COMPANIES for r in running.requests(c)}


def test_what_nobody_was_asked_for_is_active(handler: Affiliates) -> None:
    task = work(somebody(SAKURA))
    assert set(seen(handler, task, handler.locate(task).found).values()) == {Active()}


def test_a_category_without_a_company_goes_to_a_person(handler: Affiliates) -> None:
    with pytest.raises(GiveToPerson) as failure:
        handler.locate(work(EVERYBODY[0], categories=("nobody",)))
    assert failure.value.code == "affiliate_not_configured"


def test_a_company_whose_time_is_over_is_not_asked(handler: Affiliates, running: RunningAffiliates) -> None:
    task = work(somebody(SAKURA))
    union = handler.locate(task).found
    over = Limit(60)
    over.end_now()
    with pytest.raises(LeaseEnded):
        handler.act(replace(task, limit=over), union)
    assert not refs_of(union) & {r["id"] for c in COMPANIES for r in running.requests(c)}


# --- signatures


@pytest.mark.parametrize(
    ("sign", "code"),
    [
        (Sign.WRONG, "signature_wrong"),
        (Sign.NONE, "processor_domain_wrong"),
        (Sign.STRANGER, "processor_domain_wrong"),
    ],
)
def test_an_answer_that_is_not_signed_as_it_has_to_be_is_none(
    handler: Affiliates, running: RunningAffiliates, sign: Sign, code: str
) -> None:
    task = work(somebody(SAKURA, OCEANIA))
    union = asked(handler, task)
    in_the_end(handler, task, union)
    running.behave(OCEANIA, sign=sign)
    with pytest.raises(Retry) as failure:
        handler.verify(task, union)
    assert failure.value.code == code
    running.behave(OCEANIA)
    assert set(seen(handler, task, union).values()) == {SIGNED}


def test_without_an_authority_to_trust_the_record_says_that_nobody_checked(
    running: RunningAffiliates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running.behave(OCEANIA, sign=Sign.NONE)
    file = running.changed(tmp_path / "file.yaml", OCEANIA, authorities_file=None)
    monkeypatch.setenv("KESHI_AFFILIATES_FILE", str(file))
    with closing(Affiliates.from_environment()) as handler:
        task = work(somebody(SAKURA, OCEANIA))
        states = in_the_end(handler, task, asked(handler, task))
    assert states == {SAKURA: SIGNED, OCEANIA: Gone("declared_unsigned")}


def test_a_certificate_of_somebody_whom_we_do_not_trust_is_refused(
    running: RunningAffiliates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Authority("Another authority").write(tmp_path / "other.pem")
    file = running.changed(tmp_path / "file.yaml", OCEANIA, authorities_file=str(tmp_path / "other.pem"))
    assert _refused(file, monkeypatch) == "certificate_refused"


def test_a_certificate_for_another_domain_is_refused(
    running: RunningAffiliates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running.behave(OCEANIA, sign=Sign.STRANGER)
    file = running.changed(tmp_path / "file.yaml", OCEANIA, domain="opendsr.stranger.example")
    assert _refused(file, monkeypatch) == "certificate_refused"


def _refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("KESHI_AFFILIATES_FILE", str(file))
    with closing(Affiliates.from_environment()) as handler:
        task = work(somebody(OCEANIA), categories=(OCEANIA,))
        with pytest.raises(Retry) as failure:
            handler.act(task, handler.locate(task).found)
    return failure.value.code


def test_a_new_certificate_is_asked_for_where_the_old_one_does_not_fit(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    person = somebody(SAKURA)
    running = RunningAffiliates(tmp_path / "data", tmp_path / "keys", [person])
    authority = Authority("A new authority")
    trusted = tmp_path / "keys" / "affiliates-authority.pem"
    try:
        monkeypatch.setenv("KESHI_AFFILIATES_FILE", str(running.file))
        authority.write(tmp_path / "new.pem")
        trusted.write_bytes(trusted.read_bytes() + (tmp_path / "new.pem").read_bytes())
        with closing(Affiliates.from_environment()) as handler:
            task = work(person, categories=(SAKURA,))
            union = asked(handler, task)
            keys = tmp_path / "keys"
            authority.issue(
                COMPANIES[SAKURA].domain, keys / f"affiliate-{SAKURA}.key", keys / f"affiliate-{SAKURA}.pem"
            )
            running.restart(SAKURA)
            with pytest.raises(Retry) as failure:
                handler.verify(task, union)
            assert failure.value.code == "signature_wrong", "not more often than once a minute"
            monkeypatch.setattr(opendsr, "CERTIFICATE_SECONDS", 0)
            assert in_the_end(handler, task, union) == {SAKURA: SIGNED}
    finally:
        running.close()
