"""What finds a person in a system, and its one normal form."""

import re
from typing import Annotated, Self

import phonenumbers
from pydantic import StringConstraints, model_validator

from keshi.schemas.base import Model

KNOWN_TYPES = ("email", "phone", "customer_id", "contract_id", "cookie_id", "device_id")
"""The types with a meaning of ours. A company adds its own as `x-…`."""

IdentifierType = Annotated[
    str, StringConstraints(pattern=rf"^(?:{'|'.join(KNOWN_TYPES)}|x-[a-z0-9][a-z0-9-]{{0,30}})$")
]

_EMAIL = re.compile(r"^[^\s@\"(),:;<>\[\]\\]{1,64}@(?:[^\s@.]{1,63}\.)+[^\s@.]{2,63}$")
_E164 = re.compile(r"^\+[1-9][0-9]{6,14}$")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_OPAQUE = re.compile(r"^\S(?:.{0,198}\S)?$")


class Identifier(Model):
    """One identifier of the subject. Its representation never shows the value."""

    type: IdentifierType
    value: Annotated[str, StringConstraints(min_length=1, max_length=320)]

    @model_validator(mode="after")
    def _well_formed(self) -> Self:
        problem = malformed(self.type, self.value)
        if problem:
            raise ValueError(problem)
        return self

    def normal(self) -> "Identifier":
        """The form that is sealed, hashed and searched for: e-mail addresses in lower case."""
        if self.type == "email" and self.value != self.value.lower():
            return Identifier(type=self.type, value=self.value.lower())
        return self

    def __repr__(self) -> str:
        return f"Identifier(type={self.type!r}, value=…)"

    __str__ = __repr__


def malformed(kind: str, value: str) -> str | None:
    """Why `value` is no identifier of this type, without repeating it; None where it is one."""
    if _CONTROL.search(value):
        return "must not contain control characters"
    if kind == "email" and not _EMAIL.match(value):
        return "is not an e-mail address"
    if kind == "phone" and not (_E164.match(value) and phonenumbers.is_possible_number(phonenumbers.parse(value))):
        return "is not a phone number in E.164 form (+, country code, digits)"
    if not _OPAQUE.match(value):
        return "must not begin or end with a space"
    return None
