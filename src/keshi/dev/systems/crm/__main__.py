"""`python -m keshi.dev.systems.crm`: runs the CRM until SIGTERM or SIGINT."""

from __future__ import annotations

import argparse
import json
import signal
import sqlite3
import sys
from pathlib import Path
from threading import Event, Thread

from keshi.dev.systems.crm.server import CrmServer, Options
from keshi.dev.systems.crm.store import InUseError, Store

DRAIN_SECONDS = 5.0


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code: 0 after a stop that was asked for, 2 if it could not start."""
    given = _parser().parse_args(arguments)
    stop = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        token = given.token_file.read_text(encoding="ascii").strip()
        if not token:
            return _refuse(f"the token file {given.token_file} is empty; write a token into it")
        store = Store(given.data)
    except (OSError, UnicodeDecodeError, sqlite3.Error, InUseError) as error:
        return _refuse(str(error))
    try:
        server = CrmServer(store, Options(given.port, token, given.slow_ms / 1000))
    except OSError as error:
        store.close()
        return _refuse(f"cannot listen on 127.0.0.1:{given.port}: {error.strerror}; name another --port")
    _serve(server, stop)
    store.close()
    return 0


def _serve(server: CrmServer, stop: Event) -> None:
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, name="crm-accept")
    thread.start()
    print(json.dumps({"ready": True, "url": server.url}), flush=True)  # noqa: T201 - the line that starters wait for
    stop.wait()
    server.drain(DRAIN_SECONDS)
    server.shutdown()
    thread.join()
    server.server_close()


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
