"""What stops the development environment: each message says what to do."""


class DevError(Exception):
    """Something the development environment needs did not work; the message says what to do."""


class MissingError(DevError):
    """A program that this machine lacks; tests that need it are skipped by its name."""


class PartDiedError(DevError):
    """A part ended before it was ready; the message has the last lines of its log."""


class NotReadyError(DevError):
    """A part did not become ready within its bound."""
