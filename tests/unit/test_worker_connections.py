"""Connections to the API: kept, replaced when the server has closed them, and with nothing told of what was sent."""

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from keshi.client.api import ApiDeniedError, ApiRefusedError, ApiUnavailableError, WorkerApi
from keshi.client.connections import Connections, NoAnswerError
from keshi.runtime.settings import ApiClientSettings, ConfigurationError
from keshi.schemas.tasks import TaskRef
from kit.authority import Authority

SECRET = "a-token-nobody-has"
REF = TaskRef(request_id="01KN33YH80E7QZ3V5W9T2B4M6A", system="files", attempt=1)


class Server:
    """A real HTTP server that counts connections and can close them behind an answer."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        outer = self
        self.connections = 0
        self.seen: list[tuple[str, str, bytes]] = []
        self.answers: list[tuple[int, bytes, dict[str, str]]] = []
        self.hang_up = False

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                outer.connections += 1
                super().setup()

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self.close_connection = outer.hang_up  # before the answer: who gets it may go on at once
                outer.seen.append((self.path, self.headers["Authorization"], body))
                status, text, headers = outer.answers.pop(0) if outer.answers else (200, b"{}", {})
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_POST  # noqa: N815 - the library chooses these names

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        if tls:
            self.server.socket = tls.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_address[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@contextmanager
def serving(tls: ssl.SSLContext | None = None) -> Iterator[Server]:
    server = Server(tls)
    try:
        yield server
    finally:
        server.close()


def _tls(authority: Authority) -> ssl.SSLContext:
    """Of a server."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.issue("server", "127.0.0.1"))
    return context


def _trusting(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(authority.file))


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture(params=["http", "https"])
def server(request: pytest.FixtureRequest, authority: Authority) -> Iterator[Server]:
    with serving(_tls(authority) if request.param == "https" else None) as one:
        yield one


@pytest.fixture
def connections(server: Server, authority: Authority) -> Iterator[Connections]:
    given = {"Authorization": f"Bearer {SECRET}"}
    made = Connections(f"{server.url}/base/", given, timeout=5, keep=60, tls=_trusting(authority))
    yield made
    made.close()


def test_a_connection_is_kept_and_used_again(server: Server, connections: Connections) -> None:
    """Calls that follow each other have one connection; the path of the URL begins all paths."""
    for n in range(3):
        assert connections.send("POST", "/v1/x", b"%d" % n).status == 200
    assert server.connections == 1
    assert server.seen == [("/base/v1/x", f"Bearer {SECRET}", b"%d" % n) for n in range(3)]


def test_several_threads_have_a_connection_each(server: Server, connections: Connections) -> None:
    """No answer reaches another thread's call."""
    answers: dict[int, bytes] = {}
    server.answers = []

    def call(n: int) -> None:
        for _ in range(20):
            answers[n] = connections.send("POST", "/v1/x", b"").body

    threads = [threading.Thread(target=call, args=(n,)) for n in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(20)
    assert answers == dict.fromkeys(range(4), b"{}")
    assert 1 <= server.connections <= 4


def test_one_that_was_idle_for_too_long_is_not_used_again(server: Server, authority: Authority) -> None:
    """The server closes idle connections: whoever writes to one at that moment gets no answer."""
    young = Connections(server.url, {}, timeout=5, keep=0, tls=_trusting(authority))
    young.send("POST", "/", b"")
    young.send("POST", "/", b"")
    young.close()
    assert server.connections == 2


def test_a_connection_that_the_server_has_closed_is_no_answer_and_then_a_new_one(
    server: Server, authority: Authority
) -> None:
    """Nobody knows whether the server had read what was sent: the caller decides whether to send again."""
    server.hang_up = True
    made = Connections(server.url, {}, timeout=5, keep=60, tls=_trusting(authority))
    assert made.send("POST", "/", b"").status == 200
    server.hang_up = False
    with pytest.raises(NoAnswerError, match=r"^\w+$"):
        made.send("POST", "/", b"")
    assert made.send("POST", "/", b"").status == 200
    made.close()


@contextmanager
def saying(*answers: bytes) -> Iterator[int]:
    """The port of a server that says these bytes, one to each request of one connection, and then hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                for answer in answers:
                    connection.recv(65_536)
                    connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listening.getsockname()[1]
        thread.join(10)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\ncontent-length:5\r\n\r\nhello",
        b"HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nhe\r\n3\r\nllo\r\n0\r\nTrailer: t\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    ],
)
def test_an_answer_ends_where_it_says_it_does(answer: bytes) -> None:
    with saying(answer, answer) as port:
        made = Connections(f"http://127.0.0.1:{port}", {}, timeout=5, keep=60)
        for _ in range(2):
            reply = made.send("POST", "/", b"x")
            assert (reply.status, reply.body) == (200, b"hello")
        made.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    ],
)
def test_a_connection_that_the_server_means_to_close_is_not_used_again(answer: bytes) -> None:
    with saying(answer) as port:
        made = Connections(f"http://127.0.0.1:{port}", {}, timeout=5, keep=60)
        assert made.send("POST", "/", b"x").body == b"hello"
    with pytest.raises(NoAnswerError, match=r"^ConnectionRefusedError$"):
        made.send("POST", "/", b"x")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 oops\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 40_000,
        b"HTTP/1.1 200 " + b"o" * 200_000,
    ],
)
def test_what_is_no_whole_answer_is_none(answer: bytes) -> None:
    with saying(answer) as port:
        made = Connections(f"http://127.0.0.1:{port}", {}, timeout=5, keep=60)
        with pytest.raises(NoAnswerError, match=r"^\w+$"):
            made.send("POST", "/", b"x")
        made.close()


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
def test_an_answer_that_has_no_body_ends_with_its_head(status: bytes) -> None:
    with saying(b"HTTP/1.1 " + status + b"\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello") as port:
        made = Connections(f"http://127.0.0.1:{port}", {}, timeout=5, keep=60)
        assert made.send("POST", "/", b"x").body == b""
        assert made.send("POST", "/", b"x").body == b"hello"
        made.close()


def test_a_server_that_says_nothing_is_not_waited_for_longer_than_was_asked() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        made = Connections(f"http://127.0.0.1:{listening.getsockname()[1]}", {}, timeout=0.1, keep=60)
        with pytest.raises(NoAnswerError, match=r"^TimeoutError$"):
            made.send("POST", "/", b"x")


def test_nobody_there_is_no_answer() -> None:
    """And its text is the name of a class."""
    with serving() as gone:
        port = gone.port
    with pytest.raises(NoAnswerError, match=r"^ConnectionRefusedError$"):
        Connections(f"http://127.0.0.1:{port}", {}, timeout=1, keep=1).send("POST", "/", b"")


@pytest.mark.parametrize("url", ["", "127.0.0.1:8420", "ftp://host", "http://", "http://host:port", "http://[1"])
def test_a_url_that_is_none_is_refused_in_words(url: str) -> None:
    """Before anything is sent."""
    with pytest.raises(ConfigurationError, match="KESHI_API_URL"):
        Connections(url, {}, timeout=1, keep=1)


@pytest.mark.parametrize("token", ["", "two\r\nlines", "消去"])
def test_a_token_that_no_header_can_hold_is_refused_in_words(token: str) -> None:
    """And is not repeated."""
    with pytest.raises(ConfigurationError, match=r"KESHI_API_TOKEN") as caught:
        WorkerApi(ApiClientSettings(url="http://127.0.0.1:1", token=token))
    assert not token or token not in str(caught.value)


def test_what_may_pass_is_sent_again_and_what_may_not_is_told(server: Server, authority: Authority) -> None:
    """The class of the error says what to do."""
    api = WorkerApi(ApiClientSettings(url=server.url, token=SECRET, cafile=authority.file, timeout_seconds=2))
    server.answers = [(503, b"", {}), (429, b"", {"Retry-After": "0"}), (200, b'{"tasks":[]}', {})]
    assert api.unwrap([REF]).tasks == ()
    server.answers = [(401, b"", {})]
    with pytest.raises(ApiDeniedError):
        api.unwrap([REF])
    server.answers = [(422, b"", {})]
    with pytest.raises(ApiRefusedError):
        api.unwrap([REF])
    server.answers = [(200, b"no JSON", {})] * 4
    with pytest.raises(ApiUnavailableError, match="api_answer_unreadable"):
        api.unwrap([REF])
    assert api.reachable()
    api.close()


def test_the_servers_certificate_is_checked(tmp_path: Path) -> None:
    """By the CA of the settings; one that it has not signed gets no token."""
    authority, stranger = Authority(tmp_path), Authority(tmp_path, "stranger")
    with serving(_tls(authority)) as server:
        settings = ApiClientSettings(url=server.url, token=SECRET, cafile=authority.file, timeout_seconds=5)
        server.answers = [(200, b'{"tasks":[]}', {})]
        known = WorkerApi(settings)
        assert known.unwrap([REF]).tasks == ()
        known.close()
        for vouched in (None, ssl.create_default_context(cafile=str(stranger.file))):
            made = Connections(settings.url, {"Authorization": SECRET}, timeout=5, keep=1, tls=vouched)
            with pytest.raises(NoAnswerError, match="SSLCertVerificationError"):
                made.send("POST", "/", b"")
        other = Connections(
            settings.url.replace("127.0.0.1", "localhost"), {}, timeout=5, keep=1, tls=_trusting(authority)
        )
        with pytest.raises(NoAnswerError, match="SSLCertVerificationError"):
            other.send("POST", "/", b"")
        ending = threading.Event()
        ending.set()  # so that it tries once
        refused = WorkerApi(settings.model_copy(update={"cafile": stranger.file}), stopping=ending)
        with pytest.raises(ApiUnavailableError, match=r"^api_sslcertverificationerror$"):
            refused.unwrap([REF])
        assert len(server.seen) == 1
