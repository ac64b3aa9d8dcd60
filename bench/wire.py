"""The messages of keshi as the bench sends and reads them."""

from datetime import UTC, datetime
from typing import Any

import orjson
from ulid import ULID

from bench import people
from bench.progress import BenchError
from keshi.client.commands import event_of
from keshi.schemas.commands import Arrival, Assessment, EraseSubject, Regime, Requester
from keshi.schemas.identifiers import Identifier


class Keshi:
    """Erasures, as a DSAR system asks for them: by e-mail address and customer id."""

    def ask(self, person: int) -> tuple[str, bytes]:
        """See `Wire.ask`."""
        request_id, now = str(ULID()), datetime.now(UTC)
        command = EraseSubject(
            request_id=request_id,
            identifiers=(
                Identifier(type="email", value=people.email(person)),
                Identifier(type="customer_id", value=people.customer_id(person)),
            ),
            regime=Regime.APPI,
            ground="appi.35-5",
            requested_by=Requester(kind="person", identity_evidence=("evidence:bench-1",)),
            assessed=Assessment(by="staff:bench", at=now),
            arrived=Arrival(at=now, channel="channel:bench"),
        )
        return request_id, event_of(command, source="urn:keshi:bench")

    def closed(self, raw: bytes) -> str | None:
        """See `Wire.closed`: all have to end as fulfilled, with all that was found erased."""
        message: dict[str, Any] = orjson.loads(raw)
        data = message["data"]
        if message["type"] == "keshi.RequestAccepted.v1":
            return None
        if message["type"] != "keshi.RequestClosed.v1":
            raise BenchError(f"a request was answered by {message['type']}: {data.get('code', '')}")
        verdict = data["closure"]["verdict"]
        if verdict != "fulfilled":
            raise BenchError(f"a request was closed as {verdict}, not as fulfilled")
        return str(data["state"]["request_id"])
