"""crm: contacts, business cards and activities behind a REST API.

- Contacts are found by customer id, e-mail address and phone number, and from there, until nothing new turns up,
  over the links between duplicates and the addresses of what was found. Cards and activities hang on a contact.
- It knows numbers, addresses and customer ids that no command named, and tells them: other systems are searched by
  them. What people typed into it may be no identifier at all, and is then passed over; so is what somebody else's
  contact has, too.
- Cards and activities go before their contact. A link goes with the contact it points to: that is why everything
  is located before anything is deleted, and why an act works on the union alone.
- Use is suspended by a mark on each record. A mark that isn't ours stays.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final, Self

from pydantic import SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from keshi.handlers.connectors.rest import Rest, token_of
from keshi.handlers.contract import (
    Active,
    Gone,
    Handler,
    Located,
    Results,
    State,
    Suspended,
    Union,
    Verified,
    Work,
    hurried,
)
from keshi.handlers.errors import GiveToPerson, LeaseEnded, Retry
from keshi.runtime.settings import load
from keshi.schemas.commands import Action
from keshi.schemas.identifiers import Identifier
from keshi.schemas.tasks import MAX_MANIFEST, Found, Mode

OURS = "keshi:"
"""How our marks begin; the request's id follows."""
SEARCHED = ("customer_id", "email", "phone")
CHILDREN = ("cards", "activities")
KINDS = (*CHILDREN, "contacts")
"""In the order in which records may go."""
VALUES_A_CALL = 50
REFS_A_CALL = 500
MAX_VALUE = 320
"""Characters of what is searched by."""
GONE: Final = 404
CONFLICT: Final = 409

Record = dict[str, Any]


class Settings(BaseSettings):
    """`KESHI_CRM_…`."""

    model_config = SettingsConfigDict(env_prefix="KESHI_CRM_", frozen=True, hide_input_in_errors=True)

    url: str = ""
    token: SecretStr = SecretStr("")
    token_file: Path | None = None


class Crm(Handler):
    """The handler of the CRM."""

    system: ClassVar[str] = "crm"
    actions: ClassVar[frozenset[Action]] = frozenset({Action.ERASE, Action.SUSPEND_USE, Action.RESUME_USE})

    def __init__(self, rest: Rest) -> None:
        self._rest = rest

    @classmethod
    def from_environment(cls) -> Self:
        settings = load(Settings)
        token = token_of(settings.token, settings.token_file, "KESHI_CRM_")
        return cls(Rest(settings.url, token, setting="KESHI_CRM_URL"))

    def locate(self, task: Work) -> Located:
        contacts = self._contacts(task)
        learned = self._learned(task, contacts)
        if task.mode is Mode.IDENTIFY:
            return Located((), searched=_searched(task), learned=learned)
        found = [_found("contacts", c) for c in contacts] if "contacts" in task.categories else []
        for kind in (k for k in CHILDREN if k in task.categories):
            for contact in contacts:
                children = self._rest.pages(task, f"/v1/contacts/{contact['id']}/{kind}")
                found += [_found(kind, child) for child in children]
        return Located(tuple(found), searched=_searched(task), learned=learned)

    def erase(self, task: Work, union: Union) -> None:
        for f in _in_order(union):
            # A conflict: somebody added a card or an activity. The next attempt locates that one, too.
            reply = self._rest.call(task, "DELETE", f"/v1/{f.category}/{f.ref}", allow=(GONE, CONFLICT))
            if reply.status == CONFLICT:
                raise Retry("has_children")
            task.checkpoint()

    def suspend_use(self, task: Work, union: Union) -> None:
        for f in _in_order(union):
            self._mark(task, f, "suspended", f"{OURS}{task.request_id}")
            task.checkpoint()

    def resume_use(self, task: Work, union: Union) -> None:
        records = self._read([(task, union)])
        marks = {f: record["suspended_by"] for f in _in_order(union) if (record := records[_ref(f)])}
        for f, mark in marks.items():
            if mark and mark.startswith(OURS):
                self._mark(task, f, "active", mark)
                task.checkpoint()
        if any(mark and not mark.startswith(OURS) for mark in marks.values()):
            raise GiveToPerson("suspended_by_other")

    def verify(self, task: Work, union: Union) -> Verified:
        return self._verified([(task, union)])[0]

    def verify_list(self, tasks: Sequence[tuple[Work, Union]]) -> Results[Verified]:
        try:
            return [*self._verified(tasks)]
        except (GiveToPerson, LeaseEnded):
            return super().verify_list(tasks)  # one by one: each fails for itself

    def ready(self) -> bool:
        return self._rest.ready("POST", "/v1/records:read", body={"refs": []})

    def close(self) -> None:
        self._rest.close()

    def _contacts(self, task: Work) -> list[Record]:
        """All contacts of the person."""
        found: dict[str, Record] = {}
        asked: set[str] = set()
        wanted = [(kind, value) for kind in SEARCHED for value in task.values(kind)]
        while wanted:
            asked |= {value.casefold() for kind, value in wanted if kind == "email"}
            for contact in self._search(task, wanted):
                if contact["id"] not in found:
                    found[contact["id"]] = contact
                    linked = self._rest.pages(task, f"/v1/contacts/{contact['id']}/duplicates")
                    found |= {c["id"]: c for c in linked}
                if len(found) > MAX_MANIFEST:
                    raise GiveToPerson("too_many_records")
            new = {c["email"].casefold() for c in found.values() if _searchable(c["email"])} - asked
            wanted = [("email", address) for address in sorted(new)]
        return list(found.values())

    def _learned(self, task: Work, contacts: Sequence[Record]) -> tuple[Identifier, ...]:
        """What the contacts say of the person beyond what the task brought.

        A number that somebody else's contact has, too, is a switchboard, and leads to other people's data.
        """
        told = {i: written for contact in contacts for i, written in _identifiers(contact)}
        for known in task.identifiers:
            told.pop(known.normal(), None)
        if not told:
            return ()
        ids = {contact["id"] for contact in contacts}
        found = self._search(task, [(i.type, written) for i, written in told.items()])
        others = {i for contact in found if contact["id"] not in ids for i, _ in _identifiers(contact)}
        return tuple(i for i in told if i not in others)

    def _search(self, task: Work, wanted: Sequence[tuple[str, str]]) -> Iterator[Record]:
        """Contacts that really have one of these values, whatever the CRM takes for alike."""
        exactly = {(kind, value.casefold()) for kind, value in wanted}
        for some in _batches(wanted, VALUES_A_CALL):
            terms: dict[str, list[str]] = {}
            for kind, value in some:
                terms.setdefault(kind, []).append(value)
            for contact in self._rest.pages(task, "/v1/contacts:search", search=terms):
                if any((kind, (contact[kind] or "").casefold()) in exactly for kind in SEARCHED):
                    yield contact

    def _mark(self, task: Work, f: Found, status: str, mark: str) -> None:
        body = {"status": status, "suspended_by": mark}
        # A conflict: it carries another mark, which is not ours to change.
        self._rest.call(task, "PATCH", f"/v1/{f.category}/{f.ref}", body=body, allow=(GONE, CONFLICT))

    def _verified(self, tasks: Sequence[tuple[Work, Union]]) -> list[Verified]:
        records = self._read(tasks)
        return [Verified(tuple(_state(records[_ref(f)]) for f in union)) for _, union in tasks]

    def _read(self, tasks: Sequence[tuple[Work, Union]]) -> dict[str, Record | None]:
        """The records by reference, None for each of which the CRM says that it is gone."""
        refs = sorted({_ref(f) for _, union in tasks for f in union})
        records: dict[str, Record | None] = {}
        for some in _batches(refs, REFS_A_CALL):
            first = hurried(task for task, _ in tasks)
            data = self._rest.call(first, "POST", "/v1/records:read", body={"refs": some}).data
            records |= data["found"] | dict.fromkeys(data["gone"])
        if not records.keys() >= set(refs):
            raise Retry("answer_incomplete")
        return records


def _searched(task: Work) -> tuple[str, ...]:
    return tuple(t for t in SEARCHED if task.values(t))


def _identifiers(contact: Record) -> Iterator[tuple[Identifier, str]]:
    """What a contact says of the person, each with how it is written there; what is no identifier is passed over."""
    for kind in SEARCHED:
        written = contact[kind] or ""
        try:
            yield Identifier(type=kind, value=_tidy(kind, written)).normal(), written
        except ValidationError:
            continue


def _searchable(value: str | None) -> bool:
    return value is not None and value.isprintable() and 0 < len(value) <= MAX_VALUE


def _tidy(kind: str, value: str) -> str:
    """A number without what people put between its digits. One without its country code is no identifier."""
    return re.sub(r"[ ().\u00a0\u3000/-]", "", value) if kind == "phone" else value.strip()


def _found(kind: str, record: Record) -> Found:
    return Found(category=kind, ref=record["id"], was="suspended" if record["status"] == "suspended" else "active")


def _ref(f: Found) -> str:
    return f"{f.category}:{f.ref}"


def _in_order(union: Union) -> list[Found]:
    return sorted(union, key=lambda f: (KINDS.index(f.category), f.ref))


def _state(record: Record | None) -> State:
    if record is None:
        return Gone()
    return Suspended() if record["status"] == "suspended" else Active()


def _batches(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    everything = list(items)
    yield from (everything[n : n + size] for n in range(0, len(everything), size))
