# SPDX-License-Identifier: Apache-2.0
"""The gates of `pl_gating` at one set of parameters, as a score."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from plprune.gating.transformation import pl_gating
from plprune.scores import Probe
from plprune.scores.running import score
from plprune.scores.slices import NodeScores
from plprune.types import Apply, NodeGroups, Params


@score("key", "inputs")
def kappa(
    apply: Apply,
    params: Params,
    groups: NodeGroups,
    probe: Probe,
    *,
    num_updates: int = 20,
    exclude: str | tuple[str, ...] = (),
) -> NodeScores:
    """Gates that minimise the condition number of the tangent kernel, with all else as it is.

    What `pl_gating` chooses by in its first call, and so the score of choosing once, without
    training; groups that cannot be gated have none. Costs `num_updates` gate updates.

    Args:
      apply: As given to `find_nodes`, like the other arguments.
      params: Its parameters.
      groups: From `find_nodes`.
      probe: A batch, and the key that draws parts of it.
      num_updates: Gate updates.
      exclude: Names or patterns of groups that stay as they are, without a score.

    Raises:
      ValueError: a probe without a key or an example, no group that can be gated, or a model that
        `tangent_kernel` refuses.
    """
    optimizer = pl_gating(
        optax.set_to_zero(), apply, groups, keep_fraction=1.0, key=probe.key, exclude=exclude,
        initial_updates=num_updates, independent=probe.independent,
    )  # fmt: skip
    state = optimizer.init(params)
    still = jax.tree.map(jnp.zeros_like, params)
    after: Any = optimizer.update(still, state, params, probe=probe.inputs)[1]
    return after.gates
