"""How the stream runs: one frozen model."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from keshi.orchestrator.stream.port import STAGES, Lane, Stage
from keshi.runtime.settings import KafkaSettings

Seconds = Annotated[float, Field(gt=0, le=3600)]


class StreamSettings(BaseModel):
    """Options of the host. Every duration is in seconds and bounded."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    kafka: KafkaSettings
    group: Annotated[str, Field(min_length=1, max_length=200)] = "keshi.orchestrator"
    instance_id: str | None = Field(
        default=None, description="static membership: only where names are stable, as in a StatefulSet"
    )
    heartbeat_seconds: Seconds = 3.0
    patience_seconds: Seconds = Field(default=2.0, description="for so long commands may wait for reports to be taken")
    max_batch: Annotated[int, Field(ge=1, le=10_000)] = 500
    commit_seconds: Seconds = Field(default=3.0, description="how often the broker is told, for its lag alone")
    watch_seconds: Seconds = Field(default=2.0, description="how often the log is compared with what was read")
    reseek_seconds: Seconds = Field(default=6.0, description="lag without movement, until the lane is read anew")
    stall_seconds: Seconds = Field(default=60.0, description="nothing moves for so long: not healthy")
    join_seconds: Seconds = Field(default=120.0, description="without an assignment for so long: not healthy")
    connect_seconds: Seconds = Field(default=15.0, description="for the broker and its topics at the start")
    stop_seconds: Seconds = Field(default=20.0, description="for the running cycle and the farewell at the end")

    @property
    def topics(self) -> dict[Stage, str]:
        """Stage to full topic name."""
        return {stage: self.kafka.topic(stage) for stage in STAGES}

    def stage_of(self, topic: str) -> Stage:
        """The stage of a full topic name."""
        return next(stage for stage, name in self.topics.items() if name == topic)

    def topic_of(self, lane: Lane) -> str:
        """The full topic name of a lane."""
        return self.kafka.topic(lane.stage)
