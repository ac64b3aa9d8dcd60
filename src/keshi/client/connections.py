"""HTTP to one server over connections that are kept: as much of it as an API needs, for a fraction of the CPU time.

A call goes out in one piece, and of an answer only what matters is looked at. Errors are those of `http.client`.
"""

import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import BadStatusLine, HTTPException, IncompleteRead, LineTooLong, RemoteDisconnected
from threading import Lock
from typing import Final
from urllib.parse import urlsplit

from keshi.runtime.settings import ConfigurationError

MAX_LINE: Final = 65_536
MAX_HEADERS: Final = 100
_BUFFER: Final = 65_536
_FIRST_FINAL: Final = 200
_BODILESS: Final = frozenset({204, 304})


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
        except (OSError, HTTPException) as e:
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


class _Connection:
    """One connection, for one call at a time (RFC 9112)."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self._reader = connected.makefile("rb", _BUFFER)

    def close(self) -> None:
        """Let go of it."""
        self._reader.close()
        self.socket.close()

    def ask(self, request: bytes) -> tuple[Reply, bool]:
        """Send a request and read its answer; whether another may follow.

        Raises:
            OSError: the connection broke off, or nothing came in time.
            HTTPException: what came is no answer.
        """
        self.socket.sendall(request)
        version, status = self._status()
        headers = self._fields()
        while status < _FIRST_FINAL:
            version, status = self._status()
            headers = self._fields()
        kept = version != b"HTTP/1.0" and "close" not in headers.get("connection", "").lower()
        if status in _BODILESS:
            body = b""
        elif "chunked" in headers.get("transfer-encoding", "").lower():
            body = self._chunks()
        elif "content-length" in headers:
            body = self._read(_number(headers["content-length"], 10))
        else:
            body, kept = self._reader.read(), False
        return Reply(status, headers, body), kept

    def _status(self) -> tuple[bytes, int]:
        line = self._line()
        if not line:
            raise RemoteDisconnected("")
        version, _, rest = line.partition(b" ")
        status = rest[:3]
        if not version.startswith(b"HTTP/1.") or not status.isdigit():
            raise BadStatusLine("")
        return version, int(status)

    def _fields(self) -> dict[str, str]:
        fields: dict[str, str] = {}
        for _ in range(MAX_HEADERS):
            line = self._line()
            if not line:
                raise IncompleteRead(b"")
            text = line.decode("latin-1").strip()
            if not text:
                return fields
            name, _, value = text.partition(":")
            fields[name.lower()] = value.strip()
        raise HTTPException

    def _chunks(self) -> bytes:
        chunks: list[bytes] = []
        while size := _number(self._line().partition(b";")[0].decode("latin-1"), 16):
            chunks.append(self._read(size))
            self._line()
        self._fields()
        return b"".join(chunks)

    def _read(self, size: int) -> bytes:
        found: bytes = self._reader.read(size)
        if len(found) < size:
            raise IncompleteRead(b"")
        return found

    def _line(self) -> bytes:
        line = self._reader.readline(MAX_LINE + 1)
        if len(line) > MAX_LINE:
            raise LineTooLong("header line")
        return line


def _number(text: str, base: int) -> int:
    text = text.strip()
    if not (text.isascii() and text.isalnum()):
        raise HTTPException
    try:
        return int(text, base)
    except ValueError:
        raise HTTPException from None


def _plain(path: str) -> bool:
    """Whether it can stand in the first line of a request."""
    return path.isascii() and path.isprintable() and " " not in path
