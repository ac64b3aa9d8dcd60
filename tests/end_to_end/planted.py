"""Handlers with a bug planted in them: what they report is in order, what they did is not."""

from keshi.handlers.contract import Gone, Located, Union, Verified, Work
from keshi.handlers.systems.billing import Billing
from keshi.handlers.systems.crm import Crm
from keshi.schemas.commands import Action


class Liar(Billing):
    """Says that all is gone, twice, and has deleted nothing."""

    def erase(self, task: Work, union: Union) -> None:
        """Nothing happens."""

    def verify(self, task: Work, union: Union) -> Verified:
        if task.action is Action.ERASE:
            return Verified(tuple(Gone() for _ in union))
        return super().verify(task, union)

    def verify_list(self, tasks):
        return [self.verify(task, union) for task, union in tasks]


class Careless(Crm):
    """Misses the second of two duplicates, with all that hangs on it."""

    def locate(self, task: Work) -> Located:
        located = super().locate(task)
        contacts = sorted(f.ref for f in located.found if f.category == "contacts")
        if len(contacts) < 3:
            return located
        missed = contacts[-1]
        children = {
            child["id"]
            for kind in ("cards", "activities")
            for child in self._rest.pages(task, f"/v1/contacts/{missed}/{kind}")
        }
        return Located(tuple(f for f in located.found if f.ref != missed and f.ref not in children), located.searched)
