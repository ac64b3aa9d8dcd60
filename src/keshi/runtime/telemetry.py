"""What a process tells a collector: spans of the stages, and counts. Off unless `KESHI_OTLP_ENDPOINT` is set.

All of a request is one trace: each span's parent is the context that came with the command, or, where none came, one
worked out from the request's id. A span is recorded when its stage is over, for lists too, so that the work itself
knows nothing of it. Telemetry that fails stops nothing: queues are bounded, what does not fit is dropped, and who ends
does not wait for a collector.

Nothing is told but `ATTRIBUTES`: ids, names of the inventory, codes and counts. No identifier, no reference of a
record.
"""

import hashlib
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Final

import structlog
from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from keshi.runtime.settings import ConfigurationError

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, Observation

log = structlog.get_logger()

Value = str | int | float | bool
ATTRIBUTES: Final = frozenset(
    {
        "keshi.request_id",
        "keshi.system",
        "keshi.action",
        "keshi.mode",
        "keshi.attempt",
        "keshi.partition",
        "keshi.stage",
        "keshi.result",
        "keshi.code",
        "keshi.verdict",
        "keshi.count",
    }
)
"""All that a span or a metric may carry. `code` is a stable word of ours, never a message."""

END_SECONDS: Final = 2.0
"""So long a process that ends lets the collector take what is left."""


class Stage(StrEnum):
    """Names a span: one word for each stage and each step of a worker."""

    INTAKE = "intake"
    DISPATCH = "dispatch"
    LOCATE = "locate"
    BEGIN = "begin"
    ACT = "act"
    VERIFY = "verify"
    COMPLETION = "completion"
    CLOSURE = "closure"


class Metric(StrEnum):
    """Names a metric. Counters, but for those in `GAUGES`."""

    COMMANDS = "keshi.commands"
    TASKS = "keshi.tasks.dispatched"
    REPORTS = "keshi.reports"
    BEGINS = "keshi.begin.answers"
    ATTEMPTS_FAILED = "keshi.attempts.failed"
    TASKS_ENDED = "keshi.tasks.ended"
    CLOSURES = "keshi.closures"
    QUARANTINED = "keshi.quarantined"
    OVERDUE = "keshi.requests.overdue"
    OLDEST_TASK = "keshi.tasks.oldest"
    LAG = "keshi.lag"


GAUGES: Final = {
    Metric.OLDEST_TASK: ("s", "Age of the oldest open task, by system."),
    Metric.LAG: ("{message}", "Messages that are still to be taken, by stage or system, and partition."),
}
COUNTERS: Final = {
    Metric.COMMANDS: ("{command}", "Commands read, by what became of them."),
    Metric.TASKS: ("{task}", "Attempts sent to workers, by system, action and mode."),
    Metric.REPORTS: ("{report}", "Reports taken, by system and kind."),
    Metric.BEGINS: ("{answer}", "Answers to begin, by system, answer and reason."),
    Metric.ATTEMPTS_FAILED: ("{attempt}", "Attempts that failed, by system and class of error."),
    Metric.TASKS_ENDED: ("{task}", "Tasks that ended, by system and action."),
    Metric.CLOSURES: ("{request}", "Requests closed, by verdict and action."),
    Metric.QUARANTINED: ("{message}", "Messages that could not be taken, by stage and reason."),
    Metric.OVERDUE: ("{request}", "Requests that passed their due date open, by action."),
}


class TelemetrySettings(BaseSettings):
    """Where to tell it (`KESHI_OTLP_…`): a collector that takes OTLP over HTTP."""

    model_config = SettingsConfigDict(env_prefix="KESHI_OTLP_", frozen=True, extra="ignore", hide_input_in_errors=True)

    endpoint: Annotated[str, Field(pattern=r"^(https?://\S+)?$", description="empty: nothing is told")] = ""
    headers: Annotated[SecretStr, Field(description="`name=value`, several by comma, such as a token")] = SecretStr("")
    seconds: Annotated[float, Field(ge=0.1, le=600, description="between two exports")] = 10
    timeout_seconds: Annotated[float, Field(gt=0, le=60, description="of one export")] = 5


class Telemetry:
    """Tells nothing. What tells something has the same methods."""

    on: bool = False

    def span(self, stage: Stage, trace: str | None, began: int, **attributes: Value | None) -> None:
        """Record a stage that is over.

        Args:
            stage: Which.
            trace: The `traceparent` of its request; without one nothing is recorded.
            began: When, in nanoseconds since the epoch (`time.time_ns`). It ended now.
            **attributes: Named as in `ATTRIBUTES`, without `keshi.`.
        """

    def count(self, metric: Metric, number: int = 1, **attributes: Value | None) -> None:
        """Add to a counter."""

    def gauge(self, metric: Metric, read: Callable[[], Iterable[tuple[float, Mapping[str, Value]]]]) -> None:
        """Have a gauge read now and then: values, each with its attributes. `read` must be quick."""

    def close(self) -> None:
        """Tell what is left, within `END_SECONDS`."""


OFF: Final = Telemetry()


def start(settings: TelemetrySettings, service: str) -> Telemetry:
    """Telemetry as it is set up, for one process.

    Raises:
        ConfigurationError: the exporter is not installed, or the headers cannot be read.
    """
    if not settings.endpoint:
        return OFF
    headers = _headers(settings.headers.get_secret_value())
    try:
        return _Telling(settings, headers, service)
    except ImportError:
        raise ConfigurationError(
            "KESHI_OTLP_ENDPOINT is set and the exporter is missing: pip install 'keshi[telemetry]', or unset it"
        ) from None


def _headers(text: str) -> dict[str, str]:
    found = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        name, eq, value = part.partition("=")
        if not (eq and name.strip()):
            raise ConfigurationError("KESHI_OTLP_HEADERS: write name=value, several by comma")
        found[name.strip().lower()] = value.strip()
    return found


def derived_trace(request_id: str) -> str:
    """The context of a request whose command brought none: the same for all who work it out."""
    digest = hashlib.sha256(f"keshi/trace/{request_id}".encode()).hexdigest()
    return f"00-{digest[:32]}-{digest[32:48]}-01"


class _Telling(Telemetry):
    on = True

    def __init__(self, settings: TelemetrySettings, headers: dict[str, str], service: str) -> None:
        # Not in the base install, and slow to import.
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter  # noqa: PLC0415
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.sdk.metrics import MeterProvider  # noqa: PLC0415
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader  # noqa: PLC0415
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

        resource = Resource({"service.name": service, "service.namespace": "keshi"})
        base, timeout = settings.endpoint.rstrip("/"), settings.timeout_seconds
        spans = OTLPSpanExporter(f"{base}/v1/traces", headers=headers, timeout=timeout)
        self._tracers = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._tracers.add_span_processor(
            BatchSpanProcessor(spans, max_queue_size=8192, schedule_delay_millis=settings.seconds * 1000)
        )
        metrics = OTLPMetricExporter(f"{base}/v1/metrics", headers=headers, timeout=timeout)
        reader = PeriodicExportingMetricReader(metrics, export_interval_millis=settings.seconds * 1000)
        self._meters = MeterProvider([reader], resource=resource, shutdown_on_exit=False)
        self._tracer = self._tracers.get_tracer("keshi")
        self._meter = self._meters.get_meter("keshi")
        self._counters = {
            name: self._meter.create_counter(name, unit, description) for name, (unit, description) in COUNTERS.items()
        }
        self._failed = False

    def span(self, stage: Stage, trace: str | None, began: int, **attributes: Value | None) -> None:
        context = _context(trace)
        if context is None:
            return
        with self._harmless():
            span = self._tracer.start_span(f"keshi.{stage}", context, start_time=began, attributes=_allowed(attributes))
            span.end(max(began, time.time_ns()))

    def count(self, metric: Metric, number: int = 1, **attributes: Value | None) -> None:
        with self._harmless():
            self._counters[metric].add(number, _allowed(attributes))

    def gauge(self, metric: Metric, read: Callable[[], Iterable[tuple[float, Mapping[str, Value]]]]) -> None:
        from opentelemetry.metrics import Observation  # noqa: PLC0415

        def observe(_: "CallbackOptions") -> "Iterable[Observation]":
            with self._harmless():
                return [Observation(value, _allowed(attributes)) for value, attributes in read()]
            return []

        unit, description = GAUGES[metric]
        self._meter.create_observable_gauge(metric, [observe], unit, description)

    def close(self) -> None:
        ending = threading.Thread(target=self._end, name="telemetry-end", daemon=True)
        ending.start()
        ending.join(END_SECONDS)

    def _end(self) -> None:
        with suppress(Exception):
            self._tracers.shutdown()
        with suppress(Exception):
            self._meters.shutdown()

    def _harmless(self) -> "_Harmless":
        return _Harmless(self)

    def failed(self, error: BaseException) -> None:
        """Say once that telemetry has a fault, and go on."""
        if not self._failed:
            self._failed = True
            log.warning("telemetry_failed", code=type(error).__name__)


class _Harmless:
    """A block whose failure is nobody's."""

    def __init__(self, telling: _Telling) -> None:
        self._telling = telling

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> bool:
        if isinstance(error, Exception):
            self._telling.failed(error)
            return True
        return False


def _allowed(attributes: Mapping[str, Value | None]) -> dict[str, Value]:
    """Attributes under their full names. What is not on the list is a defect, and is not told.

    Raises:
        KeyError: one is not on the list.
    """
    found: dict[str, Value] = {}
    for name, value in attributes.items():
        full = f"keshi.{name}"
        if full not in ATTRIBUTES:
            raise KeyError(full)
        if value is not None:
            found[full] = str(value) if isinstance(value, str) else value
    return found


def _context(trace: str | None) -> Any:
    """The context that a span hangs on; None where there is none, or where nobody wants to know of it."""
    from opentelemetry.trace import (  # noqa: PLC0415
        NonRecordingSpan,
        SpanContext,
        TraceFlags,
        set_span_in_context,
    )

    if trace is None:
        return None
    _, trace_id, span_id, flags = trace.split("-")
    if not int(flags, 16) & TraceFlags.SAMPLED:
        return None
    parent = SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16)))
    return set_span_in_context(NonRecordingSpan(parent))
