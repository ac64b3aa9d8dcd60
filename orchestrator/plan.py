"""Stage 2: the tasks of a request, as a pure function of command and inventory."""

from collections.abc import Iterable

from keshi.schemas.base import sha256
from keshi.schemas.commands import Action, Scope
from keshi.schemas.inventory import Category, Inventory, Plan, PlannedTask, System
from keshi.schemas.outcomes import NOT_PROVIDED, CategoryOutcome, DecidedBy, Outcome
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
    _known_to(inventory, scope)
    able = [s for s in inventory.systems if action in s.actions]
    if not able:
        raise NotPlannable(
            RejectionCode.ACTION_NOT_POSSIBLE, "type", f"no system of the inventory can do {action.value}"
        )
    covered = {s.name: _covered(s, action, scope) for s in able}
    if not any(covered.values()):
        raise NotPlannable(
            RejectionCode.SCOPE_NOT_SUPPORTED, _field(scope), "no system that can act has a category that is only this"
        )
    # What one system can teach another counts as given: it is asked first, also where it has nothing to do itself.
    teachers = {s.name: s.learns for s in inventory.systems if s.learns and types & set(s.identifiers)}
    learnable = {s.name: {t for n, learns in teachers.items() if n != s.name for t in learns} for s in able}
    tasks = [_planned(s, action, scope, types | learnable.get(s.name, set())) for s in inventory.systems]
    acting = {t.system for t in tasks if t.categories}
    if not acting:
        raise NotPlannable(
            RejectionCode.NOTHING_SEARCHABLE,
            "data.identifiers",
            "no system in scope can be searched by identifiers of these types",
        )
    return Plan(
        inventory=digest,
        action=action,
        scope=scope,
        tasks=tuple(_with_order(t, inventory, acting, types, teachers.get(t.system, ())) for t in tasks),
    )


def _known_to(inventory: Inventory, scope: Scope) -> None:
    categories = {c.name for s in inventory.systems for c in s.categories}
    purposes = {p for s in inventory.systems for c in s.categories for p in c.purposes}
    items = [i.partition(":")[0] for i in scope.items or ()]
    for field, asked, known, code, what in (
        ("categories", scope.categories, categories, RejectionCode.CATEGORY_UNKNOWN, "data category"),
        ("purposes", scope.purposes, purposes, RejectionCode.PURPOSE_UNKNOWN, "purpose"),
        ("items", items, categories, RejectionCode.CATEGORY_UNKNOWN, "data category"),
    ):
        for index, name in enumerate(asked or ()):
            if name not in known:
                raise NotPlannable(code, f"data.scope.{field}.{index}", f"the inventory has no such {what}")


def _field(scope: Scope) -> str:
    named = {"purposes": scope.purposes, "items": scope.items, "categories": scope.categories}
    return next((f"data.scope.{name}" for name, asked in named.items() if asked), "data.scope")


def _covered(system: System, action: Action, scope: Scope) -> tuple[str, ...]:
    return tuple(c.name for c in system.categories if _left_out(system, c, action, scope) is None)


def _left_out(system: System, category: Category, action: Action, scope: Scope) -> tuple[Outcome, str] | None:
    """Why a category is not in scope; None where it is. A scope narrows by all that it names.

    What serves an asked purpose together with others cannot be stopped for that one alone: that is said, and is not
    the same as not being asked for.
    """
    if scope.categories is not None and category.name not in scope.categories:
        return Outcome.OUT_OF_SCOPE, "category_not_asked_for"
    if scope.items is not None and all(i.partition(":")[0] != category.name for i in scope.items):
        return Outcome.OUT_OF_SCOPE, "item_not_asked_for"
    if scope.purposes is not None and not set(category.purposes) & set(scope.purposes):
        return Outcome.OUT_OF_SCOPE, "purpose_not_asked_for"
    if action is Action.STOP_PROVISION and system.provides_to_third_parties is False:
        return Outcome.OUT_OF_SCOPE, NOT_PROVIDED
    if scope.purposes is not None and not set(category.purposes) <= set(scope.purposes):
        return Outcome.IMPOSSIBLE, "purpose_not_separable"
    return None


def _planned(system: System, action: Action, scope: Scope, known_types: frozenset[str]) -> PlannedTask:
    covered = _covered(system, action, scope)
    left_out = ((c.name, _left_out(system, c, action, scope)) for c in system.categories)
    known = tuple(o for name, why in left_out if why for o in _known((name,), *why))
    if action not in system.actions:
        known += _known(covered, Outcome.IMPOSSIBLE, "action_not_offered")
        covered = ()
    searchable = tuple(t for t in system.identifiers if t in known_types)
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


def _with_order(
    task: PlannedTask, inventory: Inventory, acting: set[str], given: frozenset[str], teaches: Iterable[str]
) -> PlannedTask:
    """The task with what it waits for, and with what it is asked for the others first."""
    system = inventory.system(task.system)
    wanted = {t for name in acting - {task.system} for t in inventory.system(name).identifiers}
    learns = tuple(t for t in teaches if t in wanted)
    if not task.categories and not learns:
        return task
    return task.model_copy(
        update={
            "after": tuple(s for s in system.after if s in acting) if task.categories else (),
            "identifiers": task.identifiers or tuple(t for t in system.identifiers if t in given),
            "learns": learns,
            "identify": bool(learns),
        }
    )
