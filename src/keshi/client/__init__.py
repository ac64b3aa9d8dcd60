"""For those who ask keshi for something: a client to send commands, and to hear what became of them.

`Client` has it all; the commands and answers are beside it, so that one import does:

    from keshi.client import Client, EraseSubject, RequestClosed

It needs Kafka and nothing else of keshi: no web framework, no database, no command line.
"""

from keshi.client.answers import Answer, Mark, Submitted
from keshi.client.commands import Client
from keshi.client.errors import ClientError, KafkaRefusedError, NotOverError, NotSentError, UnreadableAnswerError
from keshi.client.listening import Heard
from keshi.client.messages import Command, Message, canonical_request_id
from keshi.client.stream import Reached, Result
from keshi.runtime.settings import ConfigurationError, KafkaSettings
from keshi.schemas.commands import (
    Action,
    EraseSubject,
    RecordNotice,
    Regime,
    ResumeUse,
    Scope,
    StopProvision,
    SubjectCommand,
    SuspendUse,
    WithdrawRequest,
)
from keshi.schemas.identifiers import Identifier
from keshi.schemas.requests import (
    RejectionCode,
    RequestAccepted,
    RequestClosed,
    RequestOverdue,
    RequestRejected,
    RequestState,
)

__all__ = [
    "Action",
    "Answer",
    "Client",
    "ClientError",
    "Command",
    "ConfigurationError",
    "EraseSubject",
    "Heard",
    "Identifier",
    "KafkaRefusedError",
    "KafkaSettings",
    "Mark",
    "Message",
    "NotOverError",
    "NotSentError",
    "Reached",
    "RecordNotice",
    "Regime",
    "RejectionCode",
    "RequestAccepted",
    "RequestClosed",
    "RequestOverdue",
    "RequestRejected",
    "RequestState",
    "Result",
    "ResumeUse",
    "Scope",
    "StopProvision",
    "SubjectCommand",
    "Submitted",
    "SuspendUse",
    "UnreadableAnswerError",
    "WithdrawRequest",
    "canonical_request_id",
]
