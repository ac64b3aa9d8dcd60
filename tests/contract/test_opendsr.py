"""OpenDSR as the handler speaks it: what it sends, what it takes for an answer, what its file may say.

The companies here are scripted, so that they can answer as nobody should. `test_handler_affiliates` has real ones.
"""

import json
import threading
from base64 import b64encode
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml

from contract.reference import TODAY, closing
from keshi.dev.systems.affiliates.certificates import Authority
from keshi.dev.systems.affiliates.certificates import signer as sign
from keshi.dev.systems.people import people
from keshi.handlers.connectors.certificates import Authorities, CertificateRefused
from keshi.handlers.errors import HandlerError, Retry
from keshi.handlers.systems import affiliates as module
from keshi.handlers.systems.affiliates import Affiliates, request_id
from keshi.handlers.systems.affiliates_file import read_affiliates
from keshi.runtime.settings import ConfigurationError
from keshi.schemas.commands import Regime
from kit.affiliates import OCEANIA, SAKURA, work

PERSON = people(1, today=TODAY)[0]


# --- a company that answers as nobody should


class Scripted:
    """Serves what it is told: by method and path, a status and a body. Keeps the bodies that were posted."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.requests: list[dict[str, Any]] = []
        self.headers: dict[str, str] = {}
        outer = self

        class Serving(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                length = int(self.headers.get("Content-Length", "0"))
                sent = self.rfile.read(length)
                if sent:
                    outer.requests.append(json.loads(sent))
                key = f"{self.command} /{self.path.split('/')[2]}"
                status, body = outer.answers.get(key) or outer.usual(key, sent)
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                for name, value in outer.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            do_POST = do_GET  # noqa: N815 - names that http.server looks for

            def log_message(self, *args: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Serving)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.directory = Path()

    def usual(self, key: str, sent: bytes) -> tuple[int, Any]:
        if key == "GET /discovery":
            return 200, self.discovery()
        if key == "POST /requests":
            name = json.loads(sent)["subject_request_id"]
            return 201, {**DATES, "subject_request_id": name, "encoded_request": b64encode(sent).decode()}
        return 404, {}

    def discovery(self, **change: Any) -> dict[str, Any]:
        supported = [
            {"identity_type": "email", "identity_format": "sha256"},
            {"identity_type": "email", "identity_format": "raw"},
            {"identity_type": "controller_customer_id", "identity_format": "sha256"},
            {"identity_type": "controller_customer_id", "identity_format": "md5"},
        ]
        return {
            "api_version": "2.0",
            "supported_identities": supported,
            "supported_subject_request_types": ["access", "erasure"],
            "processor_certificate": f"{self.url}/v2/cert.pem",
        } | change

    def file(self, *affiliates: dict[str, Any]) -> Path:
        """The handler's file, with these changes to one usual affiliate each."""
        (self.directory / "token").write_text("t")
        usual = {
            "name": "one",
            "url": f"{self.url}/v2",
            "domain": "one.example",
            "token_file": "token",
            "extension_identities": {"phone": "phone"},
        }
        made = self.directory / "affiliates.yaml"
        made.write_text(yaml.safe_dump({"affiliates": [usual | change for change in affiliates]}))
        return made

    def handler(self, **change: Any) -> Affiliates:
        given = read_affiliates(self.file(change))
        return Affiliates({a.name: module.Company(a, a.processor(self.directory)) for a in given})


DATES = {"expected_completion_time": "2026-05-01T00:00:00Z", "received_time": "2026-04-01T00:00:00+09:00"}


@pytest.fixture
def scripted(tmp_path: Path) -> Iterator[Scripted]:
    made = Scripted()
    made.directory = tmp_path
    yield made
    made.server.shutdown()
    made.thread.join()
    made.server.server_close()


# --- what is sent


def test_what_is_sent_is_what_the_specification_asks_for(scripted: Scripted) -> None:
    """Regulation, time of the person's own request, and each identity where it belongs."""
    person = PERSON
    sent = {}
    for regime in (Regime.APPI, Regime.GDPR, Regime.CCPA, None):
        scripted.requests.clear()
        with closing(scripted.handler()) as handler:
            task = work(person, categories=("one",), regime=regime)
            handler.act(task, handler.locate(task).found)
        (sent[regime],) = scripted.requests
    assert [b["regulation"] for b in sent.values()] == ["appi", "gdpr", "ccpa", "appi"]
    body = sent[Regime.APPI]
    assert body["submitted_time"] == "2026-03-30T05:06:07Z"
    assert body["api_version"] == "2.0"
    assert body["subject_request_type"] == "erasure"
    known = {i["identity_type"]: (i["identity_value"], i["identity_format"]) for i in body["subject_identities"]}
    assert known == {
        "email": (person.email.casefold(), "raw"),
        "controller_customer_id": (module._hash(str(person.customer_id)), "sha256"),
    }
    extension = [{"identity_type": "phone", "identity_value": person.phone, "identity_format": "raw"}]
    assert body["extensions"] == {"one.example": {"identities": extension}}
    assert "status_callback_urls" not in body


# --- what comes back


STATUS = {"controller_id": "c", "request_status": "completed", **DATES}


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ((200, b"{"), "answer_not_json"),
        ((200, []), "answer_not_opendsr"),
        ((200, STATUS), "answer_not_opendsr"),
        ((200, STATUS | {"subject_request_id": "MINE", "request_status": "done"}), "answer_not_opendsr"),
        ((200, STATUS | {"subject_request_id": "MINE", "results_count": -1}), "answer_not_opendsr"),
        (
            (200, STATUS | {"subject_request_id": "MINE", "expected_completion_time": "2026-05-01T00:00:00"}),
            "answer_not_opendsr",
        ),
        ((200, STATUS | {"subject_request_id": str(uuid4())}), "answer_of_another_request"),
        ((302, b""), "http_302"),
        ((500, b"trouble"), "http_500"),
        ((401, b""), "http_401"),
        ((200, b"x" * 9_000_000), "answer_too_large"),
    ],
)
def test_an_answer_that_is_none_is_never_taken_for_done(scripted: Scripted, said: Any, code: str) -> None:
    task = work(PERSON, categories=("one",))
    status, body = said
    if isinstance(body, dict) and body.get("subject_request_id") == "MINE":
        body = body | {"subject_request_id": request_id(task, "one")}
    scripted.answers["GET /requests"] = status, body
    with closing(scripted.handler()) as handler:
        with pytest.raises(HandlerError) as failure:
            handler.verify(task, handler.locate(task).found)
        assert failure.value.code == code


@pytest.mark.parametrize(
    ("key", "said", "code"),
    [
        ("GET /discovery", {"api_version": "1.0"}, "version_not_supported"),
        ("GET /discovery", {"supported_subject_request_types": ["access"]}, "action_not_possible"),
        ("GET /discovery", {"supported_identities": "all"}, "answer_not_opendsr"),
        ("POST /requests", (200, {}), "answer_not_opendsr"),
        ("POST /requests", (201, {"subject_request_id": "x"}), "answer_not_opendsr"),
        (
            "POST /requests",
            (201, {**DATES, "subject_request_id": "x", "encoded_request": "e30="}),
            "answer_of_another_request",
        ),
        ("POST /requests", (400, {"error": {"code": 400}}), "http_400"),
        ("POST /requests", (429, {}), "unavailable"),
    ],
)
def test_a_receipt_that_is_none_is_no_receipt(scripted: Scripted, key: str, said: Any, code: str) -> None:
    scripted.answers[key] = said if isinstance(said, tuple) else (200, scripted.discovery(**said))
    task = work(PERSON, categories=("one",))
    with closing(scripted.handler()) as handler:
        with pytest.raises(HandlerError) as failure:
            handler.act(task, handler.locate(task).found)
        assert failure.value.code == code


def test_a_receipt_for_another_persons_request_is_none(scripted: Scripted) -> None:
    task = work(PERSON, categories=("one",))
    receipt = {**DATES, "subject_request_id": request_id(task, "one"), "encoded_request": "e30="}
    scripted.answers["POST /requests"] = 201, receipt
    with closing(scripted.handler()) as handler:
        with pytest.raises(Retry) as failure:
            handler.act(task, handler.locate(task).found)
        assert failure.value.code == "answer_of_another_request"


def test_a_certificate_is_fetched_from_nowhere_else(scripted: Scripted, authority: Authority) -> None:
    """Or an answer could send us, with our token, to any address."""
    authority.write(scripted.directory / "authority.pem")
    scripted.answers["GET /discovery"] = 200, scripted.discovery(processor_certificate="http://127.0.0.1:1/cert.pem")
    task = work(PERSON, categories=("one",))
    scripted.answers["GET /requests"] = 200, STATUS | {"subject_request_id": request_id(task, "one")}
    scripted.headers = {"X-OpenDSR-Processor-Domain": "one.example", "X-OpenDSR-Signature": "eA=="}
    with closing(scripted.handler(authorities_file="authority.pem")) as handler:
        with pytest.raises(Retry) as failure:
            handler.verify(task, handler.locate(task).found)
        assert failure.value.code == "certificate_elsewhere"


def test_a_failed_call_repeats_nothing_of_what_was_sent_or_answered(
    scripted: Scripted, capfd: pytest.CaptureFixture[str]
) -> None:
    person = PERSON
    scripted.answers["POST /requests"] = 400, {"error": {"code": 400, "message": person.email}}
    task = work(person, categories=("one",))
    with closing(scripted.handler()) as handler:
        with pytest.raises(HandlerError) as failure:
            handler.act(task, handler.locate(task).found)
        error: BaseException | None = failure.value
        while error:
            assert person.email not in repr(error)
            error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    told = "".join(capfd.readouterr())
    assert not [v for v in person.identifiers.values() if v in told]


# --- certificates


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority("An authority")


def test_a_certificate_is_good_for_its_own_domain_from_a_trusted_authority_and_today_alone(
    authority: Authority, tmp_path: Path
) -> None:
    key, chain = tmp_path / "key", tmp_path / "pem"
    authority.issue("one.example", key, chain, days=10)
    authority.write(tmp_path / "trusted")
    trusted = Authorities.of(tmp_path / "trusted")
    signer = trusted.signer(chain.read_bytes(), "one.example")
    assert signer.signed(b"text", sign(key)(b"text"))
    assert not signer.signed(b"other", sign(key)(b"text"))
    assert not signer.signed(b"text", b"no signature")
    in_a_month = datetime.now(UTC) + timedelta(days=30)
    for pem, domain, now in (
        (chain.read_bytes(), "two.example", None),
        (chain.read_bytes(), "one.example", in_a_month),
        ((tmp_path / "trusted").read_bytes(), "one.example", None),
        (b"", "one.example", None),
        (b"-----BEGIN CERTIFICATE-----", "one.example", None),
        (chain.read_bytes() * 9, "one.example", None),
        (b"x" * 70_000, "one.example", None),
    ):
        with pytest.raises(CertificateRefused):
            trusted.signer(pem, domain, now)
    other = Authorities([Authority("An authority").certificate])
    with pytest.raises(CertificateRefused):
        other.signer(chain.read_bytes(), "one.example")


# --- settings


def test_without_a_file_it_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KESHI_AFFILIATES_FILE", raising=False)
    with pytest.raises(ConfigurationError, match="KESHI_AFFILIATES_FILE is not set"):
        Affiliates.from_environment()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"url": "http://sakura.example/v2"}, r"affiliates\.0.*https"),
        ({"url": "ftp://sakura.example"}, r"affiliates\.0\.url"),
        ({"name": "Sakura"}, r"affiliates\.0\.name"),
        ({"domain": "a b"}, r"affiliates\.0\.domain"),
        ({"token_file": "none"}, "FileNotFoundError"),
        ({"authorities_file": "token"}, "no certificate"),
        ({"surprise": 1}, r"affiliates\.0\.surprise"),
        ({"first_check_seconds": 0}, r"affiliates\.0\.first_check_seconds"),
        ({"first_check_seconds": 100_000}, "longest_check_seconds"),
        ({"identities": {}, "extension_identities": {}}, "identities"),
        ({"identities": {"e mail": "email"}}, r"affiliates\.0\.identities"),
        ({"tls": {"key_file": "k"}}, "key_file without"),
        ({"url": "https://one.example/v2", "tls": {"authorities_file": "token"}}, "cannot be used"),
        ({"url": "https://one.example/v2", "tls": {"certificate_file": "token"}}, "cannot be used"),
        ({"regulation": "A"}, r"affiliates\.0\.regulation"),
    ],
)
def test_what_is_wrong_in_the_file_is_said_with_its_place(
    scripted: Scripted, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        scripted.handler(**change)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("affiliates: []", "affiliates"),
        ("{", r"no YAML \(line"),
        ("a: [" * 20_000, "no YAML"),
        ("[]", "KESHI_AFFILIATES_FILE"),
        ("x" * 1_000_001, "longer"),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "f").write_text(text)
    with pytest.raises(ConfigurationError, match=message):
        read_affiliates(tmp_path / "f")


def test_an_affiliate_is_named_once(scripted: Scripted) -> None:
    with pytest.raises(ConfigurationError, match="named twice"):
        read_affiliates(scripted.file({}, {}))


def inventory_with(*names: str, system: str = "affiliates") -> dict[str, Any]:
    categories = [{"name": n, "title": n, "holder": {"role": "joint_user", "country": "JP"}} for n in names]
    return {
        "version": 1,
        "company": "Example",
        "systems": [
            {
                "name": system, "title": "Affiliates", "owner": "x", "role": "joint_user", "country": "JP",
                "actions": ["erase"], "identifiers": ["email"], "categories": categories,
            }
        ],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("inventory", "message"),
    [
        (inventory_with(SAKURA, OCEANIA), None),
        (inventory_with(SAKURA), f"{OCEANIA} is no category"),
        (inventory_with(SAKURA, OCEANIA, "third_one"), "lacks third_one"),
        (inventory_with(SAKURA, OCEANIA, system="others"), "no system affiliates"),
        ({"version": 1}, "no inventory"),
    ],
)
def test_file_and_inventory_have_to_agree(
    scripted: Scripted,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    inventory: dict[str, Any],
    message: str | None,
) -> None:
    monkeypatch.setenv("KESHI_AFFILIATES_FILE", str(scripted.file({"name": SAKURA}, {"name": OCEANIA})))
    (tmp_path / "inventory.yaml").write_text(yaml.safe_dump(inventory))
    monkeypatch.setenv("KESHI_AFFILIATES_INVENTORY", str(tmp_path / "inventory.yaml"))
    if message is None:
        Affiliates.from_environment().close()
        return
    with pytest.raises(ConfigurationError, match=message):
        Affiliates.from_environment()
