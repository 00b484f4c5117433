# SPDX-License-Identifier: Apache-2.0
"""Second pass: which entries are known once nodes are masked, and which folds may therefore shrink.

A node can be removed where masking it leaves only neutral entries behind: zeros in a sum, minus
infinity in a maximum. So each axis of each array carries facts "wherever the label contains atom
a, the entry is c once a's parameter slices are masked", and a fold over an axis pins the atoms
whose entries are not known to be neutral. Derived in docs/mathematics/graph.md.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha1
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from plprune.graph.shrinking.atoms import Label
from plprune.graph.shrinking.known import ANY, POSITIVE, Known, constant_sign, entries, stored
from plprune.graph.shrinking.labels import Labels, Reduction
from plprune.graph.tracing import Equation, Graph, Variable

Facts = dict[float, frozenset[Label]]  # Known value -> atoms; atoms not listed are unknown.
NOTHING: frozenset[Label] = frozenset()


class Fill(NamedTuple):
    """What is known of one array."""

    whole: Known  # All entries equal this, masked or not.
    axes: tuple[Facts, ...]
    sign: int = ANY  # Of all entries.


class Fills:
    """Facts about every variable; pins what cannot be removed exactly."""

    def __init__(
        self,
        labels: Labels,
        masked: Iterable[int],
        *,
        baked: bool,
        closed: Mapping[int, frozenset[Label]] = MappingProxyType({}),
        held: Mapping[int, frozenset[Label]] = MappingProxyType({}),
    ):
        """Run the pass.

        Args:
          labels: From the first pass; their atoms are pinned in place.
          masked: Positions of the inputs whose slices masking sets to zero; the others stay.
          baked: Sums over removable axes are allowed where neutral (their divisors stay).
          closed: Input position -> atoms that masking closes by minus infinity there. Sums over
            these are allowed in any case.
          held: Input position -> atoms that masking leaves as they are there.
        """
        self.labels, self.atoms, self.graph = labels, labels.atoms, labels.graph
        self.baked = baked
        self.routed: frozenset[Label] = NOTHING.union(*closed.values())
        self.compared: set[Label] = set()  # Atoms that lack minus infinity in a comparison.
        # Variables whose values at some atoms have no result, as divisors of zero have none.
        self.undefined: list[tuple[tuple[Variable, ...], frozenset[Label]]] = []
        self._of: dict[Variable, Fill] = {}
        self._members: dict[int, tuple[np.ndarray, frozenset[Label]]] = {}
        self._shared: dict[bytes, frozenset[Label]] = {}  # Axes of the same nodes have one set.
        self._reductions: dict[Variable, list[Reduction]] = defaultdict(list)
        for reduction in labels.reductions:
            self._reductions[reduction.equation.outputs[0]].append(reduction)
        for k, variable in enumerate(self.graph.inputs):
            self[variable] = self.unknown(variable)
            if k in masked:
                left = closed.get(k, NOTHING), held.get(k, NOTHING)
                self[variable] = self._masked_input(variable, *left)
        self.run(self.graph)

    def _masked_input(self, variable, infinite, held):
        axes = [self.members(variable, d) - held for d in self.dims(variable)]
        return Fill(None, tuple({0.0: x - infinite, -np.inf: x & infinite} for x in axes))

    def __getitem__(self, variable: Variable) -> Fill:
        """Facts about a variable."""
        if variable not in self._of:
            self._of[variable] = self._constant(variable)
        return self._of[variable]

    def __setitem__(self, variable: Variable, fill: Fill) -> None:
        self._of[variable] = fill

    def dims(self, variable: Variable) -> range:
        """Dimensions of a variable."""
        return range(len(self.graph.shape(variable)))

    def unknown(self, variable: Variable) -> Fill:
        """No facts."""
        return Fill(None, tuple({} for _ in self.dims(variable)))

    def _constant(self, variable):
        """A constant array is known where all its entries agree."""
        whole, sign = None, ANY
        value = self.graph.constants.get(variable)
        if isinstance(value, bool | int | float | np.ndarray | np.generic) or hasattr(
            value, "dtype"
        ):
            numbers = entries(value)
            if numbers is not None and numbers.size and numbers.dtype.kind in "biuf":
                sign = constant_sign(float(numbers.min()))
                agree = (numbers == numbers.flat[0]).all()
                whole = stored(numbers.flat[0]) if agree else None
        return Fill(whole, tuple({} for _ in self.dims(variable)), sign)

    def members(self, variable: Variable, dimension: int) -> frozenset[Label]:
        """Atoms along an axis, as they were removable before this pass."""
        vector = self.labels[variable][dimension]
        if id(vector) not in self._members:
            self._members[id(vector)] = (vector, self._removable(vector))
        return self._members[id(vector)][1]

    def _removable(self, vector):
        key = sha1(self.atoms.roots(vector), usedforsecurity=False).digest()
        if key not in self._shared:
            self._shared[key] = frozenset(self.atoms.members(vector))
        return self._shared[key]

    def run(self, graph: Graph) -> None:
        """Check and apply every equation."""
        for equation in graph.equations:
            for reduction in self._reductions.get(equation.outputs[0], ()):
                self._check(reduction)
            rule = self.labels.primitives.of(equation).fill
            if rule is None:
                for output in equation.outputs:
                    self[output] = self.unknown(output)
            else:
                rule(self, equation)

    def enter(self, body: Graph, operands: Sequence[Fill]) -> None:
        """Run a body of whose inputs this is known."""
        for variable, fill in zip(body.inputs, operands, strict=True):
            self[variable] = fill
        self.run(body)

    def pin(self, atoms: Iterable[Label], equation: Equation, text: str) -> None:
        """These atoms cannot be removed exactly."""
        atoms = np.array(sorted(atoms), np.int64)
        if len(atoms):
            self.labels.pin(atoms, equation, text)

    def _check(self, reduction: Reduction) -> None:
        """Pin the atoms whose entries a fold would miss."""
        atoms = frozenset.intersection(*(self.members(v, d) for v, d in reduction.terms))
        neutral = self._neutral(reduction)
        name = reduction.equation.name
        summed = atoms - self.routed if name == "reduce_sum" and not self.baked else NOTHING
        if summed and self.labels.widths.written(reduction.equation):
            self.pin(summed, reduction.equation, _WRITTEN)
            atoms &= self.routed
        if reduction.identity == -np.inf:
            self.compared |= atoms - neutral
        self.pin(atoms - neutral, reduction.equation, _NEEDED.get(reduction.identity, _PLAIN))

    def _neutral(self, reduction: Reduction) -> frozenset[Label]:
        """Atoms that leave only neutral entries; in a contraction one zero factor is enough."""
        neutral, name = NOTHING, reduction.equation.name
        for variable, d in reduction.terms:
            fill = self[variable]
            if fill.whole == reduction.identity:
                neutral |= self.members(variable, d)
            neutral |= fill.axes[d].get(reduction.identity, NOTHING)
            if (name == "reduce_max" and fill.sign > ANY) or (
                name == "argmax" and fill.sign == POSITIVE
            ):
                neutral |= fill.axes[d].get(0.0, NOTHING)  # No other entry is smaller.
        if len(reduction.terms) == 2:
            neutral -= self._infinite(reduction)
        return neutral

    def _infinite(self, reduction):
        return NOTHING.union(
            *(
                atoms
                for variable, d in reduction.terms
                for value, atoms in self[variable].axes[d].items()
                if np.isinf(value)
            )
        )


_WRITTEN = (
    "{} over it may be a mean, whose width is written into the function; "
    'mode="baked" keeps that width'
)
_PLAIN = "a closed node is not neutral in {}"
_NEEDED = {
    0.0: "{} sums over it, and the entries of a closed node are not zero there",
    -np.inf: "{} compares along it; closing a node needs minus infinity there, which only a bias "
    "added right before can hold",
    np.inf: "{} compares along it; a closed node would have to be infinite there",
}


def meet(one: Fill, other: Fill) -> Fill:
    """Facts that hold of both."""
    axes = []
    for x, y in zip(one.axes, other.axes, strict=True):
        values = {*x, *y, one.whole, other.whole} - {None}
        axes.append(
            {v: _holders(x, one.whole, v, y) & _holders(y, other.whole, v, x) for v in values}
        )
    whole = one.whole if one.whole == other.whole else None
    return Fill(whole, tuple(axes), min(one.sign, other.sign))


def _holders(facts, whole, value, other):
    """Atoms known to hold a value; a constant array holds it for every atom of the other."""
    own = facts.get(value, NOTHING)
    return own | other.get(value, NOTHING) if whole == value else own


def agreed(parts: Sequence[tuple[Fill, frozenset[Label], int]]) -> Facts:
    """Facts that hold in every (fill, atoms along the axis, axis) where an atom occurs."""
    values = {value for fill, _, d in parts for value in fill.axes[d]}
    values |= {fill.whole for fill, _, _ in parts if fill.whole is not None}
    found = {}
    for value in values:
        holds, fails = NOTHING, NOTHING
        for fill, members, d in parts:
            holding = members if fill.whole == value else fill.axes[d].get(value, NOTHING) & members
            holds, fails = holds | holding, fails | (members - holding)
        found[value] = holds - fails
    return found


def fill_kept(fills: Fills, equation: Equation) -> None:
    """Entries are selected or reordered along axes: facts stay."""
    for output in equation.outputs:
        fills[output] = fills[equation.inputs[0]]
