"""The topics, with the right partitions, retention and limits; the difference between them and the cluster."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import KafkaError, for_code

from keshi.runtime.kafka import new_admin
from keshi.runtime.settings import ConfigurationError, KafkaSettings

_DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """One topic as it should be. `partitions` can't change once it exists."""

    name: str
    partitions: int
    configs: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class TopicOptions:
    """What an operator may choose."""

    partitions: int = 4
    commands_partitions: int = 4
    replication: int = 1
    commands_retention_ms: int = 7 * _DAY_MS
    commands_segment_ms: int = _DAY_MS
    commands_segment_bytes: int = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Change:
    """One difference of a topic that exists.

    Attributes:
        topic: Its full name.
        what: A config, `partitions` or `replication`.
        now: What it is.
        wanted: What it should be.
        forbidden: It must not be changed, and nothing is while it is so: partitions of a topic with data in it.
        stays: It is not changed here; says what to do instead.
    """

    topic: str
    what: str
    now: str
    wanted: str
    forbidden: bool = False
    stays: str | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """What the broker does not allow: class of its error, never more."""

    topic: str
    what: str
    why: str


@dataclass(slots=True)
class Difference:
    """What `apply` would do.

    Attributes:
        create: Topics that are missing.
        change: What of an existing one is different.
        unused: Topics of systems that are not in the inventory. They stay as they are.
        refused: What the broker does not allow.
    """

    create: list[TopicSpec] = field(default_factory=list)
    change: list[Change] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)

    @property
    def settings(self) -> dict[str, dict[str, str]]:
        """The configs to set, by topic."""
        found: dict[str, dict[str, str]] = {}
        for change in self.change:
            if not change.forbidden and change.stays is None:
                found.setdefault(change.topic, {})[change.what] = change.wanted
        return found


def wanted(settings: KafkaSettings, systems: Iterable[str], options: TopicOptions) -> list[TopicSpec]:
    """All topics of a deployment.

    `commands` holds identifiers in the clear: small segments, and deletion after a set time, whatever else is
    configured. The others hold sealed texts and ids.
    """
    limit = str(1_048_576)
    kept = {"cleanup.policy": "delete", "max.message.bytes": limit, "retention.ms": str(30 * _DAY_MS)}
    commands = {
        "cleanup.policy": "delete",
        "max.message.bytes": limit,
        "retention.ms": str(options.commands_retention_ms),
        "segment.ms": str(options.commands_segment_ms),
        "segment.bytes": str(options.commands_segment_bytes),
        "file.delete.delay.ms": "1000",
        # Retention counts from when the broker got a message, whatever clock its sender has: one set ahead would keep
        # identifiers longer, one set back would have commands deleted before anybody has read them.
        "message.timestamp.type": "LogAppendTime",
    }
    specs = [TopicSpec(settings.topic("commands"), options.commands_partitions, commands)]
    names = ("reports", "requests", "quarantine", *(f"tasks.{s}" for s in systems))
    return [*specs, *(TopicSpec(settings.topic(n), options.partitions, kept) for n in names)]


def identity(settings: KafkaSettings, name: str) -> str:
    """The UUID of a topic, which no other topic of any cluster has, nor one that is made anew under its name.

    Raises:
        ConfigurationError: there is no such topic, or no broker.
    """
    topic = settings.topic(name)
    admin = new_admin(settings)
    try:
        found = [t for t in admin.describe_topics([topic]) if not t["error_code"]]
    except KafkaError as e:
        raise ConfigurationError(f"the broker does not describe topic {topic} ({type(e).__name__})") from None
    finally:
        admin.close()
    if not found:
        raise ConfigurationError(f"topic {topic} is missing: run `keshi topics apply`")
    return str(found[0]["topic_id"])


def difference(settings: KafkaSettings, specs: Iterable[TopicSpec], replication: int = 1) -> Difference:
    """Compare the cluster with what is wanted. Changes nothing.

    Raises:
        ConfigurationError: no broker answers, or it does not tell.
    """
    specs = list(specs)
    admin = new_admin(settings)
    try:
        existing = {t["name"]: t["partitions"] for t in admin.describe_topics()}
        found = Difference(create=[s for s in specs if s.name not in existing])
        for spec in specs:
            if spec.name in existing:
                found.change += _shape_changes(existing[spec.name], spec, replication)
                found.change += _config_changes(admin, spec)
    except KafkaError as e:
        raise ConfigurationError(f"the broker does not describe its topics ({type(e).__name__})") from None
    finally:
        admin.close()
    ours = {s.name for s in specs}
    found.unused = sorted(n for n in existing if n.startswith(settings.topic("tasks.")) and n not in ours)
    return found


def _shape_changes(partitions: Sequence[Any], spec: TopicSpec, replication: int) -> list[Change]:
    changes = []
    if len(partitions) != spec.partitions:
        now = str(len(partitions))
        changes.append(Change(spec.name, "partitions", now, str(spec.partitions), forbidden=True))
    copies = min(len(p["replica_nodes"]) for p in partitions)
    if copies < replication:
        remedy = "add copies with Kafka's own kafka-reassign-partitions"
        changes.append(Change(spec.name, "replication", str(copies), str(replication), stays=remedy))
    return changes


def _config_changes(admin: Any, spec: TopicSpec) -> list[Change]:
    resource = ConfigResource(ConfigResourceType.TOPIC, spec.name)
    described = admin.describe_configs([resource], config_filter="all")
    entries = described[ConfigResourceType.TOPIC.name.lower()][spec.name]
    changes = []
    for name, value in spec.configs.items():
        now = entries.get(name)
        now = now["value"] if isinstance(now, dict) else now
        if now != value:
            changes.append(Change(spec.name, name, str(now), value))
    return changes


def apply(
    settings: KafkaSettings, specs: Iterable[TopicSpec], options: TopicOptions, *, dry_run: bool = False
) -> Difference:
    """Create what is missing and set what differs. What exists keeps its partitions and its data.

    Args:
        settings: Where the broker is.
        specs: What is wanted.
        options: How many copies.
        dry_run: Change nothing; only ask the broker what it would refuse (`Difference.refused`).

    Raises:
        ConfigurationError: a topic has another number of partitions (nothing was changed then), or the broker refused
            something (the rest was done). Not in a dry run.
    """
    todo = difference(settings, specs, options.replication)
    barred = [c for c in todo.change if c.forbidden]
    if barred and not dry_run:
        raise ConfigurationError(
            f"topic {barred[0].topic} has {barred[0].now} partitions, {barred[0].wanted} are wanted: requests belong "
            f"to their partition for life, so ask for {barred[0].now}, or use another prefix"
        )
    admin = new_admin(settings)
    try:
        todo.refused += _create(admin, todo.create, options, dry_run=dry_run)
        todo.refused += _set(admin, todo.settings, dry_run=dry_run)
    except KafkaError as e:
        raise ConfigurationError(f"the broker refused the topics: {type(e).__name__}") from None
    finally:
        admin.close()
    if todo.refused and not dry_run:
        first = todo.refused[0]
        raise ConfigurationError(
            f"the broker refused to {first.what} topic {first.topic} ({first.why}), the first of {len(todo.refused)}; "
            f"the rest is done"
        )
    return todo


def _create(admin: Any, specs: Sequence[TopicSpec], options: TopicOptions, *, dry_run: bool) -> list[Refusal]:
    asked = {
        s.name: {
            "num_partitions": s.partitions,
            "replication_factor": options.replication,
            "configs": dict(s.configs),
        }
        for s in specs
    }
    if not asked:
        return []
    told = admin.create_topics(asked, validate_only=dry_run, raise_errors=False)["topics"]
    errors = {t["name"]: for_code(t["error_code"]) for t in told if t["error_code"]}
    made = [n for n in asked if n not in errors]
    if made and not dry_run:
        admin.wait_for_topics(made)
    return [Refusal(name, "create", error.__name__) for name, error in errors.items()]


def _set(admin: Any, wanted: Mapping[str, Mapping[str, str]], *, dry_run: bool) -> list[Refusal]:
    if not wanted:
        return []
    resources = [ConfigResource(ConfigResourceType.TOPIC, t, dict(c)) for t, c in wanted.items()]
    told = admin.alter_configs(resources, validate_only=dry_run)[ConfigResourceType.TOPIC.name.lower()]
    # It gives the error as a text: its class stands in it, before what the broker said.
    names = {t: re.search(r"\w+Error", text) for t, text in told.items() if text != "OK"}
    return [Refusal(t, "set the configs of", found[0] if found else "refused") for t, found in names.items()]
