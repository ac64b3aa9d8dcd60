"""Builds the Faust app that hosts the engine."""

from typing import Any

import faust
from faust.app.base import BootStrategy
from faust.types import TP

from keshi.orchestrator.stream.driver import Driver
from keshi.orchestrator.stream.errors import StreamEndedError
from keshi.orchestrator.stream.heartbeat import Heartbeat
from keshi.orchestrator.stream.port import STAGES, Engine, Lane, Record, Stage
from keshi.orchestrator.stream.seam import Transport
from keshi.orchestrator.stream.settings import StreamSettings
from keshi.runtime.kafka_security import sasl_login, tls_context
from keshi.runtime.settings import KafkaSettings

# An assignment waits for the running cycle of each member, and so long at most for one that died while it joined.
_REBALANCE_SECONDS = 15.0
_REQUEST_SECONDS = 40.0
_POLL_SECONDS = 600.0
_METADATA_MS = 30_000


class _Boot(BootStrategy):  # type: ignore[misc] # Faust is untyped to mypy here
    """Consumes only: the engine has a producer of its own."""

    enable_kafka_producer = False
    enable_web = False


class HostApp(faust.App):  # type: ignore[misc] # as above
    """A Faust app that says when any part of it dies."""

    BootStrategy = _Boot
    driver: Driver
    options: StreamSettings

    def lane(self, tp: TP) -> Lane:
        """The lane of a topic's partition."""
        return Lane(self.options.stage_of(tp.topic), tp.partition)

    def tp(self, lane: Lane) -> TP:
        """The topic's partition of a lane."""
        return TP(self.options.topic_of(lane), lane.partition)

    def _create_directories(self) -> None:
        """Nothing is kept on disk."""

    def _crash(self, reason: BaseException) -> None:
        # Faust marks every service above and beside the one that crashed, and goes on: we do not.
        super()._crash(reason)
        loop = self.loop
        loop.call_soon_threadsafe(self.driver.fail, reason)


def build_app(settings: StreamSettings, engine: Engine, heartbeat: Heartbeat | None = None) -> HostApp:
    """Build the app; nothing is connected or started.

    Args:
        settings: Options.
        engine: What is driven.
        heartbeat: Told of every turn; one is made if there is none.
    """
    beat = heartbeat or Heartbeat(settings.stall_seconds, settings.join_seconds)
    app = HostApp(settings.group, **_options(settings))
    app.options = settings
    app.driver = Driver(settings, engine, beat)
    app.finalize()
    app.transport = Transport(app.conf.broker_consumer, app)
    for stage in STAGES:
        _consume(app, stage)
    return app


def _consume(app: HostApp, stage: Stage) -> None:
    settings = app.options
    # Without acks Faust keeps no books of its own about offsets. An empty value is a record like any other.
    raw = {"key_type": bytes, "value_type": bytes, "key_serializer": "raw", "value_serializer": "raw"}
    topic = app.topic(settings.topics[stage], **raw, acks=False, allow_empty=True)

    async def bring(stream: Any) -> None:
        try:
            # One by one: what comes while the engine works waits for it in the driver, and is its next batch. Faust's
            # own batches look at a clock a hundred times a second, and let a lone record wait for it.
            async for event in stream.events():
                await app.driver.offer(_record(stage, event.message))
        except Exception as error:
            app.driver.fail(error)
            raise
        finally:
            # Faust would start an ended stream again, up to a hundred times a second.
            if not app.should_stop:
                app.driver.fail(StreamEndedError(f"the stream of {stage} ended"))

    app.agent(topic, name=f"keshi.{stage}", concurrency=1)(bring)


def _record(stage: Stage, message: Any) -> Record:
    return Record(
        lane=Lane(stage, message.partition),
        offset=message.offset,
        value=message.value,
        key=message.key,
        headers=tuple(message.headers or ()),
        timestamp_ms=round((message.timestamp or 0.0) * 1000),
    )


def _options(settings: StreamSettings) -> dict[str, Any]:
    kafka = settings.kafka
    return {
        "broker": ";".join(f"kafka://{server.strip()}" for server in kafka.bootstrap.split(",")),
        "broker_credentials": kafka_credentials(kafka),
        "broker_session_timeout": kafka.session_timeout_seconds,
        "broker_heartbeat_interval": settings.heartbeat_seconds,
        "broker_rebalance_timeout": max(_REBALANCE_SECONDS, kafka.session_timeout_seconds),
        "broker_request_timeout": max(_REQUEST_SECONDS, kafka.session_timeout_seconds + 1),
        "broker_max_poll_interval": _POLL_SECONDS,
        "broker_max_poll_records": settings.max_batch,
        "broker_commit_interval": settings.commit_seconds,
        "broker_check_crcs": True,
        "consumer_auto_offset_reset": "earliest",
        "consumer_metadata_max_age_ms": _METADATA_MS,
        "consumer_group_instance_id": settings.instance_id,
        "stream_buffer_maxsize": 2 * settings.max_batch,
        "stream_wait_empty": False,
        "store": "memory://",
        # With none Faust takes the plain round-robin assignor: all partitions, whatever the topics' counts.
        "table_standby_replicas": 0,
        "topic_allow_declare": False,
        "topic_disable_leader": True,
        "web_enabled": False,
        "autodiscover": False,
    }


def kafka_credentials(kafka: KafkaSettings) -> Any:
    context, login = tls_context(kafka), sasl_login(kafka)
    if login:
        username, password = login
        return faust.SASLCredentials(
            username=username, password=password, ssl_context=context, mechanism=kafka.sasl_mechanism
        )
    return None if context is None else faust.SSLCredentials(context)
