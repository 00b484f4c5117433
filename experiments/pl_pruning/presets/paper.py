# SPDX-License-Identifier: Apache-2.0
"""Every preset at the size of one GPU."""

from dataclasses import replace

from experiments.pl_pruning.methods import ANYWHERE
from experiments.pl_pruning.presets.common import UNKNOWN
from experiments.pl_pruning.presets.digits import DIGITS_ALL
from experiments.pl_pruning.presets.fashion_mnist import FASHION_CNN, FASHION_MNIST
from experiments.pl_pruning.presets.larger import (
    BERT,
    CIFAR_RESNET,
    CIFAR_VGG,
    SWITCH,
    WITHIN_HEADS,
)
from experiments.pl_pruning.settings import Config, network

_BASELINES = ("dense", "kappa", "kappa_risk", *ANYWHERE)


def _paper(config: Config, *, net=None, **changes) -> Config:
    """At the size of one GPU: all of the data, 5 seeds, three fractions, every baseline."""
    regimes = tuple(replace(regime, **changes) for regime in config.regimes)
    return replace(
        config, network=net or config.network, regimes=regimes, methods=_BASELINES, seeds=5,
        search_seeds=2, keep=(0.5, 0.25, 0.1), curve_examples=5000, log_every=200,
        scale="Sized for one GPU after the networks that the field uses; " + UNKNOWN,
    )  # fmt: skip


_LONG = {"train_examples": 45_000, "validation": 5000, "max_steps": 64_000}
_TEXT = {"train_examples": 7_800, "max_steps": 20_000, "rates": (1e-4, 3e-4, 1e-3)}
_BASE = {"features": 768, "layers": 12, "heads": 12, "width": 3072}
_VGG16 = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
PAPER = {
    "digits": replace(DIGITS_ALL, seeds=20, keep=(0.75, 0.5, 0.25, 0.1)),
    "fashion_mnist": _paper(FASHION_MNIST, train_examples=55_000, validation=5000,
                            max_steps=40_000),
    "fashion_mnist_cnn": _paper(
        FASHION_CNN, net=network("cnn", channels=(64, 128), hidden=(256,)),
        train_examples=55_000, validation=5000, max_steps=20_000,
    ),
    "cifar10_vgg": _paper(CIFAR_VGG, net=network("vgg", stages=_VGG16), **_LONG),
    "cifar10_resnet": _paper(
        CIFAR_RESNET, net=network("resnet", blocks=(3, 3, 3), widths=(16, 32, 64)), **_LONG
    ),
    "shakespeare_bert": replace(
        _paper(BERT, net=network("encoder", exclude=WITHIN_HEADS, **_BASE), **_TEXT),
        sequence_length=128,
    ),
    "shakespeare_switch": replace(
        _paper(SWITCH, net=network("switch", exclude=WITHIN_HEADS, experts=8, **_BASE), **_TEXT),
        sequence_length=128,
    ),
}  # fmt: skip
