"""affiliates: companies that use the data jointly, each reached by OpenDSR 2.0.

- Each affiliate is a category of the inventory, with its own holder, and ends with its own outcome. It cannot be
  searched: what is located is one request to each, named by an id that follows from our request, so that asking twice
  asks once.
- An affiliate is done when it says `completed`. That is its word and not our look: the outcome says so
  (`declared_signed`, `declared_unsigned`).
- One that has received the request and says nothing more is under way until the time that it named, and late after.
- OpenDSR 2.0 knows access, portability and erasure (6.2): of our actions, erasure alone.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import ClassVar, Final, Self, TypeVar
from uuid import UUID

import structlog
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from keshi.handlers.connectors.opendsr import Discovery, OpenDsr, RequestStatus, Status, new_request
from keshi.handlers.contract import (
    Accepted,
    Active,
    Declined,
    Gone,
    Handler,
    Limit,
    Located,
    NotHeld,
    NotSearchable,
    State,
    UnderWay,
    Union,
    Verified,
    Work,
)
from keshi.handlers.errors import GiveToPerson, LeaseEnded, Retry, code_of, leaving
from keshi.handlers.systems.affiliates_file import Affiliate, hold_against, read_affiliates
from keshi.runtime.settings import load
from keshi.schemas.commands import Action, Regime
from keshi.schemas.tasks import Found

ASKED_ANEW: Final = 3
"""So often one affiliate is asked anew after it has cancelled, each time because a person wants another try."""
DECLARED: Final = {True: "declared_signed", False: "declared_unsigned"}
"""Reasons of outcomes: whose word it is, and whether its signature was checked."""
REGULATIONS: Final = {Regime.GDPR: "gdpr", Regime.CCPA: "ccpa"}

T = TypeVar("T")

log = structlog.get_logger()


class Settings(BaseSettings):
    """`KESHI_AFFILIATES_…`."""

    model_config = SettingsConfigDict(env_prefix="KESHI_AFFILIATES_", frozen=True, hide_input_in_errors=True)

    file: Path | None = None
    inventory: Path | None = Field(default=None, description="held against the file at the start")


@dataclass(frozen=True, slots=True)
class Company:
    """An affiliate, and what speaks with it."""

    given: Affiliate
    processor: OpenDsr


class Affiliates(Handler):
    """The handler of all affiliates.

    Args:
        companies: By name.
    """

    system: ClassVar[str] = "affiliates"
    actions: ClassVar[frozenset[Action]] = frozenset({Action.ERASE})

    def __init__(self, companies: Mapping[str, Company]) -> None:
        self._companies = companies

    @classmethod
    def from_environment(cls) -> Self:
        settings = load(Settings)
        given = read_affiliates(settings.file)
        if settings.inventory:
            hold_against(settings.inventory, cls.system, (a.name for a in given))
        base = settings.file.parent if settings.file else Path()
        return cls({a.name: Company(a, a.processor(base)) for a in given})

    def locate(self, task: Work) -> Located:
        companies = {name: self._company(name) for name in task.categories}
        known = {t for c in companies.values() for t in (*c.given.identities, *c.given.extension_identities)}
        found = tuple(Found(category=name, ref=request_id(task, name)) for name in companies)
        return Located(found, searched=tuple(t for t in task.types() if t in known))

    def erase(self, task: Work, union: Union) -> Accepted | None:
        open_ = [found.category for found, done in self._each(task, union, self._ask, bool) if not done]
        if not open_:
            return None
        return Accepted(min(self._company(name).given.first_check_seconds for name in open_), tuple(open_))

    def verify(self, task: Work, union: Union) -> Verified:
        look = partial(self._look, task.time_left() / max(1, len(union)))
        return Verified(tuple(state for _, state in self._each(task, union, look, _is_over)))

    def ready(self) -> bool:
        # One that is down must not keep us from the others.
        return any(c.processor.ready() for c in self._companies.values())

    def close(self) -> None:
        for company in self._companies.values():
            company.processor.close()

    def _company(self, name: str) -> Company:
        company = self._companies.get(name)
        if company is None:
            raise GiveToPerson("affiliate_not_configured")
        return company

    def _each(
        self, task: Work, union: Union, call: Callable[[Work, Company, Found], T], over: Callable[[T], bool]
    ) -> list[tuple[Found, T]]:
        """Speak with each affiliate: trouble with one keeps no other from being asked.

        Args:
            task: Whose time it takes.
            union: One request to each.
            call: What is to be said.
            over: Whether nothing more is to be waited for, by what `call` returns.

        Raises:
            HandlerError: what the trouble was with the first of them; it names all that are not over.
        """
        results: list[tuple[Found, T]] = []
        trouble: Exception | None = None
        for found in union:
            task.checkpoint()
            try:
                results.append((found, call(task, self._company(found.category), found)))
            except LeaseEnded:
                raise
            except Exception as error:  # noqa: BLE001 - raised below, when the others have been asked
                trouble = trouble or error
                log.warning(
                    "affiliate_failed",
                    request_id=task.request_id,
                    system=task.system,
                    attempt=task.attempt,
                    part=found.category,
                    code=code_of(error),
                )
        if trouble:
            done = {found.category for found, result in results if over(result)}
            raise leaving(trouble, [found.category for found in union if found.category not in done])
        return results

    # --- act

    def _ask(self, task: Work, company: Company, found: Found) -> bool:
        """Send the request, unless the affiliate has it; whether nothing more is to be waited for."""
        number, status = self._latest(task, company, found)
        if status is not None:
            if status.request_status is not RequestStatus.CANCELLED:
                return status.request_status is RequestStatus.COMPLETED
            number += 1
            if number > ASKED_ANEW:
                raise GiveToPerson("affiliate_cancelled")
        discovery = company.processor.discovery(task)
        if "erasure" not in discovery.supported_subject_request_types:
            raise GiveToPerson("action_not_possible")
        identities, extension = _identities(task, company.given, discovery)
        if not (identities or extension):
            return True  # its state will be NotSearchable
        name = request_id(task, found.category, number)
        given = company.given
        request = new_request(
            subject_request_id=name,
            regulation=REGULATIONS.get(task.regime, given.regulation) if task.regime else given.regulation,
            submitted=task.arrived_at or datetime(task.as_of.year, task.as_of.month, task.as_of.day, tzinfo=UTC),
            identities=identities,
            extensions={given.domain: {"identities": extension}} if extension else {},
        )
        task.checkpoint()
        receipt = company.processor.create(task, request)
        if receipt:
            _log("affiliate_received", task, given, code="received", expected=receipt.expected_completion_time)
        return False

    # --- verify

    def _look(self, seconds: float, task: Work, company: Company, found: Found) -> State:
        """Its state, within its share of the time: one that does not answer takes none of the others' time.

        An act needs no shares: its lease is renewed for as long as it goes on.
        """
        try:
            return self._state(task.within(Limit(seconds)), company, found)
        except LeaseEnded:
            raise Retry("read_timeout") from None

    def _state(self, task: Work, company: Company, found: Found) -> State:
        _, status = self._latest(task, company, found)
        if status is None:
            discovery = company.processor.discovery(task)
            return Active() if any(_identities(task, company.given, discovery)) else NotSearchable()
        state = _state_of(status, company.given, task.attempt, datetime.now(UTC))
        late = isinstance(state, UnderWay) and state.late
        code = "late" if late else status.request_status.value
        _log("affiliate_answered", task, company.given, code=code, expected=status.expected_completion_time)
        return state

    def _latest(self, task: Work, company: Company, found: Found) -> tuple[int, Status | None]:
        """Of the requests that this affiliate was sent, the last one, with its number; 0 and None where none was."""
        latest: tuple[int, Status | None] = (0, None)
        for number in range(ASKED_ANEW + 1):
            status = company.processor.status(task, request_id(task, found.category, number))
            if status is None:
                break
            latest = number, status
            if status.request_status is not RequestStatus.CANCELLED:
                break
        return latest


def request_id(task: Work, affiliate: str, number: int = 0) -> str:
    """The `subject_request_id`: the same for the same request, affiliate and action. In the form of UUID 4 (1.1)."""
    name = f"opendsr/{task.request_id}/{affiliate}/{task.action.value}/{number}"
    return str(UUID(bytes=sha256(name.encode()).digest()[:16], version=4))


def _is_over(state: State) -> bool:
    return isinstance(state, Gone | NotHeld | NotSearchable)


def _state_of(status: Status, given: Affiliate, attempt: int, now: datetime) -> State:
    word = DECLARED[given.authorities_file is not None]
    if status.request_status is RequestStatus.COMPLETED:
        return NotHeld(word) if status.results_count == 0 else Gone(word)
    if status.request_status is RequestStatus.CANCELLED:
        return Declined("affiliate_cancelled")
    left = (status.expected_completion_time - now).total_seconds()
    if left <= 0:
        return UnderWay(given.first_check_seconds, late=True)
    wait = min(given.first_check_seconds * 2 ** min(attempt - 1, 30), given.longest_check_seconds)
    return UnderWay(min(wait, math.ceil(left) + 1))


def _identities(
    task: Work, given: Affiliate, discovery: Discovery
) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """The person as this affiliate may know them: by OpenDSR's own types, and by those of its extension."""
    formats: dict[str, set[str]] = {}
    for supported in discovery.supported_identities:
        formats.setdefault(supported.identity_type, set()).add(supported.identity_format)
    own: list[dict[str, str]] = []
    extension: list[dict[str, str]] = []
    for identifier in task.identifiers:
        if (kind := given.identities.get(identifier.type)) and (known := formats.get(kind)):
            form, value = ("raw", identifier.value) if "raw" in known else ("sha256", _hash(identifier.value))
            if form in known:
                own.append({"identity_type": kind, "identity_value": value, "identity_format": form})
        if kind := given.extension_identities.get(identifier.type):
            extension.append({"identity_type": kind, "identity_value": identifier.value, "identity_format": "raw"})
    return own, extension


def _hash(value: str) -> str:
    return sha256(value.encode()).hexdigest()


def _log(event: str, task: Work, given: Affiliate, *, code: str, expected: datetime) -> None:
    told = log.warning if code == "late" else log.info
    told(
        event,
        request_id=task.request_id,
        system=task.system,
        attempt=task.attempt,
        part=given.name,
        host=given.domain,
        code=code,
        status="signed" if given.authorities_file else "unsigned",
        expected=expected.isoformat(timespec="seconds"),
    )
