# SPDX-License-Identifier: Apache-2.0
"""Smaller native Flax modules, checked against the resized function."""

import operator
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.errors import FlaxError

from plprune.functional import functional, paired
from plprune.nodes.cutting import Axes, cut_leaf, kept_axes, shrink
from plprune.nodes.discovery import find_nodes
from plprune.nodes.naming import display_paths, module_of
from plprune.nodes.resizing import resize
from plprune.nodes.statics import Cut, adjust
from plprune.types import Apply, Inputs, Keep, NodeGroups


def shrink_model(
    model: nnx.Module,
    groups: NodeGroups,
    keep: Keep,
    *,
    call: Callable[[nnx.Module, Inputs], jax.Array] = operator.call,
) -> nnx.Module:
    """A smaller NNX module without the closed nodes, equal to `resize` of the model.

    Arrays are cut, and the sizes that Flax's layers keep beside them are adjusted. Attention
    divides by the square root of its head width; query parameters are rescaled to make up for it.
    The result is compared with `resize` on random inputs of the shapes that `groups` were found
    with, in evaluation mode.

    Args:
      model: Any NNX module, left as it was.
      groups: From `find_nodes` on the model's parameters, with or without its state.
      keep: Group name -> [g] booleans, concrete.
      call: How to run the model; by default `model(inputs)`.

    Raises:
      ValueError: as `shrink`; the groups are those of another model; or the smaller module fails
        or computes something else, because sizes are written into its code or a width enters
        its arithmetic (the mean of a layer normalisation). Then use `resize`.

    Cost: one analysis, and one evaluation each of the module and the resized function.
    """
    parts = functional(model, call=call)
    variables, apply = (parts.params, parts.state), paired(parts)
    found = find_nodes(
        apply, variables, groups.inputs, mode=groups.mode, statistics=groups.statistics
    )
    _check_same(found, groups, keep)
    axes = kept_axes(found, keep)
    shown = dict(zip(found.paths, display_paths(variables, found.paths), strict=True))
    axes = {shown[path]: kept for path, kept in axes.items()}
    small = _adjusted(_cut_arrays(model, axes), axes, shown, found)
    inputs = example(groups.inputs)
    expected = jax.jit(resize(apply, found, keep))(shrink(variables, found, keep), inputs)
    check_equal(lambda: _run(small, call, inputs), expected)
    return small


def widths(groups: NodeGroups, keep: Keep) -> dict[str, int | tuple[int, ...]]:
    """Module path -> the features it makes after shrinking, for modules that make fewer.

    A convolution or dense layer has one number, an attention projection (heads, width). These are
    what a Linen constructor takes.

    Raises:
      ValueError: as `shrink`.
    """
    axes = kept_axes(groups, keep)
    tree = jax.tree.unflatten(groups.structure, groups.paths)
    shown = dict(zip(groups.paths, display_paths(tree, groups.paths), strict=True))
    made: dict[str, set[int]] = {}  # All that a leaf makes, also where nothing is removed.
    for group in groups.values():
        for member in group.producers:
            made.setdefault(member.path, set()).add(member.axis)
    leaves: dict[str, set[str]] = {}
    for name in keep:
        for member in groups[name].producers:
            leaves.setdefault(module_of(shown[member.path]), set()).add(member.path)
    result = {}
    for module, paths in leaves.items():
        path = max(paths, key=lambda p: len(axes[p]))  # The kernel knows more than the bias.
        sizes = tuple(len(axes[path][axis]) for axis in sorted(made[path]))
        result[module] = sizes[0] if len(sizes) == 1 else sizes
    return result


def shrink_linen(
    rebuild: Callable[[dict[str, int | tuple[int, ...]]], Any],
    variables: Mapping[str, Any],
    apply: Apply,
    groups: NodeGroups,
    keep: Keep,
) -> tuple[Any, Any]:
    """A smaller Linen module with its variables, checked against `resize`.

    Args:
      rebuild: From `widths(groups, keep)` to a Linen module of these widths, in evaluation mode.
      variables: Of the full module; the tree that the groups were found on.
      apply: As given to `find_nodes`.
      groups: From `find_nodes(apply, variables, inputs)`.
      keep: Group name -> [g] booleans, concrete.

    Raises:
      ValueError: as `shrink`; or the module fails or computes something else.
    """
    module, small = rebuild(widths(groups, keep)), shrink(variables, groups, keep)
    inputs = example(groups.inputs)
    expected = jax.jit(resize(apply, groups, keep))(small, inputs)
    check_equal(lambda: jax.jit(module.apply)(small, inputs), expected)
    return module, small


def _check_same(found, groups, keep):
    for name in keep:
        if name not in found or found[name].size != len(keep[name]):
            raise ValueError(f"keep[{name!r}] is no group of this model: {list(found)}.")
        if name in groups and groups[name].size != found[name].size:
            raise ValueError(f"groups[{name!r}] was found on another model.")


def _cut_arrays(model, axes):
    graph, state = nnx.split(model)

    def smaller(path, leaf):
        name = ".".join(map(str, path))
        return cut_leaf(leaf, axes[name]) if name in axes else leaf

    flat = {path: smaller(path, leaf) for path, leaf in _flat(nnx.to_pure_dict(state)).items()}
    state = jax.tree.map(lambda x: x, state)
    nnx.replace_by_pure_dict(state, _nested(flat))
    return nnx.merge(graph, state)


def _flat(tree, prefix=()):
    if not isinstance(tree, Mapping):
        return {prefix: tree}
    return {p: x for k, sub in tree.items() for p, x in _flat(sub, (*prefix, k)).items()}


def _nested(flat):
    tree: dict = {}
    for path, leaf in flat.items():
        node = tree
        for key in path[:-1]:
            node = node.setdefault(key, {})
        node[path[-1]] = leaf
    return tree


def _adjusted(module, axes: Mapping[str, Axes], shown, found):
    shapes = {shown[path]: shape for path, shape in zip(found.paths, found.shapes, strict=True)}
    for path, layer in nnx.iter_modules(module):
        prefix = "".join(f"{key}." for key in path)
        own = {name[len(prefix) :]: name for name in axes if name.startswith(prefix)}
        cut = Cut(
            {short: axes[name] for short, name in own.items()},
            {short: shapes[name] for short, name in own.items()},
        )
        adjust(layer, cut)
        if isinstance(layer, nnx.MultiHeadAttention):
            _rescale_query(layer, cut)
    return module


def _rescale_query(layer, cut):
    """The layer divides scores by the square root of the head width that is left."""
    factor = np.sqrt(cut.size("query.kernel", 2) / cut.full["query.kernel"][2])
    for leaf in (layer.query.kernel, layer.query.bias):
        if factor != 1 and leaf is not None:
            leaf[...] = leaf[...] * jnp.asarray(factor, leaf.dtype)


def _run(module, call, inputs):
    parts = functional(module, call=call)
    return jax.jit(parts.apply)(parts.params, parts.state, inputs)


def example(shapes: Any) -> Any:
    """Inputs of given shapes: normal floats, and integers that alternate between 0 and 1."""
    draws = np.random.default_rng(0)

    def draw(leaf):
        if jnp.issubdtype(leaf.dtype, jnp.inexact):
            return jnp.asarray(draws.normal(size=leaf.shape), leaf.dtype)
        return jnp.asarray(
            (np.arange(int(np.prod(leaf.shape))) % 2).reshape(leaf.shape), leaf.dtype
        )

    return jax.tree.map(draw, shapes)


def check_equal(run: Callable[[], Any], expected: Any) -> None:
    """ValueError unless a smaller module runs and computes what the resized function does."""
    advice = "use resize, which runs for every model"
    try:
        outputs = run()
    except (ValueError, TypeError, AssertionError, FlaxError) as error:
        raise ValueError(f"The smaller module does not run ({error}); {advice}.") from error
    pairs = zip(jax.tree.leaves(outputs), jax.tree.leaves(expected), strict=True)
    for ours, theirs in ((np.asarray(a), np.asarray(b)) for a, b in pairs):
        if ours.shape != theirs.shape:
            raise ValueError(
                f"The smaller module returns {ours.shape}, not {theirs.shape}; {advice}."
            )
        if jnp.issubdtype(ours.dtype, jnp.inexact):
            scale, gap = np.abs(theirs).max(), np.abs(ours - theirs).max()
            if not gap <= 300 * jnp.finfo(ours.dtype).eps * scale:
                raise ValueError(
                    f"The smaller module is off by {gap:.1e} of {scale:.1e}: a width enters its "
                    f"arithmetic; {advice}."
                )
