"""States that the owner of a partition has just written, so that it need not read and parse them again.

Nobody else writes them while it owns the partition; who takes it over raises the epoch, and then the next cycle
fails before anything is decided on them.
"""

from collections import OrderedDict
from collections.abc import Collection, Iterable

from keshi.orchestrator.request import State

KEPT: int = 2_000
"""Of one partition. A state with five tasks takes some ten kilobytes."""


class RememberedStates:
    """The latest states of one partition, by request; those that were not asked for the longest go first."""

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._states: OrderedDict[str, State] = OrderedDict()

    def known(self, request_ids: Collection[str]) -> dict[str, State]:
        """Those of these requests that are remembered."""
        found = {}
        for request_id in request_ids:
            state = self._states.get(request_id)
            if state is not None:
                found[request_id] = state
        return found

    def keep(self, states: Iterable[State]) -> None:
        """Remember what a committed transaction wrote."""
        for state in states:
            if state.closed:
                self._states.pop(state.request_id, None)
            else:
                self._states[state.request_id] = state
                self._states.move_to_end(state.request_id)
        while len(self._states) > self._kept:
            self._states.popitem(last=False)

    def forget(self) -> None:
        """Of all: what the ledger has may be newer."""
        self._states.clear()
