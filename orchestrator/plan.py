"""Stage 2: the tasks of a request, as a pure function of command and inventory."""

from collections.abc import Iterable

from keshi.schemas.base import sha256
from keshi.schemas.commands import Action, Scope
from keshi.schemas.inventory import Inventory, Plan, PlannedTask, System
from keshi.schemas.outcomes import CategoryOutcome, DecidedBy, Outcome
from keshi.schemas.requests import RejectionCode
from keshi.schemas.tasks import RetentionRule


class NotPlannable(Exception):  # noqa: N818 - it is an answer to the sender
    """No system can do what was asked for: `code`, and the `field` of the command that asks for it."""

    def __init__(self, code: RejectionCode, field: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.field = field
        self.detail = detail


def inventory_hash(inventory: Inventory) -> str:
    """Names an inventory by its content."""
    return sha256(inventory)


def make_plan(inventory: Inventory, digest: str, action: Action, scope: Scope, given: Iterable[str]) -> Plan:
    """Work out the plan.

    Args:
        inventory: All systems.
        digest: Its `inventory_hash`.
        action: What is asked for.
        scope: How far it reaches.
        given: The identifier types that the command carries.

    Raises:
        NotPlannable: nothing in the inventory could do any of it.
    """
    types = frozenset(given)
    if scope.purposes or scope.items:
        field = "data.scope.purposes" if scope.purposes else "data.scope.items"
        raise NotPlannable(
            RejectionCode.SCOPE_NOT_SUPPORTED, field, "no system can act on a scope by purpose or item yet"
        )
    _categories_known(inventory, scope)
    able = [s for s in inventory.systems if action in s.actions]
    if not able:
        raise NotPlannable(
            RejectionCode.ACTION_NOT_POSSIBLE, "type", f"no system of the inventory can do {action.value}"
        )
    # What one system can teach another counts as given: it is asked first.
    reachable = [s for s in able if _in_scope(s, scope)]
    learnable = frozenset(t for s in reachable if types & set(s.identifiers) for t in s.learns)
    tasks = tuple(_planned(s, action, scope, types, learnable) for s in inventory.systems)
    if not any(t.included for t in tasks):
        raise NotPlannable(
            RejectionCode.NOTHING_SEARCHABLE,
            "data.identifiers",
            "no system in scope can be searched by identifiers of these types",
        )
    included = {t.system for t in tasks if t.included}
    wanted = {t for s in reachable if s.name in included for t in s.identifiers}
    return Plan(
        inventory=digest,
        action=action,
        scope=scope,
        tasks=tuple(_with_order(t, inventory.system(t.system), included, wanted) for t in tasks),
    )


def _categories_known(inventory: Inventory, scope: Scope) -> None:
    known = {c.name for s in inventory.systems for c in s.categories}
    for index, category in enumerate(scope.categories or ()):
        if category not in known:
            raise NotPlannable(
                RejectionCode.CATEGORY_UNKNOWN,
                f"data.scope.categories.{index}",
                "the inventory has no such data category",
            )


def _in_scope(system: System, scope: Scope) -> tuple[str, ...]:
    names = tuple(c.name for c in system.categories)
    return names if scope.categories is None else tuple(n for n in names if n in scope.categories)


def _planned(
    system: System, action: Action, scope: Scope, given: frozenset[str], learnable: frozenset[str]
) -> PlannedTask:
    covered = _in_scope(system, scope)
    outside = tuple(c.name for c in system.categories if c.name not in covered)
    known = _known(outside, Outcome.OUT_OF_SCOPE, "category_not_asked_for")
    if action not in system.actions:
        known += _known(covered, Outcome.IMPOSSIBLE, "action_not_offered")
        covered = ()
    searchable = tuple(t for t in system.identifiers if t in given | learnable)
    if covered and not searchable:
        known += _known(covered, Outcome.NOT_SEARCHABLE, "no_identifier_known_here")
        covered = ()
    return PlannedTask(
        system=system.name,
        categories=covered,
        identifiers=searchable if covered else (),
        record_limit=system.record_limit,
        retention=tuple(
            RetentionRule(category=c.name, ground=r.ground, years=r.years)
            for c in system.categories
            for r in c.retention
            if c.name in covered
        ),
        residue=system.residue if covered else (),
        known=known,
    )


def _known(categories: Iterable[str], outcome: Outcome, reason: str) -> tuple[CategoryOutcome, ...]:
    return tuple(
        CategoryOutcome(category=c, outcome=outcome, decided_by=DecidedBy.PLAN, reason=reason) for c in categories
    )


def _with_order(task: PlannedTask, system: System, included: set[str], wanted: set[str]) -> PlannedTask:
    if not task.included:
        return task
    learns = tuple(t for t in system.learns if t in wanted)
    return task.model_copy(
        update={
            "after": tuple(s for s in system.after if s in included),
            "learns": learns,
            "identify": bool(learns) and len(included) > 1,
        }
    )
