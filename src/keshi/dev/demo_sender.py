"""The demo's DSAR system: sends commands to Kafka and listens to what keshi answers, as any sender would."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from kafka import TopicPartition

from keshi.dev.demo_commands import Step
from keshi.dev.errors import DevError
from keshi.runtime.kafka import Outgoing, new_consumer, new_producer, send_all
from keshi.runtime.settings import KafkaSettings
from keshi.schemas.closure import ClosureRecord, record_hash
from keshi.schemas.reading import Unreadable, read
from keshi.schemas.requests import EVENTS, RequestAccepted, RequestClosed, RequestRejected

_MAX_ANSWER_BYTES = 1_048_576


@dataclass
class Answers:
    """What came back about one request."""

    accepted: int = 0
    rejected: list[str] = field(default_factory=list)
    closures: list[ClosureRecord] = field(default_factory=list)

    @property
    def one_closure(self) -> bool:
        """Whether all closures are the same, and whole."""
        return len({c.hash for c in self.closures}) == 1 and all(record_hash(c) == c.hash for c in self.closures)


class Sender:
    """Sends steps and collects answers, from the moment it is entered."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self._kafka = kafka
        self._producer = new_producer(kafka, "keshi-demo")
        self._consumer = new_consumer(kafka, None)
        self.answers: defaultdict[str, Answers] = defaultdict(Answers)

    def __enter__(self) -> Self:
        topic = self._kafka.topic("requests")
        places = [TopicPartition(topic, p) for p in self._consumer.partitions_for_topic(topic) or ()]
        self._consumer.assign(places)
        self._consumer.seek_to_end(*places)
        for place in places:
            self._consumer.position(place)  # a seek is carried out when it is first asked for
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._consumer.close(autocommit=False)
        self._producer.close(timeout=5)

    def send(self, steps: Iterable[Step]) -> None:
        """Send the steps in their order; returns when all are on the broker."""
        messages = [Outgoing(self._kafka.topic("commands"), step.message(), key=step.key) for step in steps]
        if None in send_all(self._producer, messages):
            raise DevError("the broker did not take the demo's commands")

    def poll(self) -> None:
        """Read what has been answered since the last time."""
        for batch in self._consumer.poll(timeout_ms=100).values():
            for message in batch:
                self._read(message.value)

    def _read(self, raw: bytes) -> None:
        try:
            _, data = read(raw, EVENTS, limit=_MAX_ANSWER_BYTES)
        except Unreadable as error:
            raise DevError(f"an answer on {self._kafka.topic('requests')} cannot be read: {error.reason}") from None
        if isinstance(data, RequestRejected):
            self.answers[data.request_id].rejected.append(data.code.value)
        elif isinstance(data, RequestClosed):
            self.answers[data.state.request_id].closures.append(data.closure)
        elif isinstance(data, RequestAccepted):
            self.answers[data.state.request_id].accepted += 1

    def answered(self, step: Step) -> bool:
        """Whether this step has come to its end."""
        answers = self.answers[step.request_id]
        if step.rejected:
            return step.rejected in answers.rejected
        if step.repeats and step.later:
            return len(answers.closures) > 1
        return bool(answers.closures) if step.verdict or step.repeats else True

    def wrong(self, step: Step) -> str | None:
        """What is not as it should be; None where all is."""
        answers = self.answers[step.request_id]
        if not self.answered(step):
            return "no answer"
        if step.rejected or not (step.verdict or step.repeats):
            return None
        if not answers.one_closure:
            return "more than one closure"
        verdict = answers.closures[0].verdict
        return None if step.verdict in {None, verdict} else f"{step.verdict} expected, not {verdict}"
