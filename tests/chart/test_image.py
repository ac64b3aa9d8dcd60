"""The images: what they are built from, and how. There is no engine here: they are looked through, and not built."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from chart.rendering import CHART, ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = {"core": ("orchestrator", "telemetry"), "handlers": ("sql", "rest", "s3", "telemetry")}


def instructions(name: str) -> list[str]:
    joined = DOCKERFILE.replace("\\\n", " ")
    return [line.removeprefix(name).strip() for line in joined.splitlines() if line.startswith(f"{name} ")]


def locked(path: Path) -> dict[str, tuple[str, frozenset[str]]]:
    """Name to version and hashes, of a lock."""
    text = path.read_text(encoding="utf-8")
    found = re.findall(r"^([\w.-]+)(?:\[[\w,-]+\])?==(\S+)(.*?)(?=^\S|\Z)", text, flags=re.DOTALL | re.MULTILINE)
    return {name: (version, frozenset(re.findall(r"sha256:[0-9a-f]{64}", rest))) for name, version, rest in found}


def test_the_dockerfile_is_linted() -> None:
    linter = Path(sys.executable).with_name("hadolint")
    done = subprocess.run(
        [str(linter), "--no-color", "--failure-threshold=style", str(ROOT / "Dockerfile")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("image", ["core", "handlers", "build"])
def test_an_image_is_built_from_what_is_locked(image: str) -> None:
    whole, part = locked(ROOT / "requirements.lock"), locked(ROOT / "helm" / "image" / f"{image}.lock")
    assert part
    assert all(hashes for _, hashes in part.values())
    assert {n: v for n, v in part.items() if whole.get(n) != v} == {}, "run `make lock`"


@pytest.mark.parametrize("image", sorted(EXTRAS))
def test_an_image_has_what_its_programs_need(image: str) -> None:
    extras = PROJECT["optional-dependencies"]
    wanted = [*PROJECT["dependencies"], *(d for extra in EXTRAS[image] for d in extras[extra])]
    names = {re.split(r"[\[<>=;, ]", d)[0].lower() for d in wanted}
    assert names <= locked(ROOT / "helm" / "image" / f"{image}.lock").keys(), "run `make lock`"


def test_the_image_of_workers_has_the_least() -> None:
    handlers = locked(ROOT / "helm" / "image" / "handlers.lock").keys()
    assert not handlers & {"faust-streaming", "aiokafka", "fastapi", "uvicorn", "alembic", "pytest", "moto"}
    assert not locked(ROOT / "helm" / "image" / "core.lock").keys() & {"boto3", "pytest", "moto", "ruff"}


def test_everything_installed_is_held_against_a_hash_or_built_here() -> None:
    for run in map(json.loads, instructions("RUN")):
        if "install" in run:
            assert ("--require-hashes" in run) != ("--no-index" in run), run
        if "wheel" in run:
            assert {"--no-deps", "--no-build-isolation"} <= set(run)


def test_it_runs_without_a_shell_and_not_as_root() -> None:
    assert all(isinstance(json.loads(run), list) for run in instructions("RUN"))
    assert [json.loads(e) for e in instructions("ENTRYPOINT")] == [["keshi"]]
    (user,) = instructions("USER")
    chart = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))["user"]
    assert user == f"{chart['uid']}:{chart['gid']}"


def test_the_targets_are_the_images_of_the_chart() -> None:
    targets = re.findall(r"^FROM \S+ AS (\S+)$", DOCKERFILE, flags=re.MULTILINE)
    chart = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))["image"]
    assert {"core", "handlers"} <= set(targets) & chart.keys()
    assert targets[-1] == "core"


def test_only_what_is_built_from_reaches_the_build() -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert ignored[1] == "*"
    allowed = {line[1:] for line in ignored if line.startswith("!")}
    copied = {a.rstrip("/") for c in instructions("COPY") if "--from" not in c for a in c.split()[:-1]}
    assert {next((a for a in allowed if c == a or c.startswith(f"{a}/")), c) for c in copied} == allowed
