# SPDX-License-Identifier: Apache-2.0
"""Every kind of network is gated, shrunk and trained on: two steps at the smallest sizes."""

from dataclasses import replace

import numpy as np
import pytest

from experiments.pl_pruning import run as running
from experiments.pl_pruning import training
from experiments.pl_pruning.arrays import Examples, Splits
from experiments.pl_pruning.config import PRESETS, check
from experiments.pl_pruning.settings import network
from experiments.progress import Silent

pytestmark = pytest.mark.usefixtures("models_broadcast")

TEXT = {"exclude": ("*.query", "*.value"), "features": 4, "layers": 1, "heads": 2, "width": 4}
# The preset whose settings are taken, the network, and the groups that lose half of their nodes.
KINDS = {
    "vgg": ("cifar10_vgg", network("vgg", stages=((4,), (4,)), hidden=(6,)), 3),
    "resnet": ("cifar10_resnet", network("resnet", blocks=(1,), widths=(4,)), 2),
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
    results, curves = running.run(config, progress=Silent())
    ((name, found),) = results.items()
    assert found["masked_difference"][0] <= 1e-5
    assert found["kept_nodes"] == [0.5]
    kept = [curve for key, curve in curves.items() if key.startswith(f"{name}/kept ")]
    assert [curve.mean() for curve in kept] == [0.5] * groups
    losses = curves[f"{name}/train_loss"][0]
    assert len(losses) == 2
    assert np.isfinite(losses).all()
    assert losses[0] != losses[1]
