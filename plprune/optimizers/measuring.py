# SPDX-License-Identifier: Apache-2.0
"""An optax wrapper that measures the conditioning every so many steps of training."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Int, PRNGKeyArray

from plprune.constants.measurement import Measurement, measure
from plprune.types import Apply, Estimate, Objective


class MeasuringState(NamedTuple):
    """The number of updates so far, the measurements so far, and the wrapped optimiser's state."""

    count: Int[Array, ""]
    steps: Int[Array, " m"]  # That were measured; -1 where none has come yet.
    measured: Measurement  # Of arrays [m]; unresolved where no step has come yet.
    inner: optax.OptState


def measuring(
    optimizer: optax.GradientTransformation,
    apply: Apply,
    *,
    every: int,
    num_steps: int,
    objective: Objective | None = None,
    key: PRNGKeyArray | None = None,
    independent: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """An optimiser that moves as `optimizer` does and measures the model at steps 0, n, 2n, ...

        optimizer = measuring(optax.adam(1e-3), apply, every=100, num_steps=2000)
        ...
        updates, state = optimizer.update(gradients, state, params, probe=inputs)
        ...
        pictures.condition_along_training(*measured_steps(state))

    Args:
      optimizer: Any optax transformation.
      apply: As for `plprune.measure`.
      every: Steps from one measurement to the next.
      num_steps: Steps to make room for; later ones are not measured.
      objective: ``(params, batch) -> scalar`` whose L is measured; without one it is that of the
        Gauss-Newton matrix, as in `plprune.measure`.
      key: For `objective`.
      independent: As for `plprune.tangent_kernel`.

    Returns:
      A transformation whose `update` needs `params`, the inputs `probe` and, with an `objective`,
      its `batch`, of one shape throughout. `probe` and other keywords reach `optimizer`, so that
      a gating inside sees the same examples.

    Raises:
      ValueError: `every` or `num_steps` below 1; as `plprune.measure`; `update` without params.

    Cost: one measurement every n steps, behind a `lax.cond`; memory for 16 numbers each.
    """
    for name, number in (("every", every), ("num_steps", num_steps)):
        if number < 1:
            raise ValueError(f"{name} must be at least 1, got {number}.")
    if objective is not None and key is None:
        raise ValueError("key must be given with an objective, got None.")
    optimizer = optax.with_extra_args_support(optimizer)
    room = -(-num_steps // every)

    def init(params):
        nothing = Estimate(jnp.zeros(room), jnp.full(room, jnp.inf), jnp.zeros(room, bool))
        measured = Measurement(*(nothing for _ in Measurement._fields))
        count, steps = jnp.zeros((), jnp.int32), jnp.full(room, -1, jnp.int32)
        return MeasuringState(count, steps, measured, optimizer.init(params))

    def update(updates, state, params=None, *, probe, batch=None, **extra):
        if params is None:
            raise ValueError("measuring(...).update needs params: it measures where they are.")

        def written(lines):
            options = {"objective": objective, "batch": batch, "key": key}
            seen = measure(apply, params, probe, independent=independent, **options)
            return jax.tree.map(
                lambda line, x: line.at[state.count // every].set(x.astype(line.dtype)),
                lines,
                (state.count, seen),
            )

        is_due = (state.count % every == 0) & (state.count < num_steps)
        lines = state.steps, state.measured
        steps, measured = jax.lax.cond(is_due, written, lambda lines: lines, lines)
        updates, inner = optimizer.update(updates, state.inner, params, probe=probe, **extra)
        return updates, MeasuringState(optax.safe_increment(state.count), steps, measured, inner)

    return optax.GradientTransformationExtraArgs(init, update)


def measured_steps(state: MeasuringState) -> tuple[Int[np.ndarray, " m"], Measurement]:
    """The steps that were measured so far, and what was measured there, on the host."""
    steps = np.asarray(state.steps)
    done = steps >= 0
    return steps[done], jax.tree.map(lambda line: np.asarray(line)[done], state.measured)
