"""`python -m keshi.dev.systems.crm`: runs the CRM until SIGTERM or SIGINT."""

from __future__ import annotations

import argparse
import signal
import sqlite3
import sys
import time
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

from keshi.dev.systems.crm.api import answer
from keshi.dev.systems.crm.store import Store
from keshi.dev.systems.filestore import InUseError
from keshi.dev.systems.serving import Server, Service, log, read_token, serve_until

if TYPE_CHECKING:
    from keshi.dev.systems.calls import Call, Reply


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code: 0 after a stop that was asked for, 2 if it could not start."""
    given = _parser().parse_args(arguments)
    stop = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        token = read_token(given.token_file)
        store = Store(given.data)
    except (OSError, ValueError, sqlite3.Error, InUseError) as error:
        return _refuse(str(error))

    def slow() -> None:
        if given.slow_ms:
            log(slowed=True)  # who waits to strike in the middle of a write waits for this
            time.sleep(given.slow_ms / 1000)

    def answered(call: Call) -> Reply:
        return answer(store, call, before_write=slow)

    try:
        server = Server(Service("the CRM", answered, token, given.port))
    except OSError as error:
        store.close()
        return _refuse(f"cannot listen on 127.0.0.1:{given.port}: {error.strerror}; name another --port")
    serve_until(stop, server)
    store.close()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m keshi.dev.systems.crm", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="directory of the store; made if missing")
    parser.add_argument("--port", type=int, default=0, help="on 127.0.0.1; 0 takes a free one")
    parser.add_argument("--token-file", type=Path, required=True, help="file that holds the bearer token")
    parser.add_argument("--slow-ms", type=int, default=0, help="wait so long before each write")
    return parser


def _refuse(message: str) -> int:
    sys.stderr.write(f"crm: {message}\n")
    return 2


if __name__ == "__main__":
    sys.exit(main())
