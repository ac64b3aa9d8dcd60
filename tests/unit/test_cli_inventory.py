"""`keshi inventory check`: each problem with its line, its place and its remedy."""

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from keshi.cli import run
from keshi.orchestrator.inventory import Problem, load, problems
from keshi.runtime.settings import ConfigurationError
from keshi.schemas.inventory import Inventory

GOOD = """\
version: 1
company: Mihon Shoji (invented)
systems:
  - name: crm
    title: CRM
    owner: sales
    role: own
    country: JP
    actions: [erase, suspend_use, resume_use]
    identifiers: [email, phone]
    learns: [customer_id]
    categories:
      - name: contacts
        title: Contacts
  - name: billing
    title: Billing
    owner: finance
    role: own
    country: JP
    actions: [erase]
    identifiers: [customer_id]
    after: [crm]
    categories:
      - name: invoices
        title: Invoices
        retention: [{ground: jp.tax-records, years: 7}]
"""


def changed(old: str, new: str) -> str:
    assert GOOD.count(old) >= 1
    return GOOD.replace(old, new, 1)


def test_a_good_inventory_has_no_problem() -> None:
    assert problems(GOOD) == []


def test_the_inventory_of_the_reference_company_has_no_problem() -> None:
    assert problems((files("keshi.dev") / "inventory.yaml").read_text(encoding="utf-8")) == []


BAD = {
    "syntax": ("company: Mihon", "company: [Mihon", 3, "not YAML", "syntax"),
    "unknown field": ("    owner: sales", "    ownr: sales", 6, "no field ownr", "did you mean `owner`"),
    "missing field": ("    title: CRM\n", "", 4, "title is missing", "add `title:`"),
    "field twice": ("company: Mihon Shoji (invented)", "company: A\ncompany: B", 3, "twice", "line 2"),
    "name twice": ("name: billing", "name: crm", 15, "another system has this name", "name of its own"),
    "category twice": (
        "        title: Contacts\n",
        "        title: Contacts\n      - name: contacts\n        title: Other\n",
        15,
        "another category",
        "name of its own",
    ),
    "bad name": ("name: crm", "name: C R M", 4, "does not have its form", "small letters"),
    "role": ("role: own", "role: owner", 7, "not one of its words", "third_party"),
    "action": ("[erase]", "[delete]", 20, "not one of its words", "suspend_use"),
    "country": ("country: JP", "country: NO", 8, "is no text", "quotes"),
    "identifier": ("[email, phone]", "[e-mail, phone]", 10, "does not have its form", "x-"),
    "identifier twice": ("[email, phone]", "[email, email]", 10, "email stands there twice", "keep one"),
    "after nobody": ("after: [crm]", "after: [crn]", 22, "there is no system crn", "did you mean crm"),
    "after itself": ("after: [crm]", "after: [billing]", 22, "cannot wait for itself", "take it out"),
    "circle": (
        "    learns:",
        "    after: [billing]\n    learns:",
        11,
        "crm waits for billing waits for crm",
        "take one",
    ),
    "learns for nobody": ("learns: [customer_id]", "learns: [cookie_id]", 11, "no other system", "cookie_id"),
    "ground": ("jp.tax-records", "jp.tax-record", 26, "no rule file has the ground", "did you mean jp.tax-records"),
    "ground that keeps nothing": ("jp.tax-records", "appi.22", 26, "makes nobody keep", "jp.tax-records"),
    "years": ("years: 7", "years: 0", 26, "greater than or equal to 1", "change it"),
    "abroad": ("role: own", "role: recipient_abroad", 7, "no basis", "add `basis:`"),
    "provides nothing and offers to stop": (
        "    actions: [erase]",
        "    provides_to_third_parties: false\n    actions: [erase, stop_provision]",
        20,
        "offers to stop",
        "stop_provision",
    ),
    "provides nothing and is a third party": (
        "    role: own",
        "    provides_to_third_parties: false\n    role: third_party",
        8,
        "its role is third_party",
        "put the role right",
    ),
    "provides nothing and has a recipient abroad": (
        "        title: Contacts",
        (
            "        title: Contacts\n        holder: {role: recipient_abroad, country: AU, basis: consent}\n"
            "    provides_to_third_parties: false"
        ),
        15,
        "its role is recipient_abroad",
        "put the role right",
    ),
    "provides perhaps": (
        "    actions: [erase]",
        "    provides_to_third_parties: perhaps\n    actions: [erase]",
        20,
        "True or False",
        "change it",
    ),
    "role is a list": ("role: own", "role: [own]", 7, "not one of its words", "third_party"),
    "no systems": (GOOD[GOOD.index("  - name: crm") :], "", 3, "is no list", "systems"),
    "list for a mapping": (
        "      - name: contacts\n        title: Contacts",
        "      - contacts",
        13,
        "no mapping",
        "fields",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_problem_is_told_with_line_and_remedy(name: str) -> None:
    """Whatever else it brings with it, the slip itself is named at its own line."""
    old, new, line, what, remedy = BAD[name]
    found = [p for p in problems(changed(old, new)) if not p.note]
    assert any(p.line == line and what in p.what and remedy in p.remedy for p in found), found


def test_nobody_can_erase() -> None:
    text = GOOD.replace("erase, ", "").replace("[erase]", "[suspend_use, resume_use]")
    assert [p.what for p in problems(text)] == ["no system can erase: every command that asks for it would be rejected"]


def test_what_is_worth_a_look_is_no_obstacle(tmp_path: Path) -> None:
    """A processor abroad without a basis, and a suspension that cannot be lifted: notes, and it still loads."""
    text = changed("role: own\n    country: JP", "role: processor\n    country: US").replace(", resume_use", "")
    found = problems(text)
    assert len(found) == 2
    assert all(p.note for p in found)
    path = tmp_path / "i.yaml"
    path.write_text(text)
    assert load(path).system("crm").country == "US"


def test_a_system_may_say_that_it_provides_nothing() -> None:
    for role in ("own", "processor", "joint_user"):
        text = changed("role: own", f"provides_to_third_parties: false\n    role: {role}")
        assert [p for p in problems(text) if not p.note] == []


def test_all_problems_are_told_at_once() -> None:
    """One slip hides no other, also not one of another kind."""
    text = GOOD
    for name in ("unknown field", "role", "learns for nobody", "after nobody", "ground", "category twice"):
        text = text.replace(*BAD[name][:2], 1)
    whats = " | ".join(p.what for p in problems(text))
    for part in (
        "no field ownr",
        "owner is missing",
        "not one of",
        "no other system",
        "no system crn",
        "jp.tax-record",
    ):
        assert part in whats


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(["crm", "erase", "own"]),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "version",
                        "systems",
                        "name",
                        "role",
                        "actions",
                        "after",
                        "learns",
                        "categories",
                        "retention",
                        "ground",
                    ]
                )
                | st.text(max_size=3),
                inner,
                max_size=4,
            )
        ),
        max_leaves=20,
    )
)
def test_whatever_it_is_given_it_answers_with_problems(tree: Any) -> None:
    """No YAML makes it fail, and what has no problem is an inventory."""
    found = problems(yaml.safe_dump(tree))
    assert all(isinstance(p, Problem) and p.line >= 1 and p.place and p.remedy for p in found)
    if not [p for p in found if not p.note]:
        Inventory.model_validate(tree, strict=False)


@pytest.mark.parametrize(
    "text", ["", "- 1", "a: &x [*x]", "a: !foo b", "\x00", "? [a]\n: b", "[" * 5000, "a: 2026-99-99", "&a {a: *a}"]
)
def test_no_yaml_breaks_it(text: str) -> None:
    assert [p for p in problems(text) if not p.note]


def test_the_command_shows_them_and_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "inventory.yaml"
    path.write_text(changed("after: [crm]", "after: [crn]"))
    assert run(["inventory", "check", str(path)]) == 1
    said = capsys.readouterr()
    assert f"{path}:22\tproblem\tsystem billing, after 1\tthere is no system crn\tdid you mean crm?" in said.out
    assert run(["inventory", "check", "--json", str(path)]) == 1
    assert [p["line"] for p in json.loads(capsys.readouterr().out)] == [22]
    path.write_text(GOOD)
    assert run(["inventory", "check", str(path)]) == 0


def test_loading_names_the_first_problem_and_how_to_see_all(tmp_path: Path) -> None:
    path = tmp_path / "inventory.yaml"
    path.write_text(changed("after: [crm]", "after: [crn]"))
    with pytest.raises(ConfigurationError, match=r"line 22: system billing, after 1: .* see `keshi inventory check"):
        load(path)
    for missing in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(ConfigurationError, match="cannot read"):
            load(missing)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match="UTF-8"):
        load(path)
