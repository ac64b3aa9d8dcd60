"""The S3 connector against a server that misbehaves as told: in time, bounded, and quiet about what it carries."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pydantic import SecretStr

from keshi.handlers.connectors.s3 import S3, S3Settings, Version
from keshi.handlers.contract import Limit, Work
from keshi.handlers.errors import GiveToPerson, HandlerError, LeaseEnded, Retry, RetryAfter
from keshi.schemas.commands import Action

KEY = "calls/2026/03/T-1/caller +819000000001.ogg"
VERSION = Version(KEY, "v1", marker=False, modified=datetime(2026, 3, 1, tzinfo=UTC))
EMPTY = b"<ListVersionsResult><IsTruncated>false</IsTruncated></ListVersionsResult>"
DELETED = b"<DeleteResult></DeleteResult>"
Answer = tuple[int, dict[str, str], bytes]


@dataclass
class Server:
    """Gives these answers, the last one for ever, and keeps the requests."""

    answers: list[Answer]
    url: str = ""
    requests: list[str] = field(default_factory=list)
    trickle: threading.Event | None = None

    def next(self) -> Answer:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def answering(told: Server) -> type[BaseHTTPRequestHandler]:
    class Answering(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            told.requests.append(f"{self.command} {self.path}")
            status, headers, body = told.next()
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if told.trickle is None:
                with suppress(OSError):  # too much of it, and nobody listens any more
                    self.wfile.write(body)
                return
            for n in range(len(body)):
                if told.trickle.wait(0.05):
                    return
                with suppress(OSError):
                    self.wfile.write(body[n : n + 1])

        do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815 - names that http.server looks for

        def log_message(self, *_: object) -> None:
            return

    return Answering


class Quiet(ThreadingHTTPServer):
    """Callers that hang up are what is tested here."""

    def handle_error(self, *_: object) -> None:
        return


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    servers: list[ThreadingHTTPServer] = []

    def start(*answers: Answer, tls: ssl.SSLContext | None = None, **more: Any) -> Server:
        told = Server(list(answers), **more)
        server = Quiet(("127.0.0.1", 0), answering(told))
        if tls:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        servers.append(server)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}).start()
        told.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}"
        return told

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def store(url: str, **more: Any) -> Any:
    given: dict[str, Any] = {"bucket": "b", "access_key": "k", "secret_key": SecretStr("s3cret")}
    return closing(S3(S3Settings(endpoint=url, **(given | more))))


def work(limit: Limit | None = None) -> Work:
    return Work(
        request_id="r",
        system="call_recordings",
        action=Action.ERASE,
        categories=("recordings",),
        identifiers=(),
        as_of=date(2026, 4, 1),
        limit=limit or Limit(60),
    )


class Freezing(Limit):
    """As if the process were frozen, past the end, after so many looks at the clock."""

    def __init__(self, looks: int) -> None:
        super().__init__(60)
        self._looks = looks

    def require(self) -> float:
        if self._looks == 0:
            self.end_now()
        self._looks -= 1
        return super().require()


# --- in time


@pytest.mark.parametrize("looks", [1, 2, 3])
def test_frozen_after_the_call_was_signed_nothing_is_sent(serve: Callable[..., Server], looks: int) -> None:
    """Before it is built, before a connection is taken, right before it is written."""
    server = serve((200, {}, DELETED))
    with store(server.url) as s3:
        s3.delete(work(), [VERSION])
        assert len(server.requests) == 1
        with pytest.raises(LeaseEnded):
            s3.delete(work(Freezing(looks)), [VERSION])
        assert len(server.requests) == 1
        s3.delete(work(), [VERSION])
        assert len(server.requests) == 2


def test_an_answer_that_trickles_is_not_waited_for_past_the_time(serve: Callable[..., Server]) -> None:
    end = threading.Event()
    server = serve((200, {}, EMPTY), trickle=end)
    try:
        with store(server.url) as s3, pytest.raises(LeaseEnded):
            list(s3.versions(work(Limit(0.5)), "calls/"))
    finally:
        end.set()


def test_a_store_that_says_nothing_is_waited_for_as_long_as_the_task_has() -> None:
    with (
        closing(socket.create_server(("127.0.0.1", 0))) as silent,  # it takes a connection, and nobody serves it
        store(f"http://127.0.0.1:{silent.getsockname()[1]}") as s3,
        pytest.raises(LeaseEnded),
    ):
        list(s3.versions(work(Limit(0.4)), "calls/"))


# --- what an answer asks to be done


def xml(code: str, message: str = KEY) -> bytes:
    return f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()


@pytest.mark.parametrize(
    ("answer", "kind", "code"),
    [
        ((503, {"Retry-After": "7"}, xml("SlowDown")), RetryAfter, "unavailable"),
        ((503, {}, xml("ServiceUnavailable")), Retry, "unavailable"),
        ((429, {}, xml("TooManyRequests")), Retry, "unavailable"),
        ((500, {}, xml("InternalError")), Retry, "internal_error"),
        ((500, {}, b"<html>"), Retry, "http_500"),
        ((403, {}, xml("AccessDenied")), Retry, "access_denied"),
        ((403, {}, xml("InvalidAccessKeyId")), Retry, "invalid_access_key_id"),
        ((403, {}, xml("RequestTimeTooSkewed")), Retry, "request_time_too_skewed"),
        ((404, {}, xml("NoSuchBucket")), Retry, "no_such_bucket"),
        ((409, {}, xml("OperationAborted")), Retry, "operation_aborted"),
        ((400, {}, xml("RequestTimeout")), Retry, "request_timeout"),
        ((400, {}, xml("InvalidArgument")), GiveToPerson, "invalid_argument"),
        ((501, {}, xml("NotImplemented")), Retry, "not_implemented"),
        ((400, {}, xml("Some text about a person")), GiveToPerson, "http_400"),
        ((200, {}, b"no document"), Retry, "http_500"),
        ((200, {}, b"<html><body>Please log in</body></html>"), Retry, "answer_incomplete"),
        ((200, {}, b""), Retry, "answer_incomplete"),
        ((200, {}, b"9" * 17_000_000), GiveToPerson, "answer_too_large"),
    ],
)
def test_each_answer_says_what_is_to_be_done(
    serve: Callable[..., Server], answer: Answer, kind: type[HandlerError], code: str
) -> None:
    """It is asked once: the worker, and nobody else, tries again. Nothing of the key or the answer is repeated."""
    server = serve(answer)
    with store(server.url) as s3, pytest.raises(HandlerError) as failure:
        list(s3.versions(work(), KEY))
    assert type(failure.value) is kind
    assert failure.value.code == code
    assert len(server.requests) == 1
    if isinstance(failure.value, RetryAfter):
        assert failure.value.seconds == 7
    error: BaseException | None = failure.value
    while error:
        assert "819000000001" not in repr(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def refusal(code: str, version: str | None = "v1") -> bytes:
    named = f"<VersionId>{version}</VersionId>" if version else ""
    return f"<DeleteResult><Error><Key>{KEY}</Key>{named}<Code>{code}</Code></Error></DeleteResult>".encode()


@pytest.mark.parametrize(
    ("answer", "refused"),
    [
        (DELETED, 0),
        (refusal("NoSuchVersion"), 0),
        (refusal("NoSuchKey"), 0),
        (refusal("AccessDenied"), 1),
        (refusal("AccessDenied", None), 1),
        (refusal("InvalidArgument", ""), 1),
    ],
)
def test_of_each_version_it_is_told_whether_the_store_refused_it(
    serve: Callable[..., Server], answer: bytes, refused: int
) -> None:
    with store(serve((200, {}, answer)).url) as s3:
        assert s3.delete(work(), [VERSION]) == [VERSION][:refused]


def test_a_deletion_that_was_done_in_part_is_tried_again(serve: Callable[..., Server]) -> None:
    with store(serve((200, {}, refusal("InternalError"))).url) as s3, pytest.raises(Retry) as failure:
        s3.delete(work(), [VERSION])
    assert failure.value.code == "deletion_incomplete"


def test_a_list_that_leads_nowhere_is_given_to_a_person(serve: Callable[..., Server]) -> None:
    page = b"<R><IsTruncated>true</IsTruncated><NextKeyMarker>a</NextKeyMarker></R>"
    with store(serve((200, {}, page)).url) as s3, pytest.raises(GiveToPerson) as failure:
        list(s3.versions(work(), "calls/"))
    assert failure.value.code == "paging_stands_still"


def test_a_key_that_others_begin_with_is_not_read_on_behind_itself(serve: Callable[..., Server]) -> None:
    page = b"<R><IsTruncated>true</IsTruncated><NextKeyMarker>calls/2</NextKeyMarker></R>"
    server = serve((200, {}, page))
    with store(server.url) as s3:
        assert list(s3.versions(work(), "calls", exact=True)) == []
    assert len(server.requests) == 1


def test_more_tags_than_a_version_can_have_are_for_a_person(serve: Callable[..., Server]) -> None:
    server = serve((200, {}, b""))
    with store(server.url) as s3, pytest.raises(GiveToPerson) as failure:
        s3.retag(work(), VERSION, {f"tag-{n}": "" for n in range(11)})
    assert failure.value.code == "no_room_for_a_tag"
    assert not server.requests


def test_a_key_travels_as_it_was_signed(serve: Callable[..., Server]) -> None:
    """Also one that a client would take for a way up."""
    server = serve((204, {}, b""))
    odd = Version("calls/../a b/é+?#.ogg", "v1", marker=False, modified=VERSION.modified)
    with store(server.url) as s3:
        s3.retag(work(), odd, {})
    assert server.requests == ["DELETE /b/calls/../a%20b/%C3%A9%2B%3F%23.ogg?tagging&versionId=v1"]


def test_nothing_of_a_key_or_a_secret_is_shown(serve: Callable[..., Server]) -> None:
    assert "819000000001" not in repr(VERSION)
    assert "s3cret" not in repr(S3Settings(secret_key=SecretStr("s3cret")))


# --- TLS


def certificate(directory: Path) -> tuple[Path, ssl.SSLContext]:
    """A certificate of our own for 127.0.0.1, and a server that shows it."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "store.example")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, both = directory / "ca.pem", directory / "both.pem"
    pem.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    both.write_bytes(private + pem.read_bytes())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(both)
    return pem, context


def test_a_store_is_believed_by_its_certificate_alone(serve: Callable[..., Server], tmp_path: Path) -> None:
    cafile, context = certificate(tmp_path)
    server = serve((200, {}, EMPTY), tls=context)
    with store(server.url, cafile=cafile) as known:
        assert list(known.versions(work(), "calls/")) == []
    with store(server.url) as stranger, pytest.raises(Retry) as failure:
        list(stranger.versions(work(), "calls/"))
    assert failure.value.code == "connect_error"
    assert len(server.requests) == 1
