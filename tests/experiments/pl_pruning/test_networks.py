# SPDX-License-Identifier: Apache-2.0
"""Every kind of network is gated, shrunk and trained on: two steps at the smallest sizes."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments.pl_pruning import gating, training
from experiments.pl_pruning import run as running
from experiments.pl_pruning.choosing import choose
from experiments.pl_pruning.config import PRESETS, check
from experiments.pl_pruning.data import Examples, Splits
from experiments.pl_pruning.methods import METHODS
from experiments.pl_pruning.networks import Shape, build
from experiments.pl_pruning.problem import problem_of
from experiments.pl_pruning.settings import network
from experiments.progress import Progress

pytestmark = pytest.mark.usefixtures("models_broadcast")

TEXT = {"exclude": ("*.query", "*.value"), "features": 8, "layers": 1, "heads": 2, "width": 8}
# The preset whose settings are taken, the network, and the groups that lose half of their nodes.
KINDS = {
    "vgg": ("cifar10_vgg", network("vgg", stages=((4,), (4,)), hidden=(6,)), 3),
    "resnet": ("cifar10_resnet", network("resnet", blocks=(1,), widths=(6,)), 2),
    "encoder": ("shakespeare_bert", network("encoder", **TEXT), 2),
    "switch": ("shakespeare_switch", network("switch", experts=2, **TEXT), 3),
}


def splits_of(text):
    draws = np.random.default_rng(0)
    if text:
        tokens = draws.integers(0, 5, (24, 4))
        examples = Examples(tokens, tokens)
        return Splits(examples, examples, 6, "noise")
    images = draws.normal(size=(24, 4, 4, 3)).astype(np.float32)
    examples = Examples(images, np.arange(24) % 2)
    return Splits(examples, examples, 2, "noise")


@pytest.mark.parametrize("kind", KINDS)
def test_networks_of_every_kind_lose_nodes_and_train_on(monkeypatch, kind):
    preset, net, groups = KINDS[kind]
    config = PRESETS[preset]
    regime = replace(
        config.regimes[0], train_examples=16, batch_size=8, max_steps=2, rates=(0.01,),
        initial_updates=1, target=1e-9,
    )  # fmt: skip
    config = replace(
        config, network=net, regimes=(regime,), methods=("kappa",), seeds=1, probe_size=6,
        log_every=2, curve_examples=0, track=0, held_out=4,
    )  # fmt: skip
    check(config)
    if kind != "resnet":  # Measures compile slowly; one kind with statistics stands for all.
        monkeypatch.setattr(running, "conditioning", lambda *_: {})
        monkeypatch.setattr(training, "hessian_norm", lambda *_: 1.0)
    monkeypatch.setattr(running, "load_splits", lambda _: splits_of("features" in dict(net.sizes)))
    results, curves = running.run(config, progress=Progress())
    ((name, found),) = results.items()
    assert found["masked_difference"][0] <= 1e-5
    assert found["kept_nodes"] == [0.5]
    kept = [curve for key, curve in curves.items() if key.startswith(f"{name}/kept ")]
    assert [curve.mean() for curve in kept] == [0.5] * groups
    losses = curves[f"{name}/train_loss"][0]
    assert len(losses) == 2
    assert np.isfinite(losses).all()
    assert losses[0] != losses[1]


def test_convolutions_are_gated_in_training_step_by_step_as_in_a_scan(monkeypatch):
    config = replace(
        PRESETS["fashion_mnist_cnn"],
        network=network("cnn", channels=(4,), hidden=(6,)),
        probe_size=6,
    )
    regime = replace(
        config.regimes[0], train_examples=16, batch_size=8, period=2, freeze_at=4,
        initial_updates=1, validation=0,
    )  # fmt: skip
    problem = problem_of(config, regime, splits_of(text=False), 0)
    found = {}
    for slow in (True, False):
        monkeypatch.setattr("plprune.training.scans_slowly", lambda _, slow=slow: slow)
        gating._warm_up.cache_clear()
        found[slow] = choose(config, regime, "kappa", 0.5, 0.1, problem)
        by = METHODS["kappa"].by
        budget = gating.budget_of(config, by, 0.5, problem)
        run = gating._warm_up(budget, regime, by, problem.trainer, problem.dense)
        assert run.scans is not slow
    steps, scan = found[True], found[False]
    assert len(steps.info.loss) == 4
    assert steps.kept[0] == 1  # The kept fraction falls from 1.
    assert steps.kept[-1] == 0.5
    np.testing.assert_array_equal(steps.kept, scan.kept)
    jax.tree.map(np.testing.assert_array_equal, steps.keep, scan.keep)
    close = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    jax.tree.map(close, steps.params, scan.params)
    np.testing.assert_allclose(steps.info.loss, scan.info.loss, rtol=1e-4)


def test_initial_weights_differ_between_keys():
    net, gray = PRESETS["quick"].network, Shape((28, 28, 1), np.dtype("float32"), 10)
    one, other = (build(net, gray, jax.random.key(k)) for k in (0, 1))
    kernels = [nnx.to_pure_dict(nnx.state(m))["output"]["kernel"] for m in (one, other)]
    assert not jnp.allclose(*kernels)
