# SPDX-License-Identifier: Apache-2.0
"""Parameters that a function divides by: masking leaves them as they are.

The eigenvalues of a state space, or weights that are divided by their own norm, have no result at
zero. A node may go all the same if its other slices close it, and then it does not matter which
values these have.
"""

from collections import defaultdict
from collections.abc import Sequence

from plprune.graph.shrinking.atoms import Label
from plprune.graph.shrinking.fills import NOTHING, Fills
from plprune.graph.shrinking.labels import Labels
from plprune.graph.shrinking.routing import Closed, fill_routed


def fill_held(labels: Labels, masked: Sequence[int], *, baked: bool) -> tuple[Closed, Closed]:
    """Atoms closed by minus infinity, and those left as they are, per input position.

    Where zeros are undefined, the parameters that they come from are found by going back through
    the zeros, and a second pass is made in which masking spares them. It counts if it frees a node.
    """
    before = labels.atoms.copy()
    fills, closed = fill_routed(labels, masked, baked=baked)
    if not fills.undefined:
        return closed, {}
    first, held = labels.atoms, _sources(fills, masked)
    labels.atoms = before
    _, again = fill_routed(labels, masked, baked=baked, held=held)
    freed = first.pinned.keys() - labels.atoms.pinned.keys()
    if not any(freed & atoms for atoms in held.values()):
        labels.atoms = first
        return closed, {}
    return again, held


def _sources(fills: Fills, masked: Sequence[int]) -> Closed:
    """Input position -> atoms along the axes whose zeros an undefined result comes from."""
    leaf_of = {fills.graph.inputs[k]: k for k in masked}
    found: dict[int, frozenset[Label]] = defaultdict(frozenset)
    for causes, atoms in fills.undefined:
        seen, left = set(), list(causes)
        while left:
            variable = left.pop()
            dims = [d for d in fills.dims(variable) if atoms & _zeros(fills, variable, d)]
            if variable in seen or not dims:
                continue
            seen.add(variable)
            if variable in leaf_of:  # All nodes along an axis are closed alike.
                along = (fills.members(variable, d) for d in dims)
                found[leaf_of[variable]] |= frozenset().union(*along)
            elif variable in fills.labels.makers:
                left += fills.labels.makers[variable].inputs
    return found


def _zeros(fills, variable, dimension):
    return fills[variable].axes[dimension].get(0.0, NOTHING)
