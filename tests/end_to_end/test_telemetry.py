"""What a collector is told: one trace from command to closure through all processes, and nothing about the person."""

import json
import os
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from end_to_end.test_dev_up import directory, line_of, up
from end_to_end.test_example import EXAMPLE, KESHI, settings
from keshi.runtime.settings import ConfigurationError
from keshi.runtime.telemetry import (
    ATTRIBUTES,
    COUNTERS,
    GAUGES,
    OFF,
    Metric,
    Stage,
    TelemetrySettings,
    derived_trace,
    start,
)

__all__ = ["directory"]
EMAIL = "hanako.keshi@customer.example"
SOON = 30


class Collector(ThreadingHTTPServer):
    """Takes OTLP over HTTP and keeps the bytes."""

    daemon_threads = True

    def __init__(self, *, hang: bool = False) -> None:
        self.bodies: dict[str, list[bytes]] = defaultdict(list)
        self.released = threading.Event()
        if not hang:
            self.released.set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer.bodies[self.path].append(self.rfile.read(int(self.headers["Content-Length"])))
                outer.released.wait(60)
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None: ...

        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def spans(self) -> list[tuple[str, Any]]:
        found = []
        for body in list(self.bodies["/v1/traces"]):
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                service = next(a.value.string_value for a in resource.resource.attributes if a.key == "service.name")
                found += [(service, span) for scope in resource.scope_spans for span in scope.spans]
        return found

    def metrics(self) -> list[Any]:
        return [
            metric
            for body in list(self.bodies["/v1/metrics"])
            for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        ]


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.released.set()
    made.shutdown()
    made.server_close()


def until(what: Any, seconds: float = SOON) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def points(metric: Any) -> list[Any]:
    return [*metric.sum.data_points, *metric.gauge.data_points]


def lags(collector: Collector) -> list[Any]:
    return [point for metric in collector.metrics() if metric.name == Metric.LAG for point in points(metric)]


def test_one_trace_goes_from_the_command_to_the_closure(
    kafka_bootstrap: str, topic_prefix: str, directory: Path, tmp_path: Path, collector: Collector
) -> None:
    """Through orchestrator, API and worker; with attributes from the list alone, and no identifier in any byte."""
    inventory = tmp_path / "inventory.yaml"
    inventory.write_text((EXAMPLE / "inventory.yaml").read_text(encoding="utf-8").partition("  - name: helpdesk")[0])
    environment = {
        "KESHI_KAFKA_BOOTSTRAP": kafka_bootstrap,
        "KESHI_KAFKA_PREFIX": topic_prefix,
        "KESHI_OTLP_ENDPOINT": collector.url,
        "KESHI_OTLP_SECONDS": "0.3",
    }
    with up("--json", "--inventory", str(inventory), "--data", str(directory), **environment) as process:
        line_of(process)
        command = f"submit erase --email {EMAIL} --ground appi.35-5 --wait --timeout 60 --json"
        mine = {**os.environ, **settings(directory / "keys" / "mine.env")}
        done = subprocess.run(
            [*KESHI, *command.split()], env=mine, capture_output=True, text=True, timeout=90, check=False
        )
        assert done.returncode == 0, done.stderr
        request_id = json.loads(done.stdout)["request_id"]
        until(lambda: {f"keshi.{stage}" for stage in Stage} <= {span.name for _, span in collector.spans()})
        wanted = {Metric.COMMANDS, Metric.TASKS, Metric.REPORTS, Metric.BEGINS, Metric.TASKS_ENDED, Metric.CLOSURES}
        until(lambda: wanted <= {metric.name for metric in collector.metrics()})
        until(lambda: {"keshi.stage", "keshi.system"} <= {a.key for p in lags(collector) for a in p.attributes})
    spans = collector.spans()
    assert len({span.trace_id for _, span in spans}) == 1
    assert {service for service, _ in spans} == {"keshi-orchestrator", "keshi-api", "keshi-worker"}
    told = [attribute for _, span in spans for attribute in span.attributes]
    told += [a for metric in collector.metrics() for point in points(metric) for a in point.attributes]
    assert {attribute.key for attribute in told} <= ATTRIBUTES
    assert {a.value.string_value for a in told if a.key == "keshi.request_id"} == {request_id}
    assert all(span.end_time_unix_nano >= span.start_time_unix_nano for _, span in spans)
    everything = b"".join(body for bodies in collector.bodies.values() for body in bodies)
    assert EMAIL.encode() not in everything
    assert b"hanako" not in everything.lower()


def test_a_collector_that_hangs_or_is_not_there_stops_nothing() -> None:
    hanging = Collector(hang=True)
    for endpoint in (hanging.url, "http://127.0.0.1:9"):
        telemetry = start(TelemetrySettings(endpoint=endpoint, seconds=0.1, timeout_seconds=1), "keshi-test")
        began = time.monotonic()
        for n in range(20_000):  # more than any queue holds
            telemetry.span(Stage.ACT, derived_trace(str(n)), time.time_ns(), request_id=str(n))
            telemetry.count(Metric.CLOSURES, verdict="fulfilled")
        if endpoint == hanging.url:
            until(lambda: hanging.bodies)
        telemetry.close()
        assert time.monotonic() - began < SOON
    hanging.released.set()
    hanging.shutdown()
    hanging.server_close()


def test_what_is_not_on_the_list_is_not_told_and_harms_nobody(collector: Collector) -> None:
    telemetry = start(TelemetrySettings(endpoint=collector.url, seconds=0.1), "keshi-test")
    telemetry.span(Stage.ACT, derived_trace("1"), time.time_ns(), email=EMAIL)
    telemetry.count(Metric.CLOSURES, name="Hanako")
    telemetry.gauge(Metric.OLDEST_TASK, lambda: [(1.0, {"phone": "+819000000001"})])
    telemetry.span(Stage.ACT, derived_trace("2"), time.time_ns(), request_id="2")
    until(collector.spans)
    telemetry.close()
    assert [len(span.attributes) for _, span in collector.spans()] == [1]
    everything = b"".join(body for bodies in collector.bodies.values() for body in bodies)
    assert EMAIL.encode() not in everything
    assert b"Hanako" not in everything
    assert b"+8190" not in everything


def test_a_sender_that_wants_no_trace_gets_none(collector: Collector) -> None:
    telemetry = start(TelemetrySettings(endpoint=collector.url, seconds=0.1), "keshi-test")
    telemetry.span(Stage.ACT, f"{derived_trace('1')[:-2]}00", time.time_ns(), request_id="1")
    telemetry.span(Stage.ACT, None, time.time_ns(), request_id="2")
    telemetry.span(Stage.ACT, derived_trace("3"), time.time_ns(), request_id="3")
    until(collector.spans)
    telemetry.close()
    assert [a.value.string_value for _, span in collector.spans() for a in span.attributes] == ["3"]


def test_it_is_off_unless_a_collector_is_named() -> None:
    assert start(TelemetrySettings(), "keshi-test") is OFF
    with pytest.raises(ConfigurationError, match="KESHI_OTLP_HEADERS"):
        start(TelemetrySettings(endpoint="http://127.0.0.1:9", headers="token"), "keshi-test")


def test_the_base_does_not_import_an_exporter() -> None:
    code = "import keshi.runtime.telemetry, sys; print([m for m in sys.modules if 'opentelemetry' in m])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_metric_has_its_words() -> None:
    assert set(COUNTERS) | set(GAUGES) == set(Metric)
