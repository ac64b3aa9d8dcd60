"""A real PostgreSQL server for development, the demo and tests."""

import os
import secrets
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import psycopg
from psycopg import sql

from keshi.dev import fetch, places
from keshi.dev.errors import DevError, PartDiedError
from keshi.dev.processes import Part, PartSpec, tail

_START_SECONDS = 60.0
_INITDB_SECONDS = 120.0
_PORT_TRIES = 5
_AFTER_CRASH_SECONDS = 20.0
_PORT_TAKEN = ("Address already in use", "could not create any TCP/IP sockets")
# Backends of a killed server may live for a moment; until then it refuses to start.
_STILL_ENDING = ("pre-existing shared memory block", 'lock file "postmaster.pid" already exists')


@dataclass(frozen=True)
class PostgresOptions:
    """How the server runs.

    Attributes:
        directory: holds `data/`, `password` and `postgres.log`; made when absent. As root it must lie
            where an unprivileged user can reach it: `places.run_directory()` makes such a one.
        fsync: False only where nothing has to survive a crash of the machine, as in unit tests.
        settings: further server settings; they win.
        owner: pid of the process whose end ends the server; None for this one.
    """

    directory: Path
    fsync: bool = True
    settings: Mapping[str, str] = field(default_factory=dict)
    owner: int | None = None


class PostgresServer:
    """One server; after `stop` or `kill` it starts again on the same port with the same data."""

    name = "postgres"
    superuser = "keshi"

    def __init__(self, options: PostgresOptions) -> None:
        self._options = options
        self._port = 0
        self._password = ""
        self._part: Part | None = None
        self._user = places.unprivileged_user()

    def __repr__(self) -> str:
        return f"PostgresServer(directory={str(self._options.directory)!r}, port={self._port})"

    @property
    def port(self) -> int:
        """Its loopback port; 0 before the first start."""
        return self._port

    @property
    def pid(self) -> int:
        return self._started().pid

    @property
    def log(self) -> Path:
        return self._options.directory / "postgres.log"

    @property
    def data(self) -> Path:
        return self._options.directory / "data"

    def dsn(self, database: str = "postgres") -> str:
        """The libpq URL of a database on this server, with the superuser's name and password."""
        if not self._port:
            raise DevError("PostgreSQL has no address before its first start")
        name = quote(database, safe="")
        return f"postgresql://{self.superuser}:{self._password}@127.0.0.1:{self._port}/{name}"

    def start(self) -> None:
        """Start and wait until it answers a query; the first start makes the data and picks the port."""
        if self.running():
            return
        self._prepare()
        if self._port:
            self._launch_after_crash()
            return
        for attempt in range(1, _PORT_TRIES + 1):
            self._port = places.free_port()
            try:
                self._launch_after_crash()
            except PartDiedError:
                if not self._log_says(_PORT_TAKEN) or attempt == _PORT_TRIES:
                    self._port = 0
                    raise
            else:
                return

    def running(self) -> bool:
        return self._part is not None and self._part.running()

    def obituary(self) -> str:
        return self._started().obituary()

    def stop(self, seconds: float | None = None) -> None:
        """End it as `pg_ctl stop -m fast` does, with force after `seconds`."""
        if self._part is not None:
            self._part.stop(seconds)

    def kill(self) -> None:
        """End it with SIGKILL; its backends notice and follow."""
        if self._part is not None:
            self._part.kill()

    def disown(self) -> None:
        """Leave it to the owner named in the options."""
        self._started().disown()

    def create_database(self, name: str) -> str:
        """Make an empty database and return its URL."""
        create_database(self.dsn(), name)
        return self.dsn(name)

    def _started(self) -> Part:
        if self._part is None:
            raise DevError("PostgreSQL has not been started")
        return self._part

    def _prepare(self) -> None:
        secret = self._options.directory / "password"
        if (self.data / "PG_VERSION").exists():
            self._password = secret.read_text(encoding="ascii")
            return
        if not self._options.directory.is_dir():
            self._options.directory.mkdir(parents=True)
            self._options.directory.chmod(0o711)  # whatever the umask: the server's user passes through
        if not places.reachable(self._options.directory, self._user):
            who = self._user.name if self._user else ""
            raise DevError(
                f"PostgreSQL runs as {who} here, who cannot reach {self._options.directory}: "
                "take a directory whose parents others may enter, such as one below /var/tmp"
            )
        self._password = secrets.token_urlsafe(24)
        descriptor = os.open(secret, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(self._password)
        self._initdb()

    def _initdb(self) -> None:
        user = self._user
        self.data.mkdir(mode=0o700)
        handed = self.data.with_name("initial-password")
        handed.touch(mode=0o600)
        handed.write_text(self._password, encoding="ascii")
        if user is not None:
            os.chown(self.data, user.uid, user.gid)
            os.chown(handed, user.uid, user.gid)
        argv = [
            str(fetch.postgres_home() / "bin" / "initdb"),
            f"--pgdata={self.data}",
            f"--username={self.superuser}",
            f"--pwfile={handed}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--no-locale",
            "--no-instructions",
            "--no-sync",  # the server syncs what it writes; an empty cluster is made again if lost
        ]
        try:
            with self.log.open("ab") as log:
                done = subprocess.run(  # noqa: S603 - argv is built here
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd="/",
                    env=_environment(),
                    user=user.uid if user else None,
                    group=user.gid if user else None,
                    extra_groups=[] if user else None,
                    timeout=_INITDB_SECONDS,
                    check=False,
                )
        finally:
            handed.unlink()
        if done.returncode != 0:
            ending = "\n".join(f"  | {line}" for line in tail(self.log))
            raise DevError(f"PostgreSQL could not prepare {self.data} (exit code {done.returncode}):\n{ending}")

    def _launch_after_crash(self) -> None:
        deadline = time.monotonic() + _AFTER_CRASH_SECONDS
        while True:
            try:
                self._launch()
            except PartDiedError:
                if not self._log_says(_STILL_ENDING) or time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
            else:
                return

    def _log_says(self, words: tuple[str, ...]) -> bool:
        return any(word in line for line in tail(self.log, 6) for word in words)

    def _launch(self) -> None:
        self._part = Part(
            PartSpec(
                name=self.name,
                argv=(
                    str(fetch.postgres_home() / "bin" / "postgres"),
                    "-D",
                    str(self.data),
                    *self._settings(),
                ),
                log=self.log,
                env=_environment(),
                cwd=Path("/"),
                user=self._user,
                stop_signal=signal.SIGINT,
                owner=self._options.owner,
            )
        )
        self._part.start()
        try:
            self._part.wait_ready(self._answers, _START_SECONDS)
        except BaseException:
            self._part.kill()
            raise

    def _answers(self) -> bool:
        try:
            with psycopg.connect(self.dsn(), connect_timeout=3, autocommit=True) as connection:
                connection.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def _settings(self) -> list[str]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self._port),
            "unix_socket_directories": "",
            "max_connections": "200",
            "shared_buffers": "128MB",
            "fsync": "on" if self._options.fsync else "off",
            # Statements stay out of the log: they can hold a person's data.
            "log_min_error_statement": "panic",
            "log_statement": "none",
            "log_error_verbosity": "terse",
            "log_parameter_max_length": "0",
            "log_line_prefix": "%m [%p] ",
            "timezone": "UTC",
            "log_timezone": "UTC",
            **self._options.settings,
        }
        return [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]


def create_database(dsn: str, name: str) -> None:
    """Make an empty database on the server of `dsn`."""
    with psycopg.connect(dsn, autocommit=True, connect_timeout=10) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))


def drop_database(dsn: str, name: str) -> None:
    """Drop a database and end the sessions that still use it; the `dsn` must name another one."""
    with psycopg.connect(dsn, autocommit=True, connect_timeout=10) as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def _environment() -> dict[str, str]:
    # The caller's PG* variables would point it elsewhere, and its locale would change the log's words.
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}
