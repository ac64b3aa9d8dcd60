"""Messages that version 1 has sent stay readable for ever, and lose nothing in the reading.

`tests/recorded/v1` holds what a whole run put on its topics (sample people, keys long gone), some published
examples, and messages at the edges of what the schema allows. Files are added there, never changed.
"""

import hashlib
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import rfc8785

from keshi.schemas.messages import MESSAGES
from keshi.schemas.reading import read
from keshi.schemas.requests import RequestClosed

RECORDED = Path(__file__).resolve().parents[1] / "recorded" / "v1"
FILES = sorted(RECORDED.glob("*.json"))
LIMIT = 1_048_576


def reading(file: Path) -> tuple[Any, Any]:
    return read(file.read_bytes(), MESSAGES, limit=LIMIT)


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_a_recorded_message_is_readable_and_whole(file: Path) -> None:
    """Every value that was sent is in what was read."""
    envelope, _ = reading(file)
    sent = json.loads(file.read_bytes())
    assert envelope.type == sent["type"]
    missing = list(_lost(sent, json.loads(envelope.model_dump_json())))
    assert not missing


def test_recorded_closures_keep_their_hash() -> None:
    """A record that was sealed once verifies for ever: over its JSON, with nothing of keshi's code."""
    found = [json.loads(f.read_bytes())["data"] for f in FILES if isinstance(reading(f)[1], RequestClosed)]
    assert len(found) >= 7
    for data in found:
        named = data["closure"].pop("hash")
        assert named == data["state"]["closure_hash"] == hashlib.sha256(rfc8785.dumps(data["closure"])).hexdigest()


def test_every_type_of_message_is_recorded() -> None:
    assert {reading(f)[0].type for f in FILES} == set(MESSAGES)


def test_no_recorded_message_was_changed() -> None:
    """`sha256sum *.json > SHA256SUMS` after adding one."""
    listed = dict(line.split("  ")[::-1] for line in (RECORDED / "SHA256SUMS").read_text().splitlines())
    assert listed == {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in FILES}


def _lost(sent: Any, got: Any, place: str = "") -> Any:
    if isinstance(sent, dict):
        for name, value in sent.items():
            yield from _lost(value, got.get(name) if isinstance(got, dict) else None, f"{place}.{name}")
    elif isinstance(sent, list):
        if not isinstance(got, list) or len(got) != len(sent):
            yield place
            return
        for n, value in enumerate(sent):
            yield from _lost(value, got[n], f"{place}.{n}")
    elif sent != got and not _same(sent, got):
        yield place


def _same(sent: Any, got: Any) -> bool:
    """A request id in the other case, or a moment written otherwise."""
    if not (isinstance(sent, str) and isinstance(got, str)):
        return False
    if sent.lower() == got.lower():
        return True
    try:
        return datetime.fromisoformat(sent) == datetime.fromisoformat(got)
    except ValueError:
        return False
