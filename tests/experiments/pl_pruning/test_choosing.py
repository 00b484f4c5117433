# SPDX-License-Identifier: Apache-2.0
"""Controls: other widths, halved kernels, layers of another one's size, a network of its own."""

import re
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.pl_pruning import choosing
from experiments.pl_pruning.config import PRESETS
from experiments.pl_pruning.data import Examples, Splits, load_splits
from experiments.pl_pruning.measures import hessian_norm
from experiments.pl_pruning.methods import LOOKS, METHODS
from experiments.pl_pruning.problem import Choice, all_open, problem_of, small_of
from experiments.pl_pruning.settings import network

pytestmark = pytest.mark.usefixtures("models_broadcast")

EXTENDING = Path(__file__).parents[3] / "docs" / "extending.md"
CONFIG = replace(PRESETS["quick"], network=network("mlp", hidden=(8, 6), activation="tanh"))
REGIME = CONFIG.regimes[0]


@pytest.fixture(scope="module")
def problem():
    with jax.numpy_rank_promotion("allow"):
        return problem_of(CONFIG, REGIME, load_splits(CONFIG), 0)


def choice_of(params, keep, problem):
    return Choice(params, problem.state.model, keep, None, None, np.zeros(0), 0.0, 0.0)


def test_matched_layers_add_up_to_the_same_size(problem):
    keep = {"hidden_0": np.arange(8) < 4, "hidden_1": np.arange(6) < 3}
    model = choice_of(choosing.halved(problem.params), all_open(problem.dense), problem)
    mine = choice_of(problem.params, keep, problem)
    masked = choosing.mask(problem.params, problem.dense.groups, keep)
    params = choosing.matched(CONFIG.network, mine._replace(params=masked), model, problem)

    def sizes(params, keep):
        x, found = np.asarray(problem.data.inputs).reshape(len(problem.data.inputs), -1), []
        for name in ("hidden_0", "hidden_1", "output"):
            z = x @ np.asarray(params[name]["kernel"]) + np.asarray(params[name]["bias"])
            kept = keep.get(name, np.ones(z.shape[1], bool))
            found.append(np.sqrt(np.mean(z[:, kept] ** 2)))
            x = np.tanh(z)
        return found

    np.testing.assert_allclose(sizes(params, keep), sizes(model.params, model.keep), rtol=1e-4)
    assert float(jnp.abs(params["hidden_0"]["kernel"][:, 4:]).max()) == 0


def test_a_fresh_network_is_narrow_and_its_own(problem):
    params, keep = choosing.fresh(CONFIG.network, 0.5, problem)
    assert [int(k.sum()) for k in keep.values()] == [4, 3]
    kernel = params["hidden_0"]["kernel"]
    assert float(jnp.abs(kernel[:, 4:]).max()) == 0
    assert not jnp.allclose(kernel[:, :4], problem.params["hidden_0"]["kernel"][:, :4])


def test_redrawn_weights_are_others_behind_kappas_mask(problem):
    kappa = choosing.choose(CONFIG, REGIME, "kappa", 0.5, 1.0, problem)
    found = choosing.choose(CONFIG, REGIME, "redrawn", 0.5, 1.0, problem)
    for name, kept in kappa.keep.items():
        np.testing.assert_array_equal(found.keep[name], kept)
        kernel = np.asarray(found.params[name]["kernel"])
        assert np.abs(kernel[:, ~kept]).max() == 0
        assert not np.isclose(kernel[:, kept], problem.params[name]["kernel"][:, kept]).any()


def test_one_factor_of_all_kernels_gives_random_nodes_kappas_norm(problem):
    choices = {
        method: choosing.choose(CONFIG, REGIME, method, 0.5, 1.0, problem)
        for method in ("kappa", "random", "random_matched")
    }
    smalls = {
        method: small_of(CONFIG, REGIME, choice, problem) for method, choice in choices.items()
    }
    norms = {
        method: hessian_norm(small.trainer, small.first, problem.data)
        for method, small in smalls.items()
    }
    np.testing.assert_allclose(norms["random_matched"], norms["kappa"], rtol=5e-3)
    assert abs(norms["random"] / norms["kappa"] - 1) > 0.05
    mine, plain = (smalls[m].first.params["output"]["kernel"] for m in ("random_matched", "random"))
    factors = np.asarray(mine) / np.asarray(plain)
    np.testing.assert_allclose(factors, factors[0, 0], rtol=1e-5)
    assert choices["random_matched"].gating_flops == choices["kappa"].gating_flops > 0


def test_a_crossing_is_found_or_an_end_is_taken():
    assert abs(choosing._crossing(lambda x: x - 1.25, -3.0, 3.0) - 1.25) < 2e-3
    assert choosing._crossing(lambda _: 1.0, -3.0, 3.0) < -2.99


def test_widths_are_the_given_ones_and_nodes_are_the_largest(problem):
    shares = {"hidden_0": 6 / 8, "hidden_1": 1 / 6}
    found = choosing._at_shares("magnitude", problem, shares, 0.0)
    assert [int(k.sum()) for k in found.keep.values()] == [6, 1]
    norms = np.linalg.norm(np.asarray(problem.params["hidden_0"]["kernel"]), axis=0)
    assert set(np.flatnonzero(~found.keep["hidden_0"])) == set(np.argsort(norms)[:2])


@pytest.mark.parametrize(("method", "widths"), [("tapered", [6, 2]), ("flared", [2, 5])])
def test_tapered_and_flared_controls_spread_the_fraction(problem, method, widths):
    found = choosing.choose(CONFIG, REGIME, f"random_{method}", 0.5, 1.0, problem)
    assert [int(k.sum()) for k in found.keep.values()] == widths
    assert choosing.spread_shares(1.0, problem, "tapered") == {"hidden_0": 1.0, "hidden_1": 0.5}


def test_small_controls_choose_on_halved_kernels(problem):
    found = choosing.choose(CONFIG, REGIME, "magnitude_small", 0.5, 1.0, problem)
    plain = choosing.choose(CONFIG, REGIME, "magnitude", 0.5, 1.0, problem)
    for name, kept in plain.keep.items():  # The largest are the largest of the halved ones too.
        np.testing.assert_array_equal(found.keep[name], kept)
    kernel, halved = (choice.params["output"]["kernel"] for choice in (plain, found))
    np.testing.assert_array_equal(halved, kernel / 2)
    whole = choosing.choose(CONFIG, REGIME, "dense_small", 0.5, 1.0, problem)
    assert all(kept.all() for kept in whole.keep.values())


def test_small_controls_normalise_by_the_statistics_of_halved_kernels():
    rng = np.random.default_rng(0)
    images = rng.normal(size=(48, 8, 8, 1)).astype(np.float32)
    examples = Examples(images, np.arange(48) % 10)
    config = replace(CONFIG, network=network("cnn", channels=(4, 4), hidden=(8,)))
    problem = problem_of(config, REGIME, Splits(examples, examples, 10, "noise"), 0)
    found = choosing.choose(config, REGIME, "dense_small", 0.5, 1.0, problem)
    for leaf, whole in zip(*map(jax.tree.leaves, (found.params, problem.params)), strict=True):
        np.testing.assert_array_equal(leaf, whole / 2 if leaf.ndim > 1 else whole)
    # One batch, momentum .9: the mean went from 0 to .1 M, and now by .1 (M / 2 - .1 M).
    means = [
        leaf
        for model in (found.state, problem.state.model)
        for path, leaf in jax.tree.leaves_with_path(model)
        if "mean" in jax.tree_util.keystr(path)
    ]
    np.testing.assert_allclose(means[0], 1.4 * means[len(means) // 2], rtol=1e-4, atol=1e-6)


def test_a_score_of_ones_own_takes_the_one_entry_that_the_documentation_shows(problem, monkeypatch):
    blocks = re.findall(r"```python\n(.*?)```", EXTENDING.read_text(), re.DOTALL)
    (score,) = (block for block in blocks if "def incoming_l1" in block)
    (entry,) = (block for block in blocks if "Method(" in block)
    module, names = ModuleType("my_scores"), {}
    exec("import jax.numpy as jnp\n" + score.partition("\n\n\nscores = ")[0], vars(module))
    monkeypatch.setitem(sys.modules, "my_scores", module)
    exec(entry.replace("\nMethod(", "\nown = Method("), names)
    own = names["own"]
    assert own.look not in LOOKS.values()
    monkeypatch.setitem(METHODS, own.name, own)
    keep = choosing.choose(CONFIG, REGIME, own.name, 0.5, 1.0, problem).keep
    for name, kept in keep.items():
        layer = problem.params[name]
        sums = np.abs(layer["kernel"]).sum(0) + np.abs(layer["bias"])
        assert set(np.flatnonzero(kept)) == set(np.argsort(-sums)[: len(sums) // 2])
