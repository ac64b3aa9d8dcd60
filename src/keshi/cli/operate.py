"""`keshi lanes`, `keshi quarantine`: how keshi runs."""

from typing import Annotated

import typer

from keshi.cli.http import Api, parsed
from keshi.cli.output import note, say, table
from keshi.cli.reading import AS_JSON, ZONE, when, zone_of
from keshi.orchestrator.views import LanePage, QuarantinePage


def lanes(zone: ZONE = "UTC", as_json: AS_JSON = False) -> None:
    """Show every partition of commands and reports: how far it is read, what waits in it, what is late.

    Needs KESHI_API_URL and KESHI_API_TOKEN (of an operator).
    """
    with Api() as api:
        text = api.get("/v1/lanes")
    page = parsed(LanePage, text)
    if as_json:
        say(text)
        return
    table(
        ("stage", "partition", "epoch", "next offset", "inbox", "outbox", "next moment", "late"),
        [
            (x.stage, x.partition, x.epoch, x.next, x.inbox, x.outbox, when(x.next_due, zone_of(zone)), _yes(x.late))
            for x in page.lanes
        ],
    )


def _yes(it: bool) -> str:
    return "yes" if it else ""


def quarantine(
    limit: Annotated[int, typer.Option(min=1, max=200, help="How many to show.")] = 50,
    before: Annotated[int | None, typer.Option(min=1, help="Go on behind this one.")] = None,
    zone: ZONE = "UTC",
    as_json: AS_JSON = False,
) -> None:
    """Show messages that could not be taken: where they stood and why. What lies in them stays sealed.

    Needs KESHI_API_URL and KESHI_API_TOKEN (of an operator).
    """
    with Api() as api:
        text = api.get("/v1/quarantine", limit=limit, before=before)
    page = parsed(QuarantinePage, text)
    if as_json:
        say(text)
        return
    table(
        ("number", "at", "topic", "partition", "offset", "reason", "field", "bytes"),
        [
            (q.number, when(q.at, zone_of(zone)), q.stage, q.partition, q.offset, q.reason, q.field, q.size)
            for q in page.messages
        ],
    )
    if page.next is not None:
        note(f"There are more: --before {page.next}")
