# SPDX-License-Identifier: Apache-2.0
"""Arrays in a tree that are no parameters: let through where they have nothing to do with nodes."""

from collections.abc import Callable, Collection, Mapping
from math import prod
from typing import Any, NamedTuple

import jax
import numpy as np

from plprune.graph.paths import Keys, Leaf, leaf_is, leaf_shape, leaves_with_keys, printed
from plprune.types import NodeGroups

Touched = Mapping[str, Collection[int]]  # Leaf path -> axes.

# Fields of known states whose sizes are their own, whatever the model's.
_OWN_SIZES = {
    "MuonState": {"ns_coeffs"},
    "MechanicState": {"r", "m", "v", "s"},
    "ScaleByLBFGSState": {"weights_memory"},
    "Network": {"rule"},  # Of gating.
}


AFRESH = "make the state of such an optimiser afresh, with init(small parameters)"


class Known(NamedTuple):
    """What is known of the parameters that a tree is searched for."""

    groups: NodeGroups
    paths: Mapping[Keys, str]  # The paths that the groups know them by.
    shapes: Mapping[str, tuple[int, ...]]  # That they should have, by path.
    touched: Touched  # What is to be edited.
    argument: str  # What the caller calls the tree.


def check_leftovers(tree: Any, left: list[Leaf], known: Known, matched: bool) -> None:
    """ValueError unless the leaves `left` outside the parameters may stay as they are.

    Scalars, counts and random keys may, one number per node of groups (gates), and arrays in which
    no axis and no number of entries is that of something touched. Where nothing matched, an array
    in a mapping or sequence claims to be a parameter, and is refused; in the fields of an
    optimiser's state (a NamedTuple) it does not.
    """
    own = _own_sizes(tree)
    arrays = [leaf for leaf in left if not is_small(leaf.value) and leaf.keys not in own]
    if not matched:
        unclaimed = _in_records(tree)
        claims = [leaf for leaf in arrays if leaf.keys and leaf.keys not in unclaimed]
        if claims:
            raise ValueError(_nothing_matched(known, claims))
    per_node = _per_node(left, known.groups)
    arrays = [leaf for leaf in arrays if leaf.keys not in per_node]
    if not arrays:
        return
    total = sum(map(prod, known.shapes.values()))
    largest = max(size for leaf in arrays for size in _sizes(leaf))
    derived = _derived(known.shapes, known.touched, min(largest, total))
    for leaf in arrays:
        if any(size <= total and derived(size) for size in _sizes(leaf)):
            raise ValueError(
                f"{known.argument}: leaf {printed([leaf.keys])[0]} of shape "
                f"{leaf_shape(leaf.value)} is no parameter of the groups, but has a size that "
                f"depends on their nodes; {AFRESH}, or pass the parameters alone."
            )


def is_small(value: Any) -> bool:
    """Whether a leaf is one number, empty, a random key, or no array at all."""
    shape = leaf_shape(value)
    if prod(shape) <= 1 or leaf_is(value, jax.dtypes.prng_key):
        return True
    # The data of a threefry or rbg key.
    return leaf_is(value, np.uint32) and shape in ((2,), (4,))


def _sizes(leaf):
    shape = leaf_shape(leaf.value)
    return {prod(shape), *shape} - {1}


def _derived(shapes, touched, limit) -> Callable[[int], bool]:
    """Whether a size up to `limit` may be that of what an optimiser makes of the touched leaves.

    It may be a touched axis, or the number of entries of any selection of leaves with a touched one
    among them: states may hold flattened vectors. The sums are kept as the bits of an integer.
    """
    inside = (1 << (limit + 1)) - 1
    axes = {shapes[path][axis] for path, along in touched.items() for axis in along}
    sums, touching = 1, 0
    for path, shape in shapes.items():
        count = prod(shape)
        if count <= limit:
            added = (sums if touched.get(path) else touching) << count
            touching = (touching | added | touching << count) & inside
            sums = (sums | sums << count) & inside
    return lambda size: size in axes or bool(touching >> size & 1)


def _records(tree):
    """Every outermost NamedTuple with its leaves' keys."""

    def is_record(node):
        return isinstance(node, tuple) and hasattr(node, "_fields")

    return [leaf for leaf in leaves_with_keys(tree, is_record) if is_record(leaf.value)]


def _in_records(tree) -> set[Keys]:
    return {r.keys + x.keys for r in _records(tree) for x in leaves_with_keys(r.value)}


def _own_sizes(tree, before: Keys = ()) -> set[Keys]:
    own = set()
    for record in _records(tree):
        known = _OWN_SIZES.get(type(record.value).__name__, ())
        for name, field in zip(record.value._fields, record.value, strict=True):
            keys = (*before, *record.keys, name)
            if name in known:
                own |= {keys + leaf.keys for leaf in leaves_with_keys(field)}
            else:
                own |= _own_sizes(field, keys)
    return own


def _per_node(left, groups) -> set[Keys]:
    """Leaves of mappings from groups to one number per node."""
    siblings: dict[Keys, list[Leaf]] = {}
    for leaf in left:
        if leaf.keys:
            siblings.setdefault(leaf.keys[:-1], []).append(leaf)
    found = set()
    for leaves in siblings.values():
        names = [leaf.keys[-1] for leaf in leaves]
        if all(n in groups and leaf_shape(x.value) == (groups[n].size,)
               for n, x in zip(names, leaves, strict=True)):  # fmt: skip
            found.update(leaf.keys for leaf in leaves)
    return found


def _nothing_matched(known, claims):
    found = {leaf.keys for leaf in claims}
    missing = [path for keys, path in known.paths.items() if keys not in found]
    missing.sort(key=lambda path: prod(known.shapes[path]) <= 1)  # Counters are missed last.
    unknown = [leaf.keys for leaf in claims if leaf.keys not in known.paths]
    parts = [f"leaf {missing[0] or '(the tree itself)'} is missing"] if missing else []
    parts += [f"leaf {printed(unknown)[0]} is unknown"] if unknown else []
    return (
        f"{known.argument} must be the tree that the groups were found on, or hold it or a "
        f"collection of it: {', '.join(parts)}."
    )
