"""What Helm makes of the chart, as plain data, and short ways to what is in it."""

import os
import subprocess
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

from chart.tools import helm

ROOT: Final = Path(__file__).resolve().parents[2]
CHART: Final = ROOT / "helm" / "keshi"
VALUES: Final = Path(__file__).with_name("values")
CASES: Final = ("default", "sqlite", "everything", "own_handler")
"""Files of values that have to work."""
_HELM_SECONDS: Final = 60

Object = dict[str, Any]
"""One object of Kubernetes, or a part of one."""

_Loader: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class RefusedError(Exception):
    """Helm said no; the text is what it said."""


def call(*arguments: str) -> str:
    """Run helm; nothing of the user's own settings of Helm has a say.

    Raises:
        RefusedError: it failed.
    """
    env = {k: v for k, v in os.environ.items() if not k.startswith(("HELM_", "KUBE"))}
    done = subprocess.run(
        [str(helm()), *arguments],
        env={**env, "HOME": "/nonexistent", "HELM_PLUGINS": "/nonexistent"},
        capture_output=True,
        text=True,
        timeout=_HELM_SECONDS,
        check=False,
    )
    if done.returncode:
        raise RefusedError(done.stdout + done.stderr)
    return done.stdout


def values_of(case: str) -> list[str]:
    return [f"--values={VALUES / f'{case}.yaml'}"]


@cache
def template(case: str, *arguments: str) -> str:
    """The manifests of a case, as Helm writes them."""
    return call("template", "keshi", str(CHART), "--namespace=privacy", *values_of(case), *arguments)


@cache
def render(case: str, *arguments: str) -> list[Object]:
    """All objects of a case, for all who ask; `arguments` are more of Helm's own, such as `--set=…`."""
    return [d for d in yaml.load_all(template(case, *arguments), Loader=_Loader) if d]


def kinds(objects: list[Object], kind: str) -> dict[str, Object]:
    """The objects of one kind, by name."""
    return {o["metadata"]["name"]: o for o in objects if o["kind"] == kind}


def workloads(objects: list[Object]) -> dict[str, Object]:
    """Whatever runs, by name."""
    return {n: o for kind in ("StatefulSet", "Deployment", "Job") for n, o in kinds(objects, kind).items()}


def pod(workload: Object) -> Object:
    spec: Object = workload["spec"]["template"]["spec"]
    return spec


def containers(workload: Object) -> Iterator[Object]:
    """All containers of a workload, those that run before the others included."""
    spec = pod(workload)
    yield from spec.get("initContainers", ())
    yield from spec["containers"]


def plain(container: Object) -> dict[str, str]:
    """The environment that stands in the manifest itself."""
    return {e["name"]: e["value"] for e in container["env"] if "value" in e}


def secret(container: Object) -> dict[str, tuple[str, str]]:
    """The environment that comes from Secrets: name of the Secret and key."""
    found = {e["name"]: e["valueFrom"]["secretKeyRef"] for e in container["env"] if "valueFrom" in e}
    return {name: (ref["name"], ref["key"]) for name, ref in found.items()}


def mounted(workload: Object, container: Object) -> Mapping[str, tuple[str, str]]:
    """Every file that a container gets from a Secret or ConfigMap, by path: name of the object and key.

    A ConfigMap is mounted whole: its key is `*` there.
    """
    volumes = {v["name"]: v for v in pod(workload)["volumes"]}
    found: dict[str, tuple[str, str]] = {}
    for mount in container["volumeMounts"]:
        volume = volumes.get(mount["name"], {})
        for item in volume.get("secret", {}).get("items", ()):
            found[f"{mount['mountPath']}/{item['path']}"] = (volume["secret"]["secretName"], item["key"])
        if "configMap" in volume:
            found[f"{mount['mountPath']}/*"] = (volume["configMap"]["name"], "*")
    return found
