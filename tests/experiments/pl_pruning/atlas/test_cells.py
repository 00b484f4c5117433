# SPDX-License-Identifier: Apache-2.0
"""What the map consists of, and which settings are refused."""

from dataclasses import replace

import pytest

from experiments.pl_pruning.atlas.cells import PARTS, Cell, cell_named, cells_of
from experiments.pl_pruning.atlas.config import PRESETS, check

ATLAS = PRESETS["atlas"]
CELLS = {part: cells_of(part, ATLAS) for part in PARTS}


def test_every_cell_has_a_name_of_its_own_that_says_all():
    cells = [cell for part in CELLS.values() for cell in part]
    assert len({cell.name for cell in cells}) == len(cells)
    assert [cell_named(cell.name) for cell in cells] == cells
    for name in ("", "a, b", "digits, square, adam, depth x, none, full batch, target 1"):
        with pytest.raises(ValueError, match="no cell is called"):
            cell_named(name)


def test_the_product_is_of_losses_optimisers_and_depths():
    product = [c for part in PARTS if part[-1].isdecimal() for c in CELLS[part]]
    found = {(cell.loss, cell.optimizer, cell.depth) for cell in product}
    assert len(found) == len(product) == 2 * 6 * 4
    slow = [cell for cell in product if cell.optimizer == "gd"]
    assert {(c.loss, c.target) for c in slow} == {("square", 0.01), ("cross_entropy", 0.01)}


def test_other_parts_vary_one_factor_around_the_centre():
    centre = {Cell(loss, o, target=0.001) for loss in ("square", "cross_entropy")
              for o in ATLAS.around}  # fmt: skip
    assert centre <= {*CELLS["square_4"], *CELLS["cross_entropy_4"]}
    for part in ("batches", "targets", "fashion", "warm_up", "penalties"):
        for cell in CELLS[part]:
            near = [c for c in centre if (c.loss, c.optimizer) == (cell.loss, cell.optimizer)]
            assert sum(a != b for a, b in zip(*map(vars_of, (cell, near[0])), strict=True)) == 1
    assert {cell.depth for cell in CELLS["kinds"] if cell.kind == "centred"} == {2, 4, 8, 16}


def vars_of(cell):
    return tuple(vars(cell).values())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"methods": ("dense", "random")}, "dense and kappa among them"),
        ({"methods": ("dense", "kappa", "random_scaled")}, "no 'random_scaled'"),
        ({"keep": 1.0}, "keep must lie in"),
        ({"optimizers": ("adam", "rmsprop")}, "optimizers must be distinct ones"),
        ({"square_target": 0.0}, "square_target must be positive"),
        ({"max_steps": 55}, "max_steps must be a multiple of log_every"),
        ({"search_seed": 5}, "rates are chosen on seeds"),
        ({"examples": 20}, "examples must be at least 64"),
        ({"depths": ()}, "no cell of the map"),
        ({"warm_ups": (3, 3)}, "warm_ups must be distinct"),
        ({"search_seeds": 0}, "search_seeds must be at least 1"),
    ],
)
def test_settings_that_cannot_be_run_are_refused(change, said):
    with pytest.raises(ValueError, match=said):
        check(replace(ATLAS, **change))
