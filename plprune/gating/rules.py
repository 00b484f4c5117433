"""Gating rules: what decides which nodes are good, learned gates or a score."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PRNGKeyArray

from plprune.gating.objectives import Objective
from plprune.types import Apply, Gates, Inputs, NodeGroups, Params

Score = Callable[
    ..., Gates
]  # score(apply, params, groups, *, inputs, labels, loss, key) -> scores.


class Rule(NamedTuple):
    """A pair of pure functions; `update` makes one gate update and returns (gates, state).

    Gates are multipliers with mean 1 in each group, and the nodes with the largest stay open.
    """

    init: Callable[[], Any]
    update: Callable[[Any, Apply, Params, Inputs, Array | None, PRNGKeyArray], tuple[Gates, Any]]


class FreeLogits(NamedTuple):
    """The gating network without a network: one logit per node, and their optimiser's state."""

    logits: Gates
    optimizer: optax.OptState


def free_logits(
    groups: NodeGroups,
    sizes: dict[str, int],
    objective: Objective,
    optimizer: optax.GradientTransformation,
) -> Rule:
    """One free logit per node, moved down the slope of `objective`.

    Gates are sigmoids of the logits, divided by their mean over the group: kappa is not invariant
    to a common scale in deep networks, and rescaling must not pass for pruning.

    Args:
      groups: From `find_nodes`.
      sizes: Group name -> number of nodes, for the groups to gate.
      objective: Such as `log_condition_number()`.
      optimizer: For the logits.
    """

    def init():
        logits = {name: jnp.zeros(size) for name, size in sizes.items()}
        return FreeLogits(logits, optimizer.init(logits))

    def update(state, apply, params, inputs, labels, key):
        del labels
        gates, pullback = jax.vjp(_normalised_sigmoids, state.logits)
        slope = objective(apply, params, groups, gates, inputs, key)
        (gradient,) = pullback(slope.gradient)
        updates, inner = optimizer.update(gradient, state.optimizer, state.logits)
        logits = optax.apply_updates(state.logits, updates)
        return _normalised_sigmoids(logits), FreeLogits(logits, inner)

    return Rule(init, update)


def _normalised_sigmoids(logits):
    gates = {name: jax.nn.sigmoid(values) for name, values in logits.items()}
    return {name: values / jnp.mean(values) for name, values in gates.items()}


def scored(groups: NodeGroups, sizes: dict[str, int], score: Score, loss: Callable | None) -> Rule:
    """A rule without memory: the gates are the ranks of a score, larger = keep.

    Args:
      groups: From `find_nodes`.
      sizes: Group name -> number of nodes, for the groups to gate.
      score: A function of `plprune.scores`, or one like them.
      loss: Passed on to `score`.
    """

    def update(state, apply, params, inputs, labels, key):
        scores = score(apply, params, groups, inputs=inputs, labels=labels, loss=loss, key=key)
        return {name: jnp.asarray(scores[name], jnp.float32) for name in sizes}, state

    return Rule(tuple, update)
