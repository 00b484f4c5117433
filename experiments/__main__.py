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
from pathlib import Path

import experiments
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

DONE, FAULT, BAD_INPUT, CLOSED_PIPE = 0, 1, 2, 141

# The eigen-solvers of jax on a CPU. Theirs are small matrices, over which several threads mostly
# wait for one another, and whose last digits would depend on how many there are.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out a command line and return its exit code."""
    with listening():
        return _main(sys.argv[1:] if argv is None else list(argv))


def _main(argv):
    folders: list[Path] = []  # Of what was understood.
    try:
        _carry_out(argv, folders)
        return DONE if flushed() else CLOSED_PIPE
    except ClosedPipe:
        return _ended(CLOSED_PIPE)
    except KeyboardInterrupt:
        return _ended(INTERRUPTED, f"interrupted{_state(folders)}")
    except SystemExit as stop:  # The help that was asked for is printed.
        return _ended(stop.code or DONE)
    except Exception as error:
        if asked():  # What it became on its way through a library.
            return _ended(INTERRUPTED, f"interrupted{_state(folders)}")
        if isinstance(error, BrokenPipeError) and not is_read():
            return _ended(CLOSED_PIPE)
        return _complain(error, folders)


def _carry_out(argv, folders):
    """Each command is imported when it is asked for: ``--help`` shall be instant."""
    from experiments import cli

    name, *words = argv or ["--help"]
    if name in ("-h", "--help"):
        print(cli.overview())
    elif "--presets" in words and name in experiments.EXPERIMENTS:
        print(cli.presets(name))
    elif name == "report":
        from experiments.report import write_reports

        for path in write_reports(*cli.parse_arguments(name, ["path"], words)):
            print(path)
    elif name == "compare":
        from experiments import comparing
        from experiments.screen import PlainConsole

        found = comparing.compare(*cli.parse_arguments(name, ["first", "second"], words))
        comparing.show(found, PlainConsole())
    elif name == "prepare":
        from plprune.data import prepare

        (dataset,) = cli.parse_arguments(name, ["dataset"], words)
        prepare(dataset)
        print(f"{dataset} is ready.")
    elif name == "sweep":
        from experiments import sweeping
        from experiments.screen import PlainConsole

        sweep = sweeping.parse(words)
        folders.append(sweep.out)
        sweeping.carry_out(sweep, PlainConsole())
    else:
        command = cli.parse(name, words)
        folders.append(command.out)
        from experiments.running import carry_out
        from experiments.screen import PlainConsole

        carry_out(command, PlainConsole())


def _ended(code, line=""):
    """`code`, once all is said that can be."""
    if line:
        complain(line)
    try:
        return code if flushed() or code != DONE else CLOSED_PIPE
    except OSError:
        return code or BAD_INPUT


def _complain(error, folders):
    if isinstance(error, ModuleNotFoundError):
        from plprune.extras import extra_of, named

        error = named(error, extra_of(error.name or ""))
    bad_input = isinstance(error, ValueError | OSError)
    what = "" if bad_input else f"{type(error).__name__}, which is an error of this program: "
    if os.environ.get("PLPRUNE_TRACEBACK"):
        traceback.print_exc()
    elif what:
        what += "(PLPRUNE_TRACEBACK=1 shows where) "
    saved = ""
    if (isinstance(error, OSError) or not bad_input) and _hold_anything(folders):
        saved = _state(folders)
    said = " ".join(str(error).split())
    return _ended(BAD_INPUT if bad_input else FAULT, f"{what}{said}{saved}")


def _state(folders) -> str:
    """Where the work done so far is, for the one line after an interruption."""
    if _hold_anything(folders):
        return f"; what was finished is in {folders[0]}, and --resume continues from it."
    return " before anything was done."


def _hold_anything(folders):
    return any(folder.is_dir() and any(folder.iterdir()) for folder in folders)


if __name__ == "__main__":
    listen()
    leave(_main(sys.argv[1:]))
