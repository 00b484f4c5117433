"""``python -m experiments``: exit code 0 when done, 2 for bad input, 130 when interrupted.

Bad input is one line on stderr; with PLPRUNE_TRACEBACK set, the traceback stands above it.
"""

import os
import sys
import traceback
from collections.abc import Sequence

from experiments.command_line import Command, ToolCommand, overview, parse

DONE, BAD_INPUT, INTERRUPTED = 0, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out a command line and return its exit code."""
    argv = sys.argv[1:] if argv is None else list(argv)
    if not argv or argv[0] in ("-h", "--help"):
        print(overview())
        return DONE
    command = None
    try:
        command = parse(argv)
        _carry_out(command)
    except (ValueError, OSError) as error:
        if os.environ.get("PLPRUNE_TRACEBACK"):
            traceback.print_exc()
        print(f"experiments: {' '.join(str(error).split())}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print(f"experiments: interrupted{_state(command)}", file=sys.stderr)
        return INTERRUPTED
    except SystemExit as stop:  # tyro printed the help that was asked for.
        return stop.code or DONE
    return DONE


def _carry_out(command: Command | ToolCommand) -> None:
    from rich.console import Console

    console = Console()
    if isinstance(command, Command):
        from experiments.running import carry_out

        carry_out(command, console)
    elif command.name == "report":
        from experiments.report import write_reports

        for path in write_reports(command.argument):
            console.print(str(path), soft_wrap=True, highlight=False)
    else:
        from plprune.data import prepare

        prepare(command.argument)
        console.print(f"{command.argument} is ready.", highlight=False)


def _state(command) -> str:
    """Where the work done so far is, for the one line after an interruption."""
    if isinstance(command, Command) and command.out.is_dir() and any(command.out.iterdir()):
        return f"; what was finished is in {command.out}, and --resume continues from it."
    return " before anything was done."


if __name__ == "__main__":
    sys.exit(main())
