# SPDX-License-Identifier: Apache-2.0
"""Node groups of any function, from its labelled graph."""

from collections import defaultdict
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from plprune.graph.hosting import undisturbed
from plprune.graph.linear.roles import LeafAxis, Roles, roles
from plprune.graph.primitives import PRIMITIVES
from plprune.graph.shrinking.atoms import Label
from plprune.graph.shrinking.holding import fill_held
from plprune.graph.shrinking.labels import Labels
from plprune.graph.shrinking.routing import ranked_atoms
from plprune.graph.tracing import Graph, trace
from plprune.independence import doubt
from plprune.nodes.families import Shape, Slices, families
from plprune.nodes.kinds import STATISTICS, statistic_leaves
from plprune.nodes.naming import (
    attention_atoms,
    base_name,
    display_paths,
    modules_of,
    stream_atoms,
    unique_name,
)
from plprune.types import (
    HEAD_WIDTH,
    UNUSED,
    Apply,
    Inputs,
    Member,
    NodeGroup,
    NodeGroups,
    Params,
    Typed,
)

MODES = ("strict", "baked")


class Found:
    """A traced function with its groups and the atoms behind their nodes."""

    def __init__(self, graph: Graph, labels: Labels, groups: NodeGroups, atoms: dict):
        self.graph, self.labels, self.groups = graph, labels, groups
        self.atoms: dict[str, list[Label]] = atoms  # Group name -> one atom per node.


def find_nodes(
    apply: Apply,
    params: Params,
    inputs: Inputs,
    *,
    mode: str = "strict",
    statistics: tuple[str, ...] = STATISTICS,
) -> NodeGroups:
    """Every group of coupled parameter axes, prunable or with the reason why not.

    A node (neuron, channel, head, expert) owns slices of several leaves; removing all of them
    changes the function exactly as setting the maskable ones to zero does, for any parameters.
    Nothing is computed: arrays may be `jax.ShapeDtypeStruct`s.

    Args:
      apply: ``apply(params, inputs) -> outputs``. The axes of `inputs` and outputs never shrink.
      params: Any pytree, e.g. (params, state) so that running statistics shrink along.
      inputs: An example batch; groups do not depend on its size.
      mode: "strict" refuses nodes that are summed up where a constant nearby looks like their
        number, as the width of a mean does. "baked" allows these sums and keeps the full width as
        the divisor: exact, but a smaller native module would divide by less.
      statistics: Last keys of leaves that masking and scores leave alone, as they leave alone what
        is a statistic by its kind whatever its name: `nnx.BatchStat`, other variables of NNX that
        are no `nnx.Param` and no weights, the collection "batch_stats" of Linen, Haiku's moving
        averages. In a tree that tells kinds, an `nnx.Param` or a leaf of the collection "params" is
        no statistic by the names "mean" and "var" alone; nor is a matrix that is contracted.

    Returns:
      A mapping from names, taken from the module paths, to `NodeGroup`s, in order of evaluation.
      Masked equals shrunk for any function; what measures or gates nodes by single examples does
      not. So if the graph does not prove that examples are treated independently, the reason is
      kept as `dependence` and printed under the table.

    Raises:
      ValueError: the mode is unknown.

    Cost: two traces and a few passes over their equations, on the host.
    """
    with undisturbed():
        found = analyse(apply, params, inputs, mode=mode, statistics=statistics)
        return replace(found.groups, dependence=doubt(found.graph, apply, params, inputs))


def analyse(apply, params, inputs, *, mode, statistics, carries=False) -> Found:
    """`find_nodes`, with the graph and the atoms behind the groups.

    With `carries`, the function returns a pair whose second part, new values of the last of the
    parameters, shrinks as they do.
    """
    if mode not in MODES:
        raise ValueError(f"mode must be one of {MODES}, got {mode!r}.")
    whole = trace(apply, params, inputs)
    pinned = whole.out_tree.children()[0].num_leaves if carries else len(whole.outputs)
    graph = replace(whole, outputs=whole.outputs[:pinned])
    paths = graph.paths[0]
    labels = Labels(graph, len(paths), PRIMITIVES)
    carried = whole.outputs[pinned:]
    for old, new in zip(graph.inputs[len(paths) - len(carried) : len(paths)], carried, strict=True):
        labels.tie(old, new)
    uses = roles(graph, len(paths))
    kinds = apply.kinds if isinstance(apply, Typed) else {}
    held = statistic_leaves(params, tuple(statistics), uses.makers, kinds)
    masked = [k for k in range(len(paths)) if k not in held and _floating(graph, k)]
    closed, spared = fill_held(labels, masked, baked=mode == "baked")
    drafts = _Drafts(graph, labels, uses, display_paths(params, paths))
    by_name = {name: drafts.group(name, atoms) for name, atoms in drafts.named().items()}
    structure = jax.tree.structure(params)
    shapes = tuple(graph.shape(v) for v in graph.inputs[: len(paths)])
    shaped = jax.tree.map(shape_of, inputs)
    values = {
        (name, paths[leaf]): value
        for name, atoms in drafts.atoms_by_name.items()
        for found, value in ((closed, -np.inf), (spared, None))
        for leaf, own in found.items()
        if not own.isdisjoint(atoms)
    }
    layers = defaultdict(tuple)
    for leaf, axis in sorted(uses.stepped | uses.numbered):
        layers[paths[leaf]] += (axis,)
    groups = NodeGroups(
        by_name, structure, paths, shapes, shaped, mode, tuple(statistics), values,
        frozenset(paths[k] for k in held), layers=dict(layers),
    )  # fmt: skip
    return Found(whole, labels, groups, drafts.atoms_by_name)


def shape_of(leaf: Any) -> jax.ShapeDtypeStruct:
    """Shape and dtype of an array or number."""
    dtype = leaf.dtype if hasattr(leaf, "dtype") else jnp.result_type(leaf)
    return jax.ShapeDtypeStruct(jnp.shape(leaf), dtype)


def _floating(graph, leaf):
    return jnp.issubdtype(graph.avals[graph.inputs[leaf]].dtype, jnp.inexact)


class _Drafts:
    """Atoms sorted into families of one slot shape."""

    def __init__(self, graph, labels, uses, shown):
        self.experts = ranked_atoms(labels)
        self.graph, self.labels = graph, labels
        ranks = [len(graph.shape(v)) for v in graph.inputs[: len(shown)]]
        self.modules = modules_of(shown, ranks)
        self.roles: Roles = uses
        self.slices = Slices(graph, labels)
        self.heads, self.widths = attention_atoms(graph, labels, self.roles, self.slices)
        self.streams = stream_atoms(graph, labels)
        self.unread = _read_without_parameter(labels, self.roles)
        self.shared: dict[Label, tuple[LeafAxis, int]] = {}
        self.atoms_by_name: dict[str, list[Label]] = {}

    def named(self) -> dict[str, list[Label]]:
        """Families by name, in order of the first equation that uses them."""
        found, self.shared = families(
            self.graph, self.labels, self.slices, lambda shape: self._refused(shape) is None
        )
        for (shape, *_), atoms in sorted(found.items(), key=self._first_use):
            if self._is_window(atoms[0]):
                continue
            axes = [key for key, _ in shape]
            order = np.argsort(self.slices.positions(axes[0], atoms)[:, 0], kind="stable")
            atoms = np.array(atoms)[order].tolist()
            kind = self.kind(atoms[0])
            base = base_name(axes, self.modules, self.roles, kind)
            self.atoms_by_name[unique_name(base, kind, self.atoms_by_name)] = atoms
        return self.atoms_by_name

    def _first_use(self, family):
        (shape, *_), _ = family
        made = [
            key for key, _ in shape if key in self.roles.produced and key[0] in self.roles.makers
        ]
        uses = [self.roles.makers[leaf][0] for leaf, _ in made]
        return min(uses) if uses else min(self.roles.order.get(leaf, 0) for (leaf, _), _ in shape)

    def _is_window(self, atom):
        pinned = self.labels.atoms.pinned.get(atom)
        return pinned is not None and pinned().endswith("as a window")

    def refusal(self, atom):
        """Why an atom cannot be removed, as something to call; None if it can."""
        if atom in self.labels.atoms.pinned:
            return self.labels.atoms.pinned[atom]
        refused = self._refused(self.slices.shape(atom))
        if refused is None and atom in self.shared:
            (leaf, axis), position = self.shared[atom]
            name = f"{self.graph.paths[0][leaf]}[{axis}]"
            return lambda: f"position {position} of {name} belongs to two nodes of the group"
        return refused

    def _refused(self, shape: Shape):
        """Why nodes with slices of a shape cannot be removed, pinned or not."""
        paths, keys = self.graph.paths[0], [key for key, _ in shape]
        if self.roles.order.keys().isdisjoint(leaf for leaf, _ in keys):
            return lambda: f"{UNUSED} {paths[min(keys)[0]]}"
        if self.roles.produced.isdisjoint(keys):
            return lambda: "no parameter makes it"
        for (leaf, axis), count in shape:
            if count == self.slices.full[leaf, axis]:
                name = f"{paths[leaf]}[{axis}]"
                return lambda: f"every position of {name} belongs to the same node"
        return None

    def kind(self, atom):
        """What a node is usually called."""
        if atom in self.experts:
            return "expert"
        if atom in self.heads:
            return "head"
        if atom in self.streams:
            return "residual stream"
        if atom in self.widths:
            return HEAD_WIDTH
        made = self.roles.produced.intersection(key for key, _ in self.slices.shape(atom))
        primitives = {self.roles.makers[leaf][1] for leaf, _ in made if leaf in self.roles.makers}
        return "channel" if "conv_general_dilated" in primitives else "neuron"

    def group(self, name, atoms):
        """The group of a family."""
        keys = sorted(key for key, _ in self.slices.shape(atoms[0]))
        members = {key: self._member(key, atoms) for key in keys}
        producers = tuple(m for key, m in members.items() if key in self.roles.produced)
        consumers = tuple(m for key, m in members.items() if key in self.roles.consumed)
        refusal = self.refusal(atoms[0])
        why = refusal() if refusal else self._ungateable(atoms, keys)
        return NodeGroup(
            name, len(atoms), self.kind(atoms[0]), tuple(members.values()), producers, consumers,
            refusal is None, not why, why,
        )  # fmt: skip

    def _member(self, key, atoms):
        index = np.full(self.slices.full[key], -1)
        index[self.slices.positions(key, atoms)] = np.arange(len(atoms))[:, None]
        return Member(self.graph.paths[0][key[0]], key[1], index)

    def _ungateable(self, atoms, keys):
        """Why no scaling of consumer slices equals scaling the node; empty if one does."""
        both = self.roles.consumed & self.roles.produced & set(keys)
        if both:
            leaf, axis = min(both)
            return (
                f"not gateable: {self.graph.paths[0][leaf]}[{axis}] both makes and reads the node"
            )
        for leaf, _ in sorted(self.roles.consumed & set(keys)):
            if not _floating(self.graph, leaf):
                dtype = self.graph.avals[self.graph.inputs[leaf]].dtype
                return f"not gateable: {self.graph.paths[0][leaf]} is {dtype}, which no gate scales"
        for atom in atoms:
            if atom in self.unread:
                equation = self.unread[atom]
                return (
                    f"not gateable: {equation.name} at {equation.source} reads the node without "
                    "a parameter to scale"
                )
        if self.roles.consumed.isdisjoint(keys):
            return "not gateable: no parameter is contracted against the node"
        return ""


def _read_without_parameter(labels, roles) -> dict[Label, Any]:
    """Atoms that some fold runs over without a parameter as the other factor."""
    unread = {}
    for reduction in labels.reductions:
        if reduction.equation.outputs[0] not in roles.readers:
            for atom in reduction.atoms(labels):
                unread.setdefault(atom, reduction.equation)
    return unread
