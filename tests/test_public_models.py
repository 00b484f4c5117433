# SPDX-License-Identifier: Apache-2.0
"""Models of packages that are installed here, and what the table says of others."""

import jax
import jax.numpy as jnp
import pytest

import plprune
from benchmarks import models, prune_models
from benchmarks.public import SHELVES
from benchmarks.public.adaptors import Model, Shelf
from benchmarks.public.in_one_call import of_function

pytestmark = pytest.mark.usefixtures("models_broadcast")
ENTRIES = {f"{e.package}, {e.name}": e for shelf in SHELVES for e in shelf}
GROUPS = {  # Sizes of the groups that can be pruned.
    "equinox, GRU cell in a scan": [6],
    "equinox, convolutions with spectral and weight norm": [3, 5],
    "dm-haiku, MobileNet": [6, 8, 32],
    "dm-haiku, stack of cores with skips": [6, 5, 6],
}


@pytest.mark.parametrize("name", GROUPS)
def test_masked_equals_shrunk(name):
    pytest.importorskip({"dm-haiku": "haiku"}.get(ENTRIES[name].package, ENTRIES[name].package))
    apply, params, inputs, *_ = ENTRIES[name].build()
    groups = plprune.find_nodes(apply, params, inputs)
    assert sorted(groups.prunable.values()) == sorted(GROUPS[name])
    keep = models.halves(groups)
    small = plprune.resize(apply, groups, keep)

    @jax.jit
    def both(params, inputs):
        masked = apply(plprune.mask(params, groups, keep), inputs)
        return masked, small(plprune.shrink(params, groups, keep), inputs)

    masked, shrunk = both(params, inputs)
    assert models.difference(masked, shrunk) < 1e-5


def linear():
    params = {"w": jnp.eye(3), "o": jnp.ones((3, 2))}
    return Model(lambda p, x: jnp.tanh(x @ p["w"]) @ p["o"], params, jnp.ones((4, 3)))


def missing():
    raise ImportError("No module named 'elsewhere'")


def test_one_model_of_each_kind_is_pruned_and_trained(monkeypatch, capsys):
    wholes = {"a net": lambda: of_function(*linear()[:3]), "a gone one": missing}
    monkeypatch.setattr(prune_models, "WHOLES", wholes)
    monkeypatch.setattr(prune_models, "STEPS", 2)
    assert prune_models.main(1) == 0
    printed = capsys.readouterr().out
    (row,) = (line for line in printed.splitlines() if line.startswith("| a net"))
    cells = [cell.strip() for cell in row.split("|")[1:-1]]
    assert cells[1:5] == ["3", "1", "0", "15 -> 10"]  # Two of three neurons stay.
    assert float(cells[7]) < 1e-5
    assert cells[8] == "2 of 3"
    assert "* a gone one: ImportError: No module named 'elsewhere'" in printed


def test_a_missing_package_is_skipped_by_name(monkeypatch, capsys):
    shelf = Shelf("a kind")
    shelf("jax", "there")(linear)
    shelf("elsewhere", "gone")(missing)
    monkeypatch.setattr(models, "SHELVES", [shelf])
    assert models.main(1) == 0
    printed = capsys.readouterr().out
    assert "| a kind | jax " in printed
    assert "* elsewhere, gone: ImportError: No module named 'elsewhere'" in printed


def test_differences_are_relative_to_the_largest_entry():
    with pytest.raises(models.Unequal, match="not finite"):
        models.difference(jnp.full(2, jnp.nan), jnp.ones(2))
    assert models.difference({"w": jnp.ones(2)}, {"w": jnp.ones(2)}) == 0
    assert models.difference({"w": jnp.ones(2)}, {"w": jnp.array([1.0, 0.5])}) == 0.5


@pytest.mark.parametrize(
    ("reason", "short"),
    [
        ("an axis of the inputs", "inputs"),
        ("reduce_sum at a.py:3 (f) over it may be a mean, whose width is", "width of a mean"),
        (
            "gather at a/b.py:3:1 (f) looks up positions of it",
            "gather (f) looks up positions of it",
        ),
        ("no rule for qr at a.py:3; rewrite it", "no rule for qr"),
    ],
)
def test_reasons_in_short(reason, short):
    assert models.in_short(reason) == short
