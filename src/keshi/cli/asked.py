"""From the options of `keshi submit` to a command, judged by the same code as in keshi's intake."""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, TypeVar

from ulid import ULID

from keshi.cli.errors import REJECTED, Failure
from keshi.runtime.settings import ConfigurationError
from keshi.schemas.admissible import NotAdmissible, check
from keshi.schemas.commands import ACTIONS, COMMANDS, Action, Regime, SubjectCommand
from keshi.schemas.envelope import MAX_COMMAND_BYTES
from keshi.schemas.grounds import grounds
from keshi.schemas.reading import Unreadable, read

SOURCE: Final = "urn:keshi:cli"
MAX_FILE_BYTES: Final = MAX_COMMAND_BYTES
_USUAL_GROUND: Final = "appi.35-5"
_OPTIONS: Final[Mapping[str, str]] = {
    "data.request_id": "--request-id",
    "data.identifiers": "--email, --customer-id, …",
    "data.scope.categories": "--category",
    "data.scope.purposes": "--purpose",
    "data.scope.items": "--item",
    "data.ground": "--ground",
    "data.requested_by": "--requested-by",
    "data.requested_by.identity_evidence": "--identity-evidence",
    "data.requested_by.mandate_evidence": "--mandate-evidence",
    "data.assessed.by": "--assessed-by",
    "data.assessed.at": "--assessed-at",
    "data.arrived.at": "--arrived-at",
    "data.arrived.channel": "--channel",
    "data.due": "--due",
    "data.notice_language": "--language",
}

C = TypeVar("C", bound=SubjectCommand)


class Who(StrEnum):
    """Who asked."""

    PERSON = "person"
    LEGAL_REPRESENTATIVE = "legal_representative"
    AGENT = "agent"
    RETENTION_SWEEP = "retention_sweep"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What stood on the command line, unjudged. Its representation shows no identifier."""

    identifiers: list[Any] = field(repr=False)
    scope: Mapping[str, list[str] | None]
    regime: Regime | None
    ground: str | None
    requested_by: Who
    identity_evidence: list[str] | None
    mandate_evidence: list[str] | None
    assessed_by: str | None
    assessed_at: str | None
    arrived_at: str | None
    channel: str | None
    due: str | None
    language: str | None
    request_id: str | None


def identifiers_of(by_type: Mapping[str, list[str] | None], others: list[str] | None, file: str | None) -> list[Any]:
    """All identifiers that were given, in whichever way.

    Raises:
        ConfigurationError: one has no type, or the file is no JSON list. Repeats no value.
    """
    found: list[Any] = [{"type": t, "value": v} for t, values in by_type.items() for v in values or ()]
    for other in others or ():
        kind, equals, value = other.partition("=")
        if not equals:
            raise ConfigurationError("--identifier is written TYPE=VALUE")
        found.append({"type": kind, "value": value})
    if file is not None:
        found += _from_file(file)
    if not found:
        raise ConfigurationError("say whose data: --email, --customer-id, …, or --identifiers-file")
    return found


def _from_file(file: str) -> list[Any]:
    name = "standard input" if file == "-" else file
    try:
        if file == "-":
            raw = sys.stdin.buffer.read(MAX_FILE_BYTES + 1)
        else:
            with Path(file).open("rb") as opened:
                raw = opened.read(MAX_FILE_BYTES + 1)
    except OSError:
        raise ConfigurationError(f"--identifiers-file: cannot read {name}") from None
    if len(raw) > MAX_FILE_BYTES:
        raise ConfigurationError(f"--identifiers-file: {name} has more than {MAX_FILE_BYTES} bytes")
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list):
        raise ConfigurationError(f'--identifiers-file: {name} is no JSON list of {{"type": …, "value": …}}')
    return found


def read_command(model: type[C], asked: Asked) -> C:
    """The command, read as keshi will read it.

    Raises:
        Failure: it would be rejected; with the code, the field and the option that is to blame.
        ConfigurationError: something is missing that cannot be guessed.
    """
    kind = f"keshi.{model.__name__}.v1"
    event = {"specversion": "1.0", "id": "1", "source": SOURCE, "type": kind, "data": _data(ACTIONS[model], asked)}
    try:
        _, command = read(json.dumps(event).encode(), COMMANDS, limit=MAX_COMMAND_BYTES)
        assert isinstance(command, model)
        check(command)
    except Unreadable as e:
        raise _refused(str(e.reason), e.field, e.detail) from None
    except NotAdmissible as e:
        raise _refused(e.code.value, e.field, e.detail) from None
    return command


def _refused(code: str, at: str | None, detail: str) -> Failure:
    parts = (at or "").split(".")
    names = [".".join(parts[:n]) for n in range(len(parts), 0, -1)]
    option = next((_OPTIONS[n] for n in names if n in _OPTIONS), None)
    place = f" at {at}" if at else ""
    return Failure(f"{code}{place}{f' ({option})' if option else ''}: {detail.removeprefix('Value error, ')}", REJECTED)


def _data(action: Action, asked: Asked) -> dict[str, Any]:
    now = datetime.now(UTC).isoformat()
    if not asked.assessed_by:
        raise ConfigurationError(
            "--assessed-by is needed (or KESHI_ASSESSED_BY): who judged that this is to be carried out, "
            "a reference such as staff:kato"
        )
    regime, ground = _rests_on(action, asked)
    return _without_none(
        {
            "request_id": asked.request_id or str(ULID()),
            "identifiers": asked.identifiers,
            "scope": _without_none({name: values or None for name, values in asked.scope.items()}),
            "regime": regime,
            "ground": ground,
            "requested_by": _without_none(
                {
                    "kind": asked.requested_by.value,
                    "identity_evidence": asked.identity_evidence or None,
                    "mandate_evidence": asked.mandate_evidence or None,
                }
            ),
            "assessed": {"by": asked.assessed_by, "at": asked.assessed_at or now},
            "arrived": {"at": asked.arrived_at or now, "channel": asked.channel or "channel:cli"},
            "due": asked.due,
            "notice_language": asked.language,
        }
    )


def _without_none(data: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in data.items() if v is not None}


def _rests_on(action: Action, asked: Asked) -> tuple[str, str]:
    """Regime and ground: each says the other where it can.

    Raises:
        ConfigurationError: several grounds would do.
    """
    known = grounds()
    if asked.ground:
        found = known.get(asked.ground)
        return (asked.regime or (found.regime if found else Regime.APPI)).value, asked.ground
    regime = asked.regime or Regime.APPI
    fitting = sorted(g.id for g in known.values() if g.regime is regime and action in g.actions)
    if _USUAL_GROUND in fitting:
        return regime.value, _USUAL_GROUND
    if len(fitting) == 1:
        return regime.value, fitting[0]
    choice = f"one of {', '.join(fitting)}" if fitting else "another --regime: this one gives no such right"
    raise ConfigurationError(f"--ground is needed: {choice}")
