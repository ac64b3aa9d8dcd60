"""A worker process: its systems, its end, its health. The composition root of everything in this package."""

import signal
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import structlog
from kafka.errors import KafkaError
from pydantic import SecretStr

from keshi.client.api import WorkerApi
from keshi.handlers.contract import Handler, boot_time
from keshi.handlers.worker.lane import Lane, LaneParts
from keshi.handlers.worker.leases import MAX_ACT_SECONDS
from keshi.handlers.worker.poller import Poller
from keshi.handlers.worker.reporter import Reporter
from keshi.runtime.health import Health, HealthServer
from keshi.runtime.kafka import new_admin, unreachable
from keshi.runtime.settings import (
    ApiClientSettings,
    ConfigurationError,
    KafkaSettings,
    ProcessSettings,
    WorkerSettings,
    load,
)
from keshi.runtime.telemetry import OFF, Metric, Telemetry

STOP_SECONDS: Final = 20.0
"""For acts that run when the process is told to end. Less than the 30 s after which Kubernetes kills."""
REPORT_SECONDS: Final = 5.0
PROBE_SECONDS: Final = 5.0
STUCK_SECONDS: Final = MAX_ACT_SECONDS * 3

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """What a worker process needs to know.

    Attributes:
        kafka: Where the broker is.
        api: Where the API is.
        worker: How to work.
        tokens: By system, where one process serves several systems with a token each; else `api.token`.
        stop_seconds: How long acts that run may go on after the process was told to end.
        telemetry: Told of each step.
    """

    kafka: KafkaSettings
    api: ApiClientSettings
    worker: WorkerSettings = field(default_factory=WorkerSettings)
    tokens: Mapping[str, SecretStr] = field(default_factory=dict)
    stop_seconds: float = STOP_SECONDS
    telemetry: Telemetry = OFF


class Worker:
    """Serves the tasks of its handlers' systems until it is told to stop.

    Args:
        handlers: One for each system.
        options: See there.
    """

    def __init__(self, handlers: Sequence[Handler], options: WorkerOptions) -> None:
        self._handlers = tuple(handlers)
        self._options = options
        self._told = threading.Event()
        self._stopping = threading.Event()
        self._apis: list[WorkerApi] = []
        self._lanes: list[Lane] = []
        self._pollers: list[Poller] = []
        self._reporter: Reporter | None = None
        self._health: HealthServer | None = None
        self._reached = (float("-inf"), False)
        self._probe = threading.Lock()
        systems = [h.system for h in handlers]
        if not systems or len(set(systems)) != len(systems):
            raise ConfigurationError("a worker needs at least one handler, and one for each system")

    @property
    def health_port(self) -> int:
        """Where `/healthz` and `/readyz` answer, once it is started."""
        return self._health.port if self._health else 0

    def run(self) -> bool:
        """Work until SIGTERM, SIGINT or `stop`; then finish what is being done.

        Returns:
            Whether it ended because it was told to, and left nothing undone that it had begun.

        Raises:
            ConfigurationError: it cannot start as it is set up.
        """
        before = self._listen()
        try:
            self.start()
            while not self._told.wait(1):
                if any(p.crashed() for p in self._pollers):
                    log.error("worker_broken")
                    self.close()
                    return False
            return self.close()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def stop(self) -> None:
        """Tell it to end. Returns at once; may be called from any thread or signal."""
        self._told.set()

    def start(self) -> None:
        """Connect to everything and begin to read.

        Raises:
            ConfigurationError: it cannot start as it is set up.
        """
        options = self._options
        try:
            partitions = _partitions(options.kafka, [h.system for h in self._handlers])
            self._reporter = Reporter(options.kafka)
            for handler in self._handlers:
                api = WorkerApi(options.api, options.tokens.get(handler.system), self._stopping)
                self._apis.append(api)
                lane = Lane(LaneParts(handler, api, self._reporter, options.worker, self._stopping, options.telemetry))
                self._lanes.append(lane)
                self._pollers.append(Poller(options.kafka, lane, partitions))
            options.telemetry.gauge(Metric.LAG, self._lag)
            self._health = _serve(Health(self.live, self.ready), options.worker.health_port)
        except BaseException:
            self.close()
            raise
        for poller in self._pollers:
            poller.start()
        systems = ",".join(h.system for h in self._handlers)
        log.info("worker_started", handlers=systems, port=self.health_port)

    def close(self) -> bool:
        """Finish the acts that run, report, commit, leave the group.

        Returns:
            Whether all that was begun was brought to its end.
        """
        self._stopping.set()
        for poller in self._pollers:
            poller.stop()
        end = boot_time() + self._options.stop_seconds
        clean = True
        for lane in self._lanes:
            clean &= lane.close(max(0.1, end - boot_time()))
        if self._reporter:
            clean &= self._reporter.close(REPORT_SECONDS)
        for poller in self._pollers:
            poller.close()
        for handler in self._handlers:
            _quietly(handler.close, handler.system)
        for api in self._apis:
            api.close()
        if self._health:
            self._health.__exit__()
        log.info("worker_stopped", status="clean" if clean else "cut_off")
        return clean

    def _lag(self) -> list[tuple[float, dict[str, str | int]]]:
        return [
            (count, {"system": handler.system, "partition": partition})
            for handler, poller in zip(self._handlers, self._pollers, strict=True)
            for partition, count in poller.behind.items()
        ]

    # --- health

    def live(self) -> bool:
        """Whether it goes round: a worker that does not is to be started anew."""
        reporter = self._reporter
        return (
            all(p.live() for p in self._pollers)
            and reporter is not None
            and reporter.alive()
            and all(lane.oldest() < STUCK_SECONDS for lane in self._lanes)
        )

    def ready(self) -> bool:
        """Whether it has joined its groups, and the API and its systems answer."""
        return not self._told.is_set() and all(p.ready() for p in self._pollers) and self._reachable()

    def _reachable(self) -> bool:
        """The API and the systems, asked at most every few seconds however often the probe comes."""
        with self._probe:
            at, reached = self._reached
            if boot_time() - at > PROBE_SECONDS:
                reached = bool(self._apis) and self._apis[0].reachable() and all(map(_ready, self._handlers))
                self._reached = (boot_time(), reached)
            return reached

    # --- signals

    def _listen(self) -> dict[signal.Signals, Any]:
        if threading.current_thread() is not threading.main_thread():
            return {}
        return {s: signal.signal(s, lambda *_: self.stop()) for s in (signal.SIGTERM, signal.SIGINT)}


def _partitions(kafka: KafkaSettings, systems: Sequence[str]) -> frozenset[int]:
    """The partitions of `reports`, once all topics that are needed are known to be there."""
    admin = new_admin(kafka)
    try:
        found = {t["name"]: t["partitions"] for t in admin.describe_topics()}
    except KafkaError as e:
        raise unreachable(kafka, e) from None
    finally:
        admin.close()
    reports = kafka.topic("reports")
    for topic in (reports, *(kafka.topic(f"tasks.{s}") for s in systems)):
        if not found.get(topic):
            raise ConfigurationError(f"topic {topic} does not exist: make it with `keshi topics apply`")
    return frozenset(range(len(found[reports])))


def _serve(health: Health, port: int) -> HealthServer:
    try:
        return HealthServer(health, port, load(ProcessSettings).health_host).__enter__()
    except OSError:
        raise ConfigurationError(
            f"port {port} is taken: set KESHI_WORKER_HEALTH_PORT to a free one, or to 0 for any"
        ) from None


def _ready(handler: Handler) -> bool:
    try:
        return handler.ready()
    except Exception:  # noqa: BLE001 - a probe that raises says no
        return False


def _quietly(call: Any, system: str) -> None:
    try:
        call()
    except Exception:
        log.exception("handler_close_failed", system=system)
