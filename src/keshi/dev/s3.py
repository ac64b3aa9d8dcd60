"""An S3 server for development: versitygw, compiled from its published module.

It keeps objects, versions, tags, locks and users in a directory, and has them again after it was killed. Where there
is no Go to compile it with, moto's server stands in: a mock that refuses nobody anything, and forgets everything
when it ends.
"""

import json
import os
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from rich.console import Console

from keshi.dev import fetch, places
from keshi.dev.errors import MissingError
from keshi.dev.processes import PartSpec

VERSION: Final = "1.8.0"
REGION: Final = "us-east-1"
_MODULE: Final = "github.com/versity/versitygw/cmd/versitygw"


@dataclass(frozen=True)
class Account:
    """Who may sign requests."""

    access_key: str
    secret_key: str = field(repr=False)


@dataclass(frozen=True)
class Server:
    """An S3 server that can be started: its process, its address, and the address that answers once it is ready."""

    spec: PartSpec
    url: str
    ready: str


def versitygw() -> Path:
    """The program.

    Raises:
        MissingError: it is not in the cache, and there is no Go to compile it with.
    """
    return fetch.go_program("versitygw", _MODULE, VERSION)


def prepare() -> None:
    """Have a server at hand, and say so if it is none that can be relied on."""
    try:
        versitygw()
    except MissingError as error:
        told = f"Objects lie in moto's server, a mock without rights that forgets everything when it ends: {error}"
        Console(stderr=True).print(told, highlight=False, soft_wrap=True)


def server(name: str, directory: Path, owner: Account, users: Iterable[Account], *, port: int = 0) -> Server:
    """How to start one.

    Args:
        name: what people call the part.
        directory: its own, kept from one start to the next.
        owner: may do everything.
        users: may do what a bucket's policy lets them.
        port: on the loopback; 0 takes a free one.
    """
    port = port or places.free_port()
    url = f"http://127.0.0.1:{port}"
    log = directory.absolute() / "s3.log"
    try:
        program = versitygw()
    except MissingError:
        mock = (sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port))
        return Server(PartSpec(name, mock, log, cwd=directory), url, f"{url}/moto-api/")
    env = {
        "PATH": os.environ.get("PATH", os.defpath),
        "ROOT_ACCESS_KEY": owner.access_key,
        "ROOT_SECRET_KEY": owner.secret_key,
    }
    argv = (str(program), *_options(directory.absolute(), port, users))
    return Server(PartSpec(name, argv, log, env=env, cwd=directory), url, f"{url}/healthz")


def _options(directory: Path, port: int, users: Iterable[Account]) -> list[str]:
    places_ = {name: directory / name for name in ("data", "versions", "iam", "attributes")}
    for path in places_.values():
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    _write_users(places_["iam"] / "users.json", users)
    aside = [] if _keeps_attributes(places_["data"]) else [f"--sidecar={places_['attributes']}"]
    return [
        f"--port=127.0.0.1:{port}",
        f"--region={REGION}",
        f"--iam-dir={places_['iam']}",
        "--health=/healthz",
        "--keep-alive",
        "--quiet",  # no line for each request: they hold keys
        "posix",
        f"--versioning-dir={places_['versions']}",
        *aside,
        str(places_["data"]),
    ]


def _write_users(path: Path, users: Iterable[Account]) -> None:
    """Its own file of users, as this very version keeps it."""
    known = {
        u.access_key: {"access": u.access_key, "secret": u.secret_key, "role": "user"}
        | {"userID": 0, "groupID": 0, "projectID": 0}
        for u in users
    }
    path.touch(mode=0o600)
    path.write_text(json.dumps({"accessAccounts": known}), encoding="ascii")


def _keeps_attributes(directory: Path) -> bool:
    """Whether the file system has extended attributes for users. versitygw keeps versions and tags in them."""
    with tempfile.NamedTemporaryFile(dir=directory) as probe:
        try:
            os.setxattr(probe.name, "user.keshi", b"1")
        except OSError:
            return False
    return True
