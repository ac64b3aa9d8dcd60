"""What a client can run into. Each text says what to do, and none repeats anything of a command.

`keshi.runtime.settings.ConfigurationError` is raised beside these: something is not set up (no broker answers, a topic
is missing), and the same call will fail again until it is.
"""


class ClientError(Exception):
    """Base of what a client can say while it works."""


class NotSentError(ClientError):
    """Kafka did not confirm a command: it may have arrived or not.

    Send the same again, under the same request id: a repeat does no harm and is answered as the first would be.
    """


class NotOverError(ClientError, TimeoutError):
    """What was waited for did not come in time. Nothing is lost: the request goes on, and can be waited for again."""


class UnreadableAnswerError(ClientError):
    """A message on `requests` is none that this version can read. Upgrade keshi here; the message stays where it is."""


class KafkaRefusedError(ClientError):
    """The broker does not let this client read or write. Its user needs the right; the text names the topic."""
