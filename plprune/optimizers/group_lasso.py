# SPDX-License-Identifier: Apache-2.0
"""Group lasso over nodes: training that leaves whole nodes small enough to cut."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int

from plprune.graph.paths import leaf_is
from plprune.nodes.closing import along
from plprune.nodes.matching import edit_leaves
from plprune.types import NodeGroups, Params

SmoothForm = Literal["rational", "convex"]
Slices = Literal["producers", "members"]
Scalar = float | Float[Array, ""]


class GroupLassoState(NamedTuple):
    """The step, for strengths and step sizes that follow a schedule."""

    step: Int[Array, ""]


def group_penalty(
    squared_norms: Float[Array, " g"], *, beta: Scalar, form: SmoothForm = "rational"
) -> Float[Array, ""]:
    """Smooth stand-in for the sum of the norms of g groups.

    With s the squared norm of a group, ``rational`` adds s / sqrt(s + beta) and ``convex`` adds
    sqrt(s + beta) - sqrt(beta). Both vanish at 0 and tend to sqrt(s) as beta falls to 0; which one
    and what beta are our choice.
    """
    root = jnp.sqrt(squared_norms + beta)
    if form == "rational":
        return jnp.sum(squared_norms / root)
    # s / (root + sqrt(beta)) is the convex form without its cancellation at small s.
    return jnp.sum(squared_norms / (root + jnp.sqrt(jnp.asarray(beta, root.dtype))))


def penalty_factors(
    squared_norms: Float[Array, " g"], *, beta: Scalar, form: SmoothForm = "rational"
) -> Float[Array, " g"]:
    """Factors c such that the gradient of `group_penalty` in group i is c_i times group i.

    ``rational`` gives (s + 2 beta) / (s + beta)^(3/2), at most 2 / sqrt(beta); ``convex`` gives
    1 / sqrt(s + beta), at most 1 / sqrt(beta). Derived in docs/mathematics/group_lasso.md.
    """
    shifted = squared_norms + beta
    if form == "rational":
        return (shifted + beta) / (shifted * jnp.sqrt(shifted))
    return 1 / jnp.sqrt(shifted)


def node_norms(
    params: Params, groups: NodeGroups, *, slices: Slices = "producers"
) -> dict[str, Float[Array, " g"]]:
    """l2 norm of each node's own weights, for every prunable group.

    Args:
      params: The tree that `groups` was found on, or its params alone where that was a pair.
      groups: From `find_nodes`.
      slices: ``producers``: the weights that compute the node (each weight has one such node);
        ``members``: every weight that shrinking removes, incoming and outgoing.
    """
    squares = _squared_norms(params, groups, slices)
    return {name: jnp.sqrt(square) for name, square in squares.items()}


def keep_above(
    params: Params,
    groups: NodeGroups,
    *,
    threshold: float,
    slices: Slices = "producers",
) -> dict[str, Bool[Array, " g"]]:
    """Greedy pruning's rule: True where a node's norm exceeds `threshold`.

    The largest node of a group always stays, so that the shrunk model exists. After the smooth
    forms 2 sqrt(beta) is a threshold (our choice); after the proximal form closed nodes are exactly
    zero and 0 is one.

    Raises:
      ValueError: threshold is negative.
    """
    if threshold < 0:
        raise ValueError(f"threshold must be at least 0, got {threshold}.")

    def rule(norms):
        return (norms > threshold) | (jnp.arange(norms.size) == jnp.argmax(norms))

    return {name: rule(norms) for name, norms in node_norms(params, groups, slices=slices).items()}


def group_lasso(
    groups: NodeGroups,
    *,
    strength: optax.ScalarOrSchedule,
    form: str = "rational",
    beta: float = 1e-3,
    step_size: optax.ScalarOrSchedule | None = None,
    slices: str = "producers",
) -> optax.GradientTransformation:
    """Add `strength` times the sum of node norms to the objective of an optax optimiser.

    The smooth forms add the gradient of `group_penalty`: place them first, as in
    ``optax.chain(group_lasso(...), optax.adam(1e-3))``. The proximal form soft-thresholds each node
    after the step, so that small nodes become exactly zero: place it last. Nodes of groups that
    cannot be pruned are left alone. Prune with `keep_above`, then `shrink`.

    Args:
      groups: From `find_nodes`.
      strength: lambda >= 0, or a schedule of it.
      form: ``rational`` or ``convex`` (see `group_penalty`), or ``proximal``.
      beta: Smoothing of the norm, > 0; not used by ``proximal``.
      step_size: The proximal form's only: the learning rate, or its schedule.
      slices: Whose norm: see `node_norms`. ``proximal`` needs ``producers``, whose groups do not
        overlap: only there is soft-thresholding the exact proximal map.

    Returns:
      A transformation whose `update` requires `params`. One pass over the weights a step.

    Raises:
      ValueError: beta <= 0, a negative strength, an unknown form, or a proximal form without its
        step_size or with overlapping slices.

    References:
      [Yuan 2006] for the proximal map; smooth forms: docs/mathematics/group_lasso.md.
    """
    _check(strength, form, beta, step_size, slices)
    change = _soft_threshold if form == "proximal" else _add_gradient

    def init(params):
        _squared_norms(params, groups, slices)  # Fails here where the groups are another model's.
        return GroupLassoState(jnp.zeros((), jnp.int32))

    def update(updates, state, params=None):
        if params is None:
            raise ValueError("group_lasso(...).update needs params: the penalty is of the weights.")
        amount = _value(strength, state.step)
        if form == "proximal":
            size = _value(step_size, state.step)
            options = {"radius": amount * size}  # pyright: ignore[reportOperatorIssue]
        else:
            options = {"strength": amount, "beta": beta, "form": form}
        updates = change(updates, params, groups, slices, **options)
        return updates, GroupLassoState(optax.safe_increment(state.step))

    return optax.GradientTransformation(init, update)


def _check(strength, form, beta, step_size, slices):
    if form not in ("rational", "convex", "proximal"):
        raise ValueError(f"form must be rational, convex or proximal, got {form!r}.")
    if slices not in ("producers", "members"):
        raise ValueError(f"slices must be producers or members, got {slices!r}.")
    if not callable(strength) and not strength >= 0:
        raise ValueError(f"strength must be at least 0, got {strength}.")
    if form != "proximal" and not beta > 0:
        raise ValueError(f"beta must be positive, got {beta}.")
    if (form == "proximal") != (step_size is not None):
        raise ValueError(
            f"step_size goes with form 'proximal' alone, got {step_size} with {form!r}."
        )
    if form == "proximal" and slices != "producers":
        raise ValueError(f"form 'proximal' needs slices 'producers', got {slices!r}.")


def _value(scalar_or_schedule, step):
    return scalar_or_schedule(step) if callable(scalar_or_schedule) else scalar_or_schedule


def _add_gradient(updates, params, groups, slices, *, strength, beta, form):
    squares = _squared_norms(params, groups, slices)
    factors = {n: strength * penalty_factors(s, beta=beta, form=form) for n, s in squares.items()}
    scales = _spread(params, groups, slices, factors)
    return jax.tree.map(lambda u, c, p: u + (c * p).astype(u.dtype), updates, scales, params)


def _soft_threshold(updates, params, groups, slices, *, radius):
    moved = optax.apply_updates(params, updates)
    squares = _squared_norms(moved, groups, slices)
    # The factor minus one: exactly -1 where the node closes, so that the sum is exactly zero.
    drops = {name: -jnp.minimum(1.0, radius / _safe_norm(s)) for name, s in squares.items()}
    scales = _spread(params, groups, slices, drops)

    def land(u, c, m, p):
        return jnp.where(c == -1, -p, u + (c * m).astype(u.dtype))

    return jax.tree.map(land, updates, scales, moved, params)


def _safe_norm(square):
    return jnp.maximum(jnp.sqrt(square), jnp.finfo(square.dtype).tiny)


def _squared_norms(params, groups, slices):
    leaves = _leaves(params, groups)
    squares = {}
    for name, group in groups.items():
        if group.prunable:
            members = _weights(getattr(group, slices), leaves, groups)
            parts = [_member_squares(leaves[m.path], m, group.size) for m in members]
            squares[name] = sum(parts[1:], start=parts[0])
    return squares


def _leaves(params, groups):
    """The leaves by the paths that the groups know them by."""
    found = {}
    shapes = dict(zip(groups.paths, groups.shapes, strict=True))
    edit_leaves(params, groups, lambda path, leaf: found.setdefault(path, leaf), shapes)
    if len(found) != len(jax.tree.leaves(params)):
        raise ValueError(
            f"params must be the tree that the groups were found on, with leaves {groups.paths}, "
            f"got {jax.tree.structure(params)}."
        )
    for name in groups.prunable:
        if not _weights(groups[name].producers, found, groups):
            raise ValueError(f"params must hold the weights of the nodes {name}, got {[*found]}.")
    for path, leaf in found.items():
        if leaf_is(leaf, jnp.complexfloating):
            raise ValueError(f"params: leaf {path} must be real for a group lasso, got complex.")
    return found


def _weights(members, leaves, groups):
    """The members at hand: statistics are no weights, and state may be elsewhere."""
    at_hand = [m for m in members if m.path in leaves]
    return [m for m in at_hand if not groups.is_statistic(m.path)]


def _member_squares(leaf, member, size):
    other_axes = tuple(i for i in range(leaf.ndim) if i != member.axis)
    totals = jnp.sum(jnp.square(leaf), axis=other_axes)
    # Positions that belong to no node fall into an extra bin.
    bins = np.where(member.index < 0, size, member.index)
    return jnp.zeros(size + 1, totals.dtype).at[bins].add(totals)[:size]


def _spread(params, groups, slices, factors):
    """Per-weight factors: each node's own over its slices, summed where slices cross, else 0."""
    leaves, shapes = _leaves(params, groups), dict(zip(groups.paths, groups.shapes, strict=True))
    members = [
        (member, factor)
        for name, factor in factors.items()
        for member in _weights(getattr(groups[name], slices), leaves, groups)
    ]

    def of_leaf(path, leaf):
        total = jnp.zeros((1,) * leaf.ndim, leaf.dtype)
        for member, factor in members:
            if member.path == path:
                line = jnp.where(member.index < 0, 0.0, factor[member.index])
                total = total + along(line, member.axis, leaf.ndim).astype(leaf.dtype)
        return jnp.broadcast_to(total, leaf.shape)

    return edit_leaves(params, groups, of_leaf, shapes)
