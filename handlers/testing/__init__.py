"""For the tests of a handler: a suite to inherit, which runs it against its own, real system."""

from keshi.handlers.testing.suite import HandlerSuite, Scene

__all__ = ["HandlerSuite", "Scene"]
