"""What a client can run into. No text repeats anything of a command."""


class ClientError(Exception):
    """Base of what a client can say."""


class NotSentError(ClientError):
    """Kafka did not confirm a command: it may have arrived or not. Sending the same again does no harm."""


class NotOverError(ClientError, TimeoutError):
    """The request was not closed or rejected in time. It goes on."""


class UnreadableAnswerError(ClientError):
    """A message on `requests` is none that this version can read."""
