# SPDX-License-Identifier: Apache-2.0
"""Scores from the activations that reach the layers which read a node: one forward pass."""

from collections import defaultdict

import jax
import jax.numpy as jnp

from plprune.graph.linear.watching import Power, reading_powers
from plprune.graph.tracing import trace
from plprune.nodes.matching import match_leaves
from plprune.nodes.selection import excluded_groups
from plprune.norms import raised_for, root
from plprune.scores.probes import Probe
from plprune.scores.running import score
from plprune.scores.slices import NodeScores, per_node
from plprune.types import Apply, NodeGroups, Params


def _roots(means: NodeScores) -> NodeScores:
    return jax.tree.map(root, means)


@score("inputs", finish=_roots)
def activation(
    apply: Apply,
    params: Params,
    groups: NodeGroups,
    probe: Probe,
    *,
    weighted: bool = False,
    exclude: str | tuple[str, ...] = (),
) -> NodeScores:
    """Root mean square, over examples and positions, of what a node puts out on the probe.

    Taken where the layers that read the node multiply it, behind its nonlinearity; of a node with
    several entries, such as a head, their squares add up, and several readers count with their
    mean. Forward only, and so the usual choice for large language models [Muralidharan 2024].
    Groups that cannot be gated have no score.

    Args:
      apply: As given to `find_nodes`, like the other arguments.
      params: Its parameters.
      groups: From `find_nodes`.
      probe: Inputs; of many batches with `streamed`.
      weighted: Whether each square counts times those of the weights that read the entry, summed
        over all readers: Wanda's score of a weight, |weight| times the norm of what it is
        multiplied by, as a norm over the weights that go with the node [Sun 2024].
      exclude: Names or patterns of groups to give no scores.

    Raises:
      ValueError: a probe without inputs; no group that can be gated; one that is read by anything
        but plain products (a grouped convolution, a gather, a loop of unknown length), by name.
    """
    powers = _powers(apply, params, groups, probe, exclude, weighted)
    return {n: p.squares if weighted else p.squares / p.uses for n, p in powers.items()}


def _powers(apply, params, groups, probe, exclude, weighted) -> dict[str, Power]:
    """Per group that can be gated, mean squares of its nodes summed over its readers."""
    excluded = excluded_groups(groups, exclude)
    names = [n for n in groups.prunable if groups[n].gateable and n not in excluded]
    if not names:
        raise ValueError("groups must hold one that can be gated and is not excluded.")
    params, inputs = raised_for(apply, params, probe.inputs)
    graph = trace(apply, params, inputs)
    leaf_of = {path: leaf for leaf, path in match_leaves(params, groups).positions().items()}
    axes = defaultdict(frozenset)
    for member in (m for name in names for m in groups[name].consumers):
        axes[leaf_of[member.path]] |= {member.axis}
    leaves = [jnp.asarray(leaf) for leaf in jax.tree.leaves((params, inputs))]
    found = reading_powers(graph, leaves, axes, weighted=weighted)
    _refuse(groups, names, leaf_of, found)
    return {name: _of_group(groups[name], leaf_of, found) for name in names}


def _of_group(group, leaf_of, found) -> Power:
    parts = [(m, found[leaf_of[m.path], m.axis]) for m in group.consumers]
    squares = [per_node(power.squares, member, group.size) for member, power in parts]
    uses = [power.uses for _, power in parts]
    return Power(sum(squares[1:], squares[0]), sum(uses[1:], uses[0]))


def _refuse(groups, names, leaf_of, found):
    unseen = {
        name: member.path
        for name in names
        for member in groups[name].consumers
        if (leaf_of[member.path], member.axis) not in found
    }
    if unseen:
        shown = "; ".join(f"{name} ({path})" for name, path in unseen.items())
        raise ValueError(
            f"groups: what reads {shown} is no plain product, and its inputs are not seen; leave "
            f"out by exclude={tuple(unseen)}."
        )
