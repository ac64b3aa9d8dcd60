"""What callers ask for: filters, whose requests, and the cursor that leads from page to page."""

import base64
import binascii
import hmac
import json
from datetime import datetime
from typing import Annotated, Any, Final

from pydantic import ConfigDict, Field

from keshi.orchestrator.finding import Place, Sought
from keshi.orchestrator.keys import Keys
from keshi.schemas.base import Model, Moment, Name, RuleId, sha256
from keshi.schemas.commands import Action, Regime
from keshi.schemas.identifiers import Identifier
from keshi.schemas.outcomes import Outcome
from keshi.schemas.requests import RequestStatus

MAX_PAGE: Final = 200
MAX_CURSOR: Final = 400
_MAC_LENGTH: Final = 32


class CursorBroken(ValueError):  # noqa: N818 - names the finding
    """A cursor that is none of ours, or of another question."""


class Filters(Model):
    """Which requests: those of which all that is given is true. `…_until` and `…_before` are exclusive."""

    model_config = ConfigDict(strict=False)

    state: Annotated[
        tuple[RequestStatus, ...] | None, Field(max_length=3, description="May be repeated; by default all.")
    ] = None
    action: Action | None = None
    regime: Regime | None = None
    ground: Annotated[
        RuleId | None, Field(description="Of the request, or of an outcome; with `outcome`: of that outcome.")
    ] = None
    system: Annotated[Name | None, Field(description="That had a part in it; with `outcome`: where it ended so.")] = (
        None
    )
    outcome: Annotated[Outcome | None, Field(description="Of some data category in some system.")] = None
    late: Annotated[
        bool | None, Field(description="Closed after its due date; or open, and past it or with a task that is late.")
    ] = None
    held: Annotated[bool | None, Field(description="Open, with a task that waits for a person.")] = None
    open_in: Annotated[Name | None, Field(description="Open, with a task in this system that has not ended.")] = None
    due_before: Annotated[Moment | None, Field(description="Open, and due before this moment; soonest first.")] = None
    arrived_from: Annotated[Moment | None, Field(description="Latest arrival first.")] = None
    arrived_until: Moment | None = None
    closed_from: Annotated[Moment | None, Field(description="Latest closing first.")] = None
    closed_until: Moment | None = None

    def sought(self, people: tuple[str, ...] = ()) -> Sought:
        """The question to the ledger; `people` are keyed hashes."""
        given = {name: getattr(self, name) for name in Filters.model_fields if name != "state"}
        states = frozenset(self.state) if self.state else frozenset(RequestStatus)
        return Sought(people=people, states=states, **given)

    def narrow(self) -> bool:
        """Whether single outcomes are asked for."""
        return bool(self.outcome or self.ground or self.system)


Limit = Annotated[int, Field(ge=1, le=MAX_PAGE)]
Cursor = Annotated[str, Field(max_length=MAX_CURSOR, description="`next` of the page before.")]


class Listing(Filters):
    """The query of `GET /v1/requests`."""

    limit: Limit = 50
    cursor: Cursor | None = None


class Search(Listing):
    """The body of `POST /v1/requests:search`. Identifiers are hashed on arrival, and neither kept nor logged."""

    identifiers: Annotated[
        tuple[Identifier, ...], Field(min_length=1, max_length=50, description="Requests that name any of them.")
    ]


class Export(Listing):
    """The body of `POST /v1/requests:export`."""

    identifiers: Annotated[tuple[Identifier, ...], Field(max_length=50)] = ()


class Cursors:
    """Makes cursors and reads them back. They are signed over what was asked for, and hold no identifier."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    def write(self, sought: Sought, place: Place) -> str:
        """The cursor that leads on from a place."""
        moment = place.moment.isoformat() if place.moment else None
        body = json.dumps([place.number, moment], separators=(",", ":")).encode()
        return base64.urlsafe_b64encode(body).decode().rstrip("=") + "." + self._mac(sought, body)

    def read(self, sought: Sought, cursor: str) -> Place:
        """Where to go on.

        Raises:
            CursorBroken: it was not made here, was changed, or belongs to another question.
        """
        text, _, mac = cursor.partition(".")
        try:
            body = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        except (binascii.Error, ValueError):
            raise CursorBroken from None
        if not hmac.compare_digest(self._mac(sought, body).encode(), mac.encode()):
            raise CursorBroken
        number, moment = json.loads(body)
        return Place(number, datetime.fromisoformat(moment) if moment else None)

    def _mac(self, sought: Sought, body: bytes) -> str:
        return self._keys.cursor_mac(sha256(_plain(sought)).encode() + body)[:_MAC_LENGTH]


def _plain(sought: Sought) -> dict[str, Any]:
    """A question as canonical data."""
    found: dict[str, Any] = {"people": sorted(sought.people), "states": sorted(sought.states)}
    for name in Filters.model_fields:
        if name != "state":
            value = getattr(sought, name)
            found[name] = value.isoformat() if isinstance(value, datetime) else value
    return found
