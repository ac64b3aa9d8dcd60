"""The command line. `main` is the entry point of `keshi`; commands parse, call and show: they decide nothing."""

import os
import sys
from collections.abc import Sequence
from typing import Final

from keshi.runtime.settings import ConfigurationError

FAILED: Final = 1
MISUSED: Final = 2
INTERRUPTED: Final = 130


def main() -> None:
    """Run the command that the process was called with, and exit with its code."""
    try:
        code = run(sys.argv[1:])
    except KeyboardInterrupt:  # also while modules are still being imported
        code = INTERRUPTED
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """Run one command.

    Returns:
        Its exit code: 0 done; 1 something failed or was found wrong; 2 called or set up wrongly; 3 rejected;
        4 not over in time; 130 interrupted.

    Raises:
        KeyboardInterrupt: Ctrl-C, where the command does not take it.
    """
    from typer.exceptions import TyperException  # noqa: PLC0415 - importing keshi.cli does nothing
    from typer.main import get_command  # noqa: PLC0415

    from keshi.cli.app import app  # noqa: PLC0415
    from keshi.cli.errors import Failure, usage  # noqa: PLC0415

    try:
        code = get_command(app).main(args=list(arguments), prog_name="keshi", standalone_mode=False)
        sys.stdout.flush()
    except ConfigurationError as e:
        return _fail(str(e), MISUSED)
    except Failure as e:
        return _fail(str(e), e.code)
    except TyperException as e:
        # No text: called without a command, it has shown its help.
        return _fail(usage(e, arguments), e.exit_code) if e.format_message().strip() else MISUSED
    except BrokenPipeError:
        # Whoever read our output has seen enough. What is left in the buffer goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as e:  # noqa: BLE001 - the last line of defence: an exception's text may hold anybody's data
        return _fail(_unexpected(e), FAILED)
    return code if isinstance(code, int) else 0


def _fail(line: str, code: int) -> int:
    sys.stderr.write(f"keshi: {line}\n")
    return code


def _unexpected(error: BaseException) -> str:
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    where = f" in {trace.tb_frame.f_code.co_qualname}, line {trace.tb_lineno}" if trace else ""
    return f"an error of keshi's own: {type(error).__name__}{where}; please report it"
