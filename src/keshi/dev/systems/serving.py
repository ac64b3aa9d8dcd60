"""HTTP around the API of a reference system: token, bodies, keep-alive, and an end that finishes what was begun."""

from __future__ import annotations

import hmac
import json
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Condition, Event, Thread
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from keshi.dev.systems.calls import MAX_BODY, Call, Reply, failure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

DRAIN_SECONDS = 5.0


@dataclass(frozen=True)
class Service:
    """What is served.

    Attributes:
        name: of the system, for people.
        answer: carries out one call. Serves several threads.
        token: that each call has to bear.
        port: on 127.0.0.1; 0 takes a free one.
        open_paths: that need no token.
    """

    name: str
    answer: Callable[[Call], Reply]
    token: str = field(repr=False)
    port: int = 0
    open_paths: frozenset[str] = frozenset({"/healthz"})


class Server(ThreadingHTTPServer):
    """Listens on 127.0.0.1 from the moment it is made."""

    daemon_threads = True
    block_on_close = False  # idle connections are not waited for; calls are, in `drain`
    request_queue_size = 128

    def __init__(self, service: Service) -> None:
        super().__init__(("127.0.0.1", service.port), _Handler)
        self.service = service
        self._calls = 0
        self._stopping = False
        self._changed = Condition()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @contextmanager
    def call(self) -> Iterator[bool]:
        """Counts a call while it runs; False if the server is stopping and must not begin it."""
        with self._changed:
            admitted = not self._stopping
            self._calls += admitted
        try:
            yield admitted
        finally:
            with self._changed:
                self._calls -= admitted
                self._changed.notify_all()

    def drain(self, seconds: float) -> bool:
        """Admits no more calls and waits for those that run; False if some still do after `seconds`."""
        with self._changed:
            self._stopping = True
            return self._changed.wait_for(lambda: not self._calls, timeout=seconds)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - the inherited signature
        """Names the error's class only: a message or traceback could quote a record."""
        log(error=type(sys.exception()).__name__)


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    timeout = 30  # seconds that an idle or half-sent call may hold its thread
    wbufsize = -1  # head and body leave in one packet
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self._serve()

    do_POST = do_PATCH = do_DELETE = do_PUT = do_HEAD = do_GET  # noqa: N815 - names that http.server looks for

    def _serve(self) -> None:
        began = time.monotonic()
        with self.server.call() as admitted:
            reply = self._reply() if admitted else self._stopping()
            self.close_connection |= not admitted
            self._send(reply)
            self.wfile.flush()
        took = round((time.monotonic() - began) * 1000, 1)
        log(method=self.command, route=reply.route, status=reply.status, ms=took)

    def _reply(self) -> Reply:
        body = self._body()
        if isinstance(body, Reply):
            self.close_connection = True  # what was not read would be taken for the next call
            return body
        service, parts = self.server.service, urlsplit(self.path)
        if parts.path not in service.open_paths and not self._authorized():
            return failure(401, "unauthorized", "send the token as Authorization: Bearer …")
        try:
            return service.answer(Call(self.command, parts.path, parts.query, body))
        except Exception as error:  # noqa: BLE001 - the border: whatever it is, the caller is told and the class logged
            log(error=type(error).__name__)
            return failure(500, "internal", f"{service.name} could not do this; it may be tried again")

    def _stopping(self) -> Reply:
        return failure(503, "stopping", f"{self.server.service.name} is stopping; try again later")

    def _body(self) -> bytes | Reply:
        length = self.headers.get("Content-Length", "0")
        if self.headers.get("Transfer-Encoding") or not (length.isascii() and length.isdigit()):
            return failure(400, "bad_request", "send a body with its Content-Length")
        if len(length) > len(str(MAX_BODY)) or int(length) > MAX_BODY:
            return failure(413, "too_large", f"a body has at most {MAX_BODY} bytes")
        body = self.rfile.read(int(length))
        return body if len(body) == int(length) else failure(400, "bad_request", "the body ends too early")

    def _authorized(self) -> bool:
        given = self.headers.get("Authorization", "").encode()
        return hmac.compare_digest(given, f"Bearer {self.server.service.token}".encode())

    def _send(self, reply: Reply) -> None:
        payload = b"" if reply.payload is None else reply.payload
        data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        self.send_response(reply.status)
        if isinstance(reply.payload, dict):
            self.send_header("Content-Type", "application/json")
        if reply.status != 204:  # noqa: PLR2004 - RFC 9110 8.6: no Content-Length with No Content
            self.send_header("Content-Length", str(len(data)))
        for name, value in reply.headers.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002 - the inherited signature
        """A call that http.server itself refuses is answered in JSON, and nothing of it is repeated."""
        self.close_connection = True
        self._send(failure(code, "bad_request", "the call is not HTTP that this server takes"))

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the inherited signature
        """Says nothing: the inherited lines quote the address, which a sender chooses."""


def log(**fields: object) -> None:
    sys.stderr.write(json.dumps(fields) + "\n")
    sys.stderr.flush()


def serve_until(stop: Event, server: Server) -> None:
    """Serves; prints the line that starters wait for; when told to stop, finishes the calls that run."""
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, name="accept")
    thread.start()
    print(json.dumps({"ready": True, "url": server.url}), flush=True)  # noqa: T201 - the line that starters wait for
    stop.wait()
    server.drain(DRAIN_SECONDS)
    server.shutdown()
    thread.join()
    server.server_close()


def read_token(path: Path) -> str:
    """The token in a file.

    Raises:
        OSError, UnicodeDecodeError: the file cannot be read.
        ValueError: there is none in it.
    """
    token = path.read_text(encoding="ascii").strip()
    if not token:
        raise ValueError(f"the token file {path} is empty; write a token into it")
    return token
