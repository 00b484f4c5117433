# SPDX-License-Identifier: Apache-2.0
"""Group lasso over nodes: training that leaves whole nodes small enough to cut."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from plprune.graph.paths import leaf_is
from plprune.nodes.matching import edit_leaves
from plprune.nodes.scaling import over_leaf
from plprune.norms import at_least_float32, is_real
from plprune.optimizers.penalties import (
    Scalar,
    SmoothForm,
    factors_of,
    group_penalty,
    penalty_factors,
)
from plprune.optimizers.scaling import ratio
from plprune.scores.probes import known
from plprune.scores.slices import member_norms
from plprune.types import NodeGroups, Params

Slices = Literal["producers", "members"]

__all__ = [
    "GroupLassoState",
    "Scalar",
    "SmoothForm",
    "group_lasso",
    "group_penalty",
    "keep_above",
    "node_norms",
    "penalty_factors",
]


class GroupLassoState(NamedTuple):
    """The step, for strengths and step sizes that follow a schedule."""

    step: Int[Array, ""]


def node_norms(
    params: Params, groups: NodeGroups, *, slices: Slices = "producers"
) -> dict[str, Float[Array, " g"]]:
    """l2 norm of each node's own weights, for every prunable group.

    Args:
      params: The tree that `groups` was found on, or its params alone where that was a pair.
      groups: From `find_nodes`.
      slices: ``producers``: the weights that compute the node (each weight has one such node);
        ``members``: every weight that shrinking removes, incoming and outgoing.

    Returns:
      Group name -> norms in the dtype of the group's weights. They are computed in float32 or wider
      and right at any scale; the derivative at a zero node is zero.
    """
    leaves = _leaves(params, groups)

    def in_their_dtype(name, norms):
        members = _weights(getattr(groups[name], slices), leaves, groups)
        kinds = [jnp.result_type(leaves[m.path]) for m in members if is_real(leaves[m.path])]
        return norms.astype(max(kinds, key=lambda kind: jnp.finfo(kind).bits, default=norms.dtype))

    norms = _norms(params, groups, slices)
    return {name: in_their_dtype(name, values) for name, values in norms.items()}


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

    # In float32 or wider: half precision would round norms onto the threshold.
    return {name: rule(norms) for name, norms in _norms(params, groups, slices).items()}


def group_lasso(
    groups: NodeGroups,
    *,
    strength: optax.ScalarOrSchedule,
    form: str = "rational",
    beta: ArrayLike = 1e-3,
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
      A transformation whose `update` requires `params`. Three passes over the weights a
      step. All is computed in float32 or wider and returned in the dtype of the updates.

    Raises:
      ValueError: beta <= 0, a negative strength, an unknown form, or a proximal form without its
        step_size or with overlapping slices.

    References:
      [Yuan 2006] for the proximal map; smooth forms: docs/mathematics/group_lasso.md.
    """
    _check(strength, form, beta, step_size, slices)
    change = _soft_threshold if form == "proximal" else _add_gradient

    def init(params):
        _norms(params, groups, slices)  # Fails here where the groups are another model's.
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
    amount = None if callable(strength) else known(strength)
    if amount is not None and not amount >= 0:
        raise ValueError(f"strength must be at least 0, got {strength}.")
    smoothing = known(beta)
    if form != "proximal" and smoothing is not None and not smoothing > 0:
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
    norms = _norms(params, groups, slices)
    factors = {n: _times(strength, factors_of(v, beta, form)) for n, v in norms.items()}
    scales = _spread(params, groups, slices, factors)

    def add(u, c, p):
        if not is_real(p):
            return u
        return (_wide(u, c.dtype) + c * _wide(p, c.dtype)).astype(u.dtype)

    return jax.tree.map(add, updates, scales, params)


def _soft_threshold(updates, params, groups, slices, *, radius):
    moved = jax.tree.map(_moved, params, updates)
    # The factor minus one: exactly -1 where the node closes, so that the sum is exactly zero.
    drops = {
        name: -jnp.minimum(1.0, ratio(_times(radius, jnp.ones_like(v)), v, otherwise=1.0))
        for name, v in _norms(moved, groups, slices).items()
    }
    scales = _spread(moved, groups, slices, drops)

    def land(u, c, m, p):
        if not is_real(p):
            return u
        new = (_wide(u, c.dtype) + c * m.astype(c.dtype)).astype(u.dtype)
        # A node closes by what is exact in its own dtype too, whatever that of the updates.
        widest = max(u.dtype, p.dtype, key=lambda kind: jnp.finfo(kind).bits)
        return jnp.where(c == -1, -p.astype(widest), new.astype(widest))

    return jax.tree.map(land, updates, scales, moved, params)


def _moved(param, update):
    """Where the update leads, in float32 or wider: not yet rounded to the parameter's dtype."""
    if not is_real(param):
        return param
    dtype = at_least_float32(jnp.result_type(param), jnp.result_type(update))
    return _wide(param, dtype) + _wide(update, dtype)


def _wide(leaf, dtype):
    return jnp.asarray(leaf).astype(dtype)


def _times(scalar, values):
    return jnp.asarray(scalar).astype(values.dtype) * values


def _norms(params, groups, slices):
    """Norms of the nodes of prunable groups, in float32 or wider."""
    leaves = _leaves(params, groups)

    def norms(group):
        members = _weights(getattr(group, slices), leaves, groups)
        return member_norms([(leaves[m.path], m) for m in members], group.size)

    return {name: norms(groups[name]) for name in groups.prunable}


def _leaves(params, groups):
    """The leaves by the paths that the groups know them by."""
    found = {}
    edit_leaves(params, groups, lambda path, leaf: found.setdefault(path, leaf))
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


def _spread(params, groups, slices, factors):
    """Per-weight factors: each node's own over its slices, summed where slices cross, else 0."""
    leaves = _leaves(params, groups)
    members = [
        (member, factor)
        for name, factor in factors.items()
        for member in _weights(getattr(groups[name], slices), leaves, groups)
    ]

    def of_leaf(path, leaf):
        dtype = at_least_float32(jnp.result_type(leaf))
        total = jnp.zeros((1,) * jnp.ndim(leaf), dtype)
        for member, factor in members:
            if member.path == path:
                total = total + over_leaf(factor, member, leaf, elsewhere=0.0).astype(dtype)
        return jnp.broadcast_to(total, jnp.shape(leaf))

    return edit_leaves(params, groups, of_leaf)
