"""`keshi closure`, `keshi person`: what became of a request, or of all requests of a person, in words."""

import json
from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Final

import typer

from keshi.cli import filters as f
from keshi.cli.errors import Failure
from keshi.cli.http import Api, parsed
from keshi.cli.output import clean, say
from keshi.cli.reading import AS_JSON, LANGUAGE, ZONE, request_id_of, words_of
from keshi.cli.records import show_record
from keshi.orchestrator.account import AccountView
from keshi.orchestrator.views import ClosureView
from keshi.orchestrator.words import Language, Words
from keshi.orchestrator.words.telling import SECTIONS, lines_of, tell
from keshi.schemas.base import sha256

_EVERYTHING: Final = 10_000
_CHANGED: Final = "the record does not have the hash that it names: it was changed after it was sealed"


class Format(StrEnum):
    """How a record is shown."""

    TEXT = "text"
    TABLE = "table"
    JSON = "json"


_FORMAT = Annotated[
    Format, typer.Option("--format", help="In words, as tables with all technical facts, or exactly as it was sealed.")
]
_ONLY = Annotated[
    list[str] | None,
    typer.Option(metavar="SECTION", help=f"Only this part of the text: {', '.join(SECTIONS)}. May be repeated."),
]


def closure(
    request: Annotated[str, typer.Argument(help="A request id.")],
    shown: _FORMAT = Format.TEXT,
    language: LANGUAGE = Language.EN,
    only: _ONLY = None,
    zone: ZONE = "UTC",
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
) -> None:
    """Say what was asked, what was done in each system, what is still held, who decided, what is late and why.

    The hash of a closure record is worked out anew, and it is said whether it is right. Of a request that is still open
    the text says where it stands and why it waits; the other formats need a record.

    Needs KESHI_API_URL and KESHI_API_TOKEN (of a reader or a decider).
    """
    name = request_id_of(request)
    with Api() as api:
        if as_json or shown is Format.JSON:
            say(api.get(f"/v1/closures/{name}"))
        elif shown is Format.TABLE:
            _as_tables(api.get(f"/v1/closures/{name}", reasons="true"))
        else:
            tell_account(api.get(f"/v1/requests/{name}/account"), words_of(language, zone), only)


def _as_tables(text: str) -> None:
    view = parsed(ClosureView, text)
    right = genuine(text)
    reasons = {(r.system, r.decision): r.reason for r in view.reasons}
    show_record(view.closure, checked="checked" if right else "WRONG", reasons=reasons)
    if not right:
        raise Failure(_CHANGED)


def genuine(text: str) -> bool | None:
    """Whether the record in an answer has the hash that it names; None where the answer has no record.

    Over the JSON as it was sealed, not as this version of keshi would write it.
    """
    sealed = json.loads(text)["closure"]
    return None if sealed is None else bool(sealed.pop("hash") == sha256(sealed))


def tell_account(text: str, words: Words, only: list[str] | None = None) -> None:
    """Say an account in words, or only these parts of it.

    Raises:
        Failure: its record was changed after it was sealed.
    """
    right = _tell(text, words, only)
    if right is False:
        raise Failure(_CHANGED)


def _tell(text: str, words: Words, only: list[str] | None) -> bool | None:
    for name in only or ():
        if name not in SECTIONS:
            raise Failure(f"--only: one of {', '.join(SECTIONS)}", 2)
    right = genuine(text)
    sections = tell(parsed(AccountView, text).account, words, genuine=right)
    # What was changed is said, whatever part of the text was asked for.
    wanted = {*(only or SECTIONS), *(["proof"] if right is False else [])}
    for line in lines_of(s for s in sections if s.name in wanted):
        say(clean(line))
    return right


def person(
    identifiers_file: f.IDENTIFIERS_FILE = None,
    language: LANGUAGE = Language.EN,
    only: _ONLY = None,
    zone: ZONE = "UTC",
    as_json: AS_JSON = False,
) -> None:
    """Show everything about one person: all their requests, open and closed, what was done, what is left to do.

    Identifiers are read from the prompt, from standard input or from a file, never from the command line, which others
    on this machine can see. In each line stands an e-mail address, a phone number (+81…) or TYPE=VALUE, such as
    customer_id=C-000004. A request is found by any identifier that its command named, and by no other.

    Needs KESHI_API_URL and KESHI_API_TOKEN (of a reader or a decider).
    """
    asked = f.which({}, zone, person=identifiers_file is None, file=identifiers_file)
    words = words_of(language, zone)
    with Api() as api:
        texts = list(_accounts(api, asked))
    if as_json:
        say(f'{{"requests":[{",".join(texts)}]}}')
        return
    say(words.say("line", "requests_of_person", len(texts)))
    wrong = 0
    for text in texts:
        say("")
        wrong += _tell(text, words, only) is False
    if wrong:
        raise Failure(_CHANGED)


def _accounts(api: Api, asked: f.Which) -> Iterator[str]:
    for page in f.pages(api, asked, _EVERYTHING):
        for request in page.requests:
            yield api.get(f"/v1/requests/{request.state.request_id}/account")
