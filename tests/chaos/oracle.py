"""Judges a run: stores before and after against what was asked and what the closure records say.

It shares no code with keshi: commands, closure records and rows are plain JSON here. Of each wrong it says which
request it is about, and never about whom.

- **lost**: a command that the broker took and that has no closure record, or that was rejected.
- **false**: the record says what the stores do not show, or the stores changed without a record that says so;
  also a record whose seal, or whose place in its chain, is broken.
- **double**: more than one closure record for a request.
- **wrong_counts**: what was done is right, and counted wrongly.
- **decided_by_person**: a person was needed.
- **bystanders**: records of nobody who asked have changed.
"""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from .model import RULES, Counts, GivenWay, Taken, World, differing
from .rules import LEFT, Asked
from .stores import Ref, Stores

Record = dict[str, Any]
_GENESIS = "0" * 64
_DONE = {"erased", "suspended", "resumed", "retained_by_law"}
_CLEAN = {"erased", "suspended", "resumed", "not_found"}
_OF_SUPERSEDED = {"suspended", "not_started", "not_found", "not_searchable", "impossible"}
_REJECTED_RIGHTLY = {"already_closed"}
"""A withdrawal that came after the closure."""


@dataclass(frozen=True)
class Sent:
    """A request as it was sent, whatever number of times.

    Attributes:
        asked: what was asked.
        withdrawn: a withdrawal was sent, too.
        untouched: it was sent, and surely read, before the command: nothing may have been done.
    """

    asked: Asked
    withdrawn: bool = False
    untouched: bool = False

    @property
    def request_id(self) -> str:
        return self.asked.request_id


@dataclass(frozen=True)
class Evidence:
    """All that the oracle looks at.

    Attributes:
        before: the stores before the first command.
        after: the stores when all was said to be done.
        sent: every request.
        messages: every message of the topic `requests`, as plain JSON.
        held: requests of which a task waited for a person, at whatever time.
        today: the day from which retention counts.
    """

    before: Stores
    after: Stores
    sent: Sequence[Sent]
    messages: Sequence[Mapping[str, Any]]
    held: frozenset[str]
    today: date


@dataclass
class Judgement:
    """What is wrong, by request; nothing else may be in these lists."""

    requests: int = 0
    closed: int = 0
    lost: list[str] = field(default_factory=list)
    false: list[str] = field(default_factory=list)
    double: list[str] = field(default_factory=list)
    wrong_counts: list[str] = field(default_factory=list)
    decided_by_person: list[str] = field(default_factory=list)
    bystanders: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    taken_back: Counter[str] = field(default_factory=Counter)
    """Requests that were taken back in time, by what had been done: `untouched`, `partly`, `wholly`."""

    superseded: Counter[str] = field(default_factory=Counter)
    """Suspensions whose place an erasure took, by what had been done: `untouched`, `partly`."""

    @property
    def ok(self) -> bool:
        wrong = self.lost, self.false, self.double, self.wrong_counts, self.decided_by_person, self.bystanders
        return self.closed == self.requests and not any(wrong)

    def as_json(self) -> dict[str, int]:
        """How many of each. A bystander that was changed is a change without a record: it counts as false, too."""
        return {
            "requests": self.requests,
            "closed": self.closed,
            "lost": len(self.lost),
            "false": len(self.false) + len(self.bystanders),
            "double": len(self.double),
            "wrong_counts": len(self.wrong_counts),
            "decided_by_person": len(self.decided_by_person),
        }

    def add(self, what: list[str], request_id: str, why: str) -> None:
        """Note a wrong, each request once a list."""
        if request_id not in what:
            what.append(request_id)
        self.notes.append(f"{request_id}: {why}")


def judge(evidence: Evidence) -> Judgement:
    """Hold everything against everything."""
    found = Judgement(requests=len(evidence.sent))
    records = _records(evidence, found)
    _chains(records.values(), found)
    _people(evidence, records, found)
    world = World(evidence.before, evidence.today)
    sent = {s.request_id: s for s in evidence.sent}
    owners: dict[tuple[str, Ref], str] = {}
    for missing in found.lost:
        if missing in sent:
            _own(owners, world, sent[missing].asked)
    # Requests of one person follow each other: the younger waits until the elder is closed.
    for record in sorted(records.values(), key=lambda r: str(r["clocks"]["closed"])):
        request = sent[record["request_id"]]
        _own(owners, world, request.asked)
        _one(world, request, record, evidence.after, sent, found)
    _stores(world, evidence.after, owners, found)
    return found


def _records(evidence: Evidence, found: Judgement) -> dict[str, Record]:
    """The closure record of each request that was sent; what is lost or double is noted."""
    closures: dict[str, dict[str, Record]] = defaultdict(dict)
    accepted: set[str] = set()
    for message in evidence.messages:
        data, kind = message["data"], message["type"]
        if kind == "keshi.RequestClosed.v1":
            record = data["closure"]
            closures[record["request_id"]][_canonical(record).hex()] = record
        elif kind == "keshi.RequestAccepted.v1":
            accepted.add(data["state"]["request_id"])
        elif kind == "keshi.RequestRejected.v1" and data["code"] not in _REJECTED_RIGHTLY:
            found.add(found.lost, data["request_id"], f"rejected: {data['code']}")
        elif kind == "keshi.Quarantined.v1":
            found.add(found.lost, "quarantined", f"quarantined: {data['reason']}")
    known = {s.request_id for s in evidence.sent}
    for request_id in sorted((closures.keys() | accepted) - known):
        found.add(found.false, request_id, "nobody sent this request")
    for request_id in known:
        several = closures.get(request_id, {})
        found.closed += bool(several)
        if not several:
            found.add(found.lost, request_id, "accepted, and not closed" if request_id in accepted else "no answer")
        elif len(several) > 1:
            found.add(found.double, request_id, f"{len(several)} closure records")
    return {r: next(iter(several.values())) for r, several in closures.items() if r in known}


def _canonical(record: Record) -> bytes:
    """Canonical JSON (RFC 8785); records hold no number that is not a whole one."""
    return json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _chains(records: Iterable[Record], found: Judgement) -> None:
    """Each record is sealed by its hash, and hangs on the one before it in its partition."""
    by_partition: dict[int, dict[int, Record]] = defaultdict(dict)
    for record in records:
        sealed = {name: value for name, value in record.items() if name != "hash"}
        if hashlib.sha256(_canonical(sealed)).hexdigest() != record["hash"]:
            found.add(found.false, record["request_id"], "the hash is not that of the record")
        if record["number"] in by_partition[record["partition"]]:
            found.add(found.double, record["request_id"], "its place in the chain is taken")
        by_partition[record["partition"]][record["number"]] = record
    for chain in by_partition.values():
        head = _GENESIS
        for place, number in enumerate(sorted(chain), start=1):
            record = chain[number]
            if number != place or record["previous"] != head:
                found.add(found.false, record["request_id"], "the chain is broken before this record")
            head = record["hash"]


def _people(evidence: Evidence, records: Mapping[str, Record], found: Judgement) -> None:
    for request_id in sorted(evidence.held):
        found.add(found.decided_by_person, request_id, "a task was held for a person")
    for request_id, record in records.items():
        for system in record["systems"]:
            by_person = [o for o in system["outcomes"] if o.get("decided_by") == "person"]
            if by_person or system.get("decisions"):
                found.add(found.decided_by_person, request_id, f"a person decided in {system['system']}")


def _own(owners: dict[tuple[str, Ref], str], world: World, asked: Asked) -> None:
    for system, refs in world.belonging(asked).items():
        for ref in refs:
            owners[system, ref] = asked.request_id


# --- one request


def _one(
    world: World, request: Sent, record: Record, after: Stores, later: Mapping[str, Sent], found: Judgement
) -> None:
    """Hold a record against what had to be done, or, if the request was taken back, against what was."""
    request_id = request.request_id
    if record["action"] != request.asked.action:
        found.add(found.false, request_id, "the record is about another action")
    said = _said(record)
    if said.keys() != {(system, category) for system, rules in RULES.items() for category in rules.categories}:
        found.add(found.wrong_counts, request_id, "a system or category is missing in the record")
        return
    outcomes = {outcome for endings in said.values() for outcome, _ in endings}
    superseded_by = record.get("superseded_by")
    residue = any(system.get("residue") for system in record["systems"])
    verdict = _verdict(outcomes, "superseded" if superseded_by else "withdrawn", residue=residue)
    if record["verdict"] != verdict:
        found.add(found.false, request_id, f"the verdict is {record['verdict']}, not {verdict}")
    if superseded_by:
        if request.asked.action != "suspend_use" or not _erases(later.get(superseded_by), request.asked):
            found.add(found.false, request_id, "superseded by what is no later erasure of the same person")
        _compare_superseded(request_id, world.give_way(request.asked, after), said, record, found)
        return
    if not record["withdrawn"]:
        if request.untouched:
            found.add(found.false, request_id, "it was taken back before it came, and carried out")
        _compare(request_id, world.carry_out(request.asked), said, record, found)
        return
    if not request.withdrawn:
        found.add(found.false, request_id, "nobody took it back, and the record says so")
    if request.untouched and outcomes - {"impossible"} != {"not_started"}:
        found.add(found.false, request_id, "it was taken back before it came, and was begun")
    # One that says that it did nothing leaves the model as it is: the look at the stores in the end will tell.
    done = bool(outcomes & _DONE)
    asked = any(n for endings in said.values() for (outcome, _), n in endings.items() if outcome == "not_found")
    taken = world.take_over(request.asked, after if done or asked else world.stores)
    _compare_withdrawn(request_id, taken, said, record, found)
    found.taken_back["untouched" if not done else "partly" if "not_started" in outcomes else "wholly"] += 1


def _erases(later: Sent | None, asked: Asked) -> bool:
    """Whether it is an erasure for a person who is named by all that this request names them by."""
    return later is not None and later.asked.action == "erase" and set(_named(asked)) <= set(_named(later.asked))


def _named(asked: Asked) -> list[tuple[str, str]]:
    return [(i["type"], i["value"]) for i in asked.identifiers]


def _verdict(outcomes: set[str], called_off: str, *, residue: bool) -> str:
    if "not_started" in outcomes and outcomes <= {"not_started", "not_found", "not_searchable", "impossible"}:
        return called_off
    if outcomes == {"not_found"}:
        return "no_data_held"
    return "fulfilled" if outcomes <= _CLEAN and not residue else "fulfilled_with_exceptions"


def _said(record: Record) -> Counts:
    """What the record counts: system and category → outcome → how many. Every outcome is there, also with none."""
    said: Counts = defaultdict(Counter)
    for system in record["systems"]:
        for o in system["outcomes"]:
            said[system["system"], o["category"]][o["outcome"], o.get("until")] += o.get("count", 0)
    return said


def _located(record: Record) -> dict[tuple[str, str], int]:
    return {
        (system["system"], category): count
        for system in record["systems"]
        for category, count in system["located"].get("counts", {}).items()
    }


def _compare(request_id: str, wanted: Counts, said: Counts, record: Record, found: Judgement) -> None:
    located = _located(record)
    for place, counts in wanted.items():
        expected = counts or Counter({("not_found", None): 0})
        if dict(said[place]) != dict(expected):
            found.add(found.wrong_counts, request_id, f"{_name(place)}: {_show(said[place])}, not {_show(expected)}")
        if located.get(place, 0) != counts.total():
            why = f"{_name(place)}: {located.get(place, 0)} located, not {counts.total()}"
            found.add(found.wrong_counts, request_id, why)


def _compare_withdrawn(request_id: str, taken: Taken, said: Counts, record: Record, found: Judgement) -> None:
    """The record has to say exactly what had been done already, and that the rest was left."""
    if taken.strange:
        why = f"{len(taken.strange)} records in a state that it cannot have left"
        found.add(found.false, request_id, why)
    begun = {system["system"] for system in record["systems"] if system.get("checked_at")}
    for system in RULES.keys() - begun:
        if taken.changed[system]:
            found.add(found.false, request_id, f"{system} was not begun, and {taken.changed[system]} records changed")
    for place, counts in taken.counts.items():
        expected = Counter({("not_started" if o == LEFT else o, until): n for (o, until), n in counts.items()})
        unsearched = ("not_searchable", None) in expected
        if ("impossible", None) in expected or (unsearched and ("not_searchable", None) in said[place]):
            pass
        elif place[0] not in begun:
            expected = Counter({("not_started", None): 0})
        elif not expected:
            expected = Counter({("not_found", None): 0})
        if dict(said[place]) == dict(expected):
            continue
        both = said[place], expected
        one_sided = len({any(o in _DONE and n for (o, _), n in c.items()) for c in both}) > 1
        why = f"{_name(place)}: said {_show(said[place])}, and it is {_show(expected)}"
        found.add(found.false if one_sided else found.wrong_counts, request_id, why)


def _compare_superseded(request_id: str, shows: GivenWay, said: Counts, record: Record, found: Judgement) -> None:
    """What it had suspended the erasure has removed since: its counts have to add up to what the person had there."""
    begun = {system["system"] for system in record["systems"] if system.get("checked_at")}
    for place, count in shows.there.items():
        expected = count if place[0] in begun else 0
        if said[place].total() != expected:
            found.add(
                found.wrong_counts, request_id, f"{_name(place)}: said {_show(said[place])}, and there were {expected}"
            )
        if {outcome for outcome, _ in said[place]} - _OF_SUPERSEDED:
            found.add(found.false, request_id, f"{_name(place)}: said {_show(said[place])} of a suspension")
        if said[place]["suspended", None] < shows.marked[place]:
            why = f"{_name(place)}: said {_show(said[place])}, and {shows.marked[place]} carry its mark"
            found.add(found.false, request_id, why)
    done = bool({outcome for counts in said.values() for outcome, _ in counts} & _DONE)
    found.superseded["partly" if done else "untouched"] += 1


def _stores(world: World, after: Stores, owners: Mapping[tuple[str, Ref], str], found: Judgement) -> None:
    """Everything is as the model says, whosever it is."""
    lost = set(found.lost)
    for system, ref in differing(world.stores, after):
        owner = owners.get((system, ref))
        if owner is None:
            found.bystanders.append(f"{system}.{ref[0]}")
            found.notes.append(f"a record of nobody who asked has changed in {system}.{ref[0]}")
        elif owner not in lost:
            found.add(found.false, owner, f"a record in {system}.{ref[0]} is not as the closure record says")


def _name(place: tuple[str, str]) -> str:
    return ".".join(place)


def _show(counts: Mapping[tuple[str, str | None], int]) -> str:
    return ", ".join(f"{outcome} {n}" for (outcome, _), n in sorted(counts.items(), key=str)) or "nothing"
