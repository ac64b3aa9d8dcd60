"""Who may ask the API, and for what. Tokens stand hashed in a file: whoever reads it can ask for nothing.

```yaml
- {name: "worker:billing", role: worker, system: billing, sha256: 5d3a…}
- {name: "staff:kato", role: decider, sha256: 90be…}
```
"""

import hashlib
import hmac
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, Self

import yaml
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from keshi.runtime.settings import ConfigurationError
from keshi.schemas.base import Digest, Model, Name, Reference

MAX_FILE_BYTES: Final = 1_000_000
MAX_TOKEN_LENGTH: Final = 200
_HINT: Final = "`keshi tokens new` makes a line for it"


class Role(StrEnum):
    """What the holder of a token is."""

    WORKER = "worker"
    READER = "reader"
    OPERATOR = "operator"
    DECIDER = "decider"


class Right(StrEnum):
    """What a role may do. None contains another."""

    WORK = "work"
    READ_REQUESTS = "read_requests"
    FIND_PEOPLE = "find_people"
    READ_CLOSURES = "read_closures"
    EXPORT = "export"
    OPERATE = "operate"
    DECIDE = "decide"


_COMPLIANCE: Final = frozenset({Right.READ_REQUESTS, Right.FIND_PEOPLE, Right.READ_CLOSURES, Right.EXPORT})

RIGHTS: Final[Mapping[Role, frozenset[Right]]] = {
    Role.WORKER: frozenset({Right.WORK}),
    Role.READER: _COMPLIANCE,
    Role.OPERATOR: frozenset({Right.READ_REQUESTS, Right.OPERATE}),
    Role.DECIDER: _COMPLIANCE | {Right.DECIDE},
}
"""Operators see where requests stand and how keshi runs; neither records nor people's words, nor whose they are."""


class TokenLine(Model):
    """One entry of the file."""

    model_config = ConfigDict(strict=False)

    name: Reference
    role: Role
    system: Name | None = None
    sha256: Annotated[Digest, Field(repr=False)]

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.role is Role.WORKER) != (self.system is not None):
            raise ValueError("a worker's token names its system, and no other token does")
        return self

    def may(self, right: Right) -> bool:
        """Whether this token gives a right."""
        return right in RIGHTS[self.role]


_FILE: TypeAdapter[list[TokenLine]] = TypeAdapter(list[TokenLine])


class Tokens:
    """The tokens of one API."""

    def __init__(self, lines: Iterable[TokenLine]) -> None:
        self._lines = tuple(lines)

    def find(self, token: str) -> TokenLine | None:
        """Whose token this is. Takes as long whoever it is."""
        if not token or len(token) > MAX_TOKEN_LENGTH:
            return None
        digest = _digest(token)
        found = None
        for line in self._lines:
            if hmac.compare_digest(line.sha256, digest):
                found = line
        return found

    def __repr__(self) -> str:
        return f"Tokens({len(self._lines)})"


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token that was just made: it is shown once, its line goes into the file."""

    token: str
    line: str

    def __repr__(self) -> str:
        return "NewToken(…)"


def new_token(name: str, role: Role, system: str | None = None) -> NewToken:
    """Make a token.

    Raises:
        ConfigurationError: a name that is no reference, or a worker without its system.
    """
    token = f"keshi_{role.value}_{secrets.token_urlsafe(32)}"
    try:
        line = TokenLine(name=name, role=role, system=system, sha256=_digest(token))
    except ValidationError as e:
        raise ConfigurationError(f"no such token can be made: {_problem(e)}") from None
    shown = f", system: {line.system}" if line.system else ""
    return NewToken(token, f'- {{name: "{line.name}", role: {line.role.value}{shown}, sha256: "{line.sha256}"}}')


def load_tokens(path: Path) -> Tokens:
    """Read the file of tokens.

    Raises:
        ConfigurationError: it is missing, unreadable, empty, or a line is wrong; says which and what to do.
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ConfigurationError(f"KESHI_TOKENS_FILE: {path} is too large to be a file of tokens")
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        raise ConfigurationError(f"KESHI_TOKENS_FILE: cannot read {path}: make it; {_HINT}") from None
    except yaml.YAMLError:
        raise ConfigurationError(f"KESHI_TOKENS_FILE: {path} is not YAML") from None
    if not tree:
        raise ConfigurationError(f"KESHI_TOKENS_FILE: {path} holds no token: nobody could ask anything; {_HINT}")
    try:
        lines = _FILE.validate_python(tree)
    except ValidationError as e:
        raise ConfigurationError(f"KESHI_TOKENS_FILE: {path}: {_problem(e)}; {_HINT}") from None
    if len({line.sha256 for line in lines}) != len(lines):  # two of one name are a change of tokens
        raise ConfigurationError(f"KESHI_TOKENS_FILE: {path}: one token stands there twice")
    return Tokens(lines)


def _problem(error: ValidationError) -> str:
    """The first thing that is wrong, by place; never what stands there."""
    first = error.errors(include_input=False, include_url=False, include_context=False)[0]
    place = first["loc"]
    number = f"token {place[0] + 1}" if place and isinstance(place[0], int) else ""
    if first["type"] == "extra_forbidden":
        return f"{number}: unknown field".lstrip(": ")
    field = ".".join(p for p in place if isinstance(p, str))
    return ", ".join(part for part in (number, field) if part) + f": {first['msg']}"


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
