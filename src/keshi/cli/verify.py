"""`keshi verify`: whether anybody has changed, taken out or put in a record. Works everything out anew, here."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from pydantic import TypeAdapter, ValidationError

from keshi.cli.errors import Failure
from keshi.cli.http import Api, parsed
from keshi.cli.output import note, say_json, table
from keshi.orchestrator.asked import MAX_PAGE
from keshi.orchestrator.views import ChainPage, ChainView
from keshi.schemas.base import sha256
from keshi.schemas.closure import GENESIS

_HEADS: Final = TypeAdapter(list[ChainView])
_SHOWN: Final = 20
_MISUSED: Final = 2


@dataclass(frozen=True, slots=True)
class Checked:
    """One chain: what was found wrong, by number of record."""

    partition: int
    records: int
    head: str
    wrong: tuple[str, ...]


def verify(
    heads: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Ends of chains that were saved earlier: they must still be there."),
    ] = None,
    save: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Save the ends of all chains here, if everything is in order.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Check every closure record: its hash, that of its plan, and that each follows the one before it.

    A record that was changed, taken out or put in later breaks the chain of its partition. Somebody who can write to
    the database could make a whole chain anew: keep the ends of the chains (--save) where they cannot write, and give
    them back (--heads) next time.

    Exit code 1 if anything is wrong. Needs KESHI_API_URL and KESHI_API_TOKEN (of a reader or a decider).
    """
    kept = _kept(heads) if heads else {}
    with Api() as api:
        chains = parsed(ChainPage, api.get("/v1/chains")).chains
        checked = [_check(api, chain, kept.get(chain.partition, {})) for chain in chains]
    gone = [
        Checked(p, 0, GENESIS, (f"the chain is gone: it had {max(known)} records",))
        for p, known in kept.items()
        if p not in {c.partition for c in checked}
    ]
    _show([*checked, *gone], as_json=as_json)
    if any(c.wrong for c in [*checked, *gone]):
        raise Failure("records were changed, taken out or put in: see above")
    if save:
        ends = [ChainView(partition=c.partition, number=c.records, head=c.head) for c in checked]
        save.write_bytes(_HEADS.dump_json(ends, indent=1) + b"\n")
        note(f"The ends of {len(ends)} chains are in {save}.")


def _kept(path: Path) -> Mapping[int, Mapping[int, str]]:
    """Saved ends: by partition, the hash of the record of a number."""
    try:
        found = _HEADS.validate_json(path.read_bytes())
    except (OSError, ValidationError):
        raise Failure(f"--heads: {path} holds no ends of chains that `keshi verify --save` wrote", _MISUSED) from None
    return {chain.partition: {chain.number: chain.head} for chain in found}


def _check(api: Api, chain: ChainView, known: Mapping[int, str]) -> Checked:
    wrong: list[str] = []
    number, head = 0, GENESIS
    for record in _records(api, chain.partition):
        number += 1
        said = record.get("hash")
        wrong += [f"record {number}: {problem}" for problem in _problems(record, number, head, chain.partition)]
        head = said if isinstance(said, str) else ""
        if number in known and known[number] != head:
            wrong.append(f"record {number}: it is not the one whose hash was saved")
        # The end that the ledger names is of the moment it was asked: what closed since follows it.
        if number == chain.number and head != chain.head:
            wrong.append(f"record {number}: it is not the one that the ledger names as the end")
    if number < chain.number:
        wrong.append(f"records are missing at the end: the ledger names {chain.number}, there are {number}")
    if known and number < max(known):
        wrong.append(f"records are missing at the end: {max(known)} were there when the ends were saved")
    return Checked(chain.partition, number, head, tuple(wrong))


def _problems(record: dict[str, Any], number: int, previous: str, partition: int) -> Iterator[str]:
    said = record.get("hash")
    if sha256({k: v for k, v in record.items() if k != "hash"}) != said:
        yield "it was changed: its hash is not the one that it names"
    if sha256(record.get("plan")) != record.get("plan_hash"):
        yield "its plan was changed"
    if record.get("previous") != previous:
        yield "it does not follow the record before it"
    if record.get("number") != number:
        yield f"it says that it is number {record.get('number')}"
    if record.get("partition") != partition:
        yield f"it belongs to chain {record.get('partition')}"


def _records(api: Api, partition: int) -> Iterator[dict[str, Any]]:
    after = 0
    while page := json.loads(api.get(f"/v1/chains/{partition}", after=after, limit=MAX_PAGE)):
        yield from page
        following = page[-1].get("number")
        # A number that does not rise would lead in a circle.
        after = following if isinstance(following, int) and following > after else after + len(page)


def _show(checked: list[Checked], *, as_json: bool) -> None:
    if as_json:
        wrong = {str(c.partition): c.wrong for c in checked if c.wrong}
        say_json({"records": sum(c.records for c in checked), "chains": len(checked), "wrong": wrong})
        return
    table(
        ("chain", "records", "result", "end"),
        [(c.partition, c.records, "WRONG" if c.wrong else "in order", c.head) for c in checked],
    )
    for chain in checked:
        for problem in chain.wrong[:_SHOWN]:
            note(f"chain {chain.partition}: {problem}")
        if len(chain.wrong) > _SHOWN:
            note(f"chain {chain.partition}: and {len(chain.wrong) - _SHOWN} more")
