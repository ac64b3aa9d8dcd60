"""What the chart makes: each workload alone with its secrets, locked down, and reached where it really answers."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import kubernetes_validate
import pytest

from chart.rendering import (
    CASES,
    Object,
    containers,
    kinds,
    mounted,
    plain,
    pod,
    render,
    secret,
    workloads,
)
from keshi.handlers.worker.service import REPORT_SECONDS, STOP_SECONDS
from keshi.orchestrator.api.run import GRACE_SECONDS
from keshi.orchestrator.stream.settings import StreamSettings
from keshi.runtime.settings import KafkaSettings

pytestmark = pytest.mark.parametrize("case", CASES)

SHARED_BY_DESIGN = {"kafka-ca", "company-ca"}
"""Certificates of authorities: no secrets, though they stand in Secrets."""
NAMES = {
    "default": "keshi",
    "sqlite": "keshi",
    "own_handler": "keshi",
    "everything": "erasure",
}


def named(case: str, component: str) -> str:
    return f"{NAMES[case]}-{component}"


def all_containers(case: str) -> Iterator[tuple[Object, Object]]:
    for workload in workloads(render(case)).values():
        for container in containers(workload):
            yield workload, container


# --- what there is


def test_every_workload_that_belongs_there_is_there(case: str) -> None:
    there = workloads(render(case))
    handlers = {n.partition("-handler-")[2] for n in there if "-handler-" in n}
    built_in = {"billing", "crm", "call-recordings", "ma-tool", "affiliates"}
    assert handlers == ({"newsletter", "small"} if case == "own_handler" else built_in)
    others = {"orchestrator", "topics"} if case == "sqlite" else {"orchestrator", "api", "topics", "migrate"}
    assert set(there) == {named(case, c) for c in others | {f"handler-{h}" for h in handlers}}


def test_nothing_asks_the_cluster_for_rights_and_no_secret_is_made(case: str) -> None:
    made = {o["kind"] for o in render(case)}
    assert made <= {
        "ConfigMap",
        "Deployment",
        "HorizontalPodAutoscaler",
        "Job",
        "NetworkPolicy",
        "PodDisruptionBudget",
        "Service",
        "ServiceAccount",
        "StatefulSet",
    }


_schema = cache(kubernetes_validate.utils.schema_contents)
"""Two megabytes, which it would read anew for each object."""


@pytest.mark.parametrize("version", ["1.30.0", "1.37.0"])
def test_kubernetes_knows_every_field(case: str, version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubernetes_validate.utils, "schema_contents", _schema)
    for found in render(case):
        kubernetes_validate.validate(found, version, strict=True)


def test_labels_and_names_are_ones_that_kubernetes_takes(case: str) -> None:
    for found in render(case):
        meta = found["metadata"]
        assert re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", meta["name"]), meta["name"]
        assert meta["namespace"] == "privacy"
        for value in meta["labels"].values():
            assert re.fullmatch(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?", value), value


# --- alone with its secrets


def test_each_workload_has_a_service_account_of_its_own(case: str) -> None:
    objects = render(case)
    accounts = kinds(objects, "ServiceAccount")
    used = [pod(w)["serviceAccountName"] for w in workloads(objects).values()]
    assert sorted(used) == sorted(accounts), "one each, and none left over"
    assert all(a["automountServiceAccountToken"] is False for a in accounts.values())
    assert all(pod(w)["automountServiceAccountToken"] is False for w in workloads(objects).values())


def secrets_of(workload: Object, container: Object) -> set[str]:
    maps = {v["configMap"]["name"] for v in pod(workload)["volumes"] if "configMap" in v}
    files = {name for name, _ in mounted(workload, container).values()} - maps
    return {name for name, _ in secret(container).values()} | files


def test_no_two_containers_share_a_secret(case: str) -> None:
    owners: Mapping[str, list[str]] = defaultdict(list)
    for workload, container in all_containers(case):
        for name in secrets_of(workload, container) - SHARED_BY_DESIGN:
            owners[name].append(f"{workload['metadata']['name']}/{container['name']}")
    assert {n: o for n, o in owners.items() if len(o) > 1} == {}


def test_each_handler_has_a_token_of_its_own(case: str) -> None:
    for workload, container in all_containers(case):
        if container["name"] == "handler":
            several = len(container["args"]) > 3
            name, key = secret(container)["KESHI_API_TOKENS" if several else "KESHI_API_TOKEN"]
            assert name == ("newsletter-erasure" if "newsletter" in workload["metadata"]["name"] else _own(workload))
            assert key


def _own(workload: Object) -> str:
    name: str = workload["metadata"]["name"]
    return name


def test_only_the_keys_that_are_needed_are_mounted(case: str) -> None:
    for workload in workloads(render(case)).values():
        for volume in pod(workload)["volumes"]:
            if "secret" in volume:
                assert volume["secret"]["items"], volume
                assert volume["secret"]["defaultMode"] == 0o440


def test_every_file_that_a_setting_names_is_mounted(case: str) -> None:
    for workload, container in all_containers(case):
        there = mounted(workload, container)
        for name, value in plain(container).items():
            if value.startswith("/etc/keshi/"):
                assert value in there or f"{value.rpartition('/')[0]}/*" in there, (name, value)


def test_config_maps_that_are_named_have_the_key_that_is_read(case: str) -> None:
    objects = render(case)
    made = kinds(objects, "ConfigMap")
    for workload, container in all_containers(case):
        for path, (name, key) in mounted(workload, container).items():
            if key == "*" and name in made:
                wanted = next(v for v in plain(container).values() if v.startswith(path[:-1]))
                assert wanted.rpartition("/")[2] in made[name]["data"]


# --- locked down


def test_no_container_has_any_privilege(case: str) -> None:
    for workload, container in all_containers(case):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        spec = pod(workload)
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["securityContext"]["runAsUser"] > 0
        assert not {"hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"} & spec.keys()
        for volume in spec["volumes"]:
            assert volume.keys() & {"emptyDir", "secret", "configMap"}, volume


def test_what_can_be_written_is_small_or_the_ledger(case: str) -> None:
    for _, container in all_containers(case):
        written = {m["name"] for m in container["volumeMounts"] if not m.get("readOnly")}
        assert written <= {"scratch", "ledger"}


def test_every_container_says_what_it_takes(case: str) -> None:
    for _, container in all_containers(case):
        resources = container["resources"]
        assert resources["requests"].keys() >= {"cpu", "memory"}
        assert "memory" in resources["limits"]


def test_no_image_moves(case: str) -> None:
    for _, container in all_containers(case):
        image = container["image"]
        name = image.rpartition("/")[2]
        assert re.search(r"@sha256:[0-9a-f]{64}$", image) or re.search(r":(?!latest$)[\w.-]+$", name), image


# --- reached where it answers


def test_probes_ask_where_the_program_listens(case: str) -> None:
    """The port is the one that the setting tells the program, at an address that a kubelet reaches."""
    settings = {
        "orchestrator": ("KESHI_ORCHESTRATOR_HEALTH_PORT", "KESHI_HEALTH_HOST"),
        "handler": ("KESHI_WORKER_HEALTH_PORT", "KESHI_HEALTH_HOST"),
        "api": ("KESHI_API_PORT", "KESHI_API_HOST"),
    }
    for workload, container in all_containers(case):
        probes = {p: container[p]["httpGet"] for p in container if p.endswith("Probe")}
        if container["name"] not in settings:
            assert not probes
            assert workload["kind"] == "Job" or container in pod(workload)["initContainers"]
            continue
        port, host = settings[container["name"]]
        numbers = {p["name"]: p["containerPort"] for p in container["ports"]}
        assert {p: g["path"] for p, g in probes.items()} == {
            "startupProbe": "/healthz",
            "livenessProbe": "/healthz",
            "readinessProbe": "/readyz",
        }
        assert {str(numbers[g["port"]]) for g in probes.values()} == {plain(container)[port]}
        assert plain(container)[host] == "0.0.0.0"  # noqa: S104 - a pod has an address of its own


def test_there_is_time_to_end_in_order(case: str) -> None:
    stream = StreamSettings(kafka=KafkaSettings())
    needed = {
        "orchestrator": 2 * stream.stop_seconds + 10,
        "handler": STOP_SECONDS + REPORT_SECONDS,
        "api": GRACE_SECONDS,
    }
    for workload, container in all_containers(case):
        if container["name"] in needed:
            linger = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
            assert pod(workload)["terminationGracePeriodSeconds"] >= needed[container["name"]] + linger


def labels(workload: Object) -> Mapping[str, str]:
    found: Mapping[str, str] = workload["spec"]["template"]["metadata"]["labels"]
    return found


def chosen(objects: list[Object], selector: Mapping[str, str]) -> list[str]:
    return [n for n, w in workloads(objects).items() if selector.items() <= labels(w).items()]


def test_selectors_choose_their_own_pods_and_no_others(case: str) -> None:
    objects = render(case)
    for name, workload in workloads(objects).items():
        if workload["kind"] != "Job":
            assert chosen(objects, workload["spec"]["selector"]["matchLabels"]) == [name]
        for spread in pod(workload).get("topologySpreadConstraints", ()):
            assert chosen(objects, spread["labelSelector"]["matchLabels"]) == [name]
    for name, budget in kinds(objects, "PodDisruptionBudget").items():
        assert chosen(objects, budget["spec"]["selector"]["matchLabels"]) == [name]


def test_services_lead_to_ports_that_are_there(case: str) -> None:
    objects = render(case)
    services = kinds(objects, "Service")
    for service in services.values():
        (name,) = chosen(objects, service["spec"]["selector"])
        ports = {p["name"] for c in containers(workloads(objects)[name]) for p in c.get("ports", ())}
        assert {p["targetPort"] for p in service["spec"]["ports"]} <= ports
    for stateful in kinds(objects, "StatefulSet").values():
        assert services[stateful["spec"]["serviceName"]]["spec"]["clusterIP"] == "None"


def test_workers_call_the_api_where_its_service_is(case: str) -> None:
    objects = render(case)
    port = kinds(objects, "Service")[named(case, "api")]["spec"]["ports"][0]["port"]
    wanted = f"http://{named(case, 'api')}.privacy.svc:{port}"
    urls = {plain(c)["KESHI_API_URL"] for _, c in all_containers(case) if c["name"] == "handler"}
    assert urls == {"https://erasure.example" if case == "everything" else wanted}


def test_autoscaling_is_alone_in_deciding_how_many(case: str) -> None:
    objects = render(case)
    scaled = {s["spec"]["scaleTargetRef"]["name"] for s in kinds(objects, "HorizontalPodAutoscaler").values()}
    assert scaled == ({named(case, "handler-billing")} if case == "everything" else set())
    for name, workload in kinds(objects, "Deployment").items():
        assert ("replicas" in workload["spec"]) is (name not in scaled)


# --- before the rest


def test_what_runs_before_the_rest_needs_nothing_of_it(case: str) -> None:
    """A hook runs when nothing of the release exists: what it names has to be a hook, too, and an earlier one."""
    weights = {(o["kind"], o["metadata"]["name"]): _weight(o) for o in render(case)}
    for name, job in kinds(render(case), "Job").items():
        needs = [("ServiceAccount", pod(job)["serviceAccountName"]), ("NetworkPolicy", name)]
        needs += [("ConfigMap", v["configMap"]["name"]) for v in pod(job)["volumes"] if "configMap" in v]
        for need in needs:
            if need in weights:
                earlier, own = weights[need], weights["Job", name]
                assert earlier is not None
                assert own is not None
                assert earlier < own
    for name, workload in workloads(render(case)).items():
        if workload["kind"] != "Job":
            assert weights["ServiceAccount", name] is None, "it has to stay"
            for volume in pod(workload)["volumes"]:
                assert weights.get(("ConfigMap", volume.get("configMap", {}).get("name"))) is None


def _weight(found: Object) -> int | None:
    annotations: dict[str, Any] = found["metadata"].get("annotations", {})
    if "helm.sh/hook" not in annotations:
        return None
    assert annotations["helm.sh/hook-delete-policy"] == "before-hook-creation,hook-succeeded"
    return int(annotations["helm.sh/hook-weight"])


# --- the network


@cache
def policies(case: str) -> dict[str, Object]:
    return kinds(render(case, "--set=networkPolicy.enabled=true"), "NetworkPolicy")


def test_every_workload_has_a_policy_for_both_directions(case: str) -> None:
    objects = render(case)
    assert policies(case).keys() == workloads(objects).keys()
    for name, policy in policies(case).items():
        assert chosen(objects, policy["spec"]["podSelector"]["matchLabels"]) == [name]
        assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]


def test_only_the_api_is_called(case: str) -> None:
    api = named(case, "orchestrator" if case == "sqlite" else "api")
    assert {n for n, p in policies(case).items() if p["spec"]["ingress"]} == {api}
    (rule,) = policies(case)[api]["spec"]["ingress"]
    assert rule["ports"] == [{"port": "http", "protocol": "TCP"}]
    handlers = rule["from"][0]["podSelector"]["matchLabels"]
    assert chosen(render(case), handlers) == [n for n in workloads(render(case)) if "-handler-" in n]


def test_workers_do_not_reach_the_ledger(case: str) -> None:
    ledger = {"everything": 6432}.get(case, 5432)
    reach = {n for n, p in policies(case).items() if ledger in _ports(p)}
    assert reach == (set() if case == "sqlite" else {named(case, c) for c in ("orchestrator", "api", "migrate")})


def _ports(policy: Object) -> set[int | str]:
    return {p["port"] for rule in policy["spec"]["egress"] for p in rule["ports"]}
