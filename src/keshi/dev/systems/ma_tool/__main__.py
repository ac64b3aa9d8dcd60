"""`python -m keshi.dev.systems.ma_tool`: runs the MA tool until SIGTERM or SIGINT."""

from __future__ import annotations

import argparse
import signal
import sqlite3
import sys
import time
from dataclasses import asdict, fields
from functools import partial
from pathlib import Path
from threading import Event

from keshi.dev.systems.filestore import InUseError
from keshi.dev.systems.ma_tool import Pace
from keshi.dev.systems.ma_tool.api import Tool, answer
from keshi.dev.systems.ma_tool.backoffice import Backoffice
from keshi.dev.systems.ma_tool.bucket import Bucket
from keshi.dev.systems.ma_tool.jobs import Jobs
from keshi.dev.systems.ma_tool.store import Store
from keshi.dev.systems.serving import Server, Service, log, read_token, serve_until


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code: 0 after a stop that was asked for, 2 if it could not start."""
    given = _parser().parse_args(arguments)
    pace = Pace(**{f.name: getattr(given, f.name) for f in fields(Pace)})
    stop = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        token = read_token(given.token_file)
        bucket = Bucket(pace.calls_per_second, pace.burst)
        store = Store(given.data)
    except (OSError, ValueError, sqlite3.Error, InUseError) as error:
        return _refuse(str(error))
    jobs = Jobs(store)
    office = Backoffice(store, jobs, pace)
    tool = Tool(store, jobs, bucket, partial(_slow, pace.slow_ms / 1000), office.wake)
    try:
        server = Server(Service("the MA tool", partial(answer, tool), token, given.port))
        serve_until(stop, server)
    except OSError as error:
        return _refuse(f"cannot listen on 127.0.0.1:{given.port}: {error.strerror}; name another --port")
    finally:
        office.close()
        store.close()
    return 0


def _slow(seconds: float) -> None:
    if seconds:
        log(slowed=True)  # who waits to strike in the middle of a write waits for this
        time.sleep(seconds)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m keshi.dev.systems.ma_tool", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="directory of the store; made if missing")
    parser.add_argument("--port", type=int, default=0, help="on 127.0.0.1; 0 takes a free one")
    parser.add_argument("--token-file", type=Path, required=True, help="file that holds the bearer token")
    for name, value in asdict(Pace()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=value, help=f"by default {value}")
    return parser


def _refuse(message: str) -> int:
    sys.stderr.write(f"ma_tool: {message}\n")
    return 2


if __name__ == "__main__":
    sys.exit(main())
