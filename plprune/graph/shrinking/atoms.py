# SPDX-License-Identifier: Apache-2.0
"""Labels that say which positions of array axes can only be removed together.

Every position of every axis carries one label:

* `UNIT` is never removed: batch axes, axes of size 1, axes of the inputs.
* An *atom* is one removable index.
* A *product* of labels is removed as soon as one of its factors is: flattening [heads, width]
  labels position (h, d) with the product of h and d.

Two labels that must be removed together are unified; a *pinned* atom is never removed, and keeps
the reason. Derived in docs/mathematics/graph.md.
"""

from collections.abc import Callable

import numpy as np

Label = int
LabelVector = np.ndarray  # Labels of the positions of one axis.
Reason = Callable[[], str]  # Written out only when someone reads it.

UNIT: Label = 0


class Atoms:
    """Union-find over labels; grows as axes are labelled."""

    def __init__(self):
        self._parent = np.zeros(1 << 12, np.int64)
        self._merged = np.zeros(1 << 12, bool)  # UNIT and products, which are no atoms.
        self._merged[UNIT] = True
        self._used = 1
        self._factors: dict[Label, tuple[Label, ...]] = {}
        self._interned: dict[tuple[Label, ...], Label] = {}
        self.pinned: dict[Label, Reason] = {}

    def copy(self) -> "Atoms":
        """An independent copy, on which pins can be tried."""
        twin = Atoms()
        twin._parent, twin._used = self._parent.copy(), self._used
        twin._merged = self._merged.copy()
        twin._factors, twin._interned = dict(self._factors), dict(self._interned)
        twin.pinned = dict(self.pinned)
        return twin

    def fresh(self, size: int) -> LabelVector:
        """Labels of a new axis; an axis of size 1 cannot lose its only position."""
        if size <= 1:
            return np.zeros(size, np.int64)
        while self._used + size > len(self._parent):
            self._parent = np.concatenate([self._parent, np.zeros_like(self._parent)])
            self._merged = np.concatenate([self._merged, np.zeros_like(self._merged)])
        labels = np.arange(self._used, self._used + size)
        self._parent[labels] = labels
        self._used += size
        return labels

    def roots(self, labels: LabelVector) -> LabelVector:
        """Representative of each label."""
        labels = np.asarray(labels)
        found = self._parent[labels]
        while ((above := self._parent[found]) != found).any():
            found = above
        self._parent[labels] = found  # Else chains grow with the depth of the function.
        return found

    def root(self, label: Label) -> Label:
        """Representative of one label."""
        while (parent := int(self._parent[label])) != label:
            label = parent
        return int(label)

    def basic(self, label: Label) -> tuple[Label, ...]:
        """The atoms of which a label is the product, pinned ones included."""
        return self.of_root(self.root(label))

    def of_root(self, root: Label) -> tuple[Label, ...]:
        """`basic` of a label that is its own representative."""
        if root == UNIT:
            return ()
        if root not in self._factors:
            return (root,)
        return tuple(dict.fromkeys(a for f in self._factors[root] for a in self.basic(f)))

    def removable(self, label: Label) -> tuple[Label, ...]:
        """The atoms whose removal removes a position with this label."""
        return tuple(a for a in self.basic(label) if a not in self.pinned)

    def occurring(self, labels: LabelVector) -> set[Label]:
        """All atoms along an axis, pinned ones included."""
        plain, products = self.parted(distinct(self.roots(labels)))
        return {*plain.tolist(), *(a for x in products.tolist() for a in self.of_root(x))}

    def parted(self, roots: LabelVector) -> tuple[LabelVector, LabelVector]:
        """Representatives that are atoms, and those that are products."""
        merged = self._merged[roots]
        return roots[~merged], roots[merged & (roots != UNIT)]

    def members(self, labels: LabelVector) -> set[Label]:
        """All removable atoms that occur along an axis."""
        return {a for a in self.occurring(labels) if a not in self.pinned}

    def product(self, vectors: list[LabelVector]) -> LabelVector:
        """Labels of the axis that merges several axes, row-major."""
        columns = [c.ravel() for c in np.meshgrid(*map(self.roots, vectors), indexing="ij")]
        size = int(np.prod([len(v) for v in vectors]))
        columns = [c for c in columns if c.any()]
        if not columns:
            return np.zeros(size, np.int64)
        if len(columns) == 1:
            return columns[0]
        rows = zip(*(c.tolist() for c in columns), strict=True)
        return np.array([self._product(tuple(x for x in row if x != UNIT)) for row in rows])

    def _product(self, factors: tuple[Label, ...]) -> Label:
        if len(factors) < 2:
            return factors[0] if factors else UNIT
        if factors not in self._interned:
            label = int(self.fresh(2)[0])  # An axis of size 1 would be UNIT.
            self._interned[factors] = label
            self._factors[label] = factors
            self._merged[label] = True
        return self._interned[factors]

    def pin(self, labels: LabelVector, reason: Reason) -> None:
        """Never remove these positions; the first reason given stays."""
        for label in distinct(self.roots(labels)).tolist():
            for atom in self.of_root(label):
                self.pinned.setdefault(atom, reason)

    def unify(self, left: LabelVector, right: LabelVector, reason: Reason) -> None:
        """Remove positions of two equally long axes together.

        Args:
          left: Labels of one axis.
          right: Labels of the other, position by position.
          reason: Of the pins that this causes where neither side has a reason yet.
        """
        left, right = self.roots(left), self.roots(right)
        if len(left) and not np.array_equal(left, right):
            self._split_alike(left, right, reason)
            left, right = self.roots(left), self.roots(right)
        differ = left != right
        if differ.any():
            codes = distinct(left[differ] * self._used + right[differ])
            pairs = np.stack(np.divmod(codes, self._used), 1)
            if not self._merged[pairs].any() and len(distinct(pairs.ravel())) == pairs.size:
                self._merge_each(*pairs.T)
                return
            for x, y in pairs.tolist():
                self._unify(x, y, reason)

    def _merge_each(self, atoms, into):
        """`_merge` of distinct atoms, all at once."""
        pinned = [k for k, atom in enumerate(atoms.tolist()) if atom in self.pinned]
        self._parent[atoms] = into
        for atom, root in zip(atoms[pinned].tolist(), into[pinned].tolist(), strict=True):
            self.pinned.setdefault(root, self.pinned.pop(atom))

    def _split_alike(self, left, right, reason):
        """Split the factors of two products whose inner sizes divide, as a reshape of both would.

        Shuffling 16 channels of 2 groups makes [8 x 2] of what the next layer reads as [2 x 8]:
        both are [2 x 4 x 2], which loses no more at once than it must.
        """
        if any(len(self.basic(int(axis[0]))) != 2 for axis in (left, right)):
            return
        grids = sorted(filter(None, map(self._grid, (left, right))), key=lambda grid: len(grid[1]))
        if len(grids) < 2 or len(grids[0][1]) == len(grids[1][1]):
            return
        (outer, few), (_, many) = grids
        parts, rest = divmod(len(many), len(few))
        if rest == 0:
            for axis, sizes in ((outer, (-1, parts)), (many, (parts, -1))):
                sizes = [len(axis) // parts if size < 0 else size for size in sizes]
                self.unify(axis, self.product([self.fresh(n) for n in sizes]), reason)

    def _grid(self, labels):
        """(outer, inner) atoms of an axis that merges two; None where it does not, or is pinned."""
        factors = [self.basic(x) for x in labels.tolist()]
        if any(len(f) != 2 or not self.pinned.keys().isdisjoint(f) for f in factors):
            return None
        outer, inner = np.array(factors).T
        size = int((outer == outer[0]).sum())
        rows = (outer[::size], inner[:size])
        if len(labels) % size or not np.array_equal(np.repeat(rows[0], size), outer):
            return None
        return rows if np.array_equal(np.tile(rows[1], len(rows[0])), inner) else None

    def _unify(self, x: Label, y: Label, reason: Reason) -> None:
        left, right = self.basic(x), self.basic(y)
        if set(left) == set(right):
            return
        if len(left) == len(right) == 1:
            self._merge(left[0], right[0])
            return
        # Common factors cancel: (a, b) with (a, c) says b with c; (a, b) with (a) pins b.
        rest = _without(left, right), _without(right, left)
        for one, other in self._pairings(x, y, rest):
            if len(one) == len(other) > 0:
                for a, b in zip(one, other, strict=True):
                    self._unify(a, b, reason)
                return
        why = next((self.pinned[a] for a in left + right if a in self.pinned), reason)
        self._unify_unlike(self._open(rest[0]), self._open(rest[1]), why)

    def _pairings(self, x, y, rest):
        """Ways to pair the factors of two labels, the best first."""
        removable = tuple(map(self._open, rest))
        if len(rest[0]) == len(rest[1]):  # Pinned ones with pinned ones, wherever they stand.
            yield removable
        # As the axes that made them, themselves perhaps products: a batch of two is one as well.
        yield tuple(self._factors.get(self.root(label), ()) for label in (x, y))
        yield rest
        yield removable

    def _open(self, atoms):
        return tuple(a for a in atoms if a not in self.pinned)

    def _unify_unlike(self, x, y, why):
        """Different numbers of factors, none of which both have."""
        if not x or not y:
            self._pin_atoms(x + y, why)
        elif min(len(x), len(y)) == 1:
            self._bind(*((x[0], y) if len(x) == 1 else (y[0], x)))
        else:  # No common factors are known: one class is conservative.
            for a in (x + y)[1:]:
                self._unify(a, x[0], why)

    def _merge(self, atom, into):
        self._parent[atom] = into
        if atom in self.pinned:
            self.pinned.setdefault(into, self.pinned.pop(atom))

    def _bind(self, atom, factors):
        """An atom turns out to be a product: its axis was split."""
        if len(factors) == 1:
            self._merge(atom, factors[0])
        else:
            self._parent[atom] = self._product(factors)

    def _pin_atoms(self, atoms, reason):
        for atom in atoms:
            self.pinned.setdefault(atom, reason)


def distinct(labels: LabelVector) -> LabelVector:
    """Labels without repetitions, sorted."""
    # Without the index NumPy hashes, which takes ten times as long as sorting.
    return np.unique(labels, return_index=True)[0]


def _without(some, others):
    return tuple(a for a in some if a not in others)
