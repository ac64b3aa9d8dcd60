"""Fetches Kafka and PostgreSQL with Maven, and compiles what is written in Go, once per machine.

Several processes may ask at once.
"""

import fcntl
import os
import platform
import pwd
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from threading import Timer

from rich.console import Console

from keshi.dev.errors import DevError, MissingError
from keshi.dev.places import cache_dir, reachable, unprivileged_user

KAFKA_VERSION = "4.1.1"
POSTGRES_VERSION = "17.5.0"

_COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
_MAVEN_SECONDS = 600
_OLDEST_JAVA = 17
_SHARED_CACHE = Path("/var/cache/keshi")
_GO_SECONDS = 900
_OLDEST_GO = (1, 21)
"""From then on Go fetches a newer one of itself where a module asks for it."""


def kafka_jars() -> Path:
    """The directory with the jars of the broker and of Kafka's own console clients."""
    return _fetched(cache_dir(), f"kafka-{KAFKA_VERSION}", f"Kafka {KAFKA_VERSION}", _fetch_kafka)


def postgres_home() -> Path:
    """The directory with `bin/`, `lib/` and `share/` of PostgreSQL, reachable for whom it runs as."""
    base = cache_dir()
    user = unprivileged_user()
    if not reachable(base if base.exists() else base.parent, user):
        base = _SHARED_CACHE
    return _fetched(
        base,
        f"postgres-{POSTGRES_VERSION}",
        f"PostgreSQL {POSTGRES_VERSION.removesuffix('.0')}",
        _fetch_postgres,
    )


@cache
def java() -> str:
    """Path of a Java that is new enough.

    Raises:
        MissingError: there is none; the message says how to get it.
    """
    remedy = "install a Java runtime 17 or newer (Debian: apt-get install openjdk-17-jre-headless)"
    home = os.environ.get("JAVA_HOME")
    path = shutil.which(str(Path(home) / "bin" / "java")) if home else None
    path = path or shutil.which("java")
    if path is None:
        raise MissingError(f"java is not on PATH: {remedy}")
    answer = subprocess.run([path, "-version"], capture_output=True, text=True, check=False, timeout=60)  # noqa: S603 - found above
    version = java_version(answer.stderr + answer.stdout)
    if version is None or version < _OLDEST_JAVA:
        raise MissingError(f"java is version {version or 'unknown'}, which Kafka 4 does not run on: {remedy}")
    return path


def java_version(text: str) -> int | None:
    """The major version in what `java -version` prints; None where it says none."""
    found = re.search(r'version "(?:1\.)?(\d+)', text)
    return int(found[1]) if found else None


def go_program(name: str, module: str, version: str) -> Path:
    """A program in Go, compiled from its published module.

    Args:
        name: of the program.
        module: path of its package.
        version: exactly this one, such as `1.8.0`.

    Raises:
        MissingError: it is not in the cache, and there is no Go to compile it with.
    """

    def compile_(target: Path, scratch: Path, console: Console) -> None:
        _go_install(f"{module}@v{version}", f"Compiling {name} {version} with Go", target, scratch, console)

    return _fetched(cache_dir(), f"{name}-{version}", f"{name} {version}", compile_) / name


def go() -> str:
    """Path of a Go that is new enough.

    Raises:
        MissingError: there is none; the message says how to get it.
    """
    remedy = "install Go 1.21 or newer (Debian: apt-get install golang-go)"
    path = shutil.which("go")
    if path is None:
        raise MissingError(f"go is not on PATH: {remedy}")
    answer = subprocess.run([path, "env", "GOVERSION"], capture_output=True, text=True, check=False, timeout=60)  # noqa: S603 - found above
    found = re.match(r"go(\d+)\.(\d+)", answer.stdout)
    if found is None or (int(found[1]), int(found[2])) < _OLDEST_GO:
        raise MissingError(f"go is {answer.stdout.strip() or 'of no known version'}, which is too old: {remedy}")
    return path


def _go_install(package: str, title: str, target: Path, scratch: Path, console: Console) -> None:
    env = {
        **os.environ,
        "GOBIN": str(target),
        # Nothing of it is needed afterwards, and it is large.
        "GOMODCACHE": str(scratch / "modules"),
        "GOCACHE": str(scratch / "build"),
        "GOFLAGS": "-trimpath -modcacherw",
        "CGO_ENABLED": "0",
    }
    argv = [go(), "install", "-v", "-ldflags=-s -w", package]
    code, last = _watched(argv, title, "steps", bool, console, _GO_SECONDS, env)
    if code != 0:
        raise DevError(
            f"{package} cannot be compiled (exit code {code}): is the network there, or GOPROXY set? "
            f"It ended with:\n{last}"
        )


def _maven() -> str:
    path = shutil.which("mvn")
    if path is None:
        raise MissingError("Maven (mvn) is not on PATH: install it (Debian: apt-get install maven)")
    return path


def _fetched(base: Path, name: str, title: str, fetch: Callable[[Path, Path, Console], None]) -> Path:
    target = base / name
    if target.is_dir():
        return target
    try:
        if not base.is_dir():
            base.mkdir(parents=True, exist_ok=True)
            base.chmod(0o755)  # whatever the umask: a server may run as another user
    except OSError as error:
        raise DevError(f"cannot make the cache {base} ({error.strerror}): set KESHI_CACHE to a directory") from error
    console = Console(stderr=True)
    with _locked(base / f".{name}.lock", title, console):
        if target.is_dir():  # somebody else was quicker
            return target
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=base) as scratch:
            ready = Path(scratch) / name
            ready.mkdir()
            fetch(ready, Path(scratch), console)
            ready.chmod(0o755)
            ready.rename(target)  # whole or not at all
        console.print(f"{title}: fetched into {target} in {time.monotonic() - began:.0f} s", highlight=False)
    return target


@contextmanager
def _locked(path: Path, title: str, console: Console) -> Iterator[None]:
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            console.print(f"{title}: another process is fetching it, waiting", highlight=False)
            fcntl.flock(file, fcntl.LOCK_EX)  # ends with that process; Maven has a bound of its own
        yield


def _fetch_kafka(target: Path, scratch: Path, console: Console) -> None:
    _copy_jars("kafka", KAFKA_VERSION, target, scratch, console)


def _fetch_postgres(target: Path, scratch: Path, console: Console) -> None:
    jars = scratch / "jars"
    _copy_jars("postgres", POSTGRES_VERSION, jars, scratch, console)
    jar = next(jars.glob("embedded-postgres-binaries-*.jar"))
    with zipfile.ZipFile(jar) as archive:
        inner = next(name for name in archive.namelist() if name.endswith(".txz"))
        with archive.open(inner) as packed, tarfile.open(fileobj=packed, mode="r|xz") as files:
            # Python has this filter since 3.11.4; older ones ignore the attribute.
            files.extraction_filter = getattr(tarfile, "data_filter", None)
            files.extractall(target)  # noqa: S202 - Maven has checked the archive against its digest
    for path in target.rglob("*"):
        if not path.is_symlink():  # whatever the umask: a server may run as another user
            path.chmod(path.stat().st_mode | (0o055 if path.is_dir() else 0o044))


def _copy_jars(kind: str, version: str, target: Path, scratch: Path, console: Console) -> None:
    """Run Maven and show how far it is; its output is shown only when it fails."""
    java()  # Maven's own message for a missing Java says less
    argv = [
        _maven(),
        "--batch-mode",
        "--strict-checksums",
        f"--file={Path(__file__).with_name(f'{kind}.xml')}",
        f"-Dkeshi.version={version}",
        f"-Dkeshi.arch={_architecture()}",
        f"-DoutputDirectory={target}",
        f"-DbuildDirectory={scratch / 'build'}",
        "-DincludeScope=runtime",
        *_repository(scratch),
        _COPY,
    ]
    title = f"Fetching {kind} {version} with Maven"
    code, last = _watched(argv, title, "files", lambda line: "Downloaded from" in line, console, _MAVEN_SECONDS)
    if code != 0:
        raise DevError(
            f"Maven could not fetch {kind} {version} (exit code {code}): is the network there, "
            f"or a mirror set in ~/.m2/settings.xml? It ended with:\n{last}"
        )


def _watched(
    argv: list[str],
    title: str,
    things: str,
    counts: Callable[[str], bool],
    console: Console,
    seconds: float,
    env: Mapping[str, str] | None = None,
) -> tuple[int, str]:
    """Run a program and show how far it is.

    Args:
        argv: the program.
        title: what it does.
        things: of which each line that `counts` is one.
        counts: see there.
        console: where it is shown.
        seconds: it is killed after so long.
        env: its environment; None for this process's own.

    Returns:
        Its exit code, and the last lines of its output.
    """
    if not console.is_terminal:
        console.print(f"{title} …", highlight=False)
    last: deque[str] = deque(maxlen=12)
    with (
        console.status(title) as status,
        subprocess.Popen(  # noqa: S603 - argv is built here
            argv, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process,
        _ended_after(process, seconds),
    ):
        assert process.stdout is not None
        done = 0
        for line in process.stdout:
            last.append(line.rstrip())
            done += counts(line)
            status.update(f"{title}: {done} {things}")
    return process.returncode, "\n".join(f"  | {line}" for line in last)


def _repository(scratch: Path) -> list[str]:
    """Where Maven keeps what it fetched: its own default, unless this user has no home to keep it in.

    Maven looks into the user database, not at `HOME`; containers run as users with no entry there.
    """
    try:
        home = Path(pwd.getpwuid(os.geteuid()).pw_dir)
    except KeyError:
        home = None
    if home is not None and os.access(home, os.W_OK | os.X_OK):
        return []
    return [f"-Dmaven.repo.local={scratch / 'repository'}"]


@contextmanager
def _ended_after(process: subprocess.Popen[str], seconds: float) -> Iterator[None]:
    timer = Timer(seconds, process.kill)
    timer.start()
    try:
        yield
    except BaseException:
        process.kill()
        raise
    finally:
        timer.cancel()


def _architecture() -> str:
    machine = platform.machine().lower()
    known = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64v8", "arm64": "arm64v8"}
    if sys.platform != "linux" or machine not in known:
        raise MissingError(
            f"there is no PostgreSQL to fetch for {sys.platform} on {machine}: use Linux on x86-64 or ARM64"
        )
    return known[machine]
