"""All messages that travel on Kafka: their types, the JSON Schema of each, and how an example goes over the wire."""

from typing import Any, Final

from pydantic import BaseModel

from keshi.schemas.commands import COMMANDS
from keshi.schemas.envelope import Envelope, wrap
from keshi.schemas.examples import ACCEPTED, ERASE
from keshi.schemas.reports import TasksReported
from keshi.schemas.requests import EVENTS
from keshi.schemas.tasks import PerformTasks

MESSAGES: Final[dict[str, type[BaseModel]]] = {
    **COMMANDS,
    "keshi.PerformTasks.v1": PerformTasks,
    "keshi.TasksReported.v1": TasksReported,
    **EVENTS,
}
"""Every type that travels on Kafka, CloudEvents type → model."""

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_NOTE: Final = (
    "One CloudEvent 1.0 in structured mode. Besides this schema: no text may contain NUL or a lone surrogate, "
    "integers end at 2^53 - 1, e-mail addresses and phone numbers (E.164) must have their form."
)


def schema_of(kind: str) -> dict[str, Any]:
    """The JSON Schema of a whole message.

    Args:
        kind: Its CloudEvents type, such as `keshi.EraseSubject.v1`.
    """
    model = MESSAGES[kind]
    schema = Envelope[model].model_json_schema()  # type: ignore[valid-type] # chosen at run time from a table
    schema["properties"]["type"] = {"const": kind, "title": "Type", "type": "string"}
    schema["required"] = ["specversion", *schema["required"]]
    _need_discriminators(schema, schema.get("$defs", {}))
    head = {
        "$schema": _DIALECT,
        "$id": f"urn:keshi:schema:{_name(kind)}",
        "title": _name(kind),
        "description": f"{(model.__doc__ or model.__name__).strip()}\n\n{_NOTE}",
    }
    return head | {k: v for k, v in schema.items() if k not in head}


def _need_discriminators(node: Any, parts: dict[str, Any]) -> None:
    """A discriminator with a default is optional to pydantic; in a message it is not."""
    if isinstance(node, dict):
        told = node.get("discriminator")
        if isinstance(told, dict) and "mapping" in told:
            for ref in told["mapping"].values():
                part = parts[ref.rpartition("/")[2]]
                part["required"] = sorted({told["propertyName"], *part.get("required", ())})
        node = list(node.values())
    if isinstance(node, list):
        for inner in node:
            _need_discriminators(inner, parts)


def example_of(data: BaseModel) -> str:
    """A message as it goes over the wire, in one line."""
    kind = type(data).__name__
    source = "urn:keshi:handler" if isinstance(data, TasksReported) else "urn:keshi:orchestrator"
    if f"keshi.{kind}.v1" in COMMANDS:
        source = "urn:example:dsar"
    name = f"{getattr(data, 'request_id', ERASE)}/{kind}"
    return wrap(data, kind=kind, id=name, source=source, time=ACCEPTED).decode()


def _name(kind: str) -> str:
    return kind.removeprefix("keshi.")
