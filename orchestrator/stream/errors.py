"""Why a host ends by itself. A supervisor starts it again; the class name is what the log shows."""

from collections.abc import Mapping

from keshi.orchestrator.stream.broker import Shape
from keshi.orchestrator.stream.port import Lane


class StreamEndedError(Exception):
    """A part of Faust ended by itself."""


class PartDiedError(Exception):
    """A thread or task of the consumer ended by itself."""

    def __init__(self, part: str) -> None:
        super().__init__(f"the consumer's {part} ended")


class EngineStuckError(Exception):
    """The engine takes records and does not move."""

    def __init__(self, lane: Lane) -> None:
        super().__init__(f"{lane}: cycle after cycle without progress")


class RecordsMissingError(Exception):
    """A record that the broker has does not come through the stream."""

    def __init__(self, lane: Lane) -> None:
        super().__init__(f"{lane}: records do not arrive, however often it is read again")


class TopicsChangedError(Exception):
    """A topic went away, was made anew or got more partitions: starting anew looks at them afresh."""

    def __init__(self, topics: Mapping[str, Shape]) -> None:
        super().__init__(f"the topics are {dict(topics)} now")
