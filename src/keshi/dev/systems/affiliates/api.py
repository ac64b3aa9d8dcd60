"""The API of one affiliate: OpenDSR 2.0, as far as erasure goes.

| call | answer |
| --- | --- |
| `GET /v2/discovery` | what it can do; needs no token |
| `GET /cert.pem` | the chain of the certificate that it signs with; needs no token |
| `POST /v2/requests` | 201 with a receipt; 409 where the id is known |
| `GET /v2/requests/{id}` | how far it is |
| `DELETE /v2/requests/{id}` | 202; 400 where it was begun |

Answers are signed by `X-OpenDSR-Signature`. An error is `{"error": {"code": …, "message": …}}` and repeats nothing
that was sent.
"""

from __future__ import annotations

import json
import re
import time
from base64 import b64encode
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from keshi.dev.systems.affiliates import COMPANIES, PHONE
from keshi.dev.systems.affiliates.behaviour import Behaviour, Mood, Sign, behaviour
from keshi.dev.systems.calls import BadRequestError, Call, Reply, object_of, text_of
from keshi.dev.systems.filestore import ConflictError, GoneError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from keshi.dev.systems.affiliates.store import Store

CONTROLLER: Final = "mihon-shoji"
CERTIFICATE: Final = "/cert.pem"
DISCOVERY: Final = "/v2/discovery"
REGULATIONS: Final = frozenset({"gdpr", "ccpa", "appi"})
TYPES: Final = {"email": "email", "controller_customer_id": "customer_id"}
MOST_IDENTITIES: Final = 50
MOST_HANGING_SECONDS: Final = 60
_ID = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
_FIELDS = frozenset(
    {
        "api_version", "regulation", "subject_request_id", "subject_request_type", "submitted_time",
        "subject_identities", "status_callback_urls", "extensions",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Office:
    """What one affiliate answers from.

    Attributes:
        company: its name.
        data: its directory.
        store: see there.
        chain: its certificate, PEM.
        sign: makes the signature of a body.
        address: where it can be reached.
        before_write: called once before a request is taken in.
    """

    company: str
    data: Path
    store: Store
    chain: bytes = field(repr=False)
    sign: Callable[[bytes], bytes] = field(repr=False)
    address: Callable[[], str]
    before_write: Callable[[], None]

    @property
    def domain(self) -> str:
        return COMPANIES[self.company].domain


def answer(office: Office, call: Call) -> Reply:
    """Carries out one call."""
    if call.path == "/healthz":
        return Reply(200, {"status": "ok"}, "healthz")
    now = _awake(office)
    if now.mood is Mood.DOWN:
        return _error(503, "closed for today", "down")
    try:
        return _answer(office, call, now)
    except BadRequestError as error:
        return _error(400, str(error), "requests")
    except GoneError:
        return _error(404, "no request of this id has come in", "request")
    except ConflictError as error:
        return _error(409 if error.code == "known" else 400, str(error), "requests")


def _awake(office: Office) -> Behaviour:
    """How it behaves, once it does not hang any more: a call that nobody waits for is then carried out all the same."""
    end = time.monotonic() + MOST_HANGING_SECONDS
    while (now := behaviour(office.data)).mood is Mood.HANGS and time.monotonic() < end:
        time.sleep(0.05)
    return now


def _answer(office: Office, call: Call, now: Behaviour) -> Reply:
    if call.path == CERTIFICATE and call.method == "GET":
        return Reply(200, office.chain, "certificate", {"Content-Type": "application/x-pem-file"})
    if call.path == DISCOVERY and call.method == "GET":
        return _signed(office, now, 200, _discovery(office), "discovery")
    if call.path == "/v2/requests" and call.method == "POST":
        return _signed(office, now, 201, _create(office, call, now), "requests")
    one = re.fullmatch(rf"/v2/requests/({_ID})", call.path)
    if one and call.method == "GET":
        return _signed(office, now, 200, _status(office, one[1]), "request")
    if one and call.method == "DELETE":
        return _signed(office, now, 202, _cancel(office, one[1]), "request")
    return _error(404, "there is no such path", "?")


def _discovery(office: Office) -> dict[str, Any]:
    return {
        "api_version": "2.0",
        "supported_identities": [{"identity_type": kind, "identity_format": "raw"} for kind in TYPES],
        "supported_subject_request_types": ["erasure"],
        "processor_certificate": f"{office.address()}{CERTIFICATE}",
    }


def _create(office: Office, call: Call, now: Behaviour) -> dict[str, Any]:
    body = object_of(call, _FIELDS)
    name = text_of(body.get("subject_request_id"), "subject_request_id")
    if not re.fullmatch(_ID, name):
        raise BadRequestError("subject_request_id is a UUID of version 4 in small letters")
    if body.get("subject_request_type") != "erasure":
        raise BadRequestError("subject_request_type: erasure is all that we do")
    if body.get("regulation") not in REGULATIONS:
        raise BadRequestError(f"regulation is one of {', '.join(sorted(REGULATIONS))}")
    if not str(body.get("api_version", "2.0")).startswith("2."):
        raise BadRequestError("api_version: we speak 2")
    _moment(text_of(body.get("submitted_time"), "submitted_time"))
    identities = _known(office, body)
    office.before_write()
    row = office.store.receive(name, identities, timedelta(seconds=now.expected_seconds))
    return {
        "controller_id": CONTROLLER,
        "subject_request_id": name,
        "received_time": row["received_at"],
        "expected_completion_time": row["expected_at"],
        "encoded_request": b64encode(call.body).decode(),
    }


def _moment(text: str) -> datetime:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise BadRequestError("submitted_time is a date of RFC 3339") from None
    if at.tzinfo is None:
        raise BadRequestError("submitted_time has a zone")
    return at


def _known(office: Office, body: dict[str, Any]) -> dict[str, list[str]]:
    """The person's identities by the column that they are found in."""
    found: dict[str, list[str]] = {}
    for one in _list(body.get("subject_identities", []), "subject_identities"):
        if one.get("identity_format") == "raw" and one.get("identity_type") in TYPES:
            found.setdefault(TYPES[one["identity_type"]], []).append(
                text_of(one.get("identity_value"), "identity_value")
            )
    extensions = body.get("extensions", {})
    own = extensions.get(office.domain, {}) if isinstance(extensions, dict) else {}
    if not isinstance(own, dict):
        raise BadRequestError("our extension is an object")
    for one in _list(own.get("identities", []), "identities"):
        if one.get("identity_type") == PHONE:
            found.setdefault("phone", []).append(text_of(one.get("identity_value"), "identity_value"))
    if not found:
        raise BadRequestError("subject_identities has none that we know")
    return found


def _list(value: object, name: str) -> list[dict[str, Any]]:
    if not isinstance(value, list) or len(value) > MOST_IDENTITIES or not all(isinstance(v, dict) for v in value):
        raise BadRequestError(f"{name} is a list of at most {MOST_IDENTITIES} objects")
    return value


def _status(office: Office, name: str) -> dict[str, Any]:
    row = office.store.request(name)
    said: dict[str, Any] = {
        "controller_id": CONTROLLER,
        "subject_request_id": name,
        "request_status": row["status"],
        "expected_completion_time": row["expected_at"],
        "api_version": "2.0",
    }
    return said if row["results_count"] is None else said | {"results_count": row["results_count"]}


def _cancel(office: Office, name: str) -> dict[str, Any]:
    office.store.cancel(name)
    return {
        "controller_id": CONTROLLER,
        "subject_request_id": name,
        "received_time": datetime.now(UTC).isoformat(),
        "api_version": "2.0",
    }


def _signed(office: Office, now: Behaviour, status: int, said: dict[str, Any], route: str) -> Reply:
    data = json.dumps(said).encode()
    domain = "opendsr.stranger.example" if now.sign is Sign.STRANGER else office.domain
    signature = b64encode(office.sign(data if now.sign is not Sign.WRONG else data + b" ")).decode()
    headers = {"Content-Type": "application/json"}
    if now.sign is not Sign.NONE:
        headers |= {"X-OpenDSR-Processor-Domain": domain, "X-OpenDSR-Signature": signature}
    return Reply(status, data, route, headers)


def _error(status: int, message: str, route: str) -> Reply:
    return Reply(status, {"error": {"code": status, "message": message}}, route)
