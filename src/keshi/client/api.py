"""The two calls of a worker to keshi's API: `POST /v1/tasks:unwrap` and `POST /v1/tasks:begin`.

Both may be repeated: `unwrap` only reads, and the same begin-id gets the same answer. So a call that broke off, or
went out on a connection that the server had just closed, is sent again. No answer means no act.
"""

import ssl
from collections.abc import Sequence
from threading import Event
from typing import Final, TypeVar

from pydantic import BaseModel, SecretStr, ValidationError
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    sleep_using_event,
    stop_after_attempt,
    stop_before_delay,
    stop_when_event_set,
    wait_exponential_jitter,
)

from keshi.client.connections import Connections, NoAnswerError
from keshi.runtime.settings import ApiClientSettings, ConfigurationError
from keshi.schemas.tasks import Begin, BeginRequest, BeginResponse, TaskRef, UnwrapRequest, UnwrapResponse
from keshi.schemas.writing import whole

KEEPALIVE_SECONDS: Final = 4.0
"""Shorter than the 5 s after which uvicorn closes an idle connection."""
TRIES: Final = 4
FIRST_PAUSE: Final = 0.1
"""Seconds before the second try; `BACKOFF` is before those that follow."""
BACKOFF: Final = wait_exponential_jitter(multiplier=0.2, max=2, jitter=0.2)
MAX_SERVER_WAIT: Final = 5.0
"""Seconds that a `Retry-After` of the API can make us wait within one call."""
_OK = 200
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
_DENIED = frozenset({401, 403})

M = TypeVar("M", bound=BaseModel)


class ApiError(Exception):
    """A call got no useful answer. Its text holds a status and nothing of what was sent or received."""


class ApiUnavailableError(ApiError):
    """No answer, or one that says: later. To be sent again."""

    def __init__(self, code: str, after: float = 0.0) -> None:
        super().__init__(code)
        self.code = code
        self.after = after


class ApiDeniedError(ApiError):
    """The token is not known, or not for this system. A person has to set it right; what was asked stays open."""

    def __init__(self, status: int) -> None:
        super().__init__(f"the API answered {status}: check KESHI_API_TOKEN")
        self.code = "api_denied"


class ApiRefusedError(ApiError):
    """The API cannot read what was sent. Sending the same again would not help."""

    def __init__(self, status: int) -> None:
        super().__init__(f"the API answered {status}")
        self.status = status
        self.code = f"api_{status}"


class WorkerApi:
    """Calls the API as the worker of one system. Serves several threads.

    Args:
        settings: Where the API is, and how long one try may take.
        token: Of this system's worker; by default the one of the settings.
        stopping: Set when the process ends: no further try is made then.

    Raises:
        ConfigurationError: no token, or no such CA file.
    """

    def __init__(
        self, settings: ApiClientSettings, token: SecretStr | None = None, stopping: Event | None = None
    ) -> None:
        secret = (token or settings.token).get_secret_value()
        if not secret:
            raise ConfigurationError("KESHI_API_TOKEN is empty: set it to the token of this worker")
        if not (secret.isascii() and secret.isprintable()):
            raise ConfigurationError("KESHI_API_TOKEN holds what no token has: set it to the token of this worker")
        self._stopping = stopping or Event()
        self._timeout = settings.timeout_seconds
        self._http = Connections(
            settings.url,
            {"Authorization": f"Bearer {secret}", "Accept": "application/json", "Content-Type": "application/json"},
            timeout=settings.timeout_seconds,
            keep=KEEPALIVE_SECONDS,
            tls=_tls(settings),
        )

    def unwrap(self, tasks: Sequence[TaskRef]) -> UnwrapResponse:
        """The identifiers of those tasks that are open.

        Raises:
            ApiError: see its classes.
        """
        return self._post("/v1/tasks:unwrap", UnwrapRequest(tasks=tuple(tasks)), UnwrapResponse)

    def begin(self, tasks: Sequence[Begin], tries: int = TRIES) -> BeginResponse:
        """Hand in the evidence and ask for the go.

        Raises:
            ApiError: see its classes. Then nothing may be changed.
        """
        return self._post("/v1/tasks:begin", BeginRequest(tasks=tuple(tasks)), BeginResponse, tries)

    def reachable(self) -> bool:
        """Whether the API answers at all, for the readiness probe."""
        try:
            return self._http.send("GET", "/healthz", timeout=min(2.0, self._timeout)).status == _OK
        except NoAnswerError:
            return False

    def close(self) -> None:
        """Let go of the connections."""
        self._http.close()

    def _post(self, path: str, body: BaseModel, kind: type[M], tries: int = TRIES) -> M:
        content = whole(body)  # none of its members can be absent
        try:
            return self._send(path, content, kind)
        except ApiUnavailableError as e:
            if tries <= 1 or self._stopping.wait(max(FIRST_PAUSE, min(e.after, MAX_SERVER_WAIT))):
                raise
        # Only now: to count tries costs more than to read an answer, and nearly all calls get one at once.
        retrying = Retrying(
            retry=retry_if_exception_type(ApiUnavailableError),
            stop=(
                stop_after_attempt(tries - 1)
                | stop_before_delay(self._timeout * 2)
                | stop_when_event_set(self._stopping)
            ),
            wait=_wait,
            sleep=sleep_using_event(self._stopping),
            reraise=True,
        )
        answer: M = retrying(self._send, path, content, kind)
        return answer

    def _send(self, path: str, content: bytes, kind: type[M]) -> M:
        try:
            reply = self._http.send("POST", path, content)
        except NoAnswerError as e:
            raise ApiUnavailableError(f"api_{str(e).lower()}") from None
        status = reply.status
        if status == _OK:
            try:
                return kind.model_validate_json(reply.body)
            except ValidationError:
                raise ApiUnavailableError("api_answer_unreadable") from None
        if status in _DENIED:
            raise ApiDeniedError(status)
        if status in _PASSING or status > max(_PASSING):
            raise ApiUnavailableError(f"api_{status}", _seconds(reply.headers.get("retry-after")))
        raise ApiRefusedError(status)


def _wait(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    asked = error.after if isinstance(error, ApiUnavailableError) else 0.0
    return max(BACKOFF(state), min(asked, MAX_SERVER_WAIT))


def _seconds(header: str | None) -> float:
    return float(header[:9]) if header and header.isascii() and header.isdigit() else 0.0


def _tls(settings: ApiClientSettings) -> ssl.SSLContext | None:
    if settings.cafile is None:
        return None
    try:
        return ssl.create_default_context(cafile=str(settings.cafile))
    except OSError:
        raise ConfigurationError("KESHI_API_CAFILE: there is no readable CA file at this path") from None
