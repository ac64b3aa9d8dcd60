"""For those who ask keshi for something: a client to send commands and to hear what became of them."""

from keshi.client.answers import Mark, Submitted
from keshi.client.commands import Client
from keshi.client.errors import ClientError, NotOverError, NotSentError, UnreadableAnswerError

__all__ = ["Client", "ClientError", "Mark", "NotOverError", "NotSentError", "Submitted", "UnreadableAnswerError"]
