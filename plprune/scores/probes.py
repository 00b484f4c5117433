# SPDX-License-Identifier: Apache-2.0
"""A probe, and what it must be: rows that belong together, and labels that exist.

Gathers of JAX clamp: labels that end before the inputs would repeat the last one, silently.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from plprune.compilation import recall, run_once
from plprune.types import Apply, Params

_LARGEST = 1 << 24  # Outputs that are worth making to look at labels.


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("inputs", "labels", "key"),
    meta_fields=("loss", "independent"),
)
@dataclass(frozen=True, eq=False)
class Probe:
    """What a score looks at; each needs some of it and ignores the rest.

    A tree of its arrays for `jit` and `vmap`, to which loss and word are static.
    """

    inputs: PyTree = None  # [b, ...] in every leaf.
    labels: PyTree = None  # [b, ...], as the loss takes them.
    loss: Callable | None = None  # (outputs [b, ...], labels) -> losses of the examples, [b].
    key: Any = None  # A PRNGKeyArray: whatever is random is drawn from it.
    independent: bool = False  # Your word that examples do not interact, as for `tangent_kernel`.


def num_examples(**batches: PyTree) -> int:
    """Length of the leading axis that all leaves of the named trees share.

    Static: it reads shapes alone. A tree without leaves, such as labels None, is passed over.

    Raises:
      ValueError: the first tree has no leaves, a leaf has no leading axis, two leaves differ in it,
        or it is empty.
    """
    first = next(iter(batches))
    leaves = [(name, leaf) for name, tree in batches.items() for leaf in jax.tree.leaves(tree)]
    if not jax.tree.leaves(batches[first]):
        raise ValueError(f"{first} must hold at least one array, got {batches[first]!r}.")
    for name, leaf in leaves:
        if not jnp.ndim(leaf):
            raise ValueError(f"{name} must have a leading axis of examples, got shape ().")
    size = jnp.shape(leaves[0][1])[0]
    for name, leaf in leaves:
        if jnp.shape(leaf)[0] != size:
            raise ValueError(
                f"{name} must hold as many examples as {first}, {size}, got {jnp.shape(leaf)[0]}."
            )
    if not size:
        raise ValueError(f"{first} must hold at least one example, got none.")
    return size


def check_probe(apply: Apply, params: Params, probe: Probe) -> None:
    """ValueError unless inputs and labels are rows of one batch, and labels what the loss takes.

    Shapes are checked always; integer labels where their values are known, which is outside `jit`:
    a label for which the loss is no number even at equal outputs, such as a class beyond the
    outputs, is named.
    """
    inputs, labels, loss = probe.inputs, probe.labels, probe.loss
    num_examples(inputs=inputs, labels=labels)
    if loss is None or not _are_known_integers(labels):
        return
    outputs = recall(_outputs, {"apply": apply}, {"params": params, "inputs": inputs})
    if not isinstance(outputs, jax.ShapeDtypeStruct) or not 0 < outputs.size <= _LARGEST:
        return
    wrong = _not_a_number(loss, outputs, labels)
    if wrong is not None and wrong.any():
        row = int(np.argmax(wrong)) if wrong.ndim == 1 and len(wrong) == len(labels) else 0
        raise ValueError(
            "labels must be such that the loss is a number, classes in "
            f"[0, {outputs.shape[-1]}) of outputs {outputs.shape}; got {_shown(labels[row])} at "
            f"example {row}."
        )


def _outputs(apply, params, inputs):
    return jax.eval_shape(apply, params, inputs)


def known(array: Any) -> np.ndarray | None:
    """The values of an array, or None where they are traced or on other machines."""
    try:
        return np.asarray(array) if getattr(array, "is_fully_addressable", True) else None
    except (jax.errors.TracerArrayConversionError, jax.errors.ConcretizationTypeError):
        return None


def _are_known_integers(labels):
    if not isinstance(labels, Array | np.ndarray):
        return False
    return jnp.issubdtype(labels.dtype, jnp.integer) and known(labels) is not None


def _not_a_number(loss, outputs, labels):
    """Where the loss at equal outputs is NaN; None where that cannot be told."""
    # NaN is the answer that is looked for; gathers fill with it on the way, too.
    with jax.ensure_compile_time_eval(), jax.debug_nans(False):
        return known(run_once(_is_nan, {"loss": loss, "outputs": outputs}, {"labels": labels}))


def _is_nan(loss, outputs, labels):
    equal = jnp.full(outputs.shape, 1 / outputs.shape[-1] if outputs.ndim else 1, outputs.dtype)
    return jnp.isnan(loss(equal, labels))


def _shown(label):
    label = np.asarray(label)
    return label.item() if label.size == 1 else f"labels {np.unique(label).tolist()[:9]}"
