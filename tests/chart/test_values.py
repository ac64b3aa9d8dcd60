"""The values: a closed schema with a word on each, the README's table, and cases that use them all."""

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator

from chart import generate
from chart.rendering import (
    CASES,
    CHART,
    ROOT,
    VALUES,
    call,
    containers,
    mounted,
    plain,
    pod,
    render,
    template,
    values_of,
    workloads,
)

SCHEMA: dict[str, Any] = json.loads(generate.SCHEMA.read_text(encoding="utf-8"))
DEFAULTS: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
_RUN = "run `.venv/bin/python -m tests.chart.generate`"


def objects(node: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema of an object, with where it stands."""
    if isinstance(node, dict):
        if node.get("type") == "object":
            yield path, node
        for name, below in node.items():
            yield from objects(below, f"{path}/{name}")


def test_the_schema_is_one() -> None:
    Draft7Validator.check_schema(SCHEMA)


def test_the_schema_is_closed_everywhere() -> None:
    """Helm hands `global` down from a chart around this one: all else has a shape."""
    open_ = [p for p, o in objects(SCHEMA) if o.get("additionalProperties", True) in (True, {})]
    assert open_ == ["/properties/global"]


def test_every_value_has_a_word_on_it() -> None:
    for path, found in objects(SCHEMA):
        for name, below in found.get("properties", {}).items():
            assert below.get("description", "").endswith("."), f"{path}/{name}"


def test_the_schema_has_every_default_and_nothing_else() -> None:
    Draft7Validator(SCHEMA).validate(DEFAULTS)
    assert SCHEMA["properties"].keys() - {"global"} == DEFAULTS.keys()
    for name, node in SCHEMA["properties"].items():
        if name != "global":
            _same(generate.resolved(SCHEMA, node), DEFAULTS[name], name)


def _same(node: dict[str, Any], defaults: Any, path: str) -> None:
    if "properties" not in node or not isinstance(defaults, dict) or path.endswith(("requests", "limits")):
        return
    assert node["properties"].keys() == defaults.keys(), path
    for name, below in node["properties"].items():
        _same(generate.resolved(SCHEMA, below), defaults[name], f"{path}.{name}")


def test_the_schema_knows_the_settings_of_the_code() -> None:
    assert generate.SCHEMA.read_text(encoding="utf-8") == generate.wanted_schema(), _RUN


def test_the_readme_has_every_value() -> None:
    assert generate.README.read_text(encoding="utf-8") == generate.wanted_readme(), _RUN


@pytest.mark.parametrize("number", range(3))
def test_the_values_in_the_readme_work(number: int, tmp_path: Path) -> None:
    blocks = re.findall(r"^ *```yaml\n(.*?)^ *```$", generate.README.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    assert len(blocks) == 3
    file = tmp_path / "values.yaml"
    file.write_text(blocks[number], encoding="utf-8")
    before = [] if "kafka:" in blocks[number] else values_of("default")
    call("template", "keshi", str(CHART), *before, f"--values={file}", "--set=inventory.configMap=keshi-inventory")


def test_some_case_gives_every_value() -> None:
    """Otherwise an option could be broken and nobody would know."""
    cases = [yaml.safe_load((VALUES / f"{c}.yaml").read_text(encoding="utf-8")) for c in CASES]
    paths = {p for p, _, _ in generate.rows() if "…" not in p and not p.startswith("handlerDefaults.")}
    given = {p for p in paths if any(_has(c, p.split(".")) for c in cases)}
    by_default = {"topics.enabled", "migrate.enabled", "podDisruptionBudget.enabled", "topologySpread.enabled"}
    nowhere = {
        "api.resources",
        "api.egress",
        "api.tokens.configMap",
        "ledger.sqlite.accessMode",
        "ledger.sqlite.size",
        "migrate.egress",
        "migrate.resources",
        "orchestrator.resources",
        "topics.resources",
        "topics.secret",
    }
    assert paths - given == by_default | nowhere


def _has(values: Any, path: list[str]) -> bool:
    for name in path:
        if not isinstance(values, dict) or name not in values:
            return False
        values = values[name]
    return True


@pytest.mark.parametrize("case", CASES)
def test_helm_finds_nothing_to_mend(case: str) -> None:
    said = call("lint", "--strict", "--quiet", str(CHART), *values_of(case))
    assert not re.search(r"\[(WARNING|ERROR)\]", said), said


def test_the_chart_is_of_the_version_of_the_code() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert str(chart["appVersion"]) == project["version"]


# --- switches


def test_parts_can_be_left_out() -> None:
    off = ("topics", "migrate", "podDisruptionBudget", "topologySpread")
    there = render("default", *(f"--set={part}.enabled=false" for part in off))
    assert {o["kind"] for o in there} == {"Deployment", "Service", "ServiceAccount", "StatefulSet"}
    assert all("topologySpreadConstraints" not in pod(w) for w in workloads(there).values())


def test_stopped_means_no_orchestrator_and_no_api_while_workers_stay() -> None:
    replicas = {
        name: w["spec"].get("replicas")
        for name, w in workloads(render("default", "--set=stopped=true")).items()
        if w["kind"] != "Job"
    }
    handlers = {"billing", "crm", "call-recordings", "ma-tool", "affiliates"}
    stopped = {"keshi-orchestrator": 0, "keshi-api": 0}
    assert replicas == {**stopped, **{f"keshi-handler-{h}": 1 for h in handlers}}


def test_an_upgrade_looks_at_the_schema_and_changes_it_only_while_stopped() -> None:
    assert _migration() == ["ledger", "migrate"]
    assert _migration("--is-upgrade") == ["ledger", "check"]
    assert _migration("--is-upgrade", "--set=stopped=true") == ["ledger", "migrate"]


def _migration(*arguments: str) -> list[str]:
    (container,) = containers(workloads(render("default", *arguments))["keshi-migrate"])
    args: list[str] = container["args"]
    return args


def test_a_sqlite_ledger_is_one_pod_with_one_volume() -> None:
    stateful = workloads(render("sqlite", "--is-upgrade"))["keshi-orchestrator"]
    assert stateful["spec"]["replicas"] == 1
    assert [(c["name"], c["args"]) for c in containers(stateful)] == [
        ("migrate", ["ledger", "migrate"]),
        ("orchestrator", ["orchestrator", "run"]),
        ("api", ["api", "run"]),
    ]
    (claim,) = stateful["spec"]["volumeClaimTemplates"]
    assert claim["spec"]["accessModes"] == ["ReadWriteOncePod"]
    assert stateful["spec"]["persistentVolumeClaimRetentionPolicy"]["whenDeleted"] == "Retain"
    for container in containers(stateful):
        (mount,) = [m for m in container["volumeMounts"] if m["name"] == "ledger"]
        url = next(e["value"] for e in container["env"] if e["name"] == "KESHI_LEDGER_URL")
        assert url.removeprefix("sqlite:///").startswith(mount["mountPath"])


def test_a_new_inventory_or_new_tokens_start_pods_anew() -> None:
    def checksums(*arguments: str) -> dict[str, Any]:
        there = workloads(render("everything", *arguments))
        return {n: w["spec"]["template"]["metadata"]["annotations"] for n, w in there.items()}

    before = checksums()
    inventory = checksums("--set=inventory.content=version: 2")
    tokens = checksums("--set=api.tokens.content=other")
    assert {n for n in before if before[n] != inventory[n]} == {"erasure-orchestrator", "erasure-handler-affiliates"}
    assert {n for n in before if before[n] != tokens[n]} == {"erasure-api"}


def test_files_that_a_file_names_lie_beside_it() -> None:
    workload = workloads(render("everything"))["erasure-handler-affiliates"]
    (container,) = containers(workload)
    folder, _, _ = plain(container)["KESHI_AFFILIATES_FILE"].rpartition("/")
    there = mounted(workload, container)
    for key in ("partner-a.token", "partner-b.token", "partner-b.pem"):
        assert there[f"{folder}/{key}"] == ("erasure-handler-affiliates", key)


def test_the_cluster_may_choose_the_user() -> None:
    for workload in workloads(render("default", "--set=user.uid=null", "--set=user.gid=null")).values():
        assert pod(workload)["securityContext"].keys() == {"runAsNonRoot", "seccompProfile"}


def test_a_release_of_another_name_keeps_its_names_apart() -> None:
    assert "name: other-keshi-orchestrator" in call("template", "other", str(CHART), *values_of("default"))
    long = "a-release-with-a-name-that-is-as-long-as-helm-takes-it"
    there = [d for d in yaml.safe_load_all(call("template", long[:53], str(CHART), *values_of("default"))) if d]
    assert all(len(o["metadata"]["name"]) <= 63 for o in there)


def test_the_same_values_give_the_same_manifests() -> None:
    again = call("template", "keshi", str(CHART), "--namespace=privacy", *values_of("everything"))
    assert template("everything") == again
