"""Plans at hand, so that no cycle reads and parses one again, and which of them the ledger has."""

from keshi.orchestrator.ledger.port import Batch, Cycle
from keshi.schemas.inventory import Plan

PLANS_KEPT = 1_000


class Plans:
    """Plans by their hash."""

    def __init__(self) -> None:
        self._plans: dict[str, Plan] = {}
        self._stored: set[str] = set()

    def get(self, tx: Cycle, digest: str) -> Plan:
        """A plan that is at hand or in the ledger."""
        if digest not in self._plans:
            self._remember(digest, tx.plans([digest])[digest])
        return self._plans[digest]

    def note(self, batch: Batch, digest: str, body: str) -> None:
        """Have a plan at hand, and in the ledger."""
        if digest not in self._stored:
            batch.plans[digest] = body
        self._remember(digest, body)

    def written(self, batch: Batch) -> None:
        """The ledger has those of a batch."""
        self._stored.update(batch.plans)

    def forget(self) -> None:
        """Keep a bounded number. Between transactions: within one a plan may be known here alone."""
        if len(self._plans) > PLANS_KEPT:
            self._plans.clear()
            self._stored.clear()

    def _remember(self, digest: str, body: str) -> None:
        if digest not in self._plans:
            self._plans[digest] = Plan.model_validate_json(body)
