"""The containers as they were rendered, started as processes: what the chart tells a program is enough for it.

Secrets and mounts become files in a directory, and the paths of the manifests lead there. All else is as rendered.
"""

import base64
import os
import secrets
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from chart.rendering import Object, containers, mounted, plain, pod, render, secret, workloads
from keshi.dev.places import free_port
from keshi.dev.processes import Part, PartSpec, answers
from keshi.dev.programs import INVENTORY
from keshi.orchestrator.tokens import Role, new_token

START_SECONDS: Final = 120
ONCE_SECONDS: Final = 120


class Cluster:
    """Secrets and ConfigMaps as directories, and containers as processes."""

    def __init__(self, directory: Path, data: Mapping[str, Mapping[str, str]]) -> None:
        self.directory = directory
        self.volume = directory / "volume"
        self.volume.mkdir()
        for name, keys in data.items():
            (directory / name).mkdir()
            for key, text in keys.items():
                (directory / name / key).write_text(text, encoding="utf-8")

    def env(self, workload: Object, container: Object) -> dict[str, str]:
        there = mounted(workload, container)
        env = {n: self._path(v, there) for n, v in plain(container).items()}
        taken = {n: (self.directory / s / k).read_text(encoding="utf-8") for n, (s, k) in secret(container).items()}
        return {"PATH": os.environ["PATH"], **env, **taken}

    def _path(self, value: str, there: Mapping[str, tuple[str, str]]) -> str:
        folder, _, file = value.rpartition("/")
        if found := there.get(value) or there.get(f"{folder}/*"):
            return str(self.directory / found[0] / file)
        return value.replace("/var/lib/keshi", str(self.volume))

    def run_once(self, workload: Object, container: Object) -> None:
        done = subprocess.run(
            self._argv(container),
            env=self.env(workload, container),
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=ONCE_SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    @contextmanager
    def running(self, workload: Object, container: Object) -> Iterator[Part]:
        """Start it, wait for each of its probes, and in the end until it has ended by itself in its time."""
        name = workload["metadata"]["name"]
        spec = PartSpec(
            name=f"{name}/{container['name']}",
            argv=self._argv(container),
            log=self.directory / f"{name}-{container['name']}.log",
            env=self.env(workload, container),
            cwd=self.directory,
        )
        part = Part(spec)
        part.start()
        try:
            numbers = {p["name"]: p["containerPort"] for p in container["ports"]}
            for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
                get = container[kind]["httpGet"]
                part.wait_ready(answers(f"http://127.0.0.1:{numbers[get['port']]}{get['path']}"), START_SECONDS)
            yield part
            os.kill(part.pid, signal.SIGTERM)
            pod_ = pod(workload)
            assert part._process is not None
            assert part._process.wait(pod_["terminationGracePeriodSeconds"]) == 0, part.obituary()
        finally:
            part.kill()

    @staticmethod
    def _argv(container: Object) -> tuple[str, ...]:
        (program,) = container["command"]
        assert program == "keshi"
        return (sys.executable, "-P", "-m", "keshi.cli", *container["args"])


@pytest.fixture(params=["postgres", "sqlite"])
def ledger(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_what_was_rendered_runs(
    ledger: str, kafka_bootstrap: str, database: str, topic_prefix: str, tmp_path: Path
) -> None:
    """Jobs end well; each container answers its probes where they ask, and ends in its time when it is told to."""
    port, health = free_port(), free_port()
    there = workloads(
        render(
            "sqlite" if ledger == "sqlite" else "default",
            f"--set-string=kafka.bootstrap={kafka_bootstrap.replace(',', chr(92) + ',')}",
            f"--set=kafka.prefix={topic_prefix}",
            f"--set=orchestrator.group={topic_prefix}orchestrator",
            "--set=kafka.securityProtocol=PLAINTEXT",
            f"--set=api.port={port}",
            f"--set=api.url=http://127.0.0.1:{port}",
            f"--set=healthPort={health}",
            "--set=topics.replication=1,topics.partitions=2,topics.commandsPartitions=2",
        )
    )
    cluster = Cluster(tmp_path, _data(database))
    core = there["keshi-orchestrator"]
    parts = {c["name"]: (core, c) for c in containers(core)}
    if ledger == "postgres":
        parts |= {n: (there[f"keshi-{n}"], c) for n in ("api", "migrate") for c in containers(there[f"keshi-{n}"])}
    (topics,) = containers(there["keshi-topics"])
    cluster.run_once(there["keshi-topics"], topics)
    cluster.run_once(*parts["migrate"])
    with cluster.running(*parts["api"]):
        assert _status(port, "/healthz") == 200
        with cluster.running(*parts["orchestrator"]):
            pass
        billing = there["keshi-handler-billing"]
        # On its own port: what was the orchestrator's is free again.
        (worker,) = containers(billing)
        with cluster.running(billing, worker):
            pass


def _data(database: str) -> dict[str, dict[str, str]]:
    kek = f"kek-1 {base64.b64encode(secrets.token_bytes(32)).decode()}"
    token = new_token("worker:billing", Role.WORKER, "billing")
    return {
        "keshi-inventory": {"inventory.yaml": INVENTORY.read_text(encoding="utf-8")},
        "keshi-migrate": {"ledger-url": database},
        "keshi-orchestrator": {"ledger-url": database, "kek": kek},
        "keshi-api": {"ledger-url": database, "kek": kek, "tokens.yaml": token.line},
        "keshi-handler-billing": {"api-token": token.token, "dsn": database},
    }


def _status(port: int, path: str) -> int:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as response:
        return int(response.status)
