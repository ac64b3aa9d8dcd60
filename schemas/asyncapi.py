"""The AsyncAPI 3.0 document: topics, who sends and who receives, messages with schemas and examples. Pure.

It is made from the same models as the JSON Schemas, so that it cannot say anything else.
"""

import json
from collections.abc import Iterable
from typing import Any, Final

from pydantic import BaseModel

from keshi.schemas.binary import PREFIX
from keshi.schemas.commands import COMMANDS
from keshi.schemas.envelope import CONTENT_TYPE, Attributes
from keshi.schemas.examples import examples
from keshi.schemas.messages import MESSAGES, example_of, schema_of

FILE: Final = "asyncapi.json"
TOPIC_PREFIX: Final = "keshi."
KAFKA_BINDING: Final = "0.5.0"
DAY_MS: Final = 86_400_000
MAX_MESSAGE_BYTES: Final = 1_048_576
_SIGNED_BY_US: Final = "keshi.DecideTask.v1"
_BINARY: Final = "Binary"
_JSON: Final = "application/json"

_INFO: Final = {
    "title": "keshi",
    "version": "1.0.0",
    "description": (
        "keshi carries out erasure and suspension of a person's data in every system of a company, and answers with "
        "one sealed closure record.\n\n"
        "Messages are CloudEvents 1.0. On `commands` both modes of the Kafka protocol binding are taken, mixed: "
        "structured (the whole event as JSON in the value; headers may be left out) and binary (attributes in `ce_` "
        "headers, data in the value). keshi itself sends structured mode. All topics begin with a prefix, `keshi.` "
        "unless set otherwise. Besides the schemas: no text may contain NUL or a lone surrogate, integers end at "
        "2^53 - 1, e-mail addresses and phone numbers (E.164) must have their form.\n\n"
        "To send a command again is safe: under one `request_id` there is one request, one closure and one answer. "
        "Drop repeated answers by the event's `id`; a state with a higher `sequence` contains what a lower one said."
    ),
    "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
}


def document() -> dict[str, Any]:
    """The whole document."""
    return {
        "asyncapi": "3.0.0",
        "info": _INFO,
        "defaultContentType": "application/cloudevents+json",
        "servers": _servers(),
        "channels": _channels(),
        "operations": _operations(),
        "components": {
            "messages": _messages(),
            "messageTraits": _traits(),
            "schemas": _schemas(),
            "securitySchemes": _security(),
        },
    }


# --- where


def _servers() -> dict[str, Any]:
    variables = {"bootstrap": {"default": "127.0.0.1:9092", "description": "`KESHI_KAFKA_BOOTSTRAP`: host:port."}}
    offered = [{"$ref": f"#/components/securitySchemes/{name}"} for name in _security()]
    return {
        "kafka": {
            "host": "{bootstrap}",
            "protocol": "kafka",
            "description": "Without TLS.",
            "variables": variables,
        },
        "kafkaSecure": {
            "host": "{bootstrap}",
            "protocol": "kafka-secure",
            "description": "With TLS.",
            "variables": variables,
            "security": offered,
        },
    }


def _security() -> dict[str, Any]:
    return {
        "scramSha512": {"type": "scramSha512", "description": "SASL, `KESHI_KAFKA_SASL_MECHANISM`."},
        "scramSha256": {"type": "scramSha256"},
        "plain": {"type": "plain"},
        "clientCertificate": {"type": "X509", "description": "`KESHI_KAFKA_SSL_CERTFILE`."},
    }


def _channels() -> dict[str, Any]:
    return {
        "commands": _channel(
            "commands",
            "What is asked of keshi. Holds identifiers in the clear, and is deleted after a set time.",
            [*_names(COMMANDS), *_binary_names()],
            days=7,
            commands=True,
        ),
        "tasks": _channel(
            "tasks.{system}",
            "Lists of tasks for the workers of one system; identifiers are sealed.",
            ["PerformTasks"],
        )
        | {"parameters": {"system": {"description": "A system of the inventory.", "examples": ["billing", "crm"]}}},
        "reports": _channel("reports", "What workers did.", ["TasksReported"]),
        "requests": _channel(
            "requests",
            "What became of requests. Keyed by request id; each message carries the request's whole state.",
            ["RequestAccepted", "RequestRejected", "RequestClosed", "RequestOverdue"],
        ),
        "quarantine": _channel("quarantine", "What could not be read, and why; never what it was.", ["Quarantined"]),
    }


def _channel(topic: str, about: str, names: Iterable[str], *, days: int = 30, commands: bool = False) -> dict[str, Any]:
    configuration = {
        "cleanup.policy": ["delete"],
        "retention.ms": days * DAY_MS,
        "max.message.bytes": MAX_MESSAGE_BYTES,
    }
    kept = "`KESHI_COMMANDS_RETENTION_DAYS`" if commands else "30 days"
    return {
        "address": f"{TOPIC_PREFIX}{topic}",
        "description": f"{about} Kept for {kept}.",
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in names},
        "bindings": {"kafka": {"topicConfiguration": configuration, "bindingVersion": KAFKA_BINDING}},
    }


def _operations() -> dict[str, Any]:
    return {
        "receiveCommands": _operation("receive", "commands", "keshi takes a command, or says why not.", "requests"),
        "sendTasks": _operation("send", "tasks", "keshi asks the workers of a system.", "reports"),
        "receiveReports": _operation("receive", "reports", "keshi hears what workers did."),
        "sendAnswers": _operation("send", "requests", "keshi tells the DSAR system what became of a request."),
        "sendQuarantined": _operation("send", "quarantine", "keshi tells operators what it could not read."),
    }


def _operation(action: str, channel: str, summary: str, reply: str | None = None) -> dict[str, Any]:
    """An operation as keshi sees it: what it receives, others send."""
    told: dict[str, Any] = {"action": action, "channel": {"$ref": f"#/channels/{channel}"}, "summary": summary}
    if action == "receive":
        group = {"type": "string", "const": f"{TOPIC_PREFIX}orchestrator"}
        told["bindings"] = {"kafka": {"groupId": group, "bindingVersion": KAFKA_BINDING}}
    if reply:
        told["reply"] = {"channel": {"$ref": f"#/channels/{reply}"}}
    return told


# --- what


def _names(kinds: Iterable[str]) -> list[str]:
    return [kind.split(".")[1] for kind in kinds]


def _binary_names() -> list[str]:
    """A decision is signed and sent by keshi's own API, in structured mode."""
    return [f"{name}{_BINARY}" for name in _names(k for k in COMMANDS if k != _SIGNED_BY_US)]


def _messages() -> dict[str, Any]:
    given = {type(e).__name__: e for e in examples()}
    found = {name: _structured(kind, given[name]) for kind, name in zip(MESSAGES, _names(MESSAGES), strict=True)}
    return found | {
        f"{name}{_BINARY}": _binary(name, given[name])
        for name in _names(COMMANDS)
        if f"{name}{_BINARY}" in _binary_names()
    }


def _structured(kind: str, example: BaseModel) -> dict[str, Any]:
    name = kind.split(".")[1]
    return _message(name, kind, MESSAGES[kind]) | {
        "contentType": "application/cloudevents+json",
        "payload": {"$ref": f"#/components/schemas/{name}Event"},
        "traits": [{"$ref": "#/components/messageTraits/structured"}],
        "examples": [{"name": name, "payload": json.loads(example_of(example))}],
    }


def _binary(name: str, example: BaseModel) -> dict[str, Any]:
    event = json.loads(example_of(example))
    data = event.pop("data")
    headers = {("content-type" if n == "datacontenttype" else f"{PREFIX}{n}"): v for n, v in event.items()}
    kind = f"keshi.{name}.v1"
    return _message(name, kind, MESSAGES[kind]) | {
        "title": f"{name} (binary mode)",
        "contentType": _JSON,
        "headers": {"$ref": f"#/components/schemas/{name}Headers"},
        "payload": {"$ref": f"#/components/schemas/{name}"},
        "examples": [{"name": name, "headers": headers, "payload": data}],
    }


def _message(name: str, kind: str, model: type[BaseModel]) -> dict[str, Any]:
    told: dict[str, Any] = {"name": kind, "title": name, "summary": (model.__doc__ or name).strip().partition("\n")[0]}
    key = _key(name)
    return told | ({"bindings": {"kafka": {"key": key, "bindingVersion": KAFKA_BINDING}}} if key else {})


def _key(name: str) -> dict[str, Any] | None:
    """The Kafka key. Tasks and reports have none: they are sent to the partition of their requests."""
    if f"keshi.{name}.v1" in COMMANDS:
        about = "Any, or none. With the request id, commands of one request keep their order. It is never copied on."
        return {"type": "string", "description": about}
    return {"type": "string", "description": "The request id."} if name.startswith("Request") else None


def _traits() -> dict[str, Any]:
    about = "Needed nowhere: a message without headers is read as structured."
    content_type = {"type": "string", "const": CONTENT_TYPE, "description": about}
    return {"structured": {"headers": {"type": "object", "properties": {"content-type": content_type}}}}


# --- schemas


def _schemas() -> dict[str, Any]:
    """Every schema once; whole events as `…Event`, the headers of binary mode as `…Headers`."""
    found: dict[str, Any] = {}
    for kind, name in zip(MESSAGES, _names(MESSAGES), strict=True):
        event = schema_of(kind)
        parts = event.pop("$defs", {})
        event = {k: v for k, v in event.items() if k not in {"$schema", "$id"}}
        for part, schema in (*parts.items(), (f"{name}Event", event)):
            asyncapi = _without_json_schema_words(schema)
            assert found.setdefault(part, asyncapi) == asyncapi, part  # one name, one schema
    for binary in _binary_names():
        name = binary.removesuffix(_BINARY)
        found[f"{name}Headers"] = _headers(f"keshi.{name}.v1")
    return dict(sorted(found.items()))


def _without_json_schema_words(node: Any) -> Any:
    """A schema as AsyncAPI writes it: references into this document; a discriminator is another thing there."""
    if isinstance(node, list):
        return [_without_json_schema_words(n) for n in node]
    if not isinstance(node, dict):
        return node.replace("#/$defs/", "#/components/schemas/") if isinstance(node, str) else node
    return {k: _without_json_schema_words(v) for k, v in node.items() if not _is_discriminator(k, v)}


def _is_discriminator(word: str, value: Any) -> bool:
    return word == "discriminator" and isinstance(value, dict) and "propertyName" in value


def _headers(kind: str) -> dict[str, Any]:
    """The attributes as headers. Other headers are left alone; another `ce_` one is refused."""
    attributes = Attributes.model_json_schema()["properties"]
    del attributes["datacontenttype"]
    attributes["type"] = {"type": "string", "const": kind}
    properties = {f"{PREFIX}{name}": schema for name, schema in attributes.items()}
    about = "Also with `charset=utf-8`. May be left out."
    return {
        "type": "object",
        "description": "CloudEvents attributes, each value a text in UTF-8, each header once.",
        "required": [f"{PREFIX}{name}" for name in ("specversion", "id", "source", "type")],
        "properties": {"content-type": {"type": "string", "default": _JSON, "description": about}} | properties,
        "patternProperties": {f"^(?!{PREFIX})": {}},
        "additionalProperties": False,
    }
