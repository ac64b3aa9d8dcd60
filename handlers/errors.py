"""How a handler fails. The class says what is to be done; the code says why; no message goes any further.

Anything else that a handler raises counts as `Retry`, under a code made from the name of its class: what an
exception of a library says may hold data of the person, and is neither logged nor reported.
"""

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

MAX_RETRY_AFTER_SECONDS = 2_592_000
"""No system is waited for longer than thirty days by its own word."""

_CODE = re.compile(r"^[a-z][a-z0-9_]{0,63}$")
_WORD = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+[0-9]*|[A-Z]+[0-9]*|[0-9]+")


class HandlerError(Exception):
    """Base of the tree.

    Args:
        code: A stable word, such as `lock_timeout`; without it, one made from the name of the class.

    Attributes:
        left: Categories that are known not to be done yet, where it is trouble with these alone: who asks is told.
    """

    def __init__(self, code: str | None = None) -> None:
        self.code = code if code and _CODE.match(code) else slug(type(self).__name__)
        self.left: tuple[str, ...] = ()
        super().__init__(self.code)


class Retry(HandlerError):  # noqa: N818 - it reads as what is to be done
    """Passing trouble: tried again within the attempt, for seconds, and then in a next attempt."""


class RetryAfter(Retry):
    """As `Retry`, and the system said when.

    Args:
        seconds: How long the system wants to be left alone.
        code: As above.
    """

    def __init__(self, seconds: float, code: str | None = None) -> None:
        super().__init__(code)
        self.seconds = min(max(float(seconds), 0.0), float(MAX_RETRY_AFTER_SECONDS))


class GiveToPerson(HandlerError):  # noqa: N818 - it reads as what is to be done
    """No further try would help: a person has to look at this task."""


class LeaseEnded(HandlerError):  # noqa: N818 - it reads as what is to be done
    """The time to act is over. Nothing more may be changed; a next attempt goes on over the same records."""


def leaving(error: Exception, categories: Iterable[str]) -> HandlerError:
    """The error, saying which categories are not done yet. One that is none of ours becomes `Retry`, as it counts."""
    told = error if isinstance(error, HandlerError) else Retry(code_of(error))
    told.left = tuple(dict.fromkeys(categories))
    return told


def slug(name: str) -> str:
    """`OperationalError` → `operational_error`, always a legal code."""
    word = "_".join(_WORD.findall(name)).lower()[:64].rstrip("_")
    return word if _CODE.match(word) else "unknown_error"


def code_of(error: BaseException) -> str:
    """The code under which an exception is reported."""
    return error.code if isinstance(error, HandlerError) else slug(type(error).__name__)


def retry_after(header: str | None, now: datetime | None = None) -> Retry:
    """What to raise for a `Retry-After` header (RFC 9110, section 10.2.3): seconds, a date, or nothing."""
    if header is None:
        return Retry("unavailable")
    text = header.strip()
    if text.isascii() and text.isdigit():
        return RetryAfter(float(text[:12]), "unavailable")
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return Retry("unavailable")
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return RetryAfter((moment - (now or datetime.now(UTC))).total_seconds(), "unavailable")
