# SPDX-License-Identifier: Apache-2.0
"""``python -m experiments``: exit code 0 when done, 2 for bad input, 130 when interrupted.

Bad input is one line on stderr; with PLPRUNE_TRACEBACK set, the traceback stands above it. An error
of the program itself is one line too, and exit code 1. SIGTERM, with which schedulers end a job, is
an interruption as Ctrl-C is.
"""

import os
import signal
import sys
import threading
import traceback
from collections.abc import Sequence

from experiments.command_line import Command, SweepCommand, ToolCommand, overview, parse

DONE, FAULT, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out a command line and return its exit code."""
    argv = sys.argv[1:] if argv is None else list(argv)
    if not argv or argv[0] in ("-h", "--help"):
        print(overview())
        return DONE
    command = None
    try:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.default_int_handler)
        command = parse(argv)
        _carry_out(command)
    except (ValueError, OSError) as error:
        return _complain(error, "", command, BAD_INPUT)
    except KeyboardInterrupt:
        print(f"experiments: interrupted{_state(command)}", file=sys.stderr)
        return INTERRUPTED
    except SystemExit as stop:  # tyro printed the help that was asked for.
        return stop.code or DONE
    except Exception as error:
        what = f"{type(error).__name__}, which is an error of this program: "
        return _complain(error, what, command, FAULT)
    return DONE


def _complain(error, what, command, code):
    if os.environ.get("PLPRUNE_TRACEBACK"):
        traceback.print_exc()
    elif what:
        what += "(PLPRUNE_TRACEBACK=1 shows where) "
    saved = ""
    if (isinstance(error, OSError) or code == FAULT) and _has_state(command):
        saved = _state(command)
    said = " ".join(str(error).split())
    print(f"experiments: {what}{said}{saved}", file=sys.stderr)
    return code


def _carry_out(command: Command | SweepCommand | ToolCommand) -> None:
    from rich.console import Console

    console = Console()
    if isinstance(command, Command):
        from experiments.running import carry_out

        carry_out(command, console)
    elif isinstance(command, SweepCommand):
        from experiments.sweep import carry_out_sweep

        carry_out_sweep(command, console)
    elif command.name == "report":
        from experiments.report import write_reports

        for path in write_reports(command.argument):
            console.print(str(path), soft_wrap=True, highlight=False)
    else:
        from plprune.data import prepare

        prepare(command.argument)
        console.print(f"{command.argument} is ready.", highlight=False)


def _has_state(command):
    folder = _folder(command)
    return folder is not None and folder.is_dir() and any(folder.iterdir())


def _state(command) -> str:
    """Where the work done so far is, for the one line after an interruption."""
    if _has_state(command):
        folder = _folder(command)
        return f"; what was finished is in {folder}, and --resume continues from it."
    return " before anything was done."


def _folder(command):
    if isinstance(command, SweepCommand):
        return command.base.out
    return command.out if isinstance(command, Command) else None


if __name__ == "__main__":
    sys.exit(main())
