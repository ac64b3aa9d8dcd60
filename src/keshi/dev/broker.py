"""A real single-node Kafka broker (KRaft) for development, the demo and tests."""

import base64
import os
import subprocess
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kafka import KafkaAdminClient
from kafka.errors import KafkaError

from keshi.dev import fetch, places
from keshi.dev.errors import DevError, PartDiedError
from keshi.dev.processes import Part, PartSpec, tail

_START_SECONDS = 90.0
_FORMAT_SECONDS = 60.0
_PORT_TRIES = 5
_PORT_TAKEN = ("Address already in use", "BindException")


@dataclass(frozen=True)
class BrokerOptions:
    """How the broker runs.

    Attributes:
        directory: holds `data/`, `server.properties` and `broker.log`; made when absent.
        heap_mb: Java heap.
        max_message_bytes: the largest batch it takes.
        retention_check_ms: how often it looks for segments to delete.
        segment_delete_delay_ms: how long a deleted segment stays on disk.
        listeners: further listeners on loopback ports, each with its security protocol (`{"SECURED": "SASL_SSL"}`);
            how one is secured stands in `properties`.
        properties: further broker settings; they win.
        owner: pid of the process whose end ends the broker; None for this one.
    """

    directory: Path
    heap_mb: int = 512
    max_message_bytes: int = 1_048_588
    retention_check_ms: int = 5_000
    segment_delete_delay_ms: int = 1_000
    listeners: Mapping[str, str] = field(default_factory=dict)
    properties: Mapping[str, str] = field(default_factory=dict, repr=False)  # may hold secrets
    owner: int | None = None


class Broker:
    """One broker process; after `stop` or `kill` it starts again on the same port with the same data."""

    name = "kafka"

    def __init__(self, options: BrokerOptions) -> None:
        self._options = options
        self._port = 0
        self._controller_port = 0
        self._ports: dict[str, int] = {}
        self._part: Part | None = None

    @property
    def bootstrap(self) -> str:
        """`host:port` for clients; known once started."""
        if not self._port:
            raise DevError("the broker has no address before its first start")
        return f"127.0.0.1:{self._port}"

    def address(self, listener: str) -> str:
        """`host:port` of one of the further listeners; known once started."""
        return f"127.0.0.1:{self._ports[listener]}"

    @property
    def pid(self) -> int:
        return self._started().pid

    @property
    def log(self) -> Path:
        return self._options.directory / "broker.log"

    @property
    def data(self) -> Path:
        """Where the topics' segments lie."""
        return self._options.directory / "data"

    def start(self) -> None:
        """Start and wait until it answers a real request; the first start picks the ports."""
        if self._part is not None and self._part.running():
            return
        if self._port:
            self._launch()
            return
        for attempt in range(1, _PORT_TRIES + 1):
            self._port, self._controller_port = places.free_port(), places.free_port()
            self._ports = {name: places.free_port() for name in self._options.listeners}
            try:
                self._launch()
            except PartDiedError:
                taken = any(word in line for line in tail(self.log, 200) for word in _PORT_TAKEN)
                if not taken or attempt == _PORT_TRIES:
                    self._port = 0
                    raise
            else:
                return

    def running(self) -> bool:
        return self._part is not None and self._part.running()

    def obituary(self) -> str:
        return self._started().obituary()

    def stop(self, seconds: float | None = None) -> None:
        """End it gracefully (SIGTERM), with force after `seconds`."""
        if self._part is not None:
            self._part.stop(seconds)

    def kill(self) -> None:
        """End it with SIGKILL."""
        if self._part is not None:
            self._part.kill()

    def disown(self) -> None:
        """Leave it to the owner named in the options."""
        self._started().disown()

    def _started(self) -> Part:
        if self._part is None:
            raise DevError("the broker has not been started")
        return self._part

    def _launch(self) -> None:
        jars = fetch.kafka_jars()
        self.data.mkdir(parents=True, exist_ok=True)
        settings = self._options.directory / "server.properties"
        settings.touch(mode=0o600)
        settings.write_text(self._properties(), encoding="utf-8")
        if not (self.data / "meta.properties").exists():
            self._format(jars, settings)
        self._part = Part(
            PartSpec(
                name=self.name,
                argv=(*self._java(jars), "kafka.Kafka", str(settings)),
                log=self.log,
                owner=self._options.owner,
            )
        )
        self._part.start()
        try:
            self._part.wait_ready(self._answers, _START_SECONDS)
        except BaseException:
            self._part.kill()
            raise

    def _answers(self) -> bool:
        if places.port_is_free(self._port):
            return False  # spares a client that can only fail
        try:
            admin = KafkaAdminClient(
                bootstrap_servers=self.bootstrap, request_timeout_ms=5_000, bootstrap_timeout_ms=5_000
            )
            try:
                return bool(admin.describe_cluster().get("brokers"))
            finally:
                admin.close()
        except KafkaError:
            return False

    def _java(self, jars: Path) -> tuple[str, ...]:
        return (
            fetch.java(),
            f"-Xmx{self._options.heap_mb}m",
            "-Xms128m",
            "-XX:TieredStopAtLevel=1",
            "-XX:+UseSerialGC",
            "-Djava.awt.headless=true",
            "-Djava.net.preferIPv4Stack=true",
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
            "-Dorg.slf4j.simpleLogger.log.kafka.server=info",
            "-Dorg.slf4j.simpleLogger.showDateTime=true",
            "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSXXX",
            "-cp",
            str(jars / "*"),
        )

    def _format(self, jars: Path, settings: Path) -> None:
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode("ascii").rstrip("=")
        argv = (
            *self._java(jars),
            "kafka.tools.StorageTool",
            "format",
            f"--cluster-id={cluster}",
            f"--config={settings}",
        )
        with self.log.open("ab") as log:
            done = subprocess.run(  # noqa: S603 - argv is built here
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                timeout=_FORMAT_SECONDS,
                check=False,
                env={**os.environ, "LC_ALL": "C"},
            )
        if done.returncode != 0:
            ending = "\n".join(f"  | {line}" for line in tail(self.log))
            raise DevError(f"Kafka could not prepare {self.data} (exit code {done.returncode}):\n{ending}")

    def _properties(self) -> str:
        options = self._options
        clients = [f"PLAINTEXT://{self.bootstrap}", *(f"{name}://{self.address(name)}" for name in self._ports)]
        protocols = {"PLAINTEXT": "PLAINTEXT", "CONTROLLER": "PLAINTEXT", **options.listeners}
        settings = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@127.0.0.1:{self._controller_port}",
            "controller.listener.names": "CONTROLLER",
            "listeners": ",".join([*clients, f"CONTROLLER://127.0.0.1:{self._controller_port}"]),
            "advertised.listeners": ",".join(clients),
            "listener.security.protocol.map": ",".join(f"{name}:{kind}" for name, kind in protocols.items()),
            "log.dirs": str(self.data),
            "num.partitions": "1",
            "auto.create.topics.enable": "false",
            "default.replication.factor": "1",
            "min.insync.replicas": "1",
            # One node: the inner topics cannot have three copies; few partitions start quickly.
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "4",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "transaction.state.log.num.partitions": "2",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            # A lone consumer in a test has nobody to wait for.
            "group.initial.rebalance.delay.ms": "0",
            "group.min.session.timeout.ms": "1000",
            "message.max.bytes": str(options.max_message_bytes),
            "log.retention.check.interval.ms": str(options.retention_check_ms),
            "log.initial.task.delay.ms": str(min(options.retention_check_ms, 30_000)),
            "log.segment.delete.delay.ms": str(options.segment_delete_delay_ms),
            "log.cleaner.dedupe.buffer.size": "8388608",
            "num.network.threads": "2",
            "num.io.threads": "4",
            "num.recovery.threads.per.data.dir": "2",
            "controlled.shutdown.max.retries": "1",
            # After a kill the controller refuses the broker until its old self counts as gone (default: 9 s).
            "broker.heartbeat.interval.ms": "500",
            "broker.session.timeout.ms": "4000",
            **options.properties,
        }
        return "".join(f"{key}={value}\n" for key, value in settings.items())
