"""`keshi dev up`: everything keshi needs, on this machine, until Ctrl-C."""

import json
import sys
import threading

from rich.console import Console
from rich.text import Text

from keshi.dev.errors import DevError
from keshi.dev.options import UpOptions
from keshi.dev.stack import Stack
from keshi.dev.supervisor import Stopped
from keshi.runtime.settings import ConfigurationError

__all__ = ["Stack", "UpOptions", "run_up"]

_POLL_SECONDS = 0.5


def run_up(options: UpOptions) -> int:
    """Start everything, show it, and run until Ctrl-C or SIGTERM.

    Returns:
        The exit code: 0 after an end that was asked for, 1 if something could not be started or died.
    """
    show = Shown()
    try:
        with Stack(options, show) as stack:
            _tell(stack, show, as_json=options.json)
            while True:
                if not options.restart:
                    stack.check()
                threading.Event().wait(_POLL_SECONDS)
    except Stopped:
        show("Everything has ended.")
        return 0
    except (DevError, ConfigurationError) as error:
        show(f"keshi dev up: {error}")
        return 1


def _tell(stack: Stack, show: "Shown", *, as_json: bool) -> None:
    mine, operator = stack.programs.write_mine(), stack.programs.write_operator()
    if as_json:
        sys.stdout.write(json.dumps(stack.as_json()) + "\n")
        sys.stdout.flush()
    show(f"Data, keys and logs: {stack.directory}")
    show(f"In another terminal: set -a; . {mine}; set +a; keshi status")
    show(f"For `keshi lanes` and `keshi quarantine`: {operator}")
    show("All parts are ready. Ctrl-C ends them.")


class Shown:
    """Lines for people, on standard error; may be called from any thread."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False)

    def __call__(self, line: str) -> None:
        self.console.print(Text(line), soft_wrap=True)
