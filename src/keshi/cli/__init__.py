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
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:  # noqa: PLR0911 - each kind of end is one
    """Run one command.

    Returns:
        Its exit code: 0 done; 1 something failed or was found wrong; 2 called or set up wrongly; 3 rejected;
        4 not over in time; 130 interrupted.
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
        text = usage(e, arguments)
        return _fail(text, MISUSED) if "\n" not in text else _show_help(text)
    except BrokenPipeError:
        # Whoever read our output has seen enough. What is left in the buffer goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as e:  # noqa: BLE001 - the last line of defence: an exception's text may hold anybody's data
        return _fail(_unexpected(e), FAILED)
    return code if isinstance(code, int) else 0


def _fail(line: str, code: int) -> int:
    sys.stderr.write(f"keshi: {line}\n")
    return code


def _show_help(text: str) -> int:
    sys.stderr.write(text.rstrip() + "\n")
    return MISUSED


def _unexpected(error: BaseException) -> str:
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    where = f" in {trace.tb_frame.f_code.co_qualname}, line {trace.tb_lineno}" if trace else ""
    return f"an error of keshi's own: {type(error).__name__}{where}; please report it"
