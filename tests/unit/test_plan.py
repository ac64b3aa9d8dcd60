"""The plan: pure, whole, and honest about what is left out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keshi.orchestrator.plan import NotPlannable, inventory_hash, make_plan
from keshi.schemas.commands import Action, Scope
from keshi.schemas.identifiers import KNOWN_TYPES
from keshi.schemas.inventory import Inventory
from keshi.schemas.outcomes import DecidedBy, Outcome
from kit.samples import inventory

CATEGORIES = ("a", "b", "c", "d")


def systems() -> st.SearchStrategy[Inventory]:
    types = st.lists(st.sampled_from(KNOWN_TYPES), min_size=1, max_size=3, unique=True)
    actions = st.lists(st.sampled_from([a.value for a in Action]), max_size=4, unique=True)
    names = st.lists(st.sampled_from(CATEGORIES), min_size=1, max_size=4, unique=True)

    def system(n: int, acts: list[str], known: list[str], learns: list[str], kept: list[str]) -> dict[str, object]:
        return {
            "name": f"s{n}",
            "title": "S",
            "owner": "o",
            "role": "own",
            "country": "JP",
            "actions": acts,
            "identifiers": known,
            "learns": learns,
            "after": [f"s{n - 1}"] if n % 2 else [],
            "categories": [{"name": c, "title": c} for c in kept],
        }

    one = st.tuples(actions, types, st.lists(st.sampled_from(KNOWN_TYPES), max_size=2, unique=True), names)
    return st.lists(one, min_size=1, max_size=5).map(
        lambda found: Inventory.model_validate(
            {"version": 1, "company": "C", "systems": [system(n, *s) for n, s in enumerate(found)]}, strict=False
        )
    )


@given(
    systems(),
    st.sampled_from(Action),
    st.lists(st.sampled_from(KNOWN_TYPES), min_size=1, max_size=3, unique=True),
    st.none() | st.lists(st.sampled_from(CATEGORIES), min_size=1, max_size=2, unique=True).map(tuple),
)
def test_every_system_and_category_is_in_the_plan_once(
    inv: Inventory, action: Action, types: list[str], scope: tuple[str, ...] | None
) -> None:
    """As a task or with the outcome that the plan decided; the same inputs make the same plan."""
    try:
        plan = make_plan(inv, inventory_hash(inv), action, Scope(categories=scope), types)
    except NotPlannable:
        return
    assert plan == make_plan(inv, inventory_hash(inv), action, Scope(categories=scope), reversed(types))
    assert [t.system for t in plan.tasks] == [s.name for s in inv.systems]
    included = {t.system for t in plan.tasks if t.included}
    assert included
    for task, system in zip(plan.tasks, inv.systems, strict=True):
        covered = [*task.categories, *(k.category for k in task.known)]
        assert sorted(covered) == sorted(c.name for c in system.categories)
        assert all(k.reason and k.outcome in _PLANS for k in task.known)
        assert set(task.after) <= included
        assert not task.included or task.identifiers
        assert not task.categories or action in system.actions
        assert scope is None or set(task.categories) <= set(scope)


_PLANS = {Outcome.OUT_OF_SCOPE, Outcome.IMPOSSIBLE, Outcome.NOT_SEARCHABLE}


def test_what_another_system_can_learn_counts_as_given_and_is_asked_first() -> None:
    inv = inventory(
        mail={"learns": ["phone"]},
        calls={"actions": ["erase"], "identifiers": ["phone"], "categories": [{"name": "recordings", "title": "R"}]},
    )
    plan = make_plan(inv, inventory_hash(inv), Action.ERASE, Scope(), ["email"])
    assert plan.task("mail").identify
    assert plan.task("calls").identifiers == ("phone",)
    alone = make_plan(inv, inventory_hash(inv), Action.ERASE, Scope(), ["customer_id"])
    assert alone.task("calls").known[0].outcome is Outcome.NOT_SEARCHABLE


def test_a_system_that_cannot_act_is_an_exception_not_a_silence() -> None:
    inv = inventory(mail={"actions": []})
    plan = make_plan(inv, inventory_hash(inv), Action.ERASE, Scope(), ["email"])
    assert [k.outcome for k in plan.task("mail").known] == [Outcome.IMPOSSIBLE]


def test_who_provides_nothing_to_third_parties_has_no_provision_to_stop() -> None:
    """Out of scope where it is said so, and nowhere else; what was not asked for says that."""
    both = [{"name": "recordings", "title": "R", "purposes": ["ads"]}, {"name": "calls", "title": "C"}]
    nothing = {"actions": ["erase"], "identifiers": ["email"], "categories": both}
    for said, outcome, reason in (
        (False, Outcome.OUT_OF_SCOPE, "not_provided_to_third_parties"),
        (True, Outcome.IMPOSSIBLE, "action_not_offered"),
        (None, Outcome.IMPOSSIBLE, "action_not_offered"),
    ):
        inv = inventory(
            mail={"actions": ["erase", "stop_provision"]}, calls={**nothing, "provides_to_third_parties": said}
        )
        task = make_plan(inv, inventory_hash(inv), Action.STOP_PROVISION, Scope(), ["email"]).task("calls")
        assert not task.included
        assert {(k.category, k.outcome, k.reason, k.decided_by) for k in task.known} == {
            (name, outcome, reason, DecidedBy.PLAN) for name in ("recordings", "calls")
        }
        assert make_plan(inv, inventory_hash(inv), Action.ERASE, Scope(), ["email"]).task("calls").included


def test_a_stop_of_provision_for_one_purpose_is_no_exception_where_nothing_is_provided() -> None:
    category = {"name": "recordings", "title": "R", "purposes": ["ads", "quality"]}
    calls = {"actions": [], "identifiers": ["email"], "categories": [category, {"name": "index", "title": "I"}]}
    shared = {**PURPOSES, "actions": ["stop_provision"]}
    inv = inventory(mail=shared, calls={**calls, "provides_to_third_parties": False})
    scope = Scope(purposes=("marketing", "ads"))
    task = make_plan(inv, inventory_hash(inv), Action.STOP_PROVISION, scope, ["email"]).task("calls")
    assert {k.category: k.reason for k in task.known} == {
        "recordings": "not_provided_to_third_parties",
        "index": "purpose_not_asked_for",
    }


def test_who_has_nothing_to_do_is_still_asked_for_identifiers() -> None:
    """The request is about recordings alone; only the mail system knows the number that finds them."""
    calls = {"actions": ["erase", "stop_provision"], "identifiers": ["phone"]}
    inv = inventory(mail={"learns": ["phone"]}, calls={**calls, "categories": [{"name": "recordings", "title": "R"}]})
    for action, scope in ((Action.ERASE, Scope(categories=("recordings",))), (Action.STOP_PROVISION, Scope())):
        plan = make_plan(inv, inventory_hash(inv), action, scope, ["email"])
        assert plan.task("calls").categories == ("recordings",)
        mail = plan.task("mail")
        assert mail.identify
        assert mail.included
        assert mail.identifiers == ("email",)
        assert mail.categories == ()
        assert mail.known


PURPOSES = {
    "actions": ["erase"],
    "identifiers": ["email"],
    "categories": [
        {"name": "lists", "title": "L", "purposes": ["marketing"]},
        {"name": "contacts", "title": "C", "purposes": ["marketing", "support"]},
        {"name": "tickets", "title": "T", "purposes": ["support"]},
        {"name": "logs", "title": "G"},
    ],
}


def test_a_scope_by_purpose_takes_what_serves_it_alone_and_says_so_of_the_rest() -> None:
    inv = inventory(mail=PURPOSES)
    task = make_plan(inv, inventory_hash(inv), Action.ERASE, Scope(purposes=("marketing",)), ["email"]).task("mail")
    assert task.categories == ("lists",)
    assert {k.category: (k.outcome, k.reason) for k in task.known} == {
        "contacts": (Outcome.IMPOSSIBLE, "purpose_not_separable"),
        "tickets": (Outcome.OUT_OF_SCOPE, "purpose_not_asked_for"),
        "logs": (Outcome.OUT_OF_SCOPE, "purpose_not_asked_for"),
    }
    both = make_plan(inv, inventory_hash(inv), Action.ERASE, Scope(purposes=("support", "marketing")), ["email"])
    assert both.task("mail").categories == ("lists", "contacts", "tickets")


def test_a_scope_by_item_takes_the_categories_of_the_items_and_narrows_further() -> None:
    inv = inventory(mail=PURPOSES)
    scope = Scope(items=("tickets:4711", "lists:1"), purposes=("marketing",))
    task = make_plan(inv, inventory_hash(inv), Action.ERASE, scope, ["email"]).task("mail")
    assert task.categories == ("lists",)
    assert {k.category: k.reason for k in task.known} == {
        "contacts": "item_not_asked_for",
        "tickets": "purpose_not_asked_for",
        "logs": "item_not_asked_for",
    }


def test_a_scope_that_nobody_can_act_on_names_its_field() -> None:
    inv = inventory(mail=PURPOSES)
    for scope, code, field in (
        (Scope(purposes=("marketing", "ads")), "purpose_unknown", "data.scope.purposes.1"),
        (Scope(items=("lists:1", "letters:2")), "category_unknown", "data.scope.items.1"),
        (Scope(categories=("contacts",), purposes=("support",)), "scope_not_supported", "data.scope.purposes"),
    ):
        with pytest.raises(NotPlannable) as refused:
            make_plan(inv, inventory_hash(inv), Action.ERASE, scope, ["email"])
        assert (refused.value.code, refused.value.field) == (code, field)
