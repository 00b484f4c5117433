# SPDX-License-Identifier: Apache-2.0
"""What a model costs: parameters, bytes, floating-point operations and measured time."""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from plprune.types import Apply, Inputs, Params


class Costs(NamedTuple):
    """The costs of one forward pass over a batch."""

    parameters: int
    parameter_bytes: int
    flops: float  # Of the whole batch.
    bytes_accessed: float  # Memory traffic of the compiled pass.
    seconds: float  # Median over repeats.


class Comparison(NamedTuple):
    """Costs of two models; `print` shows them side by side."""

    before: Costs
    after: Costs

    @property
    def ratios(self) -> Costs:
        """After over before; NaN where the cost before is zero."""
        pairs = zip(self.before, self.after, strict=True)
        return Costs(*(after / before if before else float("nan") for before, after in pairs))

    def __str__(self) -> str:
        rows = [("", "before", "after", "after / before")]
        columns = zip(Costs._fields, self.before, self.after, self.ratios, strict=True)
        for name, *both, ratio in columns:
            if any(number != number for number in both):  # Not known, as of shapes alone.
                continue
            digits = "{:.2e}" if name == "seconds" else "{:,.0f}"
            rows.append((name.replace("_", " "), *map(digits.format, both), f"{ratio:.3f}"))
        return _table(rows)


def parameters(params: Params) -> int:
    """Number of scalars in a tree of arrays, shapes or numbers."""
    return sum(int(np.prod(np.shape(leaf))) for leaf in jax.tree.leaves(params))


def parameter_bytes(params: Params) -> int:
    """Memory of a tree of arrays, shapes or numbers, in bytes."""
    leaves = jax.tree.leaves(params)
    types = [leaf.dtype if hasattr(leaf, "dtype") else jnp.result_type(leaf) for leaf in leaves]
    return sum(parameters(leaf) * kind.itemsize for leaf, kind in zip(leaves, types, strict=True))


def flops(apply: Apply, params: Params, inputs: Inputs) -> float:
    """Floating-point operations of one forward pass over `inputs`, as the compiler counts them.

    A multiplication and an addition are two. Operations inside loops are counted once, so scan a
    model's layers with care. Divide by the batch size for the cost of one example.

    Args:
      apply: The model.
      params: Its parameters, or their shapes (`jax.ShapeDtypeStruct`).
      inputs: A batch, or its shapes.

    Raises:
      RuntimeError: If the backend does not report the count.
    """
    return _count(jax.jit(apply).lower(params, inputs).compile(), "flops")


def bytes_accessed(apply: Apply, params: Params, inputs: Inputs) -> float:
    """Bytes that one compiled forward pass reads and writes; arguments and errors as in `flops`."""
    return _count(jax.jit(apply).lower(params, inputs).compile(), "bytes accessed")


def latency(function: Callable[..., PyTree], *args: Any, repeats: int = 10) -> float:
    """Median wall-clock seconds of `function(*args)`, compiled, over `repeats` calls.

    Two calls come first and are not counted: compilation, and a warm-up. Each call is waited for.

    Raises:
      ValueError: If `repeats` is below 1.
    """
    return _median_seconds(jax.jit(function), args, repeats)


def _median_seconds(compiled, args, repeats):
    if repeats < 1:
        raise ValueError(f"repeats must be at least 1, got {repeats}.")
    for _ in range(2):
        jax.block_until_ready(compiled(*args))

    def once():
        start = time.perf_counter()
        jax.block_until_ready(compiled(*args))
        return time.perf_counter() - start

    return statistics.median(once() for _ in range(repeats))


def measure(apply: Apply, params: Params, inputs: Inputs, *, repeats: int = 10) -> Costs:
    """All costs of one forward pass, compiled once; errors as in `flops` and `latency`."""
    compiled = jax.jit(apply).lower(params, inputs).compile()
    return Costs(
        parameters=parameters(params),
        parameter_bytes=parameter_bytes(params),
        flops=_count(compiled, "flops"),
        bytes_accessed=_count(compiled, "bytes accessed"),
        seconds=_median_seconds(compiled, (params, inputs), repeats),
    )


def compare(
    before: tuple[Apply, Params], after: tuple[Apply, Params], inputs: Inputs, *, repeats: int = 10
) -> Comparison:
    """Costs of two models, each `(apply, params)`, on the same inputs."""
    return Comparison(*(measure(*model, inputs, repeats=repeats) for model in (before, after)))


def _count(compiled, name):
    analysis = compiled.cost_analysis()
    # Older backends wrap the dictionary in a list, one for each program.
    analysis = analysis[0] if isinstance(analysis, Sequence) else analysis or {}
    count = analysis.get(name, -1.0)
    if not count >= 0:
        raise RuntimeError(f"the backend {jax.default_backend()} does not report {name!r}.")
    return float(count)


def _table(rows):
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    ]
    return "\n".join(lines)
