"""An HTTP server that misbehaves as told: what no system in order does."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, dict[str, str], bytes]


class _Scripted(BaseHTTPRequestHandler):
    answers: list[Answer]

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", "0")))
        status, headers, body = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST  # noqa: N815 - a name that http.server looks for

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def scripted(*answers: Answer) -> Iterator[str]:
    """The URL of a server that gives these answers, the last one for ever."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Script", (_Scripted,), {"answers": [*answers]}))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
