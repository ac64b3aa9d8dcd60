"""`python -m keshi.dev.systems.affiliates`: runs one affiliate until SIGTERM or SIGINT."""

from __future__ import annotations

import argparse
import signal
import sqlite3
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event, Thread

from keshi.dev.systems.affiliates import COMPANIES
from keshi.dev.systems.affiliates.api import CERTIFICATE, DISCOVERY, Office, answer
from keshi.dev.systems.affiliates.behaviour import Mood, behaviour
from keshi.dev.systems.affiliates.certificates import signer
from keshi.dev.systems.affiliates.store import Store
from keshi.dev.systems.filestore import InUseError
from keshi.dev.systems.serving import Server, Service, log, read_token, serve_until

TICK_SECONDS = 0.05
OPEN_PATHS = frozenset({"/healthz", CERTIFICATE, DISCOVERY})


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code: 0 after a stop that was asked for, 2 if it could not start."""
    given = _parser().parse_args(arguments)
    stop = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        token, chain, sign = read_token(given.token_file), given.certificate.read_bytes(), signer(given.key)
        store = Store(given.data, given.company)
    except (OSError, ValueError, sqlite3.Error, InUseError) as error:
        return _refuse(str(error))

    def slow() -> None:
        if given.slow_ms:
            log(slowed=True)  # who waits to strike in the middle of a write waits for this
            time.sleep(given.slow_ms / 1000)

    office = Office(given.company, given.data, store, chain, sign, lambda: server.url, slow)
    try:
        server = Server(Service(given.company, lambda call: answer(office, call), token, given.port, OPEN_PATHS))
    except OSError as error:
        store.close()
        return _refuse(f"cannot listen on 127.0.0.1:{given.port}: {error.strerror}; name another --port")
    work = Thread(target=_work, args=(given.data, store, stop), name="work")
    work.start()
    serve_until(stop, server)
    work.join()
    store.close()
    return 0


def _work(data: Path, store: Store, stop: Event) -> None:
    """Carry out what has come in, in the mood of the moment."""
    while not stop.wait(TICK_SECONDS):
        try:
            _tick(data, store)
        except (ValueError, sqlite3.Error) as error:
            log(error=type(error).__name__)


def _tick(data: Path, store: Store) -> None:
    if not store.waiting():
        return
    now = behaviour(data)
    if now.mood is Mood.REJECTS:
        store.reject()
    elif now.mood is Mood.NORMAL:
        for request in store.begin(datetime.now(UTC) - timedelta(milliseconds=now.after_ms)):
            store.complete(request)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m keshi.dev.systems.affiliates", description=__doc__)
    parser.add_argument("--company", choices=sorted(COMPANIES), required=True)
    parser.add_argument("--data", type=Path, required=True, help="directory of the store; made if missing")
    parser.add_argument("--port", type=int, default=0, help="on 127.0.0.1; 0 takes a free one")
    parser.add_argument("--token-file", type=Path, required=True, help="file that holds the bearer token")
    parser.add_argument("--key", type=Path, required=True, help="file of the private key that signs, PEM")
    parser.add_argument("--certificate", type=Path, required=True, help="file of its certificate, PEM")
    parser.add_argument("--slow-ms", type=int, default=0, help="wait so long before a request is taken in")
    return parser


def _refuse(message: str) -> int:
    sys.stderr.write(f"affiliate: {message}\n")
    return 2


if __name__ == "__main__":
    sys.exit(main())
