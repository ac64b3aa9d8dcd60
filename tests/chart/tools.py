"""Helm itself, compiled from its published module: once per machine, into the cache where Kafka and PostgreSQL lie.

`python -m tests.chart.tools` fetches it beforehand.
"""

import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Final

from rich.console import Console

from keshi.dev import fetch
from keshi.dev.errors import DevError, MissingError
from keshi.dev.places import cache_dir

HELM_VERSION: Final = "4.3.1"
_MODULE: Final = "helm.sh/helm/v4/cmd/helm"
_BUILD_SECONDS: Final = 900
_OLDEST_GO: Final = (1, 21)
"""From then on Go fetches a newer one of itself where a module asks for it."""


@cache
def helm() -> Path:
    """The program.

    Raises:
        MissingError: it is not in the cache, and there is no Go to compile it with.
    """
    return fetch._fetched(cache_dir(), f"helm-{HELM_VERSION}", f"Helm {HELM_VERSION}", _compile) / "helm"


def _compile(target: Path, scratch: Path, console: Console) -> None:
    console.print(f"Compiling Helm {HELM_VERSION} with Go; this takes some two minutes …", highlight=False)
    env = {
        **os.environ,
        "GOBIN": str(target),
        # Nothing of it is needed afterwards; together more than a gigabyte.
        "GOMODCACHE": str(scratch / "modules"),
        "GOCACHE": str(scratch / "build"),
        "GOFLAGS": "-trimpath -modcacherw",
        "CGO_ENABLED": "0",
    }
    done = subprocess.run(
        [_go(), "install", "-ldflags=-s -w", f"{_MODULE}@v{HELM_VERSION}"],
        env=env,
        cwd=scratch,
        capture_output=True,
        text=True,
        timeout=_BUILD_SECONDS,
        check=False,
    )
    if done.returncode:
        raise DevError(f"Helm {HELM_VERSION} cannot be compiled: {done.stderr.strip()[-2000:]}")


def _go() -> str:
    remedy = "install Go (Debian: apt-get install golang-go)"
    path = shutil.which("go")
    if path is None:
        raise MissingError(f"go is not on PATH, and Helm is compiled with it: {remedy}")
    answer = subprocess.run([path, "env", "GOVERSION"], capture_output=True, text=True, check=False, timeout=60)
    found = re.match(r"go(\d+)\.(\d+)", answer.stdout)
    if found is None or (int(found[1]), int(found[2])) < _OLDEST_GO:
        raise MissingError(f"go is {answer.stdout.strip() or 'of no known version'}, too old to compile Helm: {remedy}")
    return path


if __name__ == "__main__":
    try:
        sys.stdout.write(f"{helm()}\n")
    except DevError as e:
        sys.exit(str(e))
