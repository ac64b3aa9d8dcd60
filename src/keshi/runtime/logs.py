"""Structured logs that hold ids only: a field that is not on the list is dropped and counted."""

import logging
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any

import structlog

from keshi.runtime.settings import ProcessSettings

ALLOWED = frozenset(
    {
        "event", "level", "timestamp", "logger", "exception_class", "request_id", "system", "attempt", "mode",
        "partition", "offset", "topic", "lane", "lanes", "epoch", "count", "reason", "code", "seconds", "port", "host",
        "pid", "signal", "part", "version", "status", "stage", "lease_id", "begin_id", "obligation_id", "field",
        "records", "handlers", "group", "events", "expected", "seen", "where", "dropped", "next_offset", "url",
    }
)  # fmt: skip


def only_ids(_: Any, __: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    """Drop what is not on the list: a payload cannot slip into a log by an argument's name."""
    dropped = [k for k in event if k not in ALLOWED]
    for k in dropped:
        del event[k]
    if dropped:
        event["dropped"] = len(dropped)
    return event


def _class_only(_: Any, __: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    """Messages of exceptions can hold data of others: the class and the place are what we keep."""
    info = event.pop("exc_info", None)
    if info is True:
        info = sys.exc_info()
    error = info[1] if isinstance(info, tuple) else info
    if isinstance(error, BaseException):
        event["exception_class"] = type(error).__name__
        trace = error.__traceback__
        while trace and trace.tb_next:
            trace = trace.tb_next
        if trace:
            event["where"] = f"{trace.tb_frame.f_code.co_qualname}:{trace.tb_lineno}"
    return event


def configure(settings: ProcessSettings) -> None:
    """Set up logging for this process: one line of JSON (or text) an event, on standard error."""
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if settings.log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    level = getattr(logging, settings.log_level.upper())
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _class_only,
            only_ids,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    # Libraries log through the standard module, and may put anything into their messages: names and levels only.
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_NamesOnly())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    # A broker that is away makes kafka-python say so several times a second; we say it ourselves, once.
    logging.getLogger("kafka.net").setLevel(logging.CRITICAL)
    # Before a consumer's first answer about its topic it says that there is none.
    logging.getLogger("kafka.coordinator.assignors").setLevel(logging.ERROR)


class _NamesOnly(logging.Formatter):
    """The message template of a library without its arguments."""

    def format(self, record: logging.LogRecord) -> str:
        error = record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else None
        template = str(record.msg) if record.args else "-"
        return (
            f'{{"logger": "{record.name}", "level": "{record.levelname.lower()}", '
            f'"where": "{record.module}:{record.lineno}", "exception_class": "{error or ""}", '
            f'"event": {template[:200]!r}}}'.replace("'", '"')
        )
