# SPDX-License-Identifier: Apache-2.0
"""Scores that look at no data: chance and the norms of a node's weights."""

import jax

from plprune.scores.probes import Probe
from plprune.scores.running import NO_PROBE, score
from plprune.scores.slices import NodeScores, node_norms, owned, producing
from plprune.types import Apply, NodeGroups, Params


@score("key")
def random(
    apply: Apply,
    params: Params,
    groups: NodeGroups,
    probe: Probe,
) -> NodeScores:
    """Independent uniform numbers in [0, 1): the baseline that any score must beat.

    Raises:
      ValueError: a probe without a key.
    """
    del apply, params
    keys = jax.random.split(probe.key, max(len(groups.prunable), 1))
    sizes = groups.prunable.items()
    return {name: jax.random.uniform(k, (n,)) for k, (name, n) in zip(keys, sizes, strict=False)}


@score()
def magnitude(
    apply: Apply,
    params: Params,
    groups: NodeGroups,
    probe: Probe = NO_PROBE,
) -> NodeScores:
    """l2 norm of all parameters that compute the node, its producer slices.

    For a neuron these are its incoming weights and its bias, for a channel its kernel and the
    scale and bias of its normalisation; not the weights that read it, nor running statistics. Norms
    of filters as a score: [Li 2017]. In float32 or wider, right at any scale of the weights; the
    derivative at a zero node is zero.
    """
    del apply, probe
    return node_norms(params, groups, producing)


@score()
def group_lasso_norm(
    apply: Apply,
    params: Params,
    groups: NodeGroups,
    probe: Probe = NO_PROBE,
) -> NodeScores:
    """l2 norm of every parameter of the node, incoming and outgoing.

    The term of the node in a group-lasso penalty over all slices that shrinking removes
    [Yuan 2006]; training with that penalty makes it a score. Computed as `magnitude` is.
    """
    del apply, probe
    return node_norms(params, groups, owned)
