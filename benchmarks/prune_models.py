# SPDX-License-Identifier: Apache-2.0
"""`plprune.prune` on one model of each kind, and gates while it trains; see `in_one_call`.

`--only TITLE` takes one model, `--repeats` is not used. A package that is not installed is skipped
with the reason.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
import optax
from flax import nnx

import plprune
from benchmarks.models import TOLERANCE, Unequal, difference, print_rows
from benchmarks.public.in_one_call import WHOLES, Whole
from plprune.functional import functional, functional_equinox, paired, stateless

T = TypeVar("T")
STEPS = 10  # With gates, and as many without.


class Row(NamedTuple):
    """What is known of one model; seconds are of the processor."""

    groups: int
    pruned: int  # Groups that lost half of their nodes.
    left: int  # Groups that its own module cannot lose nodes of.
    parameters: tuple[int, int]  # Before and after.
    discovery: float  # Seconds of a first `find_nodes`.
    seconds: float  # Of the call of `prune`.
    gap: float  # Of the smaller model's outputs to those of `resize` or the masked model.
    kept: str  # Nodes after steps with gates.
    losses: tuple[float, float, float]  # At first, after steps with gates, after steps without.
    training: float  # Seconds of both.


def examine(whole: Whole) -> Row:
    """All checks of one model."""
    parts, inputs = whole.parts, whole.inputs
    if jax.tree.leaves(parts.state):
        apply, variables = paired(parts), (parts.params, parts.state)
    else:
        apply, variables = stateless(parts), parts.params
    _, discovery = timed(lambda: plprune.find_nodes(apply, variables, inputs))
    options = {"keep_fraction": 0.5, "score": "magnitude", **whole.options}
    small, seconds = timed(lambda: plprune.prune(whole.model, inputs, **options))
    groups, keep, costs = small.groups, small.keep, small.comparison
    if not all(text in str(small) for text in (str(costs), *keep, *small.left)):
        raise Unequal("the table lacks costs or groups")
    ours = jax.jit(_function_of(small.model, whole))(inputs)
    smaller = plprune.resize(apply, groups, keep)
    resized = jax.jit(smaller)(plprune.shrink(variables, groups, keep), inputs)
    masked = jax.jit(apply)(plprune.mask(variables, groups, keep), inputs)
    gap = max(difference(other, ours) for other in (resized, masked))
    if not gap < TOLERANCE:
        raise Unequal(f"pruned, resized and masked differ by {gap:.0e}")
    (kept, losses), training = timed(lambda: trained(whole))
    counts = costs.before.parameters, costs.after.parameters
    pruned = sum(not np.all(nodes) for nodes in keep.values())
    return Row(
        len(groups), pruned, len(small.left), counts, discovery, seconds, gap, kept, losses,
        training,
    )  # fmt: skip


def _function_of(model: Any, whole: Whole) -> Callable[[Any], Any]:
    """What a pruned model is of inputs: of Haiku and of functions it is a pair."""
    if isinstance(model, tuple):
        apply, variables = model
        return partial(apply, variables)
    take = functional if isinstance(model, nnx.Module) else functional_equinox
    parts = take(model, **whole.options)
    return partial(parts.apply, parts.params, parts.state)


def trained(whole: Whole) -> tuple[str, tuple[float, float, float]]:
    """Ten steps in which gates are learned, shrinking, and ten more: nodes kept, and losses."""
    training = plprune.gated_training(
        whole.parts, optax.adam(1e-3), whole.loss, whole.inputs, keep_fraction=0.5,
        key=jax.random.key(1), initial_updates=STEPS // 2, independent=whole.independent,
    )  # fmt: skip
    batch = whole.inputs, whole.labels()
    state, first = _run(training.step, training.train_state, batch)
    stage, keep = training.finish(state)
    state, second = _run(stage.step, stage.train_state, batch)
    losses = first[0], second[0], second[-1]
    if not np.isfinite([*first, *second]).all():
        raise Unequal(f"losses are not finite: {losses}")
    kept, whole_ = (sum(map(count, keep.values())) for count in (np.sum, len))
    return f"{kept:.0f} of {whole_}", losses


def _run(step, state, batch):
    step, losses = jax.jit(step), []
    for _ in range(STEPS):
        state, info = step(state, batch)
        losses.append(float(info.loss))
    return state, losses


def timed(call: Callable[[], T]) -> tuple[T, float]:
    """What it returns, and processor seconds."""
    start = time.process_time()
    result = call()
    return result, time.process_time() - start


HEAD = (
    "model", "groups", "pruned", "left", "parameters", "discovery s", "prune s",
    "largest difference", "kept by gates", "loss at first, after ten gated steps, ten more",
    "training s",
)  # fmt: skip


def line(title: str, row: Row) -> str:
    """A row of the table."""
    before, after = row.parameters
    cells = (
        title, row.groups, row.pruned, row.left, f"{before:,} -> {after:,}",
        f"{row.discovery:.2f}", f"{row.seconds:.1f}", f"{row.gap:.0e}", row.kept,
        ", ".join(f"{x:.3g}" for x in row.losses), f"{row.training:.1f}",
    )  # fmt: skip
    return "| " + " | ".join(map(str, cells)) + " |"


def main(repeats: int, title: str | None = None) -> int:
    """Print the table and what was skipped; 1 where a model is not exact or does not train."""
    del repeats
    titles = [name for name in WHOLES if title in (None, name)]
    return print_rows(HEAD, {name: partial(_line_of, name) for name in titles})


def _line_of(title):
    return line(title, examine(WHOLES[title]()))


TABLES = {title: partial(main, title=title) for title in WHOLES}
