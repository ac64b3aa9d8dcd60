"""The published form of the messages: JSON Schemas, whole examples, the AsyncAPI document. Pure: names and texts."""

import json
from typing import Any

from keshi.schemas import asyncapi
from keshi.schemas.examples import examples
from keshi.schemas.messages import MESSAGES, example_of, schema_of


def documents() -> dict[str, str]:
    """All files of `schemas/published/`: relative path → text."""
    found = {f"{kind.removeprefix('keshi.')}.json": _text(schema_of(kind)) for kind in MESSAGES}
    found |= {f"examples/{type(data).__name__}.json": example_of(data) + "\n" for data in examples()}
    return found | {asyncapi.FILE: _text(asyncapi.document())}


def _text(tree: dict[str, Any]) -> str:
    return json.dumps(tree, indent=2, ensure_ascii=False) + "\n"
