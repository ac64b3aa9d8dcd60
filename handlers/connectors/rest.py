"""REST over HTTP for handlers: one call within the time of the task, and what a status asks to be done.

Errors leave here as those of `keshi.handlers.errors`, without address or body, which may hold data of the person.
"""

import json
import re
import ssl
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
from pydantic import SecretStr

from keshi.handlers.contract import MIN_TIME_LEFT, Limit, Work, boot_time
from keshi.handlers.errors import GiveToPerson, HandlerError, Retry, RetryAfter, retry_after, slug
from keshi.runtime.settings import ConfigurationError

CALL_SECONDS: Final = 10
"""One call takes no longer, however much time the task has."""
READY_SECONDS: Final = 1
MAX_ANSWER_BYTES: Final = 8 * 1024 * 1024
MAX_PAGES: Final = 1000
PAGE_SIZE: Final = 200


@dataclass(frozen=True, slots=True)
class Reply:
    """A status, and the JSON that came with it. Its representation shows the status alone."""

    status: int
    data: Any

    def __repr__(self) -> str:
        return f"Reply({self.status})"


Inspect = Callable[[bytes, Mapping[str, str]], None]
"""Looks at the body and the headers of a good answer before anything is read of it, and raises what it finds wrong."""


class Rest:
    """One API, shared by the threads of a worker.

    Args:
        url: Its base address.
        token: Sent as a bearer token (RFC 6750).
        setting: The name of the setting that holds the address, for the message.
        tls: Whom to trust, and the certificate to show; by default the system's authorities, and none.
        busy_seconds: A call is made again for so long while the API says when (`Retry-After`). For an API that limits
            calls: a step of many calls that began anew each time would never come to its end.

    Raises:
        ConfigurationError: `url` is no address of HTTP.
    """

    def __init__(
        self, url: str, token: str, *, setting: str, tls: ssl.SSLContext | None = None, busy_seconds: float = 0
    ) -> None:
        if not re.match(r"https?://[^/\s]", url):
            raise ConfigurationError(f"{setting} is not set to an address: https://host")
        self._busy_seconds = busy_seconds
        headers = {"Authorization": f"Bearer {token}"}
        # No proxy out of the environment: nobody decided that personal data goes through it.
        self._http = httpx.Client(base_url=url, headers=headers, trust_env=False, verify=tls or True)

    def call(
        self,
        task: Work,
        method: str,
        path: str,
        *,
        body: Any = None,
        allow: Collection[int] = (),
        query: Any = None,
        inspect: Inspect | None = None,
    ) -> Reply:
        """Make one call.

        Args:
            task: Whose time it takes.
            method: Of HTTP.
            path: Below the base address.
            body: Sent as JSON.
            allow: Statuses besides 2xx that the caller knows how to take.
            query: Parameters of the address. Nothing about a person belongs here: addresses end up in logs.
            inspect: See there.

        Raises:
            LeaseEnded: the time is over, and no call was made.
            Retry: passing trouble, or something that operations can set right: a token, a right.
            GiveToPerson: the API refuses this very call.
        """
        answer, text = self._called(task.limit, method, path, body, query, frozenset(allow))
        if inspect is not None and answer.is_success:
            inspect(text, answer.headers)
        try:
            return Reply(answer.status_code, json.loads(text) if text else None)
        except ValueError:
            raise Retry("answer_not_json") from None

    def document(self, task: Work, path: str) -> bytes:
        """What stands under a path, as it is.

        Raises:
            HandlerError: as `call` does.
        """
        return self._call(task.limit, "GET", path, None, None, frozenset())[1]

    def pages(self, task: Work, path: str, *, search: Mapping[str, Any] | None = None) -> Iterator[dict[str, Any]]:
        """All items of a list that comes in pages `{"items": […], "next": …}`; `after` asks for the next one.

        Args:
            task: Whose time it takes.
            path: Below the base address.
            search: What to look for. With it the list is asked for by POST, and `after` travels in the body.

        Raises:
            HandlerError: as `call` does, also in the middle.
        """
        after: str | None = None
        for _ in range(MAX_PAGES):
            where = {"limit": PAGE_SIZE} | ({"after": after} if after else {})
            if search is None:
                reply = self.call(task, "GET", path, query=where)
            else:
                reply = self.call(task, "POST", path, body={**search, **where})
            yield from reply.data["items"]
            after, before = reply.data["next"], after
            if after is None:
                return
            if after == before:
                raise GiveToPerson("paging_stands_still")
        raise GiveToPerson("too_many_pages")

    def ready(self, method: str, path: str, *, body: Any = None) -> bool:
        """Whether this call, which changes nothing, succeeds at once."""
        try:
            return self._call(Limit(READY_SECONDS), method, path, body, None, frozenset())[0].is_success
        except HandlerError:
            return False

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def _called(self, limit: Limit, *given: Any) -> tuple[httpx.Response, bytes]:
        """One call, made again while the API is busy and says for how long."""
        end = boot_time() + self._busy_seconds
        while True:
            try:
                return self._call(limit, *given)
            except RetryAfter as error:
                left = min(end - boot_time(), limit.left() - MIN_TIME_LEFT)
                if error.seconds > left:
                    raise
                time.sleep(max(error.seconds, MIN_TIME_LEFT))

    def _call(
        self, limit: Limit, method: str, path: str, body: Any, query: Any, allow: Collection[int]
    ) -> tuple[httpx.Response, bytes]:
        seconds = min(limit.require(), CALL_SECONDS)
        text = bytearray()
        try:
            with self._http.stream(
                method, path, json=body, params=query, timeout=seconds, extensions={"trace": in_time(limit)}
            ) as answer:
                for part in answer.iter_bytes():
                    text += part
                    limit.require()  # httpx bounds the wait for each part, not for all of them
                    if len(text) > MAX_ANSWER_BYTES:
                        raise GiveToPerson("answer_too_large")
        except httpx.HTTPError as error:
            limit.require()
            raise Retry(slug(type(error).__name__)) from None
        if not (answer.is_success or answer.status_code in allow):
            raise _failure(answer)
        return answer, bytes(text)


def in_time(limit: Limit) -> Callable[[str, Mapping[str, Any]], None]:
    """Look at the clock once more right before each write to the connection (httpx, "Request extensions": trace).

    A process that was frozen after the call had been prepared would otherwise send it when it wakes up.
    """

    def trace(event: str, _: Mapping[str, Any]) -> None:
        if event.endswith((".send_request_headers.started", ".send_request_body.started")):
            limit.require()

    return trace


def token_of(token: SecretStr, file: Path | None, prefix: str) -> str:
    """The token of a handler's settings: out of the file, if one is named.

    Args:
        token: `<prefix>TOKEN`.
        file: `<prefix>TOKEN_FILE`.
        prefix: Of the settings, for the message.

    Raises:
        ConfigurationError: there is none.
    """
    found = token.get_secret_value()
    if file:
        try:
            found = file.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            raise ConfigurationError(f"{prefix}TOKEN_FILE cannot be read: name a file with the token") from None
    if not found:
        raise ConfigurationError(f"there is no token: set {prefix}TOKEN_FILE or {prefix}TOKEN")
    return found


def _failure(answer: httpx.Response) -> HandlerError:
    """What a status asks to be done (RFC 9110, section 15; RFC 6585)."""
    status = answer.status_code
    if status in {429, 503}:
        return retry_after(answer.headers.get("Retry-After"))
    # 401, 403: operations sets it right. 404, 409, 410, 423: the record is not as it was, the next look will tell.
    if status in {401, 403, 404, 408, 409, 410, 423, 425} or status >= httpx.codes.INTERNAL_SERVER_ERROR:
        return Retry(f"http_{status}")
    return GiveToPerson(f"http_{status}")
