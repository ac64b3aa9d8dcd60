"""The topics, with the right partitions, retention and limits; the difference between them and the cluster."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import KafkaError

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
    """One difference. `forbidden` ones need a person: partitions of a topic with data in it."""

    topic: str
    what: str
    now: str
    wanted: str
    forbidden: bool = False


@dataclass(slots=True)
class Difference:
    """What `apply` would do."""

    create: list[TopicSpec] = field(default_factory=list)
    change: list[Change] = field(default_factory=list)


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


def difference(settings: KafkaSettings, specs: Iterable[TopicSpec]) -> Difference:
    """Compare the cluster with what is wanted. Changes nothing."""
    admin = new_admin(settings)
    try:
        existing = {t["name"]: len(t["partitions"]) for t in admin.describe_topics()}
        found = Difference()
        for spec in specs:
            if spec.name not in existing:
                found.create.append(spec)
                continue
            if existing[spec.name] != spec.partitions:
                found.change.append(
                    Change(
                        spec.name,
                        "partitions",
                        str(existing[spec.name]),
                        str(spec.partitions),
                        forbidden=True,
                    )
                )
            found.change.extend(_config_changes(admin, spec))
        return found
    finally:
        admin.close()


def _config_changes(admin: "object", spec: TopicSpec) -> list[Change]:
    resource = ConfigResource(ConfigResourceType.TOPIC, spec.name)
    described = admin.describe_configs([resource], config_filter="all")  # type: ignore[attr-defined] # untyped
    entries = described[ConfigResourceType.TOPIC.name.lower()][spec.name]
    changes = []
    for name, value in spec.configs.items():
        now = entries.get(name)
        now = now["value"] if isinstance(now, dict) else now
        if now != value:
            changes.append(Change(spec.name, name, str(now), value))
    return changes


def apply(settings: KafkaSettings, specs: Iterable[TopicSpec], options: TopicOptions) -> Difference:
    """Create what is missing and set what differs. What exists keeps its partitions and its data.

    Raises:
        ConfigurationError: a topic has another number of partitions; nothing was changed then.
    """
    todo = difference(settings, list(specs))
    for change in todo.change:
        if change.forbidden:
            raise ConfigurationError(
                f"topic {change.topic} has {change.now} partitions, {change.wanted} are wanted: requests belong to "
                f"their partition for life, so ask for {change.now}, or use another prefix"
            )
    admin = new_admin(settings)
    try:
        if todo.create:
            admin.create_topics(
                {
                    s.name: {
                        "num_partitions": s.partitions,
                        "replication_factor": options.replication,
                        "configs": dict(s.configs),
                    }
                    for s in todo.create
                },
                wait_for_metadata=True,
            )
        by_topic: dict[str, dict[str, str]] = {}
        for change in todo.change:
            by_topic.setdefault(change.topic, {})[change.what] = change.wanted
        if by_topic:
            admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, t, c) for t, c in by_topic.items()])
    except KafkaError as e:
        raise ConfigurationError(f"the broker refused the topics: {type(e).__name__}") from None
    finally:
        admin.close()
    return todo
