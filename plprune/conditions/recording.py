# SPDX-License-Identifier: Apache-2.0
"""An optax wrapper that writes the condition's scalars at every step, and exact replay.

The nearest minimiser is replaced by the last iterate x^K, so a run is made twice: the first time
for x^K, the second to record against it. Both use one compiled function, whose argument `reference`
is the only thing that changes: the same operations in the same order give the same bits.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, Shaped

from plprune.conditions.points import Points
from plprune.norms import at_least_float32, is_real, tree_norm
from plprune.types import Params


class Records(NamedTuple):
    """What each step saw, before its update."""

    inner: Float[Array, "... steps"]  # <grad f_i(x), x - reference>
    value: Float[Array, "... steps"]  # f_i(x), the loss of the batch.
    gradient_norm: Float[Array, "... steps"]
    distance: Float[Array, "... steps"]  # |x - reference|


class RecordingState(NamedTuple):
    """The next step to write, the records so far, and the wrapped optimiser's state."""

    step: Int[Array, ""]
    records: Records
    inner: optax.OptState


def recording(
    optimizer: optax.GradientTransformation, num_steps: int
) -> optax.GradientTransformationExtraArgs:
    """An optimiser that moves exactly as `optimizer` does and records every step.

    Args:
      optimizer: Any optax transformation.
      num_steps: Steps to make room for; later ones are not recorded.

    Returns:
      A transformation whose `update` needs `params`, the loss of the batch as `value`, and a
      params-like tree `reference`: with `plprune.training.make_step`, pass ``reference=...`` to the
      loop. Other keywords reach `optimizer`. Records are taken and kept in float32 or wider, also
      of half-precision parameters. Costs one inner product and two norms a step, and memory for
      4 num_steps numbers.

    Raises:
      ValueError: num_steps below 1; `update` without params, or with a reference of another
        structure.
    """
    if num_steps < 1:
        raise ValueError(f"num_steps must be at least 1, got {num_steps}.")
    optimizer = optax.with_extra_args_support(optimizer)

    def init(params):
        real = [leaf for leaf in jax.tree.leaves(params) if is_real(leaf)]
        dtype = at_least_float32(*map(jnp.result_type, real))
        room = Records(*(jnp.zeros(num_steps, dtype) for _ in Records._fields))
        return RecordingState(jnp.zeros((), jnp.int32), room, optimizer.init(params))

    def update(updates, state, params=None, *, value, reference, **extra):
        if params is None:
            raise ValueError("recording(...).update needs params: it records where they are.")
        way = _way(params, reference)
        inner, distance, gradient_norm = _inner(updates, way), tree_norm(way), tree_norm(updates)
        seen = Records(inner, jnp.asarray(value), gradient_norm, distance)
        records = jax.tree.map(
            lambda line, x: line.at[state.step].set(x.astype(line.dtype), mode="drop"),
            state.records,
            seen,
        )
        updates = _after(updates, state.step, inner + distance.astype(inner.dtype))
        updates, inner_state = optimizer.update(updates, state.inner, params, value=value, **extra)
        return updates, RecordingState(optax.safe_increment(state.step), records, inner_state)

    return optax.GradientTransformationExtraArgs(init, update)


class Replay(NamedTuple):
    """A run recorded against its own last iterate.

    Where `exact` is false the second run was another one than the first, and the records say
    nothing of the condition: a different device, a loop that draws fresh randomness, ...
    """

    reference: Params  # x^K of the first run.
    records: Records  # Of the second.
    exact: Bool[np.ndarray, ""]  # Whether both runs agree in every bit.
    first_difference: Int[np.ndarray, ""]  # The step where the losses first differ, or -1.


def replay(run: Callable[[Params], tuple[Params, Records]], start: Params) -> Replay:
    """Run twice, the second time against the last iterate of the first, and compare the two.

    Args:
      run: reference -> (last iterate, records); jit it, so that both runs are one program. All
        randomness must come from keys that it holds: minibatches and dropout then repeat.
      start: Any params-like tree, the reference of the first run.
    """
    reference, first = run(start)
    last, second = run(reference)
    same_values = _same_bits(first.value, second.value)
    same_end = all(
        _same_bits(a, b).all()
        for a, b in zip(jax.tree.leaves(reference), jax.tree.leaves(last), strict=True)
    )
    differing = np.flatnonzero(~same_values.reshape(-1, same_values.shape[-1]).all(axis=0))
    return Replay(
        reference=reference,
        records=second,
        exact=np.asarray(same_end and not differing.size),
        first_difference=np.asarray(differing[0] if differing.size else -1),
    )


def batch_losses(
    losses: Float[Array, " n"], indices: Int[Array, "steps batch"]
) -> Float[Array, " steps"]:
    """f_ik(x^K) of every step, from the losses of all examples at x^K: their batch means.

    For losses that depend on one example each; the step itself then needs no second evaluation. An
    index beyond the examples makes its step NaN.
    """
    return jnp.mean(losses.at[indices].get(mode="fill", fill_value=jnp.nan), axis=1)


def recorded(
    records: Records,
    reference_values: Float[Array | np.ndarray, "... steps"],
    *,
    minimum: float = 0.0,
) -> Points:
    """The three numbers of each step, ready for `alpha_beta_frontier(*points)`.

    Args:
      records: From a replay that was exact.
      reference_values: f_ik(x^K) of the batch of each step, such as from `batch_losses`.
      minimum: f_ik*, or a lower bound; 0 for nonnegative losses.
    """
    return Points(records.inner, records.value - reference_values, records.value - minimum)


def _way(params, reference):
    """What leads from reference to params, over the real leaves, in float32 or wider."""
    structures = jax.tree.structure(reference), jax.tree.structure(params)
    if structures[0] != structures[1]:
        raise ValueError(
            f"reference must be a tree like params, {structures[1]}, got {structures[0]}."
        )
    pairs = zip(jax.tree.leaves(params), jax.tree.leaves(reference), strict=True)
    return [_raised_to(p, p) - _raised_to(r, p) for p, r in pairs if is_real(p)]


def _inner(updates, way):
    """<updates, way> over the real leaves, in full precision."""
    real = [leaf for leaf in jax.tree.leaves(updates) if is_real(leaf)]
    pairs = zip(real, way, strict=True)
    return jnp.asarray(optax.tree.vdot([_raised_to(u, w) for u, w in pairs], way))


def _raised_to(leaf, like):
    return jnp.asarray(leaf).astype(at_least_float32(jnp.result_type(like)))


def _after(updates, step, seen):
    """The same updates, which a compiler cannot have before `seen`; steps are never negative.

    In a loop XLA overwrites the parameters in place only where nothing could still read the old
    ones. Without this it copies them at every step, a third of the cost of recording.
    """
    return jax.tree.map(lambda u: jnp.where(step < 0, seen.astype(u.dtype), u), updates)


def _same_bits(a: Shaped[Array, "..."], b: Shaped[Array, "..."]) -> np.ndarray:
    left, right = np.asarray(a), np.asarray(b)
    return (left == right) | ((left != left) & (right != right))  # A NaN repeats itself.
