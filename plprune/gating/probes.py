# SPDX-License-Identifier: Apache-2.0
"""The probe of a gate update: checked, drawn from, and blamed where nothing came of it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray

from plprune.norms import is_real
from plprune.scores.probes import Probe, check_probe, known, num_examples
from plprune.types import Apply, Inputs, NodeGroups, Params

Batch = tuple[Inputs, Any]  # Inputs and labels, which are None where there is no loss.


def as_batch(probe: Any, loss: Callable | None) -> Batch:
    """Inputs and labels of a probe, as JAX arrays.

    Raises:
      ValueError: no probe; not a pair where there is a loss; leaves without a common leading axis,
        or no example.
    """
    if probe is None:
        raise ValueError("update needs probe=, the inputs that the gates are learned on.")
    if loss is None:
        inputs, labels = probe, None
    elif isinstance(probe, tuple | list) and len(probe) == 2:
        inputs, labels = probe
    else:
        raise ValueError(
            f"probe must be a pair (inputs, labels) where there is a loss, got {_shown(probe)}."
        )
    num_examples(**{"probe's inputs": inputs, "probe's labels": labels})
    # NumPy's arrays cannot be indexed by what is traced.
    return jax.tree.map(jnp.asarray, (inputs, labels))


def _shown(probe):
    is_array = isinstance(probe, Array | np.ndarray)
    return f"an array of shape {probe.shape}" if is_array else f"a {type(probe).__name__}"


def on_inputs(apply: Apply, groups: NodeGroups, loss: Callable | None) -> Apply:
    """`apply`, which names a pair of inputs and labels that comes without a loss."""

    def model(params, inputs):
        is_pair = isinstance(inputs, tuple | list) and len(inputs) == 2
        expected = _paths(groups.inputs)
        if loss is None and is_pair and _paths(inputs) != expected == _paths(inputs[0]):
            raise ValueError("probe must be inputs alone without a loss, got a pair; pass loss=.")
        return apply(params, inputs)

    return model


def _paths(tree):
    found = jax.tree_util.tree_leaves_with_path(tree)
    return [jax.tree_util.keystr(path) for path, _ in found]


def check_batch(apply: Apply, params: Params, batch: Batch, loss: Callable | None) -> None:
    """ValueError for labels, known outside `jit`, that the loss cannot take."""
    inputs, labels = batch
    if labels is not None:
        check_probe(apply, params, Probe(inputs, labels, loss))


def sub_batch(batch: Batch, size: int, key: PRNGKeyArray) -> Batch:
    """One example of each of `size` equal runs of the batch, or all of a smaller batch.

    Distinct examples without the sort of a draw without replacement, which would cost more than
    the gate update.
    """
    available = jax.tree.leaves(batch)[0].shape[0]
    if available <= size:
        return batch
    edges = np.arange(size + 1) * available // size
    chosen = jax.random.randint(key, (size,), edges[:-1], edges[1:])
    return jax.tree.map(lambda leaf: leaf[chosen], batch)


def check_moved(skipped: Int[Array, ""], stuck: Any, params: Params, batch: Batch) -> None:
    """ValueError, outside `jit`, where gate updates were left out because of a NaN.

    Args:
      skipped: How many of this call's gate updates were.
      stuck: Whether all were.
      params: Of the model.
      batch: The probe.
    """
    number, all_of_them = known(skipped), known(stuck)
    if number is None or all_of_them is None or not number:
        return
    inputs, labels = batch
    named = {"params": params, "probe's inputs": inputs, "probe's labels": labels}
    for path, leaf in jax.tree_util.tree_leaves_with_path(named):
        values = known(leaf) if is_real(leaf) else None
        if values is not None and np.isnan(values.astype(np.float32)).any():
            name, where = path[0].key, jax.tree_util.keystr(path[1:], simple=True, separator=".")
            text = f"leaf {where}" if where else "it"
            raise ValueError(f"{name} must hold no NaN to choose nodes by, got one in {text}.")
    if all_of_them:
        raise ValueError(
            "probe must give gates that are numbers: the objective or score is NaN or infinite at "
            "these params on all of its gate updates."
        )
