# SPDX-License-Identifier: Apache-2.0
"""Names and kinds of node groups, from where their parameters sit and how they are used."""

from collections.abc import Container, Mapping, Sequence
from functools import reduce
from operator import or_
from typing import Any

from plprune.graph.linear.roles import LeafAxis, Roles
from plprune.graph.shrinking.atoms import Label
from plprune.graph.shrinking.labels import Labels
from plprune.graph.tracing import Graph, Variable, all_equations


def display_paths(params: Any, paths: Sequence[str]) -> tuple[str, ...]:
    """Leaf paths without the collection in front: (params, state) or {"params": ..., ...}."""
    is_pair = type(params) is tuple and all(isinstance(p, Mapping) for p in params)
    if is_pair or (isinstance(params, Mapping) and "params" in params):
        short = tuple(map(_without_first, paths))
        if len(set(short)) == len(short):
            return short
    return tuple(paths)


def _without_first(path):
    if path.startswith("["):  # Keys in brackets: their dots are their own.
        return path[path.find("][") + 1 :] if "][" in path else path
    return path.partition(".")[2] or path


def module_of(path: str) -> str:
    """The module that owns a leaf: its path without the last key."""
    if path.startswith("["):
        return path[: path.rfind("][") + 1] or path
    return path.rpartition(".")[0] or path


def modules_of(paths: Sequence[str], ranks: Sequence[int]) -> tuple[str, ...]:
    """`module_of` each leaf, where matrices in a list are layers and no two of them one module.

    Leaves of several ranks in a list, such as (weights, bias), are those of one layer.
    """
    listed: dict[str, list[int]] = {}
    for path, rank in zip(paths, ranks, strict=True):
        listed.setdefault(_list_of(path), []).append(rank)
    layers = {of for of, found in listed.items() if of and len(found) > 1 and len({*found}) == 1}
    return tuple(path if _list_of(path) in layers else module_of(path) for path in paths)


def _list_of(path):
    """The path of the list that a leaf is an entry of; empty if it is in none."""
    above, _, last = path.rpartition(".")
    return above if last.isdigit() else ""


def base_name(axes: Sequence[LeafAxis], modules: Sequence[str], roles: Roles, kind: str) -> str:
    """Name of the module that first computes the nodes, before clashes are resolved."""
    made = [key for key in axes if key in roles.produced]
    kernels = [key for key in made if key[0] in roles.makers]
    if not made and axes[0][0] in roles.order:
        return f"{modules[axes[0][0]]}.inputs"
    if kind == "head":
        return _common_module([modules[leaf] for leaf, _ in kernels or made])
    if kernels:
        first = min(kernels, key=lambda key: roles.makers[key[0]])
    else:
        first = min(made or axes, key=lambda key: roles.order.get(key[0], 0))
    return modules[first[0]]


def _common_module(modules):
    split = [m.split(".") for m in modules]
    shared = []
    for parts in zip(*split, strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return ".".join(shared) or modules[0]


def unique_name(name: str, kind: str, taken: Mapping[str, Any]) -> str:
    """The name, told apart from earlier ones by the kind and then by a number."""
    candidates = [name, f"{name}.{kind.replace(' ', '_')}s"]
    candidates += [f"{candidates[1]}_{k}" for k in range(2, len(taken) + 3)]
    return next(c for c in candidates if c not in taken)


def attention_atoms(
    graph: Graph, labels: Labels, roles: Roles, owned: Container[Label]
) -> tuple[set[Label], set[Label]]:
    """(heads, widths): atoms along the axes of products of two activations.

    Heads lie along the batch axes. The other axes of a product that has heads are widths within
    them: of queries and keys where it contracts them, of values where it does not.

    Args:
      graph: From `trace`.
      labels: Of the graph.
      roles: Of the parameters.
      owned: Atoms along axes of parameters. A batch axis without one holds examples; as the head of
        an attention with a single one counts an axis of size 1 beside them.
    """
    heads, widths = set(), set()
    for equation in all_equations(graph):
        if equation.name == "dot_general" and equation.outputs[0] not in roles.readers:
            operands = [labels[v] for v in equation.inputs]
            batches = equation.params["dimension_numbers"][1]
            along = [operands[0][d] for d in batches[0]]
            found = set().union(*map(labels.atoms.occurring, along))
            heads |= found
            alone = len(along) > 1 and min(map(len, along)) == 1
            if alone or any(a in owned for a in found):
                for axes, batch in zip(operands, batches, strict=True):
                    others = (x for d, x in enumerate(axes) if d not in batch)
                    widths = widths.union(*map(labels.atoms.members, others))
    return heads, widths - heads


def stream_atoms(graph: Graph, labels: Labels) -> set[Label]:
    """Atoms along the axes of x + f(x), where f contracts x: residual streams."""
    behind: dict[Variable, int] = {}  # Bit set of the variables that it is computed from.
    across: dict[Variable, int] = {}  # Those from which a contraction lies between.
    atoms = set()
    for k, v in enumerate(graph.inputs):
        behind[v] = 1 << k
    for k, equation in enumerate(graph.equations):
        for body in equation.subgraphs:
            atoms |= stream_atoms(body, labels)
        is_sum = equation.name in ("add", "add_any")
        if is_sum and _nested(equation.inputs[0], equation.inputs[1], behind, across):
            for axis in labels[equation.outputs[0]]:
                atoms |= labels.atoms.occurring(axis)
        everything = reduce(or_, (behind.get(v, 0) for v in equation.inputs), 0)
        distant = reduce(or_, (across.get(v, 0) for v in equation.inputs), 0)
        contracts = equation.name in ("dot_general", "conv_general_dilated", "ragged_dot_general")
        own = 1 << (k + len(graph.inputs))
        behind.update(dict.fromkeys(equation.outputs, everything | own))
        across.update(dict.fromkeys(equation.outputs, everything if contracts else distant))
    return atoms


def _nested(x, y, behind, across):
    """Whether a contraction leads from one variable to the other."""
    pairs = ((behind.get(x, 0), across.get(y, 0)), (behind.get(y, 0), across.get(x, 0)))
    return any(inner and outer >> (inner.bit_length() - 1) & 1 for inner, outer in pairs)
