"""`/healthz` and `/readyz` of a process that serves nothing else."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self


@dataclass(frozen=True, slots=True)
class Health:
    """Two questions: does it still live, and does it do its work? And a word for people on what it is doing."""

    live: Callable[[], bool]
    ready: Callable[[], bool]
    word: Callable[[], str] = str


class HealthServer:
    """Answers 200 or 503. Holds nothing that a stranger must not see."""

    def __init__(self, health: Health, port: int = 0, host: str = "127.0.0.1") -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                checks = {"/healthz": health.live, "/readyz": health.ready}
                check = checks.get(self.path)
                self.send_response(404 if check is None else 200 if check() else 503)
                body = b"" if check is None else health.word().encode()
                self.send_header("Content-Type", "text/plain; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Probes come every second: no log."""

        self._server = ThreadingHTTPServer((host, port), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="health", daemon=True)

    @property
    def port(self) -> int:
        """The port that answers."""
        return int(self._server.server_address[1])

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
