# SPDX-License-Identifier: Apache-2.0
"""Smaller native modules of Flax and Equinox, checked against the resized function."""

import operator
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from plprune.functional import Functional, functional, paired
from plprune.functional.nnx import without_intermediates
from plprune.functional.parts import nested
from plprune.graph.tracing import trace
from plprune.nodes.agreement import Disagreement, Sides, check_agreement
from plprune.nodes.cutting import cut_leaf, kept_axes, shrink
from plprune.nodes.discovery import analyse
from plprune.nodes.naming import display_paths, module_of
from plprune.nodes.native_equinox import EQUINOX, is_equinox
from plprune.nodes.resizing import resize
from plprune.nodes.sampling import Sampler
from plprune.nodes.statics import (
    Library,
    adjust,
    adjust_layers,
    names_float,
    scaled_leaf,
    scaled_leaves,
)
from plprune.types import Apply, Keep, NodeGroups

_ADVICE = "use resize, which runs for every model"
_MAX_SUSPECTS = 8  # Kinds of groups that are tried alone once the smaller module has failed.


def shrink_model(
    model: Any, groups: NodeGroups, keep: Keep, *, call: Callable[..., Any] = operator.call
) -> Any:
    """A smaller NNX or Equinox module without the closed nodes, equal to `resize` of the model.

    Arrays are cut, and the sizes that the library's layers keep beside them are adjusted. Attention
    divides by the square root of its head width; query parameters are rescaled to make up for it.

    The result is compared with `resize` in evaluation mode: at the model's own weights and at
    random parameters and state of several sizes, so that small or zero weights hide nothing; on
    random inputs, some of them zero, of the shapes that `groups` were found with and of one other
    batch size and length, if the model takes another; in float64, dtypes that modules hold
    included, unless the model does not run in it. Where a model casts to float32 itself,
    differences below 4e-5 of the largest output are not seen, in half precision those below a
    tenth. What training mode, other shapes and values out of the ordinary (a token that switches
    branches) bring in is the caller's to check.

    Args:
      model: Any NNX module, any Equinox module, or the pair (module, state) of an Equinox module
        that has an `eqx.nn.State`; left as it was.
      groups: From `find_nodes` on the model's parameters, with or without its state.
      keep: Group name -> [g] booleans, concrete.
      call: How to run the model, as for `functional` or `functional_equinox`; by default
        `model(inputs)`. Inputs and outputs may be any trees.

    Returns:
      What `model` is, smaller.

    Raises:
      ValueError: `model` is something else; as `shrink`; the groups are those of another model; or
        the smaller module fails or computes something else, because sizes are written into its code
        or a width enters its arithmetic (the mean of a layer normalisation). Then use `resize`, or
        leave the groups out that the message names.

    Cost: about six analyses; of both the module and the resized function two compilations, not
    optimised, and twelve evaluations in float64, with one draw of the parameters in memory. Upon
    failure up to eight groups are tried alone.
    """
    library = _library(model)
    parts = library.parts(model, call)
    variables, apply = (parts.params, parts.state), paired(parts)
    found = analyse(apply, variables, groups.inputs, mode=groups.mode, statistics=groups.statistics)
    _check_same(found.groups, groups, keep)
    widened = paired(library.parts(library.widened(model), call))

    def attempt(keep, *, brief=False):
        small, factors = _smaller(library, model, variables, found.groups, keep)
        own, wide = (
            Sides(resize(full, found.groups, keep), _native(library.parts(module, call), factors))
            for full, module in ((apply, small), (widened, library.widened(small)))
        )
        cut = shrink(variables, found.groups, keep)
        sampler = partial(Sampler, found.graph, found.groups, cut)
        check_agreement(own, wide, sampler, groups.inputs, brief=brief)
        return library.scaled(small, factors)

    try:
        return attempt(keep)
    except Disagreement as error:
        suspects = _suspects(attempt, keep)
        raise ValueError(f"The smaller module {error}; {_ADVICE}{suspects}.") from error.__cause__


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
      ValueError: as `shrink`; or the module fails or computes something else, compared as in
        `shrink_model` but for the dtypes that the module holds, which stay.
    """
    module, small = rebuild(widths(groups, keep)), shrink(variables, groups, keep)
    sides = Sides(resize(apply, groups, keep), module.apply)
    sampler = partial(Sampler, trace(apply, variables, groups.inputs), groups, small)
    try:
        check_agreement(sides, sides, sampler, groups.inputs)
    except Disagreement as error:
        raise ValueError(f"The smaller module {error}; {_ADVICE}.") from error.__cause__
    return module, small


def _suspects(attempt, keep) -> str:
    """Which groups fail alone; if they are many, one of each repeated layer's speaks for all."""
    names = [name for name, kept in keep.items() if not np.all(kept)]
    kinds = {name: name for name in names}
    if len(kinds) > _MAX_SUSPECTS:
        kinds = {re.sub(r"\d+", "*", name): name for name in reversed(names)}
    if not 1 < len(kinds) <= _MAX_SUSPECTS:
        return ""
    failing = []
    for kind, name in kinds.items():
        try:
            attempt({name: keep[name]}, brief=True)
        except Disagreement:
            failing.append(kind)
    return f", or leave {failing} out of keep" if 0 < len(failing) < len(kinds) else ""


def _check_same(found, groups, keep):
    for name, kept in keep.items():
        if name not in found or np.shape(kept) != (found[name].size,):
            raise ValueError(f"keep[{name!r}] is no group of this model: {list(found)}.")
        if name in groups and groups[name].size != found[name].size:
            raise ValueError(f"groups[{name!r}] was found on another model.")


def _library(model) -> Library:
    if isinstance(model, nnx.Module):
        return NNX
    if is_equinox(model):
        return EQUINOX
    raise ValueError(
        "model must be an NNX or an Equinox module, or (module, state) of Equinox, got a "
        f"{type(model).__name__}; use shrink_linen for Linen modules, and resize for any function."
    )


def _smaller(library, model, variables, groups, keep):
    """The module with its arrays cut and its sizes adjusted, and factors of some leaves to come."""
    axes = kept_axes(groups, keep)
    shown = dict(zip(groups.paths, display_paths(variables, groups.paths), strict=True))
    shapes = {shown[path]: shape for path, shape in groups.full_shapes.items()}
    axes = {shown[path]: kept for path, kept in axes.items()}
    try:
        return library.cut(model, axes, shapes)
    except Exception as error:
        raise Disagreement(f"cannot be built ({type(error).__name__}: {error})") from error


def _cut(model, axes, shapes):
    graph, state = nnx.split(without_intermediates(model))

    def smaller(path, leaf):
        name = ".".join(map(str, path))
        return cut_leaf(leaf, axes[name]) if name in axes else leaf

    flat = {path: smaller(path, leaf) for path, leaf in _flat(nnx.to_pure_dict(state)).items()}
    state = jax.tree.map(lambda x: x, state)
    nnx.replace_by_pure_dict(state, nested(flat))
    small = nnx.merge(graph, state)
    return small, adjust_layers(nnx.iter_modules(small), axes, shapes, adjust)


def _flat(tree, prefix=()):
    if not isinstance(tree, Mapping):
        return {prefix: tree}
    return {p: x for k, sub in tree.items() for p, x in _flat(sub, (*prefix, k)).items()}


def _native(parts: Functional, factors) -> Apply:
    """The smaller module as a function of the cut variables."""

    def apply(variables, inputs):
        params, state = variables
        return parts.apply(scaled_leaves(params, factors), state, inputs)

    return apply


def _scaled(module, factors):
    state = nnx.state(module, nnx.Param)
    for path, variable in nnx.to_flat_state(state):
        variable[...] = scaled_leaf(path, variable[...], factors)
    nnx.update(module, state)
    return module


def _widened(module):
    """A copy whose layers compute in float64 where they name a floating type."""
    module = nnx.clone(module)
    for _, layer in nnx.iter_modules(module):
        for name, value in list(vars(layer).items()):
            if names_float(value):
                setattr(layer, name, jnp.float64)
    return module


NNX = Library(lambda model, call: functional(model, call=call), _cut, _widened, _scaled)
