# SPDX-License-Identifier: Apache-2.0
"""The algebra of labels."""

import numpy as np

from plprune.graph.shrinking.atoms import UNIT, Atoms


def because(text):
    return lambda: text


def test_unified_positions_have_the_same_atom():
    atoms = Atoms()
    a, b = atoms.fresh(3), atoms.fresh(3)
    atoms.unify(a, b, because("together"))
    np.testing.assert_array_equal(atoms.roots(a), atoms.roots(b))
    assert len(atoms.members(a)) == 3


def test_axes_of_size_one_are_units():
    assert Atoms().fresh(1).tolist() == [UNIT]


def test_products_go_with_any_factor_and_split_axes_are_products():
    atoms = Atoms()
    whole, rows, columns = atoms.fresh(6), atoms.fresh(2), atoms.fresh(3)
    atoms.unify(whole, atoms.product([rows, columns]), because("split"))
    assert set(atoms.removable(int(whole[4]))) == {rows[1], columns[1]}


def test_common_factors_cancel():
    atoms = Atoms()
    a, b, c = atoms.fresh(2), atoms.fresh(3), atoms.fresh(3)
    atoms.unify(atoms.product([a, b]), atoms.product([a, c]), because("cancel"))
    np.testing.assert_array_equal(atoms.roots(b), atoms.roots(c))


def test_a_product_equal_to_its_factor_pins_the_other():
    atoms = Atoms()
    a, b = atoms.fresh(2), atoms.fresh(3)
    atoms.unify(atoms.product([a, b]), np.repeat(a, 3), because("absorbed"))
    assert len(atoms.members(a)) == 2
    assert not atoms.members(b)
    assert atoms.pinned[b[0]]() == "absorbed"


def test_products_are_paired_as_the_axes_that_made_them():
    atoms = Atoms()
    batch, a, b = atoms.fresh(2), atoms.fresh(2), atoms.fresh(3)
    atoms.pin(batch, because("inputs"))
    features = atoms.product([a, b])
    group, taken = atoms.fresh(2), atoms.fresh(6)
    atoms.unify(atoms.product([batch, features]), atoms.product([group, taken]), because("conv"))
    assert not atoms.members(group)
    assert len(atoms.members(a)) == 2
    assert set(atoms.removable(int(taken[4]))) == {a[1], b[1]}


def test_pinned_factors_are_left_out_wherever_they_stand():
    atoms = Atoms()
    p, q, a, b = atoms.fresh(2), atoms.fresh(2), atoms.fresh(3), atoms.fresh(3)
    for pinned in (p, q):
        atoms.pin(pinned, because("batch"))
    left = np.array([atoms.product([p[:1], a[k : k + 1]])[0] for k in range(3)])
    right = np.array([atoms.product([b[k : k + 1], q[:1]])[0] for k in range(3)])
    atoms.unify(left, right, because("added"))
    np.testing.assert_array_equal(atoms.roots(a), atoms.roots(b))
    assert len(atoms.members(a)) == 3


def test_pins_spread_with_their_first_reason():
    atoms = Atoms()
    a, b, c = atoms.fresh(2), atoms.fresh(2), atoms.fresh(2)
    atoms.pin(a, because("first"))
    atoms.unify(a, b, because("second"))
    atoms.unify(c, b, because("third"))
    assert not atoms.members(c)
    assert atoms.pinned[atoms.root(int(c[0]))]() == "first"


def test_copies_are_independent():
    atoms = Atoms()
    a = atoms.fresh(2)
    twin = atoms.copy()
    twin.pin(a, because("tried"))
    assert len(atoms.members(a)) == 2


def test_atoms_merged_at_once_are_those_merged_one_by_one():
    """With their pins, whichever side they were on."""

    def pinned(atoms, left, right):
        atoms.pin(left[2:4], lambda: "left")
        atoms.pin(right[3:6], lambda: "right")

    whole, single = Atoms(), Atoms()
    for atoms in (whole, single):
        left, right = atoms.fresh(8), atoms.fresh(8)
        pinned(atoms, left, right)
        parts = (slice(None),) if atoms is whole else (slice(k, k + 1) for k in range(8))
        for part in parts:
            atoms.unify(left[part], right[part], lambda: "joined")
    assert np.array_equal(whole.roots(left), whole.roots(right))
    found = [{a: why() for a, why in atoms.pinned.items()} for atoms in (whole, single)]
    assert found[0] == found[1]
    assert sorted(found[0].values()) == ["left", "right", "right", "right"]


def test_a_root_in_two_pairs_joins_all_of_them():
    atoms = Atoms()
    one, other = atoms.fresh(3), atoms.fresh(3)
    atoms.unify(other[[0, 0]], other[[1, 2]], lambda: "")
    atoms.unify(one, other, lambda: "")
    assert len(set(atoms.roots(np.concatenate([one, other])).tolist())) == 1
