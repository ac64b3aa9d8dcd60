"""From a model to JSON, by the short way: orjson over its members, as pydantic and RFC 8785 write them.

For models whose fields say all: no float, no serialiser of their own. A test holds the bytes against theirs.
"""

from collections.abc import Collection
from operator import attrgetter
from typing import Any, Final

import orjson
from pydantic import BaseModel

from keshi.schemas.base import canonical

_ALL: Final = attrgetter("__dict__")
_CANONICAL: Final = orjson.OPT_SORT_KEYS | orjson.OPT_UTC_Z | orjson.OPT_STRICT_INTEGER


def _present(model: BaseModel) -> dict[str, Any]:
    return {name: value for name, value in model.__dict__.items() if value is not None}


def whole(data: Any) -> bytes:
    """A model, or plain data with models in them, with all members: so the ledger keeps them."""
    return orjson.dumps(data, default=_ALL, option=orjson.OPT_UTC_Z)


def sent(model: BaseModel) -> bytes:
    """A model without the members that it does not have: so it travels."""
    return orjson.dumps(model, default=_present, option=orjson.OPT_UTC_Z)


def canonical_text(model: BaseModel, *, without: Collection[str] = ()) -> bytes:
    """Canonical JSON (RFC 8785) of a model as it is sent, without some of its members."""
    return _canonical({n: v for n, v in model.__dict__.items() if v is not None and n not in without})


def canonical_whole(model: BaseModel) -> bytes:
    """Canonical JSON of a model with all members, also those that it does not have."""
    text = orjson.dumps(model, default=_ALL, option=_CANONICAL)
    return text if text.isascii() else canonical(orjson.loads(text))


def canonical_members(model: BaseModel, *, without: Collection[str] = ()) -> dict[str, bytes]:
    """The same by member."""
    return {n: _canonical(v) for n, v in model.__dict__.items() if v is not None and n not in without}


def _canonical(data: Any) -> bytes:
    text = orjson.dumps(data, default=_present, option=_CANONICAL)
    # Only names of members in ASCII are in the order of RFC 8785.
    return text if text.isascii() else canonical(orjson.loads(text))
