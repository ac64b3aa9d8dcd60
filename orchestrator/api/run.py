"""The API as a process: bind, serve, end in order."""

import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog
import uvicorn
from fastapi import FastAPI

from keshi.runtime.settings import ConfigurationError

log = structlog.get_logger()

GRACE_SECONDS: Final = 10
"""What is being answered at SIGTERM may take this long; a begin takes milliseconds."""


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """How to serve. Port 0 takes any free one."""

    host: str = "127.0.0.1"
    port: int = 8420
    idle_seconds: int = 30
    """Longer than clients keep a connection that they do not use."""
    connections: int = 1000


def run(app: FastAPI, options: ServerOptions, on_ready: Callable[[int], None] | None = None) -> int:
    """Serve until SIGTERM or SIGINT.

    Args:
        app: From `create_app`.
        options: How.
        on_ready: Called with the port once questions are answered.

    Returns:
        The exit code of the process.

    Raises:
        ConfigurationError: the address is taken or not ours.
    """
    listener = _bind(options)
    port = int(listener.getsockname()[1])

    def ready() -> None:
        log.info("api_ready", host=options.host, port=port)
        if on_ready:
            on_ready(port)

    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=options.idle_seconds,
        timeout_graceful_shutdown=GRACE_SECONDS,
        limit_concurrency=options.connections,
    )
    # uvicorn ends in order and then raises the signal once more, which would end us by it.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _ignore)
    server = _Server(config, ready)
    try:
        server.run(sockets=[listener])
    finally:
        listener.close()
    log.info("api_ended", port=port)
    return 0 if server.started else 1


class _Server(uvicorn.Server):
    """Says when it answers."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._ready()


def _bind(options: ServerOptions) -> socket.socket:
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    try:
        return socket.create_server((options.host, options.port), family=family, backlog=512)
    except (OSError, OverflowError):
        raise ConfigurationError(
            f"cannot listen at {options.host}:{options.port}: set KESHI_API_HOST and KESHI_API_PORT to a free address"
        ) from None


def _ignore(*_: object) -> None:
    """The server has seen it."""
