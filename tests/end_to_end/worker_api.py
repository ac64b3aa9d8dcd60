"""Just enough of the API for a worker: `unwrap` and `begin` over HTTP, with leases that end. In memory."""

import hashlib
import json
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import uuid4

from keshi.schemas.base import sha256
from keshi.schemas.identifiers import Identifier
from keshi.schemas.tasks import (
    Answer,
    Begin,
    BeginRequest,
    BeginResponse,
    Found,
    Go,
    Mode,
    Stop,
    Unwrapped,
    UnwrapRequest,
    UnwrapResponse,
    Wait,
)


@dataclass
class Kept:
    identifiers: tuple[Identifier, ...]
    mode: Mode = Mode.ACT
    remembered: tuple[Found, ...] = ()
    open: bool = True
    stop: str | None = None
    union: dict[tuple[str, str], Found] = field(default_factory=dict)
    begin_id: str | None = None
    elders: set[str] = field(default_factory=set)
    lease_id: str = ""
    until: float = 0.0
    goes: int = 0
    begins: list[Begin] = field(default_factory=list)


class Api:
    """State and answers. `down` makes every call fail with 503."""

    token = "a-token-for-tests"

    def __init__(self, lease_seconds: float = 2.0) -> None:
        self.lease_seconds = lease_seconds
        self.tasks: dict[str, Kept] = {}
        self.lock = threading.Lock()
        self.down = False
        self.refuse: set[str] = set()
        self.calls: list[str] = []

    def secret(self, lease_id: str) -> str:
        return hashlib.sha256(lease_id.encode()).hexdigest()

    def unwrap(self, body: UnwrapRequest) -> UnwrapResponse:
        return UnwrapResponse(tasks=tuple(self._unwrapped(t) for t in body.tasks))

    def _unwrapped(self, ref) -> Unwrapped:
        kept = self.tasks.get(ref.request_id)
        names = {"request_id": ref.request_id, "system": ref.system, "attempt": ref.attempt}
        if kept is None or not kept.open:
            return Unwrapped(**names, open=False, reason="closed")
        return Unwrapped(**names, open=True, identifiers=kept.identifiers, remembered=kept.remembered)

    def begin(self, body: BeginRequest) -> BeginResponse:
        return BeginResponse(tasks=tuple(self._answer(b) for b in body.tasks))

    def _answer(self, begin: Begin) -> Answer:
        kept, now = self.tasks[begin.request_id], time.monotonic()
        kept.begins.append(begin)
        names: dict[str, Any] = {"request_id": begin.request_id, "system": begin.system}
        for item in begin.manifest:
            kept.union.setdefault((item.category, item.ref), item)
        if kept.stop or not kept.open or begin.begin_id in kept.elders:
            return Stop(**names, reason=kept.stop or "closed")
        if kept.begin_id != begin.begin_id:
            if kept.begin_id and now < kept.until:
                seconds = min(0.5, kept.until - now)
                return Wait(**names, reason="lease_held", seconds=seconds, until=datetime.now(UTC))
            if kept.begin_id:
                kept.elders.add(kept.begin_id)
            kept.begin_id, kept.lease_id, kept.goes = begin.begin_id, uuid4().hex, kept.goes + 1
        kept.until = now + self.lease_seconds
        union = tuple(kept.union[k] for k in sorted(kept.union))
        return Go(
            **names,
            lease_id=kept.lease_id,
            secret=self.secret(kept.lease_id),
            seconds=self.lease_seconds,
            union=union,
            digest=sha256([f.model_dump(mode="json") for f in union]),
        )


class ApiServer:
    """The API on a free port of this machine."""

    def __init__(self, api: Api) -> None:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers["Content-Length"]))
                api.calls.append(self.path)
                if api.down:
                    return self._say(503, b"{}")
                if self.headers["Authorization"] != f"Bearer {api.token}":
                    return self._say(401, b"{}")
                if any(r in raw.decode() for r in api.refuse) and self.path.endswith("begin"):
                    return self._say(422, b"{}")
                with api.lock:
                    if self.path == "/v1/tasks:unwrap":
                        answer: UnwrapResponse | BeginResponse = api.unwrap(UnwrapRequest.model_validate_json(raw))
                    else:
                        body = json.loads(raw)
                        answer = api.begin(BeginRequest.model_validate_json(json.dumps(body)))
                return self._say(200, answer.model_dump_json().encode())

            def do_GET(self) -> None:
                self._say(200, b"{}")

            def _say(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()
