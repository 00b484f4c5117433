# SPDX-License-Identifier: Apache-2.0
"""Rules that turn a probe into one number per node: learned gates, or a score."""

import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Int, PRNGKeyArray

from plprune.gating.networks import GatingNetwork
from plprune.gating.objectives import Objective, Setting
from plprune.gating.relaxations import Choose, Relaxation, hard_gates, normalised
from plprune.scores import Probe
from plprune.types import Apply, Gates, NodeGroups, Params

Score = Callable[[Apply, Params, NodeGroups, Probe], Gates]


class Rule(NamedTuple):
    """Three pure functions; the nodes with the largest gates stay open."""

    init: Callable[[PRNGKeyArray], Any]
    prepare: Callable[[Apply, Setting], Any]  # Once per call of the transformation.
    # One gate update: gates, what the rule remembers, and whether the gates came of numbers.
    update: Callable[[Any, Any, Apply, Setting, Choose], tuple[Gates, Any, Bool[Array, ""]]]


class Learned(NamedTuple):
    """The gating network's weights and their optimiser's state."""

    count: Int[Array, ""]  # Gate updates so far.
    weights: Any
    optimizer: optax.OptState


def learned(
    network: GatingNetwork,
    objective: Objective,
    relaxation: Relaxation,
    optimizer: optax.GradientTransformation,
) -> Rule:
    """Gates moved down the slope of `objective`, in the weights of `network`.

    A step whose objective or gradient is not finite is taken with gradient zero. The gates are
    sigmoids of the logits divided by their group's mean.
    """

    def init(key):
        weights = network.init(key)
        return Learned(jnp.zeros((), jnp.int32), weights, optimizer.init(weights))

    def prepare(apply, setting):
        del apply
        return network.statistics(setting)

    def update(memory, statistics, apply, setting, choose):
        del apply
        key_relaxation, key_objective = jax.random.split(setting.key)
        setting = setting._replace(key=key_objective)

        def value(weights):
            logits = network.logits(weights, statistics)
            soft = relaxation(logits, choose, memory.count, key_relaxation)
            return objective(setting, soft, hard_gates(logits, choose))

        gradient, ok = _finite(*jax.value_and_grad(value)(memory.weights))
        with promotion():
            updates, inner = optimizer.update(gradient, memory.optimizer, memory.weights)
            weights = optax.apply_updates(memory.weights, updates)
        logits = network.logits(weights, statistics)
        gates = normalised({name: jax.nn.sigmoid(v) for name, v in logits.items()})
        return gates, Learned(optax.safe_increment(memory.count), weights, inner), ok

    return Rule(init, prepare, update)


def promotion() -> AbstractContextManager:
    """Dtypes may be promoted here, even where the caller forbids it.

    Optax's own transformations ask for it: Adam raises a float to the power of an integer.
    """
    return jax.numpy_dtype_promotion("standard")


def _finite(value, gradient):
    """The gradient, or zeros where anything is not finite; and whether all is."""
    parts = [value, *jax.tree.leaves(gradient)]
    ok = jnp.stack([jnp.all(jnp.isfinite(part)) for part in parts]).all()
    return jax.tree.map(lambda g: jnp.where(ok, g, 0), gradient), ok


def scored(groups: NodeGroups, sizes: dict[str, int], score: Score) -> Rule:
    """A rule without memory: the gates are the values of a score, larger = keep.

    Args:
      groups: From `find_nodes`.
      sizes: Group name -> number of nodes, for the groups to gate.
      score: A function of `plprune.scores`, or one like them.

    Raises:
      TypeError: `score` cannot be called as these are.
    """
    try:
        inspect.signature(score).bind(None, None, groups, Probe())
    except TypeError as error:
        raise TypeError(
            "score must be called score(apply, params, groups, probe), with a probe of "
            f"plprune.scores.Probe: {error}."
        ) from None

    def update(memory, prepared, apply, setting, choose):
        del prepared, choose
        _, params, *probe = setting
        scores = score(apply, params, groups, Probe(*probe))
        gates = {name: jnp.asarray(scores[name], jnp.float32) for name in sizes}
        # Infinite scores rank first or last; a NaN says nothing of its node.
        ok = ~jnp.stack([jnp.isnan(values).any() for values in gates.values()]).any()
        return gates, memory, ok

    return Rule(lambda _: (), lambda *_: (), update)
