# SPDX-License-Identifier: Apache-2.0
"""Plain calls of scores: labels are looked at first, then a program runs that is kept."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from plprune.compilation import compile_once
from plprune.independence import run_where_independent
from plprune.scores.probes import check_probe


def _run(checks_labels: bool, function: Callable, static: Mapping, dynamic: Mapping) -> Any:
    labels, loss = dynamic.get("labels"), static.get("loss")
    if checks_labels and labels is not None and loss is not None:
        model = static["apply"], dynamic["params"]
        # In the program no values can be seen.
        check_probe(*model, inputs=dynamic["inputs"], labels=labels, loss=loss)
    return run_where_independent(function, static, dynamic)


_ARRAYS = ("params", "inputs", "labels", "key")
# Marks of the scores that take a loss, and of the others, which ignore labels.
compiled_with_loss = compile_once(*_ARRAYS, run=partial(_run, True))
compiled = compile_once(*_ARRAYS, run=partial(_run, False))
