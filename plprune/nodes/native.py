# SPDX-License-Identifier: Apache-2.0
"""Smaller native modules of Flax and Equinox, checked against the resized function."""

import operator
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import numpy as np
from flax import nnx

from plprune.functional import paired
from plprune.graph.tracing import trace
from plprune.nodes.agreement import Disagreement, Sides, check_agreement
from plprune.nodes.blame import Attempt, described, failing_alone, largest_part
from plprune.nodes.cutting import kept_axes, shrink
from plprune.nodes.discovery import analyse
from plprune.nodes.naming import display_paths, module_of
from plprune.nodes.native_equinox import EQUINOX, is_equinox
from plprune.nodes.native_nnx import NNX
from plprune.nodes.resizing import resize
from plprune.nodes.sampling import Sampler
from plprune.nodes.statics import Library, scaled_leaves
from plprune.types import Apply, Keep, NodeGroups

_ADVICE = "use resize, which runs for every model"
_MAX_NAMED = 8  # Groups that an error names.


def shrink_model(
    model: Any,
    groups: NodeGroups,
    keep: Keep,
    *,
    call: Callable[..., Any] = operator.call,
    native_only: bool = False,
) -> Any:
    """A smaller NNX or Equinox module without the closed nodes, equal to `resize` of the model.

    Arrays are cut, and the sizes that the library's layers keep beside them are adjusted, those of
    layers that are stacked for a scan included. Attention divides by the square root of its head
    width; query parameters are rescaled to make up for it.

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
      native_only: Leave the nodes of groups in place that a module cannot lose, instead of raising
        an error: `native_keep` says which are left.

    Returns:
      What `model` is, smaller.

    Raises:
      ValueError: `model` is something else; as `shrink`; the groups are those of another model; or
        the smaller module fails or computes something else, because sizes are written into its code
        or a width enters its arithmetic (the mean of a layer normalisation). The message names the
        groups at fault, and the layer that raised an error. Use `resize`, leave these groups out,
        or pass `native_only`; `native_groups` tells before.

    Cost: about six analyses; of both the module and the resized function two compilations, not
    optimised, and twelve evaluations in float64, with one draw of the parameters in memory. Upon
    failure the groups are tried alone, one of each repeated layer's.
    """
    attempt = attempts(model, groups, keep, call)
    try:
        return attempt(keep)
    except Disagreement as error:
        if native_only:
            return native_part(attempt, groups, keep)[0]
        why = failing_alone(attempt, groups, keep)
        raise ValueError(_refusal(error, [n for n in why if why[n]])) from error.__cause__


def native_part(attempt: Attempt, groups: NodeGroups, keep: Keep) -> tuple[Any, dict[str, Any]]:
    """`largest_part`; what fails together only is a ValueError."""
    try:
        return largest_part(attempt, groups, keep)
    except Disagreement as error:
        raise ValueError(_refusal(error, [])) from error.__cause__


def attempts(model: Any, groups: NodeGroups, keep: Keep, call: Callable[..., Any]) -> Attempt:
    """``(keep, *, brief) -> the smaller module``, which raises `Disagreement` if it is another."""
    library = library_of(model)
    parts = library.parts(model, call)
    variables, apply = (parts.params, parts.state), paired(parts)
    found = analyse(apply, variables, groups.inputs, mode=groups.mode, statistics=groups.statistics)
    _check_same(found.groups, groups, keep)
    wide_apply = paired(library.parts(library.widened(model), call))

    def attempt(keep, *, brief=False):
        small, factors = _smaller(library, model, variables, found.groups, keep)
        own, wide = (
            Sides(resize(full, found.groups, keep), _scaled(library.parts(module, call), factors))
            for full, module in ((apply, small), (wide_apply, library.widened(small)))
        )
        cut = shrink(variables, found.groups, keep)
        sampler = partial(Sampler, found.graph, found.groups, cut)
        check_agreement(own, wide, sampler, groups.inputs, brief=brief)
        return library.scaled(small, factors)

    return attempt


def library_of(model: Any) -> Library:
    """What takes a module apart and makes it smaller.

    Raises:
      ValueError: a model that is neither a module of NNX nor one of Equinox, with or without state.
    """
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
    by_shown = (
        {shown[path]: value for path, value in table.items()}
        for table in (axes, groups.full_shapes, groups.layers)
    )
    try:
        return library.cut(model, *by_shown)
    except Exception as error:
        raise Disagreement(f"cannot be built ({type(error).__name__}: {error})") from error


def _scaled(parts, factors) -> Apply:
    """The smaller module as a function of the cut variables."""

    def apply(variables, inputs):
        params, state = variables
        return parts.apply(scaled_leaves(params, factors), state, inputs)

    return apply


def _refusal(error, failing):
    """The error, with the groups to leave out as far as single ones are at fault."""
    text = f"The smaller module {described(error)}; {_ADVICE}"
    if not failing:
        return f"{text}."
    names = f"{failing[:_MAX_NAMED]}"
    names += f" and {len(failing) - _MAX_NAMED} more" if len(failing) > _MAX_NAMED else ""
    return f"{text}, or leave {names} out of keep (native_only=True does)."


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
            if member.axis not in groups.layers.get(member.path, ()):
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


def _check_same(found, groups, keep):
    for name, kept in keep.items():
        if name not in found or np.shape(kept) != (found[name].size,):
            raise ValueError(f"keep[{name!r}] is no group of this model: {list(found)}.")
        if name in groups and groups[name].size != found[name].size:
            raise ValueError(f"groups[{name!r}] was found on another model.")
