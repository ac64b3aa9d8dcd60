"""HTTP to one server over connections that are kept: as much of it as an API needs, for a fraction of the CPU time.

A call goes out in one piece; answers are read by httptools, which is llhttp, the parser of Node.js.
"""

import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Final
from urllib.parse import urlsplit

import httptools

from keshi.runtime.settings import ConfigurationError

MAX_HEAD: Final = 65_536
_BUFFER: Final = 65_536
_FIRST_FINAL: Final = 200


class NoAnswerError(Exception):
    """Nothing useful came back. Its text is the name of a class, and holds nothing of what was sent or received."""


@dataclass(frozen=True, slots=True, repr=False)
class Reply:
    """What the server said."""

    status: int
    headers: Mapping[str, str]
    """By name in small letters."""
    body: bytes


class Connections:
    """Serves several threads: each call has a connection for itself. Follows no redirect and asks no proxy.

    Args:
        url: Of the server, `http://…` or `https://…`; a path in it begins all paths.
        headers: Sent with each call.
        timeout: Seconds, for connecting and for each wait for the server.
        keep: Seconds after which an idle connection is not used again.
        tls: What the server's certificate is checked by; None takes the machine's authorities.

    Raises:
        ConfigurationError: no such URL.
    """

    def __init__(
        self, url: str, headers: Mapping[str, str], *, timeout: float, keep: float, tls: ssl.SSLContext | None = None
    ) -> None:
        try:
            parts = urlsplit(url)
            host, port = (parts.hostname or "").encode("idna").decode(), parts.port
        except ValueError:
            host, port = "", None
        if not host or parts.scheme not in {"http", "https"} or not _plain(parts.path):
            raise ConfigurationError("KESHI_API_URL: expected http://host:port or https://host:port")
        self._tls = (tls or ssl.create_default_context()) if parts.scheme == "https" else None
        self._address = host, port or (443 if self._tls else 80)
        self._path = parts.path.rstrip("/")
        name = f"[{host}]" if ":" in host else host
        lines = {"Host": name if port is None else f"{name}:{port}", **headers}
        self._headers = "".join(f"{k}: {v}\r\n" for k, v in lines.items()).encode("ascii")
        self._timeout = timeout
        self._keep = keep
        self._idle: list[tuple[float, _Connection]] = []
        self._lock = Lock()

    def send(self, method: str, path: str, body: bytes = b"", timeout: float | None = None) -> Reply:
        """Send, and read the whole answer.

        Raises:
            NoAnswerError: nothing came, or no HTTP. A connection that the server had just closed counts, too.
        """
        line = f"{method} {self._path}{path} HTTP/1.1\r\n".encode("ascii")
        request = b"%b%bContent-Length: %d\r\n\r\n%b" % (line, self._headers, len(body), body)
        connection: _Connection | None = None
        try:
            connection = self._taken(timeout or self._timeout)
            reply, kept = connection.ask(request)
        except (OSError, httptools.HttpParserError) as e:
            if connection:
                connection.close()
            # Its text could show what was sent.
            raise NoAnswerError(type(e).__name__) from None
        except BaseException:
            if connection:
                connection.close()
            raise
        if kept:
            with self._lock:
                self._idle.append((time.monotonic(), connection))
        else:
            connection.close()
        return reply

    def close(self) -> None:
        """Let go of those that are idle."""
        with self._lock:
            idle, self._idle = self._idle, []
        for _, connection in idle:
            connection.close()

    def _taken(self, timeout: float) -> "_Connection":
        """The one that was used last, so that others grow old and are closed."""
        fresh = time.monotonic() - self._keep
        with self._lock:
            old = [c for at, c in self._idle if at < fresh]
            self._idle = [(at, c) for at, c in self._idle if at >= fresh]
            found = self._idle.pop()[1] if self._idle else None
        for connection in old:
            connection.close()
        if found is None:
            return _Connection(self._connected(timeout))
        found.socket.settimeout(timeout)
        return found

    def _connected(self, timeout: float) -> socket.socket:
        connected = socket.create_connection(self._address, timeout)
        try:
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return self._tls.wrap_socket(connected, server_hostname=self._address[0]) if self._tls else connected
        except BaseException:
            connected.close()
            raise


class _Answer:
    """One answer while it is read: what the parser tells of it."""

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        self.parts: list[bytes] = []
        self.status = 0
        self.kept = False
        self.whole = False
        self._head = 0
        self._parser = httptools.HttpResponseParser(self)

    def read(self, data: bytes) -> None:
        """Take the next bytes.

        Raises:
            HttpParserError: no HTTP, or more than an API has to say.
        """
        self._parser.feed_data(data)
        if not self.status:
            self._head += len(data)
            if self._head > MAX_HEAD:
                raise httptools.HttpParserError

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1").strip()

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        self.kept = self._parser.should_keep_alive()

    def on_body(self, body: bytes) -> None:
        self.parts.append(body)

    def on_message_complete(self) -> None:
        if self.status < _FIRST_FINAL:  # such as 100: the answer itself follows
            self.headers.clear()
            self.status = 0
        else:
            self.whole = True

    @property
    def ends_with_connection(self) -> bool:
        """Whether its body is all that comes until the server closes."""
        head = self.headers.keys()
        return bool(self.status) and not {"content-length", "transfer-encoding"} & head


class _Connection:
    """One connection, for one call at a time (RFC 9112)."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected

    def close(self) -> None:
        """Let go of it."""
        self.socket.close()

    def ask(self, request: bytes) -> tuple[Reply, bool]:
        """Send a request and read its answer; whether another may follow.

        Raises:
            OSError: the connection broke off, or nothing came in time.
            HttpParserError: what came is no answer.
        """
        self.socket.sendall(request)
        answer = _Answer()
        while not answer.whole:
            data = self.socket.recv(_BUFFER)
            if data:
                answer.read(data)
            elif answer.ends_with_connection:
                return self._reply(answer), False
            else:
                raise ConnectionResetError
        return self._reply(answer), answer.kept

    @staticmethod
    def _reply(answer: _Answer) -> Reply:
        return Reply(answer.status, answer.headers, b"".join(answer.parts))


def _plain(path: str) -> bool:
    """Whether it can stand in the first line of a request."""
    return path.isascii() and path.isprintable() and " " not in path
