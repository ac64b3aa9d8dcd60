"""Calls of the command line to keshi's API: one try, and one clear line for whatever goes wrong."""

import json
import ssl
from typing import Any, Final, Self, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from keshi.cli.errors import Failure
from keshi.runtime.settings import ApiClientSettings, ConfigurationError, load

_ERROR: Final = 400
_PASSING: Final = frozenset({429, 502, 503, 504})
M = TypeVar("M", bound=BaseModel)


class Api:
    """The API as a reader or a decider sees it (KESHI_API_URL, KESHI_API_TOKEN).

    Raises:
        ConfigurationError: no token, or no such CA file.
    """

    def __init__(self) -> None:
        settings = load(ApiClientSettings)
        token = settings.token.get_secret_value()
        if not token:
            raise ConfigurationError("no token: set KESHI_API_TOKEN; `keshi tokens new` makes one")
        self._url = settings.url
        try:
            self._http = httpx.Client(
                base_url=settings.url,
                headers={"Authorization": f"Bearer {token}", "Accept": "application/json"},
                timeout=settings.timeout_seconds,
                verify=_tls(settings),
                follow_redirects=False,
                trust_env=False,
            )
        except (httpx.InvalidURL, ValueError):
            raise ConfigurationError(
                "KESHI_API_URL or KESHI_API_TOKEN is not usable: write the former like http://127.0.0.1:8420"
            ) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def get(self, path: str, **query: Any) -> str:
        """The body of the answer.

        Raises:
            Failure: no answer, or one that is an error.
        """
        return self._call("GET", path, params={k: v for k, v in query.items() if v is not None})

    def post(self, path: str, body: BaseModel) -> str:
        """The body of the answer.

        Raises:
            Failure: no answer, or one that is an error.
        """
        content = body.model_dump_json(exclude_none=True).encode()
        return self._call("POST", path, content=content, headers={"Content-Type": "application/json"})

    def _call(self, method: str, path: str, **more: Any) -> str:
        try:
            response = self._http.request(method, path, **more)
        except (httpx.HTTPError, httpx.InvalidURL) as e:
            if wrong := _certificate(e):
                raise ConfigurationError(
                    f"the API at {self._url} has a certificate that is not to be trusted ({wrong}): see "
                    f"KESHI_API_CAFILE for its CA, and KESHI_API_URL for its name"
                ) from None
            raise Failure(
                f"the API at {self._url} does not answer ({type(e).__name__}): start it, or set KESHI_API_URL",
                passing=True,
            ) from None
        if not response.is_success:
            raise Failure(_problem(response), passing=response.status_code in _PASSING)
        return response.text


def parsed(kind: type[M], text: str) -> M:
    """What the API sent, as a model.

    Raises:
        Failure: it comes from a version of keshi that this one cannot read.
    """
    try:
        return kind.model_validate_json(text)
    except ValidationError:
        raise Failure("this version of keshi cannot read what the API sent: use --json, or upgrade") from None


def _problem(response: httpx.Response) -> str:
    """An error (RFC 9457) in one line."""
    try:
        told = json.loads(response.text)
    except ValueError:
        told = None
    if not isinstance(told, dict) or "title" not in told:
        hint = ": is KESHI_API_URL keshi's API?" if response.status_code < _ERROR or not told else ""
        return f"the API answered {response.status_code}{hint}"
    parts = [str(told["title"])]
    if told.get("detail"):
        parts.append(str(told["detail"]))
    parts += [f"{e.get('field') or 'body'}: {e.get('reason')}" for e in told.get("errors") or () if isinstance(e, dict)]
    code = str(told.get("type", "")).rpartition(":")[2]
    line = "; ".join(parts) + (f" [{code}]" if code else "")
    return "".join(c if c.isprintable() else " " for c in line)


def _certificate(error: BaseException | None) -> str | None:
    """What is wrong with the server's certificate, where it is that."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return error.verify_message
        error = error.__cause__ or error.__context__
    return None


def _tls(settings: ApiClientSettings) -> ssl.SSLContext | bool:
    if settings.cafile is None:
        return True
    try:
        return ssl.create_default_context(cafile=str(settings.cafile))
    except OSError:
        raise ConfigurationError("KESHI_API_CAFILE: there is no readable CA file at this path") from None
