"""Options that say which requests, alike in all commands that list some; and whose, never from the command line."""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final

import typer
from pydantic import ValidationError

from keshi.cli.asked import identifiers_of
from keshi.cli.errors import Failure
from keshi.cli.http import Api, parsed
from keshi.cli.output import note
from keshi.cli.reading import moment_of, zone_of
from keshi.orchestrator.asked import MAX_PAGE, Filters, Search
from keshi.orchestrator.views import RequestPage
from keshi.schemas.commands import Action, Regime
from keshi.schemas.identifiers import Identifier
from keshi.schemas.outcomes import Outcome
from keshi.schemas.requests import RequestStatus

WHICH: Final = "Which requests"
WHOSE: Final = "Whose requests"
_MISUSED: Final = 2
_FORM: Final = "an e-mail address, a phone number (+81…) or TYPE=VALUE"
WHEN: Final = "A day, a moment with its zone, or days from now such as +7d."


def _which(explained: str, **more: Any) -> Any:
    return typer.Option(help=explained, rich_help_panel=WHICH, **more)


STATE = Annotated[list[RequestStatus] | None, _which("Where it stands. May be repeated.")]
ACTION = Annotated[Action | None, _which("What was asked for.")]
REGIME = Annotated[Regime | None, _which("The body of rules.")]
GROUND = Annotated[
    str | None, _which("Of the request or of an outcome; with --outcome: of that outcome.", metavar="ID")
]
SYSTEM = Annotated[str | None, _which("That had a part in it; with --outcome: where it ended so.", metavar="NAME")]
OUTCOME = Annotated[Outcome | None, _which("How some data category ended.")]
LATE = Annotated[
    bool | None,
    typer.Option(
        "--late/--in-time",
        help="Closed after its due date; or open, and past it or with a task that is late. Or none of this.",
        rich_help_panel=WHICH,
    ),
]
HELD = Annotated[
    bool | None, typer.Option("--held/--not-held", help="A task waits for a person, or none.", rich_help_panel=WHICH)
]
OPEN_IN = Annotated[str | None, _which("Open, with a task in this system that has not ended.", metavar="NAME")]
DUE_BEFORE = Annotated[str | None, _which(f"Open and due before. {WHEN}", metavar="WHEN")]
ARRIVED_FROM = Annotated[str | None, _which("Arrived then or later.", metavar="WHEN")]
ARRIVED_UNTIL = Annotated[str | None, _which("Arrived before.", metavar="WHEN")]
CLOSED_FROM = Annotated[str | None, _which("Closed then or later.", metavar="WHEN")]
CLOSED_UNTIL = Annotated[str | None, _which("Closed before.", metavar="WHEN")]
PERSON = Annotated[
    bool,
    typer.Option(
        "--person",
        help="Ask for a person's identifiers: at the prompt, or line by line from standard input.",
        rich_help_panel=WHOSE,
    ),
]
IDENTIFIERS_FILE = Annotated[
    str | None,
    typer.Option(
        metavar="FILE", help='JSON list of {"type": …, "value": …}; `-` is standard input.', rich_help_panel=WHOSE
    ),
]


@dataclass(frozen=True, slots=True)
class Which:
    """What is asked for: filters, and whose requests. Its representation shows no identifier."""

    filters: Filters
    identifiers: tuple[Identifier, ...] = ()

    def __repr__(self) -> str:
        return f"Which({self.filters!r}, {len(self.identifiers)} identifiers)"

    def told(self) -> dict[str, Any]:
        """What was asked for, without the identifiers."""
        found = self.filters.model_dump(mode="json", exclude_none=True)
        return found | ({"identifiers": len(self.identifiers)} if self.identifiers else {})


def which(given: Mapping[str, Any], zone: str, *, person: bool = False, file: str | None = None) -> Which:
    """Read the options.

    Args:
        given: The options of filters, by the names of `Filters`.
        zone: Of days that were given.
        person: Ask for identifiers.
        file: Read identifiers from there.

    Raises:
        Failure: an option or an identifier is not valid; says which one, never an identifier.
    """
    values = {name: value for name, value in given.items() if value is not None and value != []}
    for name in ("due_before", "arrived_from", "arrived_until", "closed_from", "closed_until"):
        if name in values:
            values[name] = moment_of(values[name], f"--{name.replace('_', '-')}", zone_of(zone))
    try:
        filters = Filters.model_validate(values)
    except ValidationError as e:
        field = str(e.errors(include_input=False)[0]["loc"][0])
        raise Failure(f"--{field.replace('_', '-')}: there is nothing of this name", _MISUSED) from None
    return Which(filters, people(person=person, file=file))


def people(*, person: bool, file: str | None) -> tuple[Identifier, ...]:
    """The identifiers of a person, from a file, standard input or the prompt.

    Raises:
        Failure: one is not valid; says why and which one it was by its place, and repeats none.
        ConfigurationError: there is no such file, or no list in it.
    """
    found: list[Any] = identifiers_of({}, None, file) if file is not None else []
    if person:
        found += [_typed(place, line) for place, line in enumerate(_lines(), start=1)]
        if not found:
            raise Failure("no identifier was given", _MISUSED)
    identifiers = []
    for place, one in enumerate(found, start=1):
        try:
            identifiers.append(Identifier.model_validate(one))
        except ValidationError as e:
            reason = e.errors(include_input=False, include_url=False, include_context=False)[0]["msg"]
            reason = str(reason).removeprefix("Value error, ")
            raise Failure(f"identifier {place}: {reason}", _MISUSED) from None
    return tuple(identifiers)


def _lines() -> Iterator[str]:
    if sys.stdin.isatty():
        note(f"In each line: {_FORM}. An empty line ends.")
    for line in sys.stdin:
        if not line.strip():
            return
        yield line.strip()


def _typed(place: int, line: str) -> dict[str, str]:
    """`TYPE=VALUE`; of an e-mail address and a phone number the type is plain.

    Raises:
        Failure: it is none of these; repeats nothing of it.
    """
    if "@" in line and "=" not in line.partition("@")[0]:
        return {"type": "email", "value": line}
    if line.startswith("+"):
        return {"type": "phone", "value": line}
    kind, equals, value = line.partition("=")
    if not equals:
        raise Failure(f"identifier {place}: write {_FORM}, such as customer_id=C-000004", _MISUSED)
    return {"type": kind, "value": value}


def page(api: Api, asked: Which, limit: int, cursor: str | None) -> RequestPage:
    """One page from the API. A person's identifiers go in the body, never in the address.

    Raises:
        Failure: the API says why not.
    """
    filters = asked.filters.model_dump(mode="json", exclude_none=True)
    if asked.identifiers:
        search = Search(**asked.filters.model_dump(), identifiers=asked.identifiers, limit=limit, cursor=cursor)
        return parsed(RequestPage, api.post("/v1/requests:search", search))
    return parsed(RequestPage, api.get("/v1/requests", **filters, limit=limit, cursor=cursor))


def pages(api: Api, asked: Which, limit: int, cursor: str | None = None) -> Iterator[RequestPage]:
    """Pages until there are `limit` requests, or no more."""
    left = limit
    while True:
        found = page(api, asked, min(MAX_PAGE, left), cursor)
        yield found
        cursor, left = found.next, left - len(found.requests)
        if cursor is None or left <= 0:
            return
