"""Runs the engine in its stream until a signal or a failure ends it."""

import asyncio
import os
import signal
import threading
from collections.abc import Mapping
from typing import Any

import structlog
import uvloop

from keshi.orchestrator.stream.app import HostApp, build_app
from keshi.orchestrator.stream.batches import read_odd_header_names
from keshi.orchestrator.stream.broker import BrokerView, Shape
from keshi.orchestrator.stream.heartbeat import Heartbeat
from keshi.orchestrator.stream.port import Engine, LogMismatch
from keshi.orchestrator.stream.quiet import quiet_libraries
from keshi.orchestrator.stream.settings import StreamSettings
from keshi.runtime.settings import ConfigurationError

log = structlog.get_logger("keshi.stream")

EXIT_OK = os.EX_OK
EXIT_NO_BROKER = os.EX_UNAVAILABLE
EXIT_FAILED = os.EX_SOFTWARE
EXIT_LOG_MISMATCH = os.EX_DATAERR


def run(settings: StreamSettings, engine: Engine, heartbeat: Heartbeat | None = None) -> int:
    """Run until SIGTERM or SIGINT, or until it cannot go on. Blocks; belongs in the main thread.

    A graceful end finishes the running cycle, gives up the lanes and leaves the group, so that another takes
    over at once. An end that takes longer than twice `stop_seconds` is cut short, by `os._exit`.

    Returns:
        The exit code: `EXIT_OK` after a signal, else `EXIT_NO_BROKER`, `EXIT_LOG_MISMATCH` or `EXIT_FAILED`.
    """
    quiet_libraries()
    read_odd_header_names()
    view = BrokerView(settings)
    try:
        topics = view.wait_for_topics()
    except ConfigurationError as missing:
        log.error(str(missing))  # noqa: TRY400 - one line that says what to do, no trace
        return EXIT_NO_BROKER
    finally:
        view.close()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_host(build_app(settings, engine, heartbeat), topics))


async def _host(app: HostApp, topics: Mapping[str, Shape]) -> int:
    settings = app.options
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    failed = app.driver.start(app.consumer, topics)
    starting = asyncio.ensure_future(app.start())
    stopped = asyncio.ensure_future(stop.wait())
    starting.add_done_callback(lambda done: _started(app, done))
    waited: set[asyncio.Future[Any]] = {failed, stopped}
    await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
    code = _exit_code(failed)
    _last_resort(settings, code)
    await _end(app, settings, starting)
    log.info("stream ended", code=code)
    return code


def _started(app: HostApp, starting: "asyncio.Future[None]") -> None:
    if not starting.cancelled() and (error := starting.exception()):
        app.driver.fail(error)


def _exit_code(failed: "asyncio.Future[BaseException]") -> int:
    if not failed.done():
        return EXIT_OK
    return EXIT_LOG_MISMATCH if isinstance(failed.result(), LogMismatch) else EXIT_FAILED


async def _end(app: HostApp, settings: StreamSettings, starting: "asyncio.Future[None]") -> None:
    await app.driver.stop()
    stopping = asyncio.ensure_future(app.stop())
    done, _ = await asyncio.wait({stopping}, timeout=settings.stop_seconds)
    if not done:
        log.warning("the stream does not end in time", seconds=settings.stop_seconds)
    elif error := stopping.exception():
        log.warning("the stream ended badly", exception_class=type(error).__name__)
    starting.cancel()


def _last_resort(settings: StreamSettings, code: int) -> None:
    """Faust's threads can outlive its `stop`, and an interpreter waits for them for ever."""
    timer = threading.Timer(2 * settings.stop_seconds + 5, os._exit, [code or EXIT_FAILED])
    timer.daemon = True
    timer.start()
