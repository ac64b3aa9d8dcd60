"""A call that was prepared in time and would be sent too late is not sent."""

import threading
from collections.abc import Iterator
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from keshi.handlers.connectors.rest import Rest
from keshi.handlers.contract import Limit, Work
from keshi.handlers.errors import LeaseEnded
from keshi.schemas.commands import Action


class Answering(BaseHTTPRequestHandler):
    calls: ClassVar[list[str]] = []
    protocol_version = "HTTP/1.1"

    def do_DELETE(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.calls.append(self.path)
        self.send_response(204)
        self.end_headers()

    do_PATCH = do_DELETE  # noqa: N815 - a name that http.server looks for

    def log_message(self, *_: object) -> None:
        return


class Freezing(Limit):
    """As if the process were frozen, past the end, after so many looks at the clock."""

    def __init__(self, looks: int) -> None:
        super().__init__(60)
        self._looks = looks

    def require(self) -> float:
        if self._looks == 0:
            self.end_now()
        self._looks -= 1
        return super().require()


@pytest.fixture
def url() -> Iterator[str]:
    Answering.calls.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def work(limit: Limit) -> Work:
    day = date(2026, 4, 1)
    return Work(
        request_id="r", system="crm", action=Action.ERASE, categories=("cards",), identifiers=(), as_of=day, limit=limit
    )


@pytest.mark.parametrize(("method", "body"), [("DELETE", None), ("PATCH", {"status": "suspended"})])
def test_frozen_after_the_call_was_prepared_nothing_is_sent(url: str, method: str, body: object) -> None:
    rest = Rest(url, "token", setting="KESHI_CRM_URL")
    try:
        rest.call(work(Limit(60)), method, "/v1/cards/1", body=body)
        assert Answering.calls == ["/v1/cards/1"]
        with pytest.raises(LeaseEnded):
            rest.call(work(Freezing(looks=1)), method, "/v1/cards/2", body=body)
        rest.call(work(Limit(60)), method, "/v1/cards/3", body=body)
        assert Answering.calls == ["/v1/cards/1", "/v1/cards/3"]
    finally:
        rest.close()
