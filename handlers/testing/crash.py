"""A real crash in the middle of an act: a child process that kills itself at a checkpoint."""

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace

from keshi.handlers.contract import Handler, Limit, Union, Work
from keshi.handlers.errors import code_of

FAILED = 70
"""Exit code of a child whose act raised."""


class DyingLimit(Limit):
    """Kills its process at the n-th checkpoint, as the machine might."""

    __slots__ = ("_left",)

    def __init__(self, seconds: float, checkpoints: int) -> None:
        super().__init__(seconds)
        self._left = checkpoints

    def checkpoint(self) -> None:
        """Count, and die."""
        self._left -= 1
        if self._left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)
        super().checkpoint()


def act_and_crash(fresh: Callable[[], Handler], task: Work, union: Union, checkpoint: int) -> bool:
    """Act in a child process that is killed at its n-th checkpoint.

    Args:
        fresh: Makes the child's own handler: connections do not survive a fork.
        task: What to do.
        union: On what.
        checkpoint: Counted from 1.

    Returns:
        Whether it was killed; False where the act came to its end before.

    Raises:
        AssertionError: the act failed by itself.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        _act(fresh, replace(task, limit=DyingLimit(60, checkpoint)), union)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return True
    if os.WEXITSTATUS(status):
        raise AssertionError("the act failed in the child process: see its error class on standard error")
    return False


def _act(fresh: Callable[[], Handler], task: Work, union: Union) -> None:
    code = 0
    try:
        fresh().act(task, union)
    except BaseException as e:  # noqa: BLE001 - a forked child must never return into the test
        sys.stderr.write(f"act failed: {code_of(e)}\n")
        sys.stderr.flush()
        code = FAILED
    os._exit(code)
