# SPDX-License-Identifier: Apache-2.0
"""The terminal, or whatever reads the output in its place."""

from rich.console import Console

from experiments.interruption import ClosedPipe


class PlainConsole(Console):
    """Prints words as they are: names of folders may have brackets and colons."""

    def __init__(self) -> None:
        super().__init__(markup=False, emoji=False)

    def on_broken_pipe(self) -> None:
        """What rich calls where nobody reads any more."""
        self.quiet = True
        raise ClosedPipe
