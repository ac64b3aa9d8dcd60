"""OpenDSR 2.0: asking another company to carry out the request of a data subject, and how far it is.

The specification is `specification.md` of the repository `opengdpr/OpenDSR`, version 2.0. Sections are named where
something follows them. Where it contradicts itself: a signature is taken from the header `X-OpenDSR-Signature`, as in
its examples, and not from a property of the body that it would have to sign (7.3); a status is asked for under
`/requests/{id}` (8.2), not `/status` (3.1).
"""

import json
import threading
from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Final, TypeVar
from urllib.parse import urlsplit

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from keshi.handlers.connectors.certificates import Authorities, CertificateRefused, Signer
from keshi.handlers.connectors.rest import Inspect, Rest
from keshi.handlers.contract import Work, boot_time
from keshi.handlers.errors import GiveToPerson, Retry

VERSION: Final = "2.0"
DISCOVERY_SECONDS: Final = 3600
"""So long a processor's own description counts."""
CERTIFICATE_SECONDS: Final = 60
"""A certificate that does not fit is asked for again, though not more often than this."""
NOT_FOUND: Final = 404
CONFLICT: Final = 409
CREATED: Final = 201

Word = Annotated[str, Field(max_length=200)]


class _Said(BaseModel):
    """What a processor says; what we do not know is passed over, as the specification grows by it."""

    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)


class Identity(_Said):
    """A kind of identity and how it is written (5.3, 6.3)."""

    identity_type: Word
    identity_format: Word


class Discovery(_Said):
    """What a processor can do (6.3)."""

    api_version: Word
    supported_identities: Annotated[tuple[Identity, ...], Field(max_length=500)]
    supported_subject_request_types: Annotated[tuple[Word, ...], Field(max_length=100)]
    processor_certificate: Annotated[str, Field(max_length=2000)]


class Receipt(_Said):
    """That a request has come in (7.3)."""

    subject_request_id: Word
    received_time: AwareDatetime
    expected_completion_time: AwareDatetime
    encoded_request: Annotated[str, Field(max_length=1_000_000, repr=False)]


class RequestStatus(StrEnum):
    """How far a request is (8)."""

    PENDING = "pending"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    CANCELLED = "cancelled"


class Status(_Said):
    """A request as its processor sees it (8.3)."""

    subject_request_id: Word
    request_status: RequestStatus
    expected_completion_time: AwareDatetime
    results_count: Annotated[int, Field(ge=0)] | None = None


S = TypeVar("S", bound=_Said)


@dataclass(frozen=True, slots=True)
class Processor:
    """Whom we ask.

    Attributes:
        url: Its base address, with the major version in it (3.4).
        domain: That it signs for.
        authorities: Whom we trust for its certificate; None: its signatures are not checked.
    """

    url: str
    domain: str
    authorities: Authorities | None = None


class OpenDsr:
    """One processor. Serves several threads.

    Args:
        rest: Over its base address.
        processor: See there.
    """

    def __init__(self, rest: Rest, processor: Processor) -> None:
        self._rest = rest
        self._processor = processor
        self._lock = threading.Lock()
        self._discovery: tuple[float, Discovery] | None = None
        self._signer: tuple[float, Signer] | None = None

    def discovery(self, task: Work) -> Discovery:
        """What it can do.

        Raises:
            GiveToPerson: it does not speak this version.
            HandlerError: as `Rest.call`; its answer is none of OpenDSR.
        """
        with self._lock:
            known = self._discovery
        if known and boot_time() - known[0] < DISCOVERY_SECONDS:
            return known[1]
        said = _read(Discovery, self._rest.call(task, "GET", "/discovery").data)
        if said.api_version.partition(".")[0] != VERSION.partition(".")[0]:
            raise GiveToPerson("version_not_supported")
        with self._lock:
            self._discovery = boot_time(), said
        return said

    def create(self, task: Work, request: Mapping[str, Any]) -> Receipt | None:
        """Send a request in (7).

        Args:
            task: Whose time it takes.
            request: See `new_request`.

        Returns:
            Its receipt; None where the processor says that it has one of this id (409).

        Raises:
            HandlerError: as `Rest.call`; the receipt is not for this request, or not signed as it has to be.
        """
        reply = self._rest.call(task, "POST", "/requests", body=request, allow=(CONFLICT,), inspect=self._inspect(task))
        if reply.status == CONFLICT:
            return None
        if reply.status != CREATED:
            raise Retry("answer_not_opendsr")
        receipt = _read(Receipt, reply.data)
        if receipt.subject_request_id != request["subject_request_id"] or _decoded(receipt) != request:
            raise Retry("answer_of_another_request")
        return receipt

    def status(self, task: Work, subject_request_id: str) -> Status | None:
        """How far a request is (8.1); None where the processor knows of none.

        Raises:
            HandlerError: as `Rest.call`; the answer is not about this request, or not signed as it has to be.
        """
        path = f"/requests/{subject_request_id}"
        reply = self._rest.call(task, "GET", path, allow=(NOT_FOUND,), inspect=self._inspect(task))
        if reply.status == NOT_FOUND:
            return None
        said = _read(Status, reply.data)
        if said.subject_request_id != subject_request_id:
            raise Retry("answer_of_another_request")
        return said

    def ready(self) -> bool:
        """Whether it answers at once."""
        return self._rest.ready("GET", "/discovery")

    def close(self) -> None:
        """Close all connections."""
        self._rest.close()

    # --- signatures: sections 4 and 8.8

    def _inspect(self, task: Work) -> Inspect | None:
        authorities = self._processor.authorities
        if authorities is None:
            return None

        def inspect(body: bytes, headers: Mapping[str, str]) -> None:
            if headers.get("X-OpenDSR-Processor-Domain", "").strip().lower() != self._processor.domain.lower():
                raise Retry("processor_domain_wrong")
            signature = _base64("".join(headers.get("X-OpenDSR-Signature", "").split()))
            if not (signature and self._signed(task, authorities, body, signature)):
                raise Retry("signature_wrong")

        return inspect

    def _signed(self, task: Work, authorities: Authorities, body: bytes, signature: bytes) -> bool:
        """By the certificate that we know; by a new one, where that one is over or does not fit."""
        with self._lock:
            known = self._signer
        if known and known[1].until > datetime.now(UTC) and known[1].signed(body, signature):
            return True
        if known and boot_time() - known[0] < CERTIFICATE_SECONDS:
            return False
        try:
            signer = authorities.signer(self._certificate(task), self._processor.domain)
        except CertificateRefused:
            raise Retry("certificate_refused") from None
        with self._lock:
            self._signer = boot_time(), signer
        return signer.signed(body, signature)

    def _certificate(self, task: Work) -> bytes:
        """From where the processor says, which has to be the place that we asked (6.3)."""
        address = self.discovery(task).processor_certificate
        there, ours = urlsplit(address), urlsplit(self._processor.url)
        if (there.scheme, there.netloc) != (ours.scheme, ours.netloc):
            raise Retry("certificate_elsewhere")
        return self._rest.document(task, address)


def new_request(
    *,
    subject_request_id: str,
    regulation: str,
    submitted: datetime,
    identities: Sequence[Mapping[str, str]],
    extensions: Mapping[str, Any],
) -> dict[str, Any]:
    """A request for erasure (7.1).

    Args:
        subject_request_id: UUID of version 4, small letters (1.1).
        regulation: `gdpr` and `ccpa` are those that the specification knows.
        submitted: When the person asked.
        identities: By which the person is known (5.3).
        extensions: By the processor's domain (7.1.2).
    """
    request: dict[str, Any] = {
        "api_version": VERSION,
        "regulation": regulation,
        "subject_request_id": subject_request_id,
        "subject_request_type": "erasure",
        "submitted_time": submitted.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
    }
    if identities:
        request["subject_identities"] = [dict(i) for i in identities]
    if extensions:
        request["extensions"] = dict(extensions)
    return request


def _read(kind: type[S], data: Any) -> S:
    try:
        return kind.model_validate(data)
    except ValidationError:
        raise Retry("answer_not_opendsr") from None


def _decoded(receipt: Receipt) -> Any:
    """What came in there, as the processor sends it back. It is neither kept nor logged (7.3)."""
    try:
        return json.loads(_base64("".join(receipt.encoded_request.split())))
    except ValueError:
        return None


def _base64(text: str) -> bytes:
    try:
        return b64decode(text, validate=True)
    except ValueError:
        return b""
