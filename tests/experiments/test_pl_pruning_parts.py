# SPDX-License-Identifier: Apache-2.0
"""The parts of the pl_pruning experiment: methods, controls, networks of every kind, statistics."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments.pl_pruning import cases, choosing, controls, measures, rules
from experiments.pl_pruning.arrays import Examples, Splits, load_splits
from experiments.pl_pruning.cases import Choice, case_of
from experiments.pl_pruning.config import PRESETS
from experiments.pl_pruning.gaps import correlation
from experiments.pl_pruning.methods import CONTROLS, LEARNED, METHODS, SCORED
from experiments.pl_pruning.networks import Shape, build
from experiments.pl_pruning.presets import PAPER
from experiments.pl_pruning.settings import network
from experiments.pl_pruning.subject import State, optimizer, trainer
from plprune.training import start

pytestmark = pytest.mark.usefixtures("models_broadcast")

CONFIG = replace(PRESETS["quick"], network=network("mlp", hidden=(8, 6), activation="tanh"))
REGIME = CONFIG.regimes[0]
IMAGES = Shape((32, 32, 3), np.dtype("float32"), 10)
GRAY = Shape((28, 28, 1), np.dtype("float32"), 10)
TEXT = Shape((128,), np.dtype("int32"), 257)


@pytest.fixture(scope="module")
def case():
    with jax.numpy_rank_promotion("allow"):
        return case_of(CONFIG, REGIME, load_splits(CONFIG), 0)


def choice_of(params, keep, case):
    return Choice(params, case.state.model, keep, None, None, np.zeros(0), 0.0, 0.0)


def test_every_method_is_named_once_and_traces(case):
    assert set(METHODS) == {"dense", *LEARNED, *SCORED, *CONTROLS}
    probe = case.data.inputs, case.data.targets
    for method in (*LEARNED, *SCORED):
        budget = rules.budget_of(CONFIG, method, 0.5, case)
        gate = choosing._gate_once(budget, REGIME, method, case.subject, case.dense)
        arguments = case.gating_key, case.params, case.state.model, probe
        params, keep = jax.eval_shape(gate, *arguments)
        assert jax.tree.structure(params) == jax.tree.structure(case.params)
        assert {name: leaf.shape for name, leaf in keep.items()} == {
            "hidden_0": (8,),
            "hidden_1": (6,),
        }


def test_matched_layers_add_up_to_the_same_size(case):
    keep = {"hidden_0": np.arange(8) < 4, "hidden_1": np.arange(6) < 3}
    model = choice_of(controls.halved(case.params), cases.all_open(case.dense), case)
    mine = choice_of(case.params, keep, case)
    masked = choosing.mask(case.params, case.dense.groups, keep)
    params = controls.matched(CONFIG.network, mine._replace(params=masked), model, case)

    def sizes(params, keep):
        x, found = np.asarray(case.data.inputs).reshape(len(case.data.inputs), -1), []
        for name in ("hidden_0", "hidden_1", "output"):
            z = x @ np.asarray(params[name]["kernel"]) + np.asarray(params[name]["bias"])
            kept = keep.get(name, np.ones(z.shape[1], bool))
            found.append(np.sqrt(np.mean(z[:, kept] ** 2)))
            x = np.tanh(z)
        return found

    np.testing.assert_allclose(sizes(params, keep), sizes(model.params, model.keep), rtol=1e-4)
    assert float(jnp.abs(params["hidden_0"]["kernel"][:, 4:]).max()) == 0


def test_a_fresh_network_is_narrow_and_its_own(case):
    params, keep = controls.fresh(CONFIG.network, 0.5, case)
    assert [int(k.sum()) for k in keep.values()] == [4, 3]
    kernel = params["hidden_0"]["kernel"]
    assert float(jnp.abs(kernel[:, 4:]).max()) == 0
    assert not jnp.allclose(kernel[:, :4], case.params["hidden_0"]["kernel"][:, :4])


def test_widths_are_the_given_ones_and_nodes_are_the_largest(case):
    shares = {"hidden_0": 6 / 8, "hidden_1": 1 / 6}
    found = choosing._at_shares("magnitude", case, shares, 0.0)
    assert [int(k.sum()) for k in found.keep.values()] == [6, 1]
    norms = np.linalg.norm(np.asarray(case.params["hidden_0"]["kernel"]), axis=0)
    assert set(np.flatnonzero(~found.keep["hidden_0"])) == set(np.argsort(norms)[:2])


@pytest.mark.parametrize(("method", "widths"), [("tapered", [6, 2]), ("flared", [2, 5])])
def test_tapered_and_flared_controls_spread_the_fraction(case, method, widths):
    found = choosing.choose(CONFIG, REGIME, f"random_{method}", 0.5, 1.0, case)
    assert [int(k.sum()) for k in found.keep.values()] == widths
    assert controls.shares(1.0, case, "tapered") == {"hidden_0": 1.0, "hidden_1": 0.5}


def test_small_controls_choose_on_halved_kernels(case):
    found = choosing.choose(CONFIG, REGIME, "magnitude_small", 0.5, 1.0, case)
    plain = choosing.choose(CONFIG, REGIME, "magnitude", 0.5, 1.0, case)
    for name, kept in plain.keep.items():  # The largest are the largest of the halved ones too.
        np.testing.assert_array_equal(found.keep[name], kept)
    kernel, halved = (choice.params["output"]["kernel"] for choice in (plain, found))
    np.testing.assert_array_equal(halved, kernel / 2)
    whole = choosing.choose(CONFIG, REGIME, "dense_small", 0.5, 1.0, case)
    assert all(kept.all() for kept in whole.keep.values())


def test_small_controls_normalise_by_the_statistics_of_halved_kernels():
    rng = np.random.default_rng(0)
    images = rng.normal(size=(48, 8, 8, 1)).astype(np.float32)
    examples = Examples(images, np.arange(48) % 10)
    config = replace(CONFIG, network=network("cnn", channels=(4, 4), hidden=(8,)))
    case = case_of(config, REGIME, Splits(examples, examples, 10, "noise"), 0)
    found = choosing.choose(config, REGIME, "dense_small", 0.5, 1.0, case)
    for leaf, whole in zip(*map(jax.tree.leaves, (found.params, case.params)), strict=True):
        np.testing.assert_array_equal(leaf, whole / 2 if leaf.ndim > 1 else whole)
    # One batch, momentum .9: the mean went from 0 to .1 M, and now by .1 (M / 2 - .1 M).
    means = [
        leaf
        for model in (found.state, case.state.model)
        for path, leaf in jax.tree.leaves_with_path(model)
        if "mean" in jax.tree_util.keystr(path)
    ]
    np.testing.assert_allclose(means[0], 1.4 * means[len(means) // 2], rtol=1e-4, atol=1e-6)


def test_products_one_by_one_give_the_hessian_norm_of_lanczos(case, monkeypatch):
    now = start(case.params, case.state, optimizer(REGIME, 0.1), key=jax.random.key(0))
    expected = measures.hessian_norm(case.subject, now, case.data)
    monkeypatch.setattr(measures, "scans_slowly", lambda _: True)
    found = measures.hessian_norm(case.subject, now, case.data)
    np.testing.assert_allclose(found, expected, rtol=1e-3)
    broken = now._replace(params=jax.tree.map(lambda leaf: leaf * np.nan, now.params))
    with pytest.raises(ValueError, match="could not be resolved"):
        measures.hessian_norm(case.subject, broken, case.data)


@pytest.mark.parametrize("name", PAPER)
def test_networks_of_the_papers_size_train(name):
    """Shapes alone: nothing is allocated or compiled. Two blocks of a transformer stand for all."""
    config = PAPER[name]
    sizes = dict(config.network.sizes)
    if "layers" in sizes:
        shallow = tuple((sizes | {"layers": 2}).items())
        config = replace(config, network=replace(config.network, sizes=shallow))
    kinds = {"mlp": GRAY, "cnn": GRAY, "encoder": TEXT, "switch": TEXT}
    shape = kinds.get(config.network.kind, IMAGES)
    regime = config.regimes[-1]
    subject = trainer(config.network, regime, shape, None)
    model = subject.net.model
    inputs = jax.ShapeDtypeStruct((2, *shape.inputs), shape.dtype)
    square = regime.loss == "square"
    labels = (10,) if square else shape.inputs if shape is TEXT else ()
    targets = jax.ShapeDtypeStruct((2, *labels), np.float32 if square else np.int32)

    def run(params, state, inputs, targets):
        first = start(
            params, State(state, {}), optimizer(regime, 0.0), key=jax.random.key(0)
        )  # fmt: skip
        indices = jnp.zeros((3, 2), jnp.int32)
        return subject.stretch(first, (inputs, targets), indices, rate=0.1)

    last, info = jax.eval_shape(run, model.params, model.state, inputs, targets)
    assert info.loss.shape == (3,)
    assert jax.tree.map(jnp.shape, last.params) == jax.tree.map(jnp.shape, model.params)


def test_initial_weights_differ_between_keys():
    one, other = (build(CONFIG.network, GRAY, jax.random.key(k)) for k in (0, 1))
    kernels = [nnx.to_pure_dict(nnx.state(m))["output"]["kernel"] for m in (one, other)]
    assert not jnp.allclose(*kernels)


def test_correlations_say_where_there_is_none():
    methods = [f"gd/{name}" for name in "abcdef" for _ in range(3)]
    rising = np.arange(18.0)
    found = correlation(rising, rising**3, methods)
    assert (found.value, found.low, found.high) == (1.0, 1.0, 1.0)
    assert "no correlation" not in found.text
    draws = np.random.default_rng(1)
    null = correlation(draws.normal(size=18), draws.normal(size=18), methods)
    assert null.low <= 0 <= null.high
    assert null.text.endswith("no correlation seen")
