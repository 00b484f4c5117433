# SPDX-License-Identifier: Apache-2.0
"""`shrink_checkpoint` from the command line.

The model comes from a function of yours that returns `(apply, params, inputs)`, shapes in place of
arrays, and the nodes that stay from a file that ``numpy.savez("keep.npz", **keep)`` has written.
"""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from plprune.nodes import find_nodes
from plprune.storage.shrinking import shrink_checkpoint


def main(arguments: Sequence[str] | None = None) -> int:
    """Cut one checkpoint; 2 for bad input, said in one line.

    Args:
      arguments: Of the command line; by default those of this process.
    """
    parser = argparse.ArgumentParser(prog="python -m plprune.shrink", description=__doc__)
    parser.add_argument("source", help="a checkpoint of orbax, or safetensors")
    parser.add_argument("target", help="the folder to make")
    parser.add_argument("--model", required=True, metavar="MODULE:FUNCTION",
                        help="returns (apply, params, inputs)")  # fmt: skip
    parser.add_argument("--keep", required=True, metavar="FILE", help="group -> booleans, as .npz")
    parser.add_argument("--read-bytes", type=int, default=2**26, help="read at once")
    options = parser.parse_args(arguments)
    try:
        apply, params, inputs = _model(options.model)
        groups = find_nodes(apply, params, inputs)
        with np.load(options.keep, allow_pickle=False) as file:
            keep = dict(file)
        done = shrink_checkpoint(
            options.source, options.target, groups, keep, read_bytes=options.read_bytes
        )
    except (ValueError, OSError, ImportError) as error:
        sys.stderr.write(f"{parser.prog}: {error}\n")
        return 2
    sys.stdout.write(f"{done}\n")
    return 0


def _model(named: str) -> Any:
    """What the function returns; modules are looked for in the current folder too."""
    module, colon, function = named.partition(":")
    if not colon:
        raise ValueError(f"--model must be MODULE:FUNCTION, got {named!r}.")
    sys.path.insert(0, os.getcwd())
    try:
        made = getattr(importlib.import_module(module), function, None)
    finally:
        sys.path.pop(0)
    if not callable(made):
        raise ValueError(f"--model names {function!r}, which is no function of {module}.")
    return made()
