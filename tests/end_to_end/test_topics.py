"""`keshi topics apply` on a real broker: what a dry run shows is what the real one does, or why it cannot."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from keshi.cli import run
from keshi.dev.programs import INVENTORY
from keshi.runtime.kafka import new_admin
from keshi.runtime.settings import ConfigurationError, KafkaSettings
from keshi.runtime.topics import TopicOptions, difference, identity, wanted

Answer = tuple[int, list[list[str]], str]


@pytest.fixture
def kafka(kafka_bootstrap: str, topic_prefix: str) -> KafkaSettings:
    return KafkaSettings(bootstrap=kafka_bootstrap, prefix=topic_prefix)


@pytest.fixture
def apply(
    kafka: KafkaSettings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Answer]:
    monkeypatch.setenv("KESHI_KAFKA_BOOTSTRAP", kafka.bootstrap)
    monkeypatch.setenv("KESHI_KAFKA_PREFIX", kafka.prefix)

    def call(*arguments: str, inventory: Path = INVENTORY) -> Answer:
        code = run(["topics", "apply", "--inventory", str(inventory), *arguments])
        said = capsys.readouterr()
        return code, [line.split("\t") for line in said.out.splitlines()[1:]], said.err

    return call


def test_a_dry_run_says_what_the_real_one_then_does(apply: Any, kafka: KafkaSettings, tmp_path: Path) -> None:
    """Made, changed, and in the end as wanted; a dry run leaves everything as it was."""
    small = ("--partitions", "2", "--commands-partitions", "1", "--commands-retention", "12h")
    code, shown, _ = apply(*small, "--dry-run")
    assert code == 0
    assert [f"{kafka.prefix}commands", "create", "", "1 partitions, kept 0.5 days"] in shown
    assert apply(*small, "--dry-run")[1] == shown
    assert apply(*small)[1] == shown
    code, rows, err = apply(*small, "--dry-run")
    assert (code, rows, err) == (0, [], "All topics are as they should be.\n")

    longer = [*small[:-1], "2d"]
    change = [[f"{kafka.prefix}commands", "set retention.ms", "43200000", "172800000"]]
    assert apply(*longer, "--dry-run")[1] == apply(*longer, "--dry-run")[1] == apply(*longer)[1] == change
    assert apply(*longer)[1] == []

    other = tmp_path / "inventory.yaml"
    other.write_text(INVENTORY.read_text(encoding="utf-8").replace("crm", "crm2"), encoding="utf-8")
    code, rows, err = apply(*longer, "--dry-run", inventory=other)
    assert [row[:2] for row in rows] == [[f"{kafka.prefix}tasks.crm2", "create"]]
    assert f"topic {kafka.prefix}tasks.crm: its system is not in the inventory; it stays, with its data" in err


def test_what_cannot_be_is_shown_with_all_the_rest(apply: Any, kafka: KafkaSettings) -> None:
    """Partitions of a topic stay for life, copies are not ours to move, and the broker has its own word."""
    assert apply("--partitions", "2", "--commands-partitions", "2")[0] == 0
    before = identity(kafka, "requests")
    asked = ("--partitions", "3", "--commands-partitions", "2", "--replication", "2", "--commands-retention", "1d")
    code, rows, err = apply(*asked, "--dry-run")
    assert code == 2
    what = {(row[0].removeprefix(kafka.prefix), row[1]): row[2:] for row in rows}
    assert what["requests", "cannot change partitions"] == ["2", "3"]
    assert what["requests", "replication (stays)"] == ["1", "2"]
    assert what["commands", "set retention.ms"] == ["604800000", "86400000"]
    assert ("commands", "cannot change partitions") not in what
    assert "requests belong to their partition for life" in err
    assert "kafka-reassign-partitions" in err
    assert apply(*asked)[0] == 2
    now = difference(kafka, wanted(kafka, [], TopicOptions(partitions=2, commands_partitions=2)))
    assert not now.change  # nothing was done by halves
    assert identity(kafka, "requests") == before


def test_what_the_broker_would_refuse_is_found_before(apply: Any, kafka: KafkaSettings) -> None:
    """Three copies on one broker. Afterwards there is still nothing."""
    for arguments in (("--replication", "3", "--dry-run"), ("--replication", "3")):
        code, _, err = apply(*arguments)
        assert code == 2
        assert "InvalidReplicationFactorError" in err
    with pytest.raises(ConfigurationError, match="is missing"):
        identity(kafka, "commands")


def test_a_config_that_the_broker_refuses_is_an_error(apply: Any, kafka: KafkaSettings) -> None:
    """kafka-python gives back a text for each topic, and raises nothing."""
    assert apply("--partitions", "1", "--commands-partitions", "1")[0] == 0
    for arguments in (("--dry-run",), ()):
        same = ("--partitions", "1", "--commands-partitions", "1")
        code, _, err = apply(*same, "--commands-segment-bytes", str(2**31), *arguments)
        assert code == 2
        assert f"set the configs of topic {kafka.prefix}commands (InvalidConfigurationError)" in err


def test_the_same_as_json(
    apply: Any, kafka: KafkaSettings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With each config of a topic to be made."""
    assert run(["topics", "apply", "--inventory", str(INVENTORY), "--dry-run", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    commands = next(t for t in told["create"] if t["topic"] == f"{kafka.prefix}commands")
    assert commands["configs"]["retention.ms"] == "604800000"
    assert (told["dry_run"], told["change"], told["refused"]) == (True, [], [])


def test_a_topic_that_is_made_anew_is_another(kafka: KafkaSettings, apply: Any) -> None:
    assert apply("--partitions", "1", "--commands-partitions", "1")[0] == 0
    first = identity(kafka, "quarantine")
    admin = new_admin(kafka)
    admin.delete_topics([kafka.topic("quarantine")])
    admin.close()
    until = time.monotonic() + 30
    while _there(kafka, "quarantine"):  # the broker forgets it some time after it has said yes
        assert time.monotonic() < until, "the topic was not deleted"
        time.sleep(0.05)
    assert apply("--partitions", "1", "--commands-partitions", "1")[0] == 0
    assert identity(kafka, "quarantine") != first


def _there(kafka: KafkaSettings, name: str) -> bool:
    try:
        return bool(identity(kafka, name))
    except ConfigurationError:
        return False
