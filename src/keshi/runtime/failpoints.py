"""Named places at which a test can kill or freeze a process. They exist in development alone.

`KESHI_FAILPOINTS_DIR` names a directory; a file there called after the failpoint, with the text `kill` or
`stop`, arms it for one hit: the process that gets to rename the file sends itself SIGKILL or SIGSTOP. A file called
`<failpoint>.<pid>` is for that process alone.
"""

import os
import signal
import time
from pathlib import Path

from keshi.runtime.settings import ConfigurationError, Environment, ProcessSettings

NAMES = frozenset(
    {
        "worker.after_locate",
        "worker.after_begin",
        "worker.mid_act",
        "worker.after_act",
        "worker.after_report",
        "orchestrator.after_intake_commit",
        "orchestrator.mid_cycle",
        "orchestrator.after_cycle_commit",
        "orchestrator.after_produce",
        "api.mid_begin",
    }
)

_SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}
_directory: Path | None = None


def configure(settings: ProcessSettings) -> None:
    """Arm the failpoints of this process, where the environment asks for it.

    Raises:
        ConfigurationError: outside development.
    """
    global _directory  # noqa: PLW0603 - one switch for a process, set by its composition root
    if settings.failpoints_dir and settings.environment is not Environment.DEVELOPMENT:
        raise ConfigurationError(
            "KESHI_FAILPOINTS_DIR is set outside development: unset it, or set KESHI_ENVIRONMENT=development"
        )
    _directory = settings.failpoints_dir


def hit(name: str) -> None:
    """Die or freeze here, if this failpoint is armed and no other process was quicker."""
    if _directory is None:
        return
    pid = os.getpid()
    for armed in (_directory / f"{name}.{pid}", _directory / name):
        try:
            what = armed.read_text(encoding="ascii").strip()
            armed.rename(_directory / f"{name}.hit.{pid}")
        except OSError:
            continue
        os.kill(pid, _SIGNALS[what])
        time.sleep(0.1)  # in a process of many threads, this one may go on for a moment before the signal takes effect
        return
