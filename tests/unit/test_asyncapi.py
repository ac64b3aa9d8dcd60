"""The AsyncAPI document is one by the official schema, and says of topics and messages what is so."""

import hashlib
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft7Validator, Draft202012Validator
from referencing import Registry
from referencing.jsonschema import DRAFT7

from keshi.runtime.settings import KafkaSettings
from keshi.runtime.topics import TopicOptions, wanted
from keshi.schemas.commands import COMMANDS
from keshi.schemas.messages import MESSAGES
from keshi.schemas.reading import read
from keshi.schemas.requests import EVENTS
from keshi.schemas.tasks import MAX_LIST_BYTES

ROOT = Path(__file__).resolve().parents[2]
PUBLISHED = ROOT / "schemas" / "published"
SPECIFICATION = ROOT / "tests" / "specifications" / "asyncapi-3.0.0.json"
UNCHANGED = "d4571a420e6ffb7fcc7066c95a6db1202f299a3c51daa103d0706bf30f95e626"


@cache
def document() -> Any:
    return json.loads((PUBLISHED / "asyncapi.json").read_text(encoding="utf-8"))


@cache
def specification() -> Draft7Validator:
    """Refers to nothing outside of itself: an empty registry fetches nothing."""
    return Draft7Validator(json.loads(SPECIFICATION.read_bytes()), registry=Registry())


MESSAGE_NAMES = sorted(document()["components"]["messages"])


def at(pointer: str) -> Any:
    node = document()
    for step in pointer.removeprefix("#/").split("/"):
        node = node[step]
    return node


@cache
def validator(pointer: str) -> Draft7Validator:
    """Of a schema inside the document."""
    registry = Registry().with_resource("urn:asyncapi", DRAFT7.create_resource(document()))
    return Draft7Validator({"$ref": f"urn:asyncapi{pointer}"}, registry=registry)


def test_it_is_valid_by_the_official_schema() -> None:
    """Of AsyncAPI 3.0.0, as the AsyncAPI Initiative publishes it."""
    assert hashlib.sha256(SPECIFICATION.read_bytes()).hexdigest() == UNCHANGED
    assert [(list(e.path), e.message[:200]) for e in specification().iter_errors(document())] == []


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("asyncapi",), "2.6.0"),
        (("info", "version"), 1),
        (("channels", "commands", "adress"), "keshi.commands"),
        (("channels", "commands", "bindings", "kafka", "topicConfiguration"), {"cleanup.policy": "delete"}),
        (("operations", "sendTasks", "action"), "publish"),
        (("components", "messages", "EraseSubject", "bindings", "kafka", "keys"), {}),
        (("components", "schemas", "Scope", "type"), "dictionary"),
        (("servers", "kafka", "host"), None),
    ],
)
def test_the_official_schema_would_find_a_fault(place: tuple[str, ...], value: Any) -> None:
    """Else the test above would say nothing."""
    broken = json.loads(json.dumps(document()))
    node = broken
    for step in place[:-1]:
        node = node[step]
    node[place[-1]] = value
    assert not specification().is_valid(broken)


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "$ref":
                yield value
            else:
                yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def test_every_reference_leads_into_the_document() -> None:
    found = set(references(document()))
    assert found
    for reference in found:
        assert reference.startswith("#/")
        at(reference)


def test_the_topics_are_those_that_are_made() -> None:
    """All of them, with the retention and the limits that `keshi topics apply` gives them unless asked otherwise."""
    specs = {s.name: s for s in wanted(KafkaSettings(), ["{system}"], TopicOptions())}
    channels = {c["address"]: c for c in document()["channels"].values()}
    assert channels.keys() == specs.keys()
    for address, channel in channels.items():
        told = channel["bindings"]["kafka"]["topicConfiguration"]
        as_config = {n: ",".join(v) if isinstance(v, list) else str(v) for n, v in told.items()}
        assert as_config.items() <= specs[address].configs.items()
        assert {"retention.ms", "cleanup.policy", "max.message.bytes"} == set(as_config)


def test_every_message_is_on_its_topic() -> None:
    """Commands in both modes, but for the one that keshi's API alone sends; answers as keshi sends them."""
    on = {name: set(c["messages"]) for name, c in document()["channels"].items()}
    commands = {k.split(".")[1] for k in COMMANDS}
    assert on["commands"] == commands | {f"{c}Binary" for c in commands - {"DecideTask"}}
    assert on["requests"] | on["quarantine"] == {k.split(".")[1] for k in EVENTS}
    assert (on["tasks"], on["reports"]) == ({"PerformTasks"}, {"TasksReported"})
    assert set().union(*on.values()) == set(MESSAGE_NAMES)
    types = {m["name"] for m in document()["components"]["messages"].values()}
    assert types == set(MESSAGES)


def test_who_sends_and_who_receives() -> None:
    """As keshi sees it."""
    operations = document()["operations"].values()
    ways = {(o["action"], o["channel"]["$ref"].rpartition("/")[2]) for o in operations}
    assert ways == {
        ("receive", "commands"),
        ("send", "tasks"),
        ("receive", "reports"),
        ("send", "requests"),
        ("send", "quarantine"),
    }


@pytest.mark.parametrize("name", MESSAGE_NAMES)
def test_an_example_is_valid_by_its_schema_and_is_read(name: str) -> None:
    """Payload and headers, in the mode that it is in."""
    message = at(f"#/components/messages/{name}")
    (example,) = message["examples"]
    assert list(validator(message["payload"]["$ref"]).iter_errors(example["payload"])) == []
    headers: list[tuple[str, bytes | None]] = [(n, v.encode()) for n, v in example.get("headers", {}).items()]
    if name.endswith("Binary"):
        assert list(validator(message["headers"]["$ref"]).iter_errors(example["headers"])) == []
    raw = json.dumps(example["payload"]).encode()
    envelope, _ = read(raw, MESSAGES, limit=MAX_LIST_BYTES, headers=headers)
    assert envelope.type == message["name"]


@pytest.mark.parametrize("name", sorted(k.split(".")[1] for k in MESSAGES))
@settings(deadline=None, max_examples=15)
@given(data=st.data())
def test_its_schemas_say_the_same_as_the_published_ones(name: str, data: st.DataObject) -> None:
    """Over the example with something wrong in it: what one refuses, the other does."""
    published = json.loads((PUBLISHED / f"{name}.v1.json").read_text(encoding="utf-8"))
    tree = at(f"#/components/messages/{name}")["examples"][0]["payload"]
    tree = json.loads(json.dumps(tree))
    place = data.draw(st.sampled_from(list(places(tree))))
    node = tree
    for step in place[:-1]:
        node = node[step]
    if data.draw(st.booleans()) and isinstance(node, dict):
        del node[place[-1]]
    else:
        node[place[-1]] = data.draw(st.sampled_from([None, 1, -1, "", "x", [], {}, {"x": 1}, True]))
    ours = validator(f"#/components/schemas/{name}Event").is_valid(tree)
    assert ours == Draft202012Validator(published).is_valid(tree)


def places(node: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if place:
        yield place
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, inner in items:
        yield from places(inner, (*place, key))


@pytest.mark.parametrize(
    ("changed", "good"),
    [
        ({"traceparent": "anything of others"}, True),
        ({"content-type": "application/json; charset=utf-8"}, True),
        ({"ce_time": "2026-04-01T00:00:00Z"}, True),
        ({"ce_unknown": "1"}, False),
        ({"ce_specversion": "0.3"}, False),
        ({"ce_id": ""}, False),
        ({"ce_type": "keshi.SuspendUse.v1"}, False),
    ],
)
def test_the_headers_of_binary_mode_are_described(changed: dict[str, str], *, good: bool) -> None:
    message = at("#/components/messages/EraseSubjectBinary")
    headers = message["examples"][0]["headers"] | changed
    assert validator(message["headers"]["$ref"]).is_valid(headers) is good


def test_nothing_of_the_schemas_is_lost_in_it() -> None:
    """AsyncAPI knows another discriminator, a plain name: ours would be read as nonsense. Each part has one content."""
    words = json.dumps(document()["components"]["schemas"])
    assert "#/$defs/" not in words
    assert '"discriminator"' not in words
    assert document()["components"]["schemas"].keys() >= {k.split(".")[1] for k in MESSAGES}
