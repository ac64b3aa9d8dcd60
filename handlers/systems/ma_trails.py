"""How a person is followed through the MA tool: from identifiers to contacts, cookies, and all that hangs on them.

Many people are followed at once, with one search for each kind of record and step.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from keshi.handlers.connectors.rest import Rest
from keshi.handlers.contract import Work, hurried
from keshi.handlers.errors import GiveToPerson
from keshi.schemas.tasks import MAX_MANIFEST

VALUES_A_CALL: Final = 100

Record = dict[str, Any]
Question = tuple[str, str, str]
"""A kind of record, the field it is searched by, and the value."""
Way = tuple[str, str]

BEGINS: Final[Mapping[str, tuple[Way, ...]]] = {
    "email": (("contacts", "email"),),
    "customer_id": (("contacts", "customer_id"),),
    "cookie_id": (("cookies", "cookie_id"), ("behaviour", "cookie_id")),
}
"""What each type of identifier is searched for in."""

_LEADS: Final[Mapping[str, Mapping[str, tuple[Way, ...]]]] = {
    "contacts": {
        "id": (
            ("cookies", "contact_id"),
            ("behaviour", "contact_id"),
            ("lists", "contact_id"),
            ("mails", "contact_id"),
        ),
        "email": (("contacts", "email"),),
        "customer_id": (("contacts", "customer_id"),),
    },
    # What was done before the cookie was linked hangs on the cookie alone.
    "cookies": {"cookie_id": (("behaviour", "cookie_id"),), "contact_id": (("contacts", "id"),)},
}
"""What the fields of a record that was found lead to."""


class Trail:
    """One person's.

    Args:
        task: Its identifiers.
    """

    def __init__(self, task: Work) -> None:
        self.task = task
        self.records: dict[tuple[str, str], Record] = {}
        self._customers = set(task.values("customer_id"))
        self._given = {
            (kind, field, _normal(field, value))
            for identifier, ways in BEGINS.items()
            for value in task.values(identifier)
            for kind, field in ways
        }
        self._asked: set[Question] = set()
        self._new = set(self._given)

    def questions(self) -> set[Question]:
        """What is to be asked next; each question once."""
        new, self._new = self._new - self._asked, set()
        self._asked |= new
        return new

    def take(self, question: Question, record: Record) -> None:
        """A record that answers a question."""
        kind = question[0]
        if (kind, record["id"]) in self.records or not self._theirs(question, record):
            return
        self.records[kind, record["id"]] = record
        if len(self.records) > MAX_MANIFEST:
            raise GiveToPerson("too_many_records")
        if record.get("customer_id"):
            self._customers.add(record["customer_id"])
        for field, ways in _LEADS.get(kind, {}).items():
            if record[field]:
                self._new |= {(to, by, _normal(by, record[field])) for to, by in ways}

    def _theirs(self, question: Question, record: Record) -> bool:
        """An address that nobody named may be shared: who has another customer id there is somebody else."""
        shared = question[:2] == ("contacts", "email") and question not in self._given
        return not shared or record["customer_id"] in {None, *self._customers}


def follow(rest: Rest, tasks: Sequence[Work]) -> list[Trail]:
    """The trail of each task, to its end.

    Raises:
        HandlerError: as `Rest.call` does; `too_many_records` where one trail leads to more than a task may hold.
    """
    trails = [Trail(task) for task in tasks]
    while True:
        asking: dict[Question, list[Trail]] = {}
        for trail in trails:
            for question in trail.questions():
                asking.setdefault(question, []).append(trail)
        if not asking:
            return trails
        first = hurried(tasks)
        for some in _calls(asking):
            _ask(rest, first, some, asking)


def _calls(asking: Mapping[Question, object]) -> Iterator[list[Question]]:
    """Questions of one kind, as many as go into one call."""
    for kind in sorted({question[0] for question in asking}):
        alike = sorted(question for question in asking if question[0] == kind)
        yield from (alike[n : n + VALUES_A_CALL] for n in range(0, len(alike), VALUES_A_CALL))


def _ask(rest: Rest, task: Work, some: Sequence[Question], asking: Mapping[Question, Sequence[Trail]]) -> None:
    kind = some[0][0]
    terms: dict[str, list[str]] = {}
    for _, field, value in some:
        terms.setdefault(field, []).append(value)
    for record in rest.pages(task, f"/v1/{kind}:search", search=terms):
        for field in terms:
            # What is not exactly what was asked for is nobody's, whatever the MA tool takes for alike.
            question = kind, field, _normal(field, record[field])
            for trail in asking.get(question, ()):
                trail.take(question, record)


def _normal(field: str, value: str | None) -> str:
    return (value or "").casefold() if field == "email" else value or ""
