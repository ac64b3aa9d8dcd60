"""What does TLS in front of a server that speaks plain HTTP, as a company puts it before the API."""

import asyncio
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread


@contextmanager
def tls_front(certificate: Path, port: int) -> Iterator[str]:
    """The `https` URL under which a server on a loopback port can be reached meanwhile.

    Args:
        certificate: Its private key and certificate, in one file.
        port: Where the server listens, or will.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    ready = Event()
    where: list[tuple[int, asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            inner, to_inner = await asyncio.open_connection("127.0.0.1", port)
            await asyncio.gather(_pipe(reader, to_inner), _pipe(inner, writer))
        writer.close()

    async def serve() -> None:
        server = await asyncio.start_server(pass_on, "127.0.0.1", 0, ssl=context)
        end = asyncio.Event()
        where.append((server.sockets[0].getsockname()[1], asyncio.get_running_loop(), end))
        ready.set()
        await end.wait()
        server.close()

    thread = Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    assert ready.wait(10)
    own, loop, end = where[0]
    try:
        yield f"https://127.0.0.1:{own}"
    finally:
        loop.call_soon_threadsafe(end.set)
        thread.join(10)


async def _pipe(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    try:
        while data := await source.read(65_536):
            sink.write(data)
            await sink.drain()
    finally:
        sink.close()
