# SPDX-License-Identifier: Apache-2.0
"""Least squares for the weights that read what is left of a layer."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from plprune.compilation import are_concrete, run_once
from plprune.graph.tracing import bind, evaluate
from plprune.nodes.checks import keep_masks
from plprune.nodes.closing import mask
from plprune.nodes.readers import Reader, check_damping, damped, find_readers, moments, refuse
from plprune.nodes.selection import excluded_groups
from plprune.norms import raised_for
from plprune.types import Apply, Inputs, Keep, NodeGroups, Params


def reconstruct(
    apply: Apply,
    params: Params,
    groups: NodeGroups,
    keep: Keep,
    inputs: Inputs,
    *,
    damping: float = 0.01,
    exclude: str | tuple[str, ...] = (),
) -> Params:
    """Parameters masked by `keep`, whose remaining weights make up for the closed nodes.

    Layer after layer, the weights W that read closed nodes become those whose outputs on what is
    left of their inputs, as earlier layers now compute them, are nearest to the outputs of the
    whole model on `inputs`; their bias, where they have one, takes up the mean activation of what
    was closed. Nothing else changes, and closed nodes are zero, so that ``shrink(reconstruct(...),
    groups, keep)`` is the smaller model. No labels, no training. Sequential channel pruning of
    [He 2017]; for one layer the update of the optimal brain surgeon [Hassibi 1993].

    Args:
      apply: As given to `find_nodes`, in evaluation mode.
      params: Its parameters.
      groups: From `find_nodes`.
      keep: Group name -> [g] booleans, as `mask` takes it.
      inputs: Some hundred examples or more, as `apply` takes them.
      damping: How strongly W holds on to its old value: a penalty on the squared change, times
        the mean second moment of the inputs; above 0. Infinity leaves W as it is, and folds only
        the means of what is closed into biases.
      exclude: Names or patterns of groups that are closed without such an update.

    Raises:
      ValueError: as `mask`; a group whose readers are not plain products with whole matrices, or
        with a leaf that is read twice, by its name.

    Cost: two forward passes, with a layer's rows in memory (a convolution's windows), and for i
    inputs O(i^3).
    """
    check_damping(damping)
    excluded = excluded_groups(groups, exclude)
    masks = keep_masks(keep, groups)
    names = tuple(
        name
        for name, kept in masks.items()
        if name not in excluded and not (isinstance(kept, np.ndarray) and kept.all())
    )
    static = {"apply": apply, "groups": groups, "names": names, "damping": damping}
    arrays = {"params": params, "masks": masks, "inputs": inputs}
    if not names:
        return mask(params, groups, masks)
    if not are_concrete(arrays):
        return _reconstructed(**static, **arrays)
    return run_once(_reconstructed, static, arrays)


def _reconstructed(apply, groups, names, damping, params, masks, inputs):
    wide, wide_inputs = raised_for(apply, params, inputs)
    readers = find_readers(apply, wide, wide_inputs, groups, names)
    refuse(
        {
            name: f"{readers.graph.paths[0][reader.product.leaf]} reads it more than once"
            for reader in readers.found
            for name in reader.rows
            if len(reader.uses) > 1
        }
    )
    place = {id(readers.graph.equations[i]): r for r in readers.found for i in r.uses}
    leaves = _Leaves(wide, wide_inputs, groups, masks)

    def rule(equation, pairs):
        whole, small = ([pair[side] for pair in pairs] for side in (0, 1))
        reader, extra = place.get(id(equation)), None
        if reader is not None:
            is_open = _open_rows(reader, masks)[None, None]
            rows = jnp.where(is_open, reader.product.rows(small), 0)
            extra = leaves.solve(reader, reader.product.rows(whole), rows, damping)
            position, layout = reader.product.operand
            moved = layout.back(reader.matrix(leaves.new))
            small[position] = moved.astype(small[position].dtype)
        outputs = bind(equation, small)
        if extra is not None:
            outputs = [outputs[0] + extra.astype(outputs[0].dtype)]
        return list(zip(bind(equation, whole), outputs, strict=True))

    pairs = list(zip(leaves.whole, leaves.new, strict=True))
    evaluate(readers.graph, pairs, rule, lambda _, value: (value, value))
    count = len(jax.tree.leaves(params))
    result = jax.tree.unflatten(jax.tree.structure(params), leaves.new[:count])
    return jax.tree.map(lambda new, old: new.astype(jnp.result_type(old)), result, params)


def _open_rows(reader: Reader, masks) -> Bool[Array, " i"]:
    """Which rows read no closed node: others may be anything, at a sigmoid one half."""
    own = [jnp.asarray(masks[n])[nodes] | (nodes < 0) for n, nodes in reader.rows.items()]
    return jnp.stack(own).all(axis=0)


class _Leaves:
    """Flat parameters and inputs of the whole model, and of the one that is made of it."""

    def __init__(self, params, inputs, groups, masks):
        self.whole = [jnp.asarray(leaf) for leaf in jax.tree.leaves((params, inputs))]
        ones = jax.tree.map(lambda p: jnp.ones(jnp.shape(p), jnp.float32), params)
        self.is_open = [leaf == 1 for leaf in jax.tree.leaves(mask(ones, groups, masks))]
        masked = mask(params, groups, masks)
        self.new = [jnp.asarray(leaf) for leaf in jax.tree.leaves((masked, inputs))]

    def solve(self, reader: Reader, whole: Array, rows: Array, damping: float) -> Array | None:
        """Give a reader its new values; what its bias adds to the outputs, if it has one."""
        found = moments(rows, whole, centred=reader.bias is not None)
        old, start = reader.matrix(self.whole), reader.matrix(self.new)
        if math.isfinite(damping):
            missing = _product(found.cross, old) - _product(found.square, start)
            weights = start + jnp.linalg.solve(damped(found.square, damping), missing)
            self.put(reader.product.leaf, reader.product.matrix.back(weights))
        if reader.bias is None:
            return None
        bias, before = reader.bias, self.new[reader.bias.leaf]
        means = found.other_mean[:, None], found.mean[:, None]
        shift = _product(means[0], old) - _product(means[1], reader.matrix(self.new))
        self.put(bias.leaf, before + bias.spread.back(shift.reshape(reader.product.outputs)))
        return bias.spread.to(self.new[bias.leaf] - before)

    def put(self, leaf: int, value: Array) -> None:
        """The value of a leaf, but for slices of closed nodes."""
        self.new[leaf] = jnp.where(self.is_open[leaf], value, self.new[leaf])


def _product(left, right):
    return jnp.matmul(left, right, precision=jax.lax.Precision.HIGHEST)
