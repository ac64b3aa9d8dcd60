"""The composition root of the orchestrator and of the API: reads settings, builds the parts, wires them together."""

import os

import structlog

from keshi.orchestrator.api.app import create_app
from keshi.orchestrator.api.decisions import KafkaDecisions
from keshi.orchestrator.api.run import ServerOptions
from keshi.orchestrator.api.run import run as serve
from keshi.orchestrator.context import Policy
from keshi.orchestrator.engine import OrchestratorEngine, Parts
from keshi.orchestrator.intake import Intake
from keshi.orchestrator.inventory import load as load_inventory
from keshi.orchestrator.keys import Keys
from keshi.orchestrator.ledger.choice import connect, ledger_on
from keshi.orchestrator.ledger.port import Ledger, LedgerError, NotLetIn, SchemaMismatch, Unusable
from keshi.orchestrator.silence import Silence
from keshi.orchestrator.standby import Watch, stand_by
from keshi.orchestrator.stream.heartbeat import Heartbeat
from keshi.orchestrator.stream.host import run as run_stream
from keshi.orchestrator.stream.settings import StreamSettings
from keshi.orchestrator.telling import tell_lag, tell_oldest
from keshi.orchestrator.tokens import load_tokens
from keshi.runtime import failpoints, logs
from keshi.runtime.health import Health, HealthServer
from keshi.runtime.kafka import close_producer, new_admin, new_producer
from keshi.runtime.sealing import KeyRing, SealBroken, key_ring
from keshi.runtime.settings import (
    ConfigurationError,
    KafkaSettings,
    KeySettings,
    OrchestratorSettings,
    ProcessSettings,
    load,
)
from keshi.runtime.telemetry import TelemetrySettings
from keshi.runtime.telemetry import start as telemetry_on

log = structlog.get_logger()


def open_ledger(settings: OrchestratorSettings, *, pool_size: int = 8) -> Ledger:
    """The ledger, reachable and of this version's schema.

    Raises:
        ConfigurationError: it is not; the line says what to do.
    """
    ledger = ledger_on(connect(settings.ledger_url.get_secret_value(), pool_size=pool_size))
    check_ledger(ledger)
    return ledger


def check_ledger(ledger: Ledger) -> None:
    """Whether the ledger can be worked with.

    Raises:
        ConfigurationError: it cannot; the line says what to do.
    """
    try:
        ledger.check()
    except (SchemaMismatch, Unusable, NotLetIn) as e:
        raise ConfigurationError(str(e)) from None
    except LedgerError:
        raise ConfigurationError(
            "the ledger's database does not answer: start it, or set KESHI_LEDGER_URL to where it is"
        ) from None


def open_keys(ring: KeyRing, ledger: Ledger) -> Keys:
    """The keys of this ledger.

    Raises:
        ConfigurationError: the key-encryption key is not the one that the ledger's secret was wrapped under.
    """
    try:
        return Keys.of(ring, ledger)
    except SealBroken:
        raise ConfigurationError(
            "the key-encryption key does not open this ledger: give the one it was made with in KESHI_KEK_FILE"
        ) from None


def count_partitions(kafka: KafkaSettings, ledger: Ledger) -> int:
    """The number of partitions for life; written to the ledger at the first start.

    Raises:
        ConfigurationError: the topics are missing, or have another number than the ledger.
    """
    topic = kafka.topic("reports")
    admin = new_admin(kafka)
    try:
        found = next((len(t["partitions"]) for t in admin.describe_topics() if t["name"] == topic), 0)
    finally:
        admin.close()
    if not found:
        raise ConfigurationError(f"topic {topic} is missing: run `keshi topics apply`")
    known = ledger.partitions(found)
    if known != found:
        raise ConfigurationError(
            f"topic {topic} has {found} partitions, the ledger was made for {known}: requests belong to their "
            f"partition for life, so restore the topic with {known} partitions or use another prefix and ledger"
        )
    return known


def run_orchestrator() -> int:
    """`keshi orchestrator run`: blocks until a signal; returns the exit code."""
    process = load(ProcessSettings)
    logs.configure(process)
    failpoints.configure(process)
    settings, kafka = load(OrchestratorSettings), load(KafkaSettings)
    inventory = load_inventory(settings.inventory)
    ring = key_ring(load(KeySettings))
    ledger = open_ledger(settings)
    keys = open_keys(ring, ledger)
    partitions = count_partitions(kafka, ledger)
    silence = Silence(kafka)
    telemetry = telemetry_on(load(TelemetrySettings), "keshi-orchestrator")
    parts = Parts(
        ledger=ledger,
        keys=keys,
        intake=Intake(inventory, keys, traces=telemetry.on),
        policy=Policy.of(settings),
        producer=new_producer(kafka, f"keshi-orchestrator-{os.getpid()}"),
        kafka=kafka,
        partitions=partitions,
        silence=silence,
        telemetry=telemetry,
    )
    stream = StreamSettings(kafka=kafka, group=settings.orchestrator_group)
    watch = Watch()
    health = Health(live=watch.live, ready=watch.ready, word=watch.word)
    try:
        with HealthServer(health, settings.orchestrator_health_port, process.health_host) as server:
            log.info("orchestrator_started", port=server.port, count=partitions)
            if not stand_by(ledger, watch):
                return os.EX_OK
            check_ledger(ledger)  # who worked before may have been of another version
            silence.start()
            heartbeat = Heartbeat(stream.stall_seconds, stream.join_seconds)
            watch.works(heartbeat.healthy, heartbeat.ready)
            tell_oldest(telemetry, ledger)
            tell_lag(telemetry, heartbeat)
            return run_stream(stream, OrchestratorEngine(parts), heartbeat)
    finally:
        silence.close()
        close_producer(parts.producer, 5)
        telemetry.close()
        ledger.close()


def run_api() -> int:
    """`keshi api run`: blocks until a signal; returns the exit code."""
    process = load(ProcessSettings)
    logs.configure(process)
    failpoints.configure(process)
    settings, kafka = load(OrchestratorSettings), load(KafkaSettings)
    ring = key_ring(load(KeySettings))
    tokens = load_tokens(settings.tokens_file)
    ledger = open_ledger(settings, pool_size=16)
    telemetry = telemetry_on(load(TelemetrySettings), "keshi-api")
    try:
        decisions = KafkaDecisions(kafka)
        app = create_app(
            ledger=ledger,
            keys=open_keys(ring, ledger),
            policy=Policy.of(settings),
            tokens=tokens,
            decisions=decisions,
            partitions=count_partitions(kafka, ledger),
            telemetry=telemetry,
        )
        try:
            return serve(app, ServerOptions(settings.api_host, settings.api_port))
        finally:
            decisions.close()
    finally:
        telemetry.close()
        ledger.close()
