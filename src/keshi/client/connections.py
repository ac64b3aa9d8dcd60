"""HTTP to one server over connections that are kept: the standard library's, which costs a fifth of a full client."""

import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from threading import Lock
from urllib.parse import urlsplit

from keshi.runtime.settings import ConfigurationError


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
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port = None, None
        if not host or parts.scheme not in {"http", "https"}:
            raise ConfigurationError("KESHI_API_URL: expected http://host:port or https://host:port")
        self._host, self._port = host, port
        self._tls = (tls or ssl.create_default_context()) if parts.scheme == "https" else None
        self._path = parts.path.rstrip("/")
        self._headers = dict(headers)
        self._timeout = timeout
        self._keep = keep
        self._idle: list[tuple[float, HTTPConnection]] = []
        self._lock = Lock()

    def send(self, method: str, path: str, body: bytes | None = None, timeout: float | None = None) -> Reply:
        """Send, and read the whole answer.

        Raises:
            NoAnswerError: nothing came, or no HTTP. A connection that the server had just closed counts, too.
        """
        connection = self._taken(timeout or self._timeout)
        try:
            connection.request(method, self._path + path, body, self._headers)
            answer = connection.getresponse()
            reply = Reply(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        except (OSError, HTTPException) as e:
            connection.close()
            # Its text could show what was sent.
            raise NoAnswerError(type(e).__name__) from None
        except BaseException:
            connection.close()
            raise
        if answer.will_close:
            connection.close()
        else:
            with self._lock:
                self._idle.append((time.monotonic(), connection))
        return reply

    def close(self) -> None:
        """Let go of those that are idle."""
        with self._lock:
            idle, self._idle = self._idle, []
        for _, connection in idle:
            connection.close()

    def _taken(self, timeout: float) -> HTTPConnection:
        """The one that was used last, so that others grow old and are closed."""
        fresh = time.monotonic() - self._keep
        with self._lock:
            old = [c for at, c in self._idle if at < fresh]
            self._idle = [(at, c) for at, c in self._idle if at >= fresh]
            found = self._idle.pop()[1] if self._idle else None
        for connection in old:
            connection.close()
        if found is None:
            return self._new(timeout)
        found.timeout = timeout
        if found.sock:
            found.sock.settimeout(timeout)
        return found

    def _new(self, timeout: float) -> HTTPConnection:
        if self._tls is None:
            return HTTPConnection(self._host, self._port, timeout=timeout)
        return HTTPSConnection(self._host, self._port, timeout=timeout, context=self._tls)
