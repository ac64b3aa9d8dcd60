"""`keshi decide`."""

import sys
from typing import Annotated, Final

import typer
from pydantic import ValidationError

from keshi.cli.errors import Failure
from keshi.cli.http import Api
from keshi.cli.output import say
from keshi.cli.reading import request_id_of
from keshi.schemas.commands import Decision, DecisionRequest

MAX_REASON: Final = 2000
REFUSES: Final = "own.not-this-person, own.manifestly-unfounded, gdpr.17-3-b, gdpr.17-3-e, ccpa.deletion-exception"
"""Grounds that back a refusal. A test holds them against the rule files, which no command has to read for it."""


def decide(
    request: Annotated[str, typer.Argument(help="A request id.")],
    system: Annotated[str, typer.Argument(help="The system whose task waits for a person.")],
    decision: Annotated[Decision, typer.Argument(help="What you decide.")],
    reason: Annotated[str, typer.Option(help="Why, in your words; `-` reads standard input. Kept sealed.")],
    ground: Annotated[str | None, typer.Option(metavar="ID", help=f"Needed to refuse, and one of {REFUSES}.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what the API says, as JSON.")] = False,
) -> None:
    """Decide about a task that waits for a person: approve what was found, refuse it, or try it again.

    Your token (KESHI_API_TOKEN, of a decider) says who you are; the decision is signed and becomes part of the record.
    """
    if decision is Decision.REFUSE and not ground:
        raise Failure(f"--ground: a refusal needs one of {REFUSES}", 2)
    words = sys.stdin.read(MAX_REASON + 1) if reason == "-" else reason
    try:
        body = DecisionRequest(system=system, decision=decision, reason=words.strip(), ground=ground)
    except ValidationError as e:
        first = e.errors(include_input=False, include_url=False, include_context=False)[0]
        field = str(first["loc"][0]) if first["loc"] else "decision"
        raise Failure(f"{field}: {first['msg'].removeprefix('Value error, ')}", 2) from None
    path = f"/v1/requests/{request_id_of(request)}/decisions"
    with Api() as api:
        text = api.post(path, body)
    say(text if as_json else f"{decision.value}: signed and sent; `keshi status {request}` shows what comes of it")
