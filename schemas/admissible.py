"""What a command must say beyond its form, so far as nobody's inventory or keys are needed to judge it."""

from collections.abc import Iterable

from keshi.schemas.commands import ACTIONS, SubjectCommand
from keshi.schemas.grounds import Ground, grounds
from keshi.schemas.identifiers import Identifier
from keshi.schemas.requests import RejectionCode

_SHORTEST_MARK = 4
"""A shorter value would be found in any reference by chance."""


class NotAdmissible(Exception):  # noqa: N818 - it is an answer to the sender
    """The command is refused: `code`, the `field` that is to blame, and words that repeat nothing of it."""

    def __init__(self, code: RejectionCode, field: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.field = field
        self.detail = detail


def ground_of(command: SubjectCommand) -> Ground:
    """The ground that a command names.

    Raises:
        NotAdmissible: there is none in its regime, or it does not give the action.
    """
    ground = grounds().get(command.ground)
    if ground is None or ground.regime != command.regime:
        raise NotAdmissible(RejectionCode.GROUND_UNKNOWN, "data.ground", "no rule file has this ground in this regime")
    if ACTIONS[type(command)] not in ground.actions:
        raise NotAdmissible(RejectionCode.GROUND_NOT_FOR_ACTION, "data.ground", "this ground does not give this action")
    return ground


def normal_identifiers(command: SubjectCommand) -> tuple[Identifier, ...]:
    """Its identifiers in their normal form, each once."""
    return tuple(dict.fromkeys(i.normal() for i in command.identifiers))


def check_references(command: SubjectCommand, identifiers: Iterable[Identifier]) -> None:
    """References are kept in the clear for years: an identifier must not ride in one.

    Raises:
        NotAdmissible: one does.
    """
    asked = command.requested_by
    references = {
        "data.assessed.by": command.assessed.by,
        "data.arrived.channel": command.arrived.channel,
        **{f"data.requested_by.identity_evidence.{n}": r for n, r in enumerate(asked.identity_evidence)},
        **{f"data.requested_by.mandate_evidence.{n}": r for n, r in enumerate(asked.mandate_evidence)},
    }
    folded = {field: reference.casefold() for field, reference in references.items()}
    for identifier in identifiers:
        marks = {identifier.value.casefold(), identifier.value.lstrip("+")}
        if identifier.type == "email":
            marks.add(identifier.value.casefold().replace("@", "."))
        long = [mark for mark in marks if len(mark) >= _SHORTEST_MARK]
        for field, reference in folded.items():
            if any(map(reference.__contains__, long)):
                raise NotAdmissible(
                    RejectionCode.IDENTIFIER_IN_REFERENCE,
                    field,
                    "a reference must not contain an identifier of the person",
                )


def check(command: SubjectCommand) -> None:
    """All that a sender can find out alone.

    Raises:
        NotAdmissible: with the first reason found.
    """
    ground_of(command)
    check_references(command, normal_identifiers(command))
