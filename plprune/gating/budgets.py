# SPDX-License-Identifier: Apache-2.0
"""How many nodes stay open: the kept fraction over time, and over groups."""

from collections.abc import Callable, Mapping
from numbers import Real

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from plprune.costs import flops
from plprune.nodes import keep_top, resize, shrink
from plprune.types import Apply, Gates, Inputs, NodeGroups, Params

Budget = Callable[[Int[Array, ""]], Float[Array, ""]]

SCHEDULES = ("one_shot", "linear", "cubic")
BUDGETS = ("group", "global", "cost")


def kept_fraction(schedule: str, *, keep_fraction: float, num_steps: int) -> Budget:
    """The fraction of nodes open after a gate update at some step.

    Args:
      schedule: "one_shot" is `keep_fraction` at once; "linear" falls to it evenly over `num_steps`;
        "cubic" falls fast first, as ``keep + (1 - keep)(1 - t)^3`` at t = step / num_steps
        [Zhu 2017].
      keep_fraction: Final fraction, in (0, 1].
      num_steps: Steps until it is reached; it stays there afterwards.

    Raises:
      ValueError: an unknown schedule, a fraction outside (0, 1], or `num_steps` below 0.
    """
    if schedule not in SCHEDULES:
        raise ValueError(f"schedule must be one of {SCHEDULES}, got {schedule!r}.")
    if not isinstance(keep_fraction, Real | Array | np.ndarray) or not 0 < keep_fraction <= 1:
        raise ValueError(f"keep_fraction must lie in (0, 1], got {keep_fraction}.")
    if num_steps < 0:
        raise ValueError(f"num_steps must be at least 0, got {num_steps}.")
    power = {"one_shot": None, "linear": 1, "cubic": 3}[schedule]
    if power is None or num_steps == 0:
        return lambda step: jnp.full(jnp.shape(step), keep_fraction, jnp.float32)

    def fraction(step):
        left = 1 - jnp.minimum(step / num_steps, 1).astype(jnp.float32)
        return keep_fraction + (1 - keep_fraction) * left**power

    return fraction


def keep_within(
    gates: Gates,
    groups: NodeGroups,
    fraction: float | Float[Array, ""],
    *,
    budget: str = "group",
    min_fraction: float = 0.0,
    node_costs: Mapping[str, float] | None = None,
) -> dict[str, Bool[Array, " g"]]:
    """The nodes with the largest gates that a budget affords; works under jit.

    Args:
      gates: Group name -> one number per node, larger = keep.
      groups: From `find_nodes`.
      fraction: Of what is kept, in (0, 1]; may be traced.
      budget: "group" keeps the fraction of every group, "global" of all nodes together; "cost"
        keeps the first nodes, in order of their gates, whose costs sum to at most the fraction of
        the cost of all.
      min_fraction: Part of every group, in [0, 1], that "global" and "cost" keep whatever the
        gates; at least one node. A budget that it exceeds is exceeded.
      node_costs: Group name -> cost of one of its nodes, such as `node_flops`; for "cost".
    """
    if budget == "group":
        return keep_top(gates, groups, fraction)
    least = {n: max(1, int(np.ceil(min_fraction * len(v) - 1e-9))) for n, v in gates.items()}
    first = {n: jnp.where(_ranks(v) < least[n], jnp.inf, v) for n, v in gates.items()}
    everything = jnp.concatenate(list(first.values()))
    prices = {name: (node_costs or {})[name] if budget == "cost" else 1.0 for name in gates}
    costs = jnp.concatenate([jnp.full(len(v), prices[n], jnp.float32) for n, v in first.items()])
    order = jnp.argsort(-jnp.nan_to_num(everything, nan=-jnp.inf, posinf=jnp.inf))
    spent = jnp.cumsum(costs[order])
    slack = 0.5 if budget == "global" else 1e-5 * spent[-1]  # Rounds counts, halves up.
    affordable = jnp.zeros(len(order), bool).at[order].set(spent <= fraction * spent[-1] + slack)
    splits = np.cumsum([len(v) for v in first.values()])[:-1]
    parts = jnp.split(affordable | jnp.isposinf(everything), splits)
    return dict(zip(first, parts, strict=True))


def _ranks(values):
    """0 for the largest; equal values in order, what is not a number last."""
    return jnp.argsort(jnp.argsort(-jnp.nan_to_num(values, nan=-jnp.inf)))


def node_flops(
    apply: Apply, params: Params, groups: NodeGroups, inputs: Inputs
) -> dict[str, float]:
    """Floating-point operations of one forward pass that go when one node of a group goes.

    Counted by the compiler, with all other nodes in place: one compilation per prunable group.

    Args:
      apply: As given to `find_nodes`.
      params: Its parameters, or their shapes.
      groups: From `find_nodes`.
      inputs: A batch, or its shapes.
    """
    full = flops(apply, params, inputs)

    def without_one(name, size):
        keep = {name: np.arange(size) > 0}
        small = jax.eval_shape(lambda p: shrink(p, groups, keep), params)
        return flops(resize(apply, groups, keep), small, inputs)

    sizes = groups.prunable.items()
    return {name: full - without_one(name, n) if n > 1 else full for name, n in sizes}
