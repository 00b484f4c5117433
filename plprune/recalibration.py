# SPDX-License-Identifier: Apache-2.0
"""Running statistics estimated anew, such as those of BatchNorm after nodes are gone."""

from collections.abc import Iterable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray, PyTree

from plprune.compilation import run_once
from plprune.functional import Functional
from plprune.norms import is_real
from plprune.scores.probes import num_examples
from plprune.types import Inputs

_LARGE = 1 << 20  # A count of updates after which no estimate is corrected for its start any more.
_ALIKE = 1e-3  # Slopes of an update that differ by less belong to one decay.


def recalibrate(model: Functional, batches: Iterable[Inputs], *, key: PRNGKeyArray) -> PyTree:
    """The state of a model with its running statistics averaged over batches.

    A layer's statistics are those of what reaches it, which is something else once nodes before it
    are gone, or weights are changed. Here every one becomes the mean of what the batches have, all
    examples counting alike, whatever the layer's momentum and whatever it was before.

    A statistic is told by what a training call does to it: a leaf of floating-point numbers that
    becomes decay times itself plus something that does not depend on it, with one decay in [0, 1).
    All other state stays as it is, but for counts by which averages are corrected for their start:
    these are long past it then.

    Args:
      model: Taken apart by `plprune.functional`, with the params and state that it is to have:
        `model._replace(params=..., state=...)`.
      batches: Inputs as ``model.train`` takes them, in batches of the size that it was trained at;
        an iterable that is gone through once.
      key: For dropout, which is on, as it is in training.

    Raises:
      ValueError: no batch, an array in place of batches, or a model without running statistics.

    Costs a training call for every batch, and five more for the first.
    """
    if hasattr(batches, "shape"):
        raise ValueError("batches must be an iterable of batches: write [inputs] for one.")
    leaves, structure = jax.tree.flatten(model.state)
    update, found, estimates = _update(model), None, []
    for number, inputs in enumerate(batches):
        call = partial(update, inputs=inputs, key=jax.random.fold_in(key, number))
        if found is None:
            found = _statistics(call, model.state)
        estimates.append((num_examples(inputs=inputs), _of_batch(call, leaves, found.decays)))
    if found is None:
        raise ValueError("batches must hold at least one batch, got none.")
    return jax.tree.unflatten(structure, _averaged(leaves, found, estimates))


class _Statistics(NamedTuple):
    """Positions among the leaves of a state."""

    decays: dict[int, float]  # Of the statistics.
    counts: list[int]  # By which statistics are corrected for their start.


def _statistics(call, state) -> _Statistics:
    leaves = jax.tree.leaves(state)
    decays = _decays(call, leaves)
    if not decays:
        raise ValueError("model must have running statistics, which a training call averages.")
    far, near = (call(_zeroed(leaves, decays), far=far) for far in (True, False))
    places = [path[:-1] for path, _ in jax.tree_util.tree_leaves_with_path(state)]
    corrected = {places[k] for k in decays if not bool(jnp.array_equal(far[k], near[k]))}
    counts = [k for k, x in enumerate(leaves) if _is_count(x) and places[k] in corrected]
    return _Statistics(decays, counts)


def _zeroed(leaves, statistics):
    return [jnp.zeros_like(x) if k in statistics else x for k, x in enumerate(leaves)]


def _of_batch(call, leaves, decays):
    """What a batch has for every statistic: an update of zero is that, times 1 - decay."""
    added = call(_zeroed(leaves, decays))
    return {k: added[k] / (1 - decay) for k, decay in decays.items()}


def _averaged(leaves, found: _Statistics, estimates):
    weight = sum(size for size, _ in estimates)
    leaves = list(leaves)
    for k in found.decays:
        mean = sum(size * own[k] for size, own in estimates) / weight
        leaves[k] = jnp.asarray(mean, leaves[k].dtype)
    for k in found.counts:
        leaves[k] = jnp.full_like(leaves[k], _LARGE)
    return leaves


def _update(model):
    """``(leaves of the state, inputs, key) -> leaves``: what one training call makes of them."""
    structure = jax.tree.structure(model.state)

    def update(state, *, inputs, key, far=True):
        # Counts are far along, so that nothing is divided by 1 - decay^count any more.
        state = [jnp.full_like(x, _LARGE) if far and _is_count(x) else x for x in state]
        given = {"state": jax.tree.unflatten(structure, state), "inputs": inputs, "key": key}
        # The program is known to the next call, with other parameters of these shapes.
        return run_once(_new_leaves, {"train": model.train}, {"params": model.params, **given})

    return update


def _new_leaves(train, params, state, inputs, key):
    return jax.tree.leaves(train(params, state, inputs, key=key)[1])


def _is_count(leaf):
    return jnp.ndim(leaf) == 0 and jnp.issubdtype(jnp.result_type(leaf), jnp.integer)


def _decays(call, state) -> dict[int, float]:
    """Positions of the statistics among the leaves, and their decays."""
    now = call(state)
    moved = [
        k
        for k, (old, new) in enumerate(zip(state, now, strict=True))
        if is_real(old) and jnp.size(old) and not bool(jnp.array_equal(old, new))
    ]
    found = _slopes(call, state, now, moved)
    if None in found.values():  # What one leaf does to the others is told leaf by leaf.
        found = {k: _slopes(call, state, now, [k])[k] for k in moved}
    return {k: decay for k, decay in found.items() if decay is not None}


def _slopes(call, state, now, leaves) -> dict[int, float | None]:
    """How the update of each leaf depends on it: its decay, or None if it is no such average."""
    shifted = [
        call([leaf + shift if k in leaves else leaf for k, leaf in enumerate(state)])
        for shift in (1, 2)
    ]
    return {
        k: _decay(
            jnp.finfo(state[k].dtype).eps, *(np.asarray(r[k], float) for r in (now, *shifted))
        )
        for k in leaves
    }


def _decay(eps, now, once, twice) -> float | None:
    slopes = np.stack([once - now, twice - once])
    sharpest = np.argmin(np.abs(now))  # Differences of small numbers are rounded least.
    decay = float(slopes.reshape(2, -1)[0, sharpest])
    rounding = 4 * float(eps) * (2 + np.abs(now).max())
    alike = np.abs(slopes - decay).max() <= _ALIKE + rounding
    return decay if alike and -rounding <= decay < 1 - _ALIKE / 10 else None
