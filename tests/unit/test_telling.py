"""An account in words: what compliance asks is answered in each language, whatever has become of the request."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from keshi.orchestrator.account import Account, DecisionView, Standing
from keshi.orchestrator.views import ObligationView
from keshi.orchestrator.words import Language, Words
from keshi.orchestrator.words.telling import SECTIONS, lines_of, tell
from keshi.schemas.closure import AttemptRecord
from keshi.schemas.inventory import System
from keshi.schemas.outcomes import CategoryOutcome, DecidedBy, Outcome, Residue, Verdict
from keshi.schemas.requests import RequestState, RequestStatus, TaskStatus

START = datetime(2026, 3, 2, 0, 30, tzinfo=UTC)
REQUEST = "01KN33YH80E7QZ3V5W9T2B4M6A"
ELDER = "01KN33YH80E7QZ3V5W9T2B4M6B"
DAY = timedelta(days=1)
SYSTEMS: tuple[dict[str, Any], ...] = (
    {"name": "billing", "title": "Billing", "role": "own", "country": "JP", "categories": ["invoices"]},
    {"name": "partner", "title": "Partner", "role": "recipient_abroad", "country": "US", "categories": ["shared"]},
)


def inventory() -> tuple[System, ...]:
    return tuple(
        System.model_validate(
            {
                "owner": "platform",
                "actions": ["erase"],
                "identifiers": ["email"],
                "basis": "consent of 2024",
                **s,
                "categories": [{"name": c, "title": c.title()} for c in s["categories"]],
            },
            strict=False,
        )
        for s in SYSTEMS
    )


def attempt(number: int, error: str | None = None, ended: datetime | None = None) -> AttemptRecord:
    return AttemptRecord(attempt=number, mode="act", started=START, ended=ended, error=error)


def account(*systems: Standing, **change: Any) -> Account:
    """An open request, with changes; those of its public state by `request`."""
    state = {
        "request_id": REQUEST,
        "sequence": 3,
        "status": RequestStatus.OPEN,
        "action": "erase",
        "arrived_at": START,
        "accepted_at": START,
        "due_at": START + 14 * DAY,
        "notice_language": "ja",
        "tasks": (),
        **change.pop("request", {}),
    }
    return Account.model_validate(
        {
            "number": 1,
            "as_of": START + DAY,
            "request": RequestState.model_validate(state, strict=False),
            "scope": {},
            "regime": "appi",
            "ground": "appi.35-5",
            "requested_by": {"kind": "person"},
            "assessed": {"by": "staff:aoi", "at": START},
            "arrival": {"at": START, "channel": "web:form"},
            "inventory": inventory(),
            "systems": systems,
            **change,
        },
        strict=False,
    )


def closed(*systems: Standing, verdict: Verdict = Verdict.FULFILLED, after: timedelta = DAY, **change: Any) -> Account:
    at = START + after
    state = {"status": "closed", "closed_at": at, "verdict": verdict, **change.pop("request", {})}
    return account(*systems, request=state, as_of=at, place=(2, 7), hash="a" * 64, **change)


def ended(system: str, *outcomes: CategoryOutcome, **more: Any) -> Standing:
    return Standing(system=system, status=TaskStatus.ENDED, outcomes=outcomes, **more)


def said(of: Account, language: Language = Language.EN, **more: Any) -> str:
    return "\n".join(lines_of(tell(of, Words(language), **more)))


def section(of: Account, name: str, language: Language = Language.EN) -> str:
    return "\n".join(text for s in tell(of, Words(language)) if s.name == name for _, text in s.lines)


DONE = CategoryOutcome(category="invoices", outcome=Outcome.ERASED, count=3)


@pytest.mark.parametrize("language", Language)
def test_all_sections_stand_in_their_order(language: Language) -> None:
    told = tell(closed(ended("billing", DONE)), Words(language))
    assert [s.name for s in told] == list(SECTIONS)
    assert all(s.heading and s.lines for s in told)
    assert [s.name for s in tell(account(ended("billing", DONE)), Words(language))] == list(SECTIONS[:-1])


def test_the_action_is_called_as_the_law_calls_it() -> None:
    for action, word in (
        ("erase", "消去"),
        ("suspend_use", "利用停止"),
        ("resume_use", "利用停止の解除"),
        ("stop_provision", "第三者提供の停止"),
    ):
        of = closed(ended("billing", DONE), request={"action": action})
        assert section(of, "summary", Language.JA).startswith(f"{word}：")  # noqa: RUF001 - as it is written


def test_a_system_that_is_silent_is_late_and_not_done() -> None:
    of = account(
        ended("billing", DONE),
        Standing(
            system="partner",
            status=TaskStatus.OPEN,
            attempt=2,
            since=START,
            next_at=START + timedelta(minutes=1),
            late=True,
            attempts=(attempt(1, "unavailable", START), attempt(2)),
        ),
    )
    assert "Partner [partner] (recipient abroad, in US, basis of the provision: consent of 2024)" in said(of)
    late = section(of, "late")
    assert "With the system's worker since 2 March 2026, 00:30 UTC (attempt 2)." in late
    assert "should have been heard of by 2 March 2026, 00:31 UTC and was not. This is late." in late
    assert "not late yet (13 days left)" in late
    assert "遅延しています" in section(of, "late", Language.JA)


def test_a_system_that_took_the_job_and_goes_on_is_looked_at_again() -> None:
    of = account(
        Standing(
            system="partner",
            status=TaskStatus.SCHEDULED,
            attempt=1,
            reason="accepted",
            since=START,
            next_at=START + 2 * DAY,
            attempts=(attempt(1, ended=START),),
        )
    )
    told = section(of, "systems")
    assert "keshi looks at it again on 4 March 2026, 00:30 UTC." in told
    assert "works on it by itself" in told
    assert "by itself on 4 March 2026" in section(of, "next")


def test_a_system_past_its_own_date_says_what_is_not_done() -> None:
    of = account(
        Standing(
            system="partner",
            status=TaskStatus.SCHEDULED,
            attempt=3,
            reason="overdue_there",
            next_at=START + DAY,
            late=True,
            left=("shared",),
            attempts=(attempt(2, "overdue_there", START), attempt(3, "overdue_there", START)),
        )
    )
    late = section(of, "late")
    assert "keshi looks at it again on 3 March 2026" in late
    assert "This is late." in late
    assert "Not done yet: Shared." in late
    assert "Partner [partner]: Not dealt with yet" in section(of, "held")


def test_what_failed_says_how_often_why_and_when_it_is_tried_again() -> None:
    failed = tuple(attempt(n, "unavailable", START) for n in (1, 2, 3))
    of = account(
        Standing(
            system="billing",
            status=TaskStatus.SCHEDULED,
            attempt=3,
            reason="unavailable",
            next_at=START + DAY,
            attempts=failed,
        ),
        Standing(system="partner", status=TaskStatus.WAITING, after=("billing",)),
    )
    told = section(of, "systems")
    assert "Tried 3 times without a result. The next attempt is on 3 March 2026" in told
    assert "did not answer, or said that it was not available" in told
    assert "it comes after Billing [billing]" in told


def test_what_waits_for_a_person_says_why_how_much_and_how_to_decide() -> None:
    of = account(
        Standing(
            system="billing",
            status=TaskStatus.HELD,
            attempt=1,
            reason="over_limit",
            since=START,
            late=True,
            found={"invoices": 2300},
            next_at=START + DAY,
            attempts=(attempt(1, "over_limit", START),),
        )
    )
    told = section(of, "systems")
    assert "Waits for a person to decide, since 2 March 2026" in told
    assert "2,300 records were found." in told
    assert f"keshi decide {REQUEST} billing approve|refuse|retry --reason … (refuse: also --ground …)" in told
    assert section(of, "next") == "Nothing happens by itself: a person has to decide (Billing [billing])."
    again = Standing(
        system="billing", status=TaskStatus.HELD, reason="attempts_spent", attempts=(attempt(8, "odd_error", START),)
    )
    told = section(account(again), "systems")
    assert "all attempts failed" in told
    assert "odd error" in told, "a code that nobody knows can be read"
    assert "refuse|retry" in told
    assert "approve" not in told
    hanging = Standing(
        system="billing",
        status=TaskStatus.HELD,
        reason="acts_spent",
        attempts=(attempt(3, "read_timeout", START), attempt(4, "acts_spent", START)),
    )
    told = section(account(hanging), "systems")
    assert "begun several times without a report" in told
    assert "was asked and did not answer in time" in told, "why the work did not come to an end"


def test_a_request_that_waits_for_another_says_for_which() -> None:
    of = account(
        Standing(system="billing", status=TaskStatus.WAITING), request={"status": "waiting", "waits_for": ELDER}
    )
    assert "earlier request of the same person" in section(of, "summary")
    assert ELDER in section(of, "late")
    assert ELDER in section(of, "next")


def test_a_request_past_its_due_date_says_by_how_much_and_what_is_missing() -> None:
    of = account(
        Standing(system="billing", status=TaskStatus.WAITING),
        as_of=START + 17 * DAY,
        request={"overdue": True},
    )
    late = section(of, "late")
    assert "due on 16 March 2026, 00:30 UTC and is still open: 3 days late." in late
    assert "Billing [billing]" in late
    assert "3日の遅延" in section(of, "late", Language.JA)
    arrived_late = account(
        Standing(system="billing", status=TaskStatus.WAITING),
        request={"accepted_at": START + 20 * DAY},
        as_of=START + 20 * DAY,
    )
    assert "already late when it reached keshi on 22 March 2026" in section(arrived_late, "late")


def test_a_request_that_closed_late_says_which_system_kept_it_open_and_why() -> None:
    slow = (*(attempt(n, "unavailable", START + n * DAY) for n in (1, 2)), attempt(3, None, START + 15 * DAY))
    of = closed(ended("billing", DONE, attempts=slow), after=15 * DAY)
    late = section(of, "late")
    assert "was due on 16 March 2026, 00:30 UTC and closed on 17 March 2026, 00:30 UTC: 1 day late." in late
    assert "The last system to finish was Billing [billing]" in late
    assert "(2 times)" in late


def test_what_is_still_held_is_said_with_reason_and_date() -> None:
    until = date(2032, 8, 31)
    owed = ObligationView(
        obligation_id="1" * 32,
        kind="retention",
        system="billing",
        category="invoices",
        count=2,
        ground="jp.tax-records",
        until=until,
        status="open",
        next_at=datetime(2032, 9, 1, tzinfo=UTC),
    )
    met = owed.model_copy(update={"obligation_id": "2" * 32, "status": "met", "next_at": None})
    kept = CategoryOutcome(
        category="invoices", outcome=Outcome.RETAINED_BY_LAW, count=4, ground="jp.tax-records", until=until
    )
    refused = CategoryOutcome(
        category="shared", outcome=Outcome.REFUSED, count=1, ground="own.not-this-person", decided_by=DecidedBy.PERSON
    )
    of = closed(
        ended("billing", kept, residue=(Residue(place="audit_log", reason="kept_by_vendor", until=date(2026, 1, 1)),)),
        ended("partner", refused),
        verdict=Verdict.FULFILLED_WITH_EXCEPTIONS,
        obligations=(owed, met),
        own_residue=(Residue(place="topic_commands", reason="kept_until_cleaned_up", until=date(2026, 3, 11)),),
    )
    held = section(of, "held")
    assert "2 records are kept because the law asks for it" in held, "what was met since is no longer held"
    assert "31 August 2032" in held
    assert "tax law of Japan" in held
    assert "1 record left as before: refused." in held
    assert "decided by a person" in held
    assert "audit log" in held
    assert "this date has passed" in held
    assert "until 11 March 2026" in held
    left = section(of, "left")
    assert "Still to be done." in left
    assert "Done since." in left
    assert "The next obligation is due on 1 September 2032" in section(of, "next")
    japanese = section(of, "held", Language.JA)
    assert "2件を、法令により" in japanese
    assert "2032年8月31日" in japanese


def test_an_obligation_that_is_late_shows() -> None:
    late = ObligationView(
        obligation_id="1" * 32,
        kind="suspension",
        system="billing",
        category="invoices",
        count=1,
        status="open",
        next_at=START,
        late=True,
    )
    of = closed(ended("billing", DONE), obligations=(late,))
    assert "Its moment has passed: it is late." in section(of, "late")


def test_who_decided_is_said_with_their_words() -> None:
    decision = DecisionView.model_validate(
        {
            "decision": "refuse",
            "person": "staff:kato",
            "at": START,
            "ground": "own.not-this-person",
            "words": "A namesake's.",
        },
        strict=False,
    )
    of = closed(ended("billing", DONE, decisions=(decision, decision.model_copy(update={"words": None}))))
    decided = section(of, "decided")
    assert "staff:kato decided on 2 March 2026, 00:30 UTC to refuse." in decided
    assert "the records belong to somebody else [own.not-this-person]" in decided
    assert "In their words: “A namesake's.”" in decided
    assert "sealed and could not be opened" in decided
    assert "「請求に応じない」と判断しました" in section(of, "decided", Language.JA)
    assert "staff:aoi had assessed it" in section(closed(ended("billing", DONE)), "decided")


def test_whether_the_person_was_told() -> None:
    assert section(account(ended("billing", DONE)), "told") == "Not yet: the request is not closed."
    assert "no word of it" in section(closed(ended("billing", DONE)), "told")
    assert section(closed(ended("billing", DONE), notified_at=START), "told") == "Yes, on 2 March 2026, 00:30 UTC."


def test_a_record_that_was_changed_says_so_loudly() -> None:
    of = closed(ended("billing", DONE))
    assert "NO. IT WAS CHANGED" in said(of, genuine=False)
    assert "異常" in said(of, Language.JA, genuine=False)
    assert "worked out anew and is the one that it names" in said(of, genuine=True)
    assert "was not checked" in said(of)


def test_without_an_inventory_the_names_do() -> None:
    of = account(Standing(system="billing", status=TaskStatus.WAITING), inventory=())
    assert "billing" in section(of, "systems")


def test_a_narrowed_scope_and_a_withdrawal_are_said() -> None:
    of = closed(
        ended(
            "billing",
            CategoryOutcome(
                category="invoices", outcome=Outcome.NOT_STARTED, decided_by=DecidedBy.WITHDRAWAL, reason="withdrawn"
            ),
        ),
        verdict=Verdict.WITHDRAWN,
        scope={"categories": ["invoices"], "purposes": ["mail"], "items": ["invoices:abc"]},
        request={"withdrawn": True},
    )
    asked = section(of, "asked")
    assert "categories Invoices, data used for mail, single records of Invoices" in asked
    assert "abc" not in asked
    assert "took the request back" in section(of, "summary")
    assert "Nothing was begun here." in section(of, "systems")


def left(category: str, outcome: Outcome, reason: str, by: DecidedBy) -> CategoryOutcome:
    return CategoryOutcome(category=category, outcome=outcome, reason=reason, decided_by=by)


def test_what_nothing_was_begun_with_is_told_category_by_category_once() -> None:
    """As still held stands the system, with the reason; single categories only where others ended otherwise."""
    taken_back = (Outcome.NOT_STARTED, "withdrawn", DecidedBy.WITHDRAWAL)
    systems = (
        ended("crm", left("cards", *taken_back), left("calls", *taken_back)),
        ended("desk", left("notes", *taken_back), left("mails", *taken_back), DONE),
    )
    told = said(closed(*systems, verdict=Verdict.FULFILLED_WITH_EXCEPTIONS, request={"withdrawn": True}))
    assert told.count("cards") == told.count("calls") == 1
    held = section(closed(*systems), "held")
    assert held == (
        "crm: Nothing was begun here.\nReason: the request was taken back\n"
        "desk, notes, mails: Nothing was begun here.\nReason: the request was taken back"
    )
    assert "because the request was taken back" not in told, "the reason has said it"


def test_what_ended_differently_is_told_apart_and_counted_records_by_their_category() -> None:
    nowhere = left("cards", Outcome.IMPOSSIBLE, "action_not_offered", DecidedBy.PLAN)
    elsewhere = left("calls", Outcome.OUT_OF_SCOPE, "not_provided_to_third_parties", DecidedBy.PLAN)
    refused = CategoryOutcome(
        category="notes", outcome=Outcome.REFUSED, count=2, ground="own.not-this-person", decided_by=DecidedBy.PERSON
    )
    held = section(closed(ended("crm", nowhere, elsewhere, refused)), "held")
    assert "crm, notes: 2 records left as before: refused." in held
    assert "crm, cards: Not possible in this system." in held
    assert "crm, calls: Left out." in held
    assert "there is nothing to stop" in held
    assert "known when the request was planned" in held
