# SPDX-License-Identifier: Apache-2.0
"""Logits to the soft gates that an objective is differentiated in."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from plprune.types import Gates, Keep

Choose = Callable[[Gates], Keep]  # The nodes that the present budget keeps.
Temperature = float | Callable[[Int[Array, ""]], Float[Array, ""]]

# (logits, choose, number of the update, key) -> gates with mean 1 in each group.
Relaxation = Callable[[Gates, Choose, Int[Array, ""], PRNGKeyArray], Gates]

_STRETCH = (-0.1, 1.1)  # As in [Louizos 2018].


def sigmoids(temperature: Temperature = 1.0) -> Relaxation:
    """sigmoid(logit / temperature), the default.

    Args:
      temperature: Positive, or a schedule of the number of gate updates so far.
    """

    def relax(logits, choose, count, key):
        del choose, key
        heat = _at(temperature, count)
        return normalised({n: jax.nn.sigmoid(v / heat) for n, v in logits.items()})

    return relax


def thresholded(temperature: Temperature) -> Relaxation:
    """sigmoid((logit - threshold) / temperature), the threshold where the budget cuts.

    With a temperature that falls, gates end near 0 and 1 at just the budget's number of nodes.
    """

    def relax(logits, choose, count, key):
        del key
        heat, keep = _at(temperature, count), choose(logits)

        def gates(name, values):
            kept = keep[name]
            least = jnp.min(jnp.where(kept, values, jnp.inf))
            most = jnp.max(jnp.where(kept, -jnp.inf, values))
            # All open: no node lies below the cut.
            cut = jnp.where(jnp.all(kept), least - heat, (least + most) / 2)
            return jax.nn.sigmoid((values - jax.lax.stop_gradient(cut)) / heat)

        return normalised({name: gates(name, values) for name, values in logits.items()})

    return relax


def hard_concrete(temperature: float = 2 / 3) -> Relaxation:
    """Noisy gates that are exactly 0 or 1 with positive probability [Louizos 2018]."""

    def relax(logits, choose, count, key):
        del choose, count
        low, high = _STRETCH

        def gates(index, values):
            noise = jax.random.logistic(jax.random.fold_in(key, index), values.shape, values.dtype)
            stretched = jax.nn.sigmoid((values + noise) / temperature) * (high - low) + low
            return jnp.clip(stretched, 0, 1)

        return normalised({n: gates(i, v) for i, (n, v) in enumerate(logits.items())})

    return relax


def straight_through() -> Relaxation:
    """The budget's 0 or 1 forward, the sigmoid's derivative backward."""

    def relax(logits, choose, count, key):
        del count, key
        return normalised(hard_gates(logits, choose))

    return relax


def hard_gates(logits: Gates, choose: Choose) -> Gates:
    """1 at the nodes that are kept and 0 elsewhere, with the derivative of a sigmoid."""
    keep = choose(logits)

    def gates(name, values):
        soft = jax.nn.sigmoid(values)
        return soft + jax.lax.stop_gradient(keep[name].astype(values.dtype) - soft)

    return {name: gates(name, values) for name, values in logits.items()}


def normalised(gates: Gates) -> Gates:
    """Gates divided by their group's mean.

    The condition number is not invariant to a common scale in deep networks, and rescaling must
    not pass for pruning.
    """
    tiny = 1e-6  # All gates of a group may be zero where they are drawn.
    return {name: values / jnp.maximum(jnp.mean(values), tiny) for name, values in gates.items()}


def _at(temperature, count):
    return temperature(count) if callable(temperature) else temperature
