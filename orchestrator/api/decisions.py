"""What people decide: signed here, because the API is what knows who they are, and produced to `commands`."""

import threading
from typing import TYPE_CHECKING, Annotated, Final, Protocol

from fastapi import APIRouter, Depends, Request, Response
from starlette.concurrency import run_in_threadpool

from keshi.orchestrator.api.access import NamedRequest, holder_of, needs
from keshi.orchestrator.api.bodies import question
from keshi.orchestrator.api.problems import FieldProblem, Problem, described
from keshi.orchestrator.keys import Keys
from keshi.orchestrator.query import NotKnown, Queries
from keshi.orchestrator.tokens import Right, TokenLine, Tokens
from keshi.runtime.kafka import Outgoing, close_producer, new_producer, send_all
from keshi.runtime.settings import ConfigurationError, KafkaSettings
from keshi.schemas.base import Model, Moment, Name, Reference, RequestId
from keshi.schemas.commands import DecideTask, Decision, DecisionRequest
from keshi.schemas.envelope import wrap
from keshi.schemas.grounds import grounds
from keshi.schemas.requests import Coordinates

if TYPE_CHECKING:
    from kafka import KafkaProducer

SOURCE: Final = "urn:keshi:api"
SEND_SECONDS: Final = 10.0
_ERRORS = (
    "unauthenticated",
    "forbidden",
    "request_unknown",
    "task_not_held",
    "decision_not_applicable",
    "too_large",
    "invalid",
    "ground_unknown",
    "internal",
    "ledger_unavailable",
    "broker_unavailable",
    "misconfigured",
)


class DecisionTaken(Model):
    """The decision is on its way: where it stands on Kafka. The request says when it was carried out."""

    request_id: RequestId
    system: Name
    decision: Decision
    person: Reference
    decided_at: Moment
    command: Coordinates


class NotSent(Exception):  # noqa: N818 - names the finding
    """The broker did not confirm it in time. It may have it all the same; deciding again does no harm."""


class Decisions(Protocol):
    """Where decisions go."""

    def send(self, command: DecideTask) -> Coordinates:
        """Produce a signed decision and wait until it is confirmed.

        Raises:
            NotSent: it was not.
        """


class KafkaDecisions:
    """`Decisions` on the topic `commands`. Connects at the first decision: they are few."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._topic = settings.topic("commands")
        self._lock = threading.Lock()
        self._producer: KafkaProducer | None = None

    def send(self, command: DecideTask) -> Coordinates:
        """Produce a signed decision and wait for its own future."""
        name = f"{command.request_id}/{command.system}/DecideTask/{command.signature[:32]}"
        value = wrap(command, kind="DecideTask", id=name, source=SOURCE, time=command.decided_at)
        with self._lock:
            try:
                if self._producer is None:
                    self._producer = new_producer(self._settings, "keshi-api", linger_ms=0)
                (sent,) = send_all(self._producer, [Outgoing(self._topic, value)], SEND_SECONDS)
            except ConfigurationError:
                raise NotSent from None
            if sent is None:
                self._drop()  # an idempotent producer that lost a message may not recover
                raise NotSent
        return Coordinates(topic="commands", partition=sent.partition, offset=sent.offset)

    def close(self) -> None:
        """Let go of the connection."""
        with self._lock:
            self._drop()

    def _drop(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            close_producer(producer, 1)


class Decider:
    """Makes a signed command of what a person decided."""

    def __init__(self, queries: Queries, keys: Keys, decisions: Decisions) -> None:
        self._queries = queries
        self._keys = keys
        self._decisions = decisions

    def decide(self, person: str, request_id: str, asked: DecisionRequest) -> DecisionTaken:
        """Check that the task is held now, sign, and produce.

        Raises:
            Problem: what stands against it.
        """
        try:
            held, now = self._queries.held(request_id, asked.system)
        except NotKnown:
            raise Problem("request_unknown") from None
        if held is None:
            raise Problem("task_not_held")
        if asked.decision not in held.decisions:
            fitting = ", ".join(d.value for d in held.decisions)
            raise Problem("decision_not_applicable", f"the task is held for {held.reason}: decide one of {fitting}")
        if asked.ground is not None and not getattr(grounds().get(asked.ground), "refuses", False):
            raise Problem("ground_unknown", errors=[FieldProblem(field="ground", reason="no ground for a refusal")])
        command = DecideTask(
            request_id=request_id,
            system=asked.system,
            decision=asked.decision,
            person=person,
            reason=self._keys.seal_text(request_id, asked.reason),
            ground=asked.ground,
            attempt=held.attempt,
            manifest_digest=held.digest,
            decided_at=now,
            signature="0" * 64,
        )
        signature = self._keys.decision_signature(command.model_dump(mode="json"))
        try:
            where = self._decisions.send(command.model_copy(update={"signature": signature}))
        except NotSent:
            raise Problem("broker_unavailable", headers={"Retry-After": "2"}) from None
        return DecisionTaken(
            request_id=request_id,
            system=asked.system,
            decision=asked.decision,
            person=person,
            decided_at=now,
            command=where,
        )


def decision_routes(decider: Decider, tokens: Tokens) -> APIRouter:
    """`POST /v1/requests/{id}/decisions`."""
    router = APIRouter(tags=["deciders"])
    person = Depends(holder_of(tokens, Right.DECIDE))

    @router.post(
        "/v1/requests/{request_id}/decisions",
        status_code=202,
        response_model=None,
        responses={202: {"model": DecisionTaken}, **described(*_ERRORS)},
        openapi_extra=needs(Right.DECIDE, DecisionRequest),
    )
    async def decide_task(request: Request, request_id: NamedRequest, caller: Annotated[TokenLine, person]) -> Response:
        """Decide about a task that waits for a person. The reason is sealed; the record names the person."""
        asked = await question(request, DecisionRequest)
        taken = await run_in_threadpool(decider.decide, caller.name, request_id, asked)
        return Response(taken.model_dump_json(), 202, media_type="application/json")

    return router
