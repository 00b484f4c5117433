# SPDX-License-Identifier: Apache-2.0
"""``python -m experiments``: exit code 0 when done, 2 for bad input, 130 when interrupted.

Bad input is one line on stderr; with PLPRUNE_TRACEBACK set, the traceback stands above it. An error
of the program itself is one line too, and exit code 1. SIGTERM, with which schedulers end a job, is
an interruption as Ctrl-C is. Where nobody reads the output any more (``| head``) the command ends
as if interrupted, without a word and with exit code 141, as the system's own tools do.
"""

import os
import sys
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING

from experiments.interruption import (
    INTERRUPTED,
    ClosedPipe,
    asked,
    complain,
    flushed,
    is_read,
    leave,
    listen,
    listening,
)

if TYPE_CHECKING:
    from experiments.command_line import Command, SweepCommand, ToolCommand

DONE, FAULT, BAD_INPUT, CLOSED_PIPE = 0, 1, 2, 141


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out a command line and return its exit code."""
    with listening():
        return _main(sys.argv[1:] if argv is None else list(argv))


def _main(argv):
    command = None
    try:
        from experiments.command_line import overview, parse

        if not argv or argv[0] in ("-h", "--help"):
            print(overview())
        else:
            command = parse(argv)
            _carry_out(command)
        return DONE if flushed() else CLOSED_PIPE
    except ClosedPipe:
        return _ended(CLOSED_PIPE)
    except KeyboardInterrupt:
        return _ended(INTERRUPTED, f"interrupted{_state(command)}")
    except SystemExit as stop:  # tyro printed the help that was asked for.
        return _ended(stop.code or DONE)
    except Exception as error:
        if asked():  # What it became on its way through a library.
            return _ended(INTERRUPTED, f"interrupted{_state(command)}")
        if isinstance(error, BrokenPipeError) and not is_read():
            return _ended(CLOSED_PIPE)
        return _complain(error, command)


def _ended(code, line=""):
    """`code`, once all is said that can be."""
    if line:
        complain(line)
    try:
        return code if flushed() or code != DONE else CLOSED_PIPE
    except OSError:
        return code or BAD_INPUT


def _complain(error, command):
    bad_input = isinstance(error, ValueError | OSError)
    what = "" if bad_input else f"{type(error).__name__}, which is an error of this program: "
    if os.environ.get("PLPRUNE_TRACEBACK"):
        traceback.print_exc()
    elif what:
        what += "(PLPRUNE_TRACEBACK=1 shows where) "
    saved = ""
    if (isinstance(error, OSError) or not bad_input) and _has_state(command):
        saved = _state(command)
    said = " ".join(str(error).split())
    return _ended(BAD_INPUT if bad_input else FAULT, f"{what}{said}{saved}")


def _carry_out(command: "Command | SweepCommand | ToolCommand") -> None:
    from experiments.command_line import Command, SweepCommand
    from experiments.console import PlainConsole

    console = PlainConsole()
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
    """Of an experiment or a sweep; tools have none."""
    base = getattr(command, "base", command)
    return getattr(base, "out", None)


if __name__ == "__main__":
    listen()
    leave(_main(sys.argv[1:]))
