"""What is fetched is whole or absent, once per machine; what is missing is named with its remedy."""

import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from keshi.dev import fetch, places
from keshi.dev.errors import DevError, MissingError
from keshi.dev.places import User, free_port, reachable

_FETCHER = """
import sys, time
from pathlib import Path
from keshi.dev import fetch
def slowly(target, scratch, console):
    with (Path(sys.argv[1]) / "fetched").open("a") as file:
        file.write("once\\n")
    (target / "half").touch()
    time.sleep(0.5)
    (target / "whole").touch()
found = fetch._fetched(Path(sys.argv[1]), "thing-1", "thing 1", slowly)
assert (found / "whole").exists()
"""


def _program(directory: Path, name: str, script: str) -> None:
    path = directory / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def bare_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A PATH with nothing on it, where programs can be put."""
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", str(directory))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("KESHI_CACHE", str(tmp_path / "cache"))
    fetch.java.cache_clear()
    yield directory
    fetch.java.cache_clear()


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ('openjdk version "17.0.15" 2025-04-15', 17),
        ('java version "1.8.0_392"', 8),
        ('openjdk version "25" 2025-09-16', 25),
        ("Segmentation fault", None),
    ],
)
def test_the_version_of_java_is_read(text: str, version: int | None) -> None:
    assert fetch.java_version(text) == version


def test_a_missing_java_is_named_with_its_remedy(bare_path: Path) -> None:
    with pytest.raises(MissingError, match=r"java is not on PATH: install .* 17"):
        fetch.kafka_jars()


def test_an_old_java_is_named_with_its_remedy(bare_path: Path) -> None:
    _program(bare_path, "java", "echo 'openjdk version \"11.0.2\" 2019-01-15' >&2")
    with pytest.raises(MissingError, match=r"version 11, .*install a Java runtime 17"):
        fetch.kafka_jars()


def test_a_missing_maven_is_named_with_its_remedy(bare_path: Path) -> None:
    _program(bare_path, "java", "echo 'openjdk version \"17.0.2\"' >&2")
    with pytest.raises(MissingError, match=r"Maven \(mvn\) is not on PATH: install it"):
        fetch.kafka_jars()


def test_a_fetch_that_fails_shows_what_maven_said_and_leaves_nothing(bare_path: Path, tmp_path: Path) -> None:
    _program(bare_path, "java", "echo 'openjdk version \"17.0.2\"' >&2")
    _program(bare_path, "mvn", "echo '[ERROR] unknown host'; exit 1")
    with pytest.raises(DevError, match=r"exit code 1(.|\n)*unknown host"):
        fetch.kafka_jars()
    assert [path.name for path in (tmp_path / "cache").iterdir() if path.is_dir()] == []


def test_two_that_fetch_at_once_fetch_once_and_both_see_it_whole(tmp_path: Path) -> None:
    both = [subprocess.Popen([sys.executable, "-c", _FETCHER, str(tmp_path)]) for _ in range(2)]
    assert [one.wait(30) for one in both] == [0, 0]
    assert (tmp_path / "fetched").read_text() == "once\n"


def test_kafkas_own_console_producer_runs_from_what_was_fetched() -> None:
    java, jars = fetch.java(), fetch.kafka_jars()
    done = subprocess.run(
        [java, "-cp", str(jars / "*"), "org.apache.kafka.tools.ConsoleProducer", "--version"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert fetch.KAFKA_VERSION in done.stdout


def test_a_closed_parent_makes_a_directory_unreachable(tmp_path: Path) -> None:
    stranger = User("stranger", 54_321, 54_321)
    inner = tmp_path / "closed" / "inner"
    inner.mkdir(parents=True)
    inner.parent.chmod(0o700)
    assert not reachable(inner, stranger)
    assert reachable(inner, None)
    assert reachable(Path("/"), stranger)


def test_a_run_directory_lets_the_servers_user_through_and_shows_others_nothing() -> None:
    made = places.run_directory("keshi-test-")
    try:
        assert reachable(made, places.unprivileged_user())
        assert made.stat().st_mode & 0o066 == 0
    finally:
        made.rmdir()


def test_a_server_port_is_none_that_the_kernel_gives_to_clients() -> None:
    low, high = places._ephemeral_range()
    assert not low <= free_port() <= high


def test_the_cache_is_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KESHI_CACHE", str(tmp_path))
    assert places.cache_dir() == tmp_path
    monkeypatch.delenv("KESHI_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert places.cache_dir() == tmp_path / "xdg" / "keshi"


def test_a_port_is_free_again_although_an_old_connection_lingers() -> None:
    port = free_port()
    with socket.create_server(("127.0.0.1", port)) as server:
        assert not places.port_is_free(port)
        with socket.create_connection(("127.0.0.1", port)) as client:
            accepted, _ = server.accept()
            accepted.close()  # who closes first keeps the address for a minute
            assert client.recv(1) == b""
    assert places.port_is_free(port)


def test_a_missing_go_is_named_with_its_remedy(bare_path: Path) -> None:
    with pytest.raises(MissingError, match=r"go is not on PATH: install Go 1\.21"):
        fetch.go_program("thing", "thing.example/cmd/thing", "1.0.0")
    assert not any((places.cache_dir()).glob("thing-*"))


def test_an_old_go_is_named_with_its_remedy(bare_path: Path) -> None:
    _program(bare_path, "go", "echo go1.19.8")
    with pytest.raises(MissingError, match=r"go is go1\.19\.8, which is too old"):
        fetch.go_program("thing", "thing.example/cmd/thing", "1.0.0")


def test_what_go_says_is_shown_when_it_fails(bare_path: Path) -> None:
    _program(bare_path, "go", 'if [ "$1" = env ]; then echo go1.26.8; else echo "no such module" >&2; exit 1; fi')
    with pytest.raises(DevError, match=r"(?s)thing\.example/cmd/thing@v1\.0\.0 cannot be compiled.*no such module"):
        fetch.go_program("thing", "thing.example/cmd/thing", "1.0.0")
    assert not any((places.cache_dir()).glob("thing-*"))
