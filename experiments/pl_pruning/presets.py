# SPDX-License-Identifier: Apache-2.0
"""The sizes at which the experiment is run, on a CPU and on one GPU."""

from dataclasses import replace

from experiments.pl_pruning.methods import CONTROLS, DEFAULT, LEARNED, SCORED
from experiments.pl_pruning.settings import Config, Regime, network

_UNKNOWN = "the paper's own settings are not public."
_BASELINES = ("dense", "kappa", "kappa_risk", *SCORED)
_FEW = ("dense", "kappa", "kappa_risk", "random", "magnitude", "snip")

_GD = Regime(
    name="gd", loss="square", train_examples=100, batch_size=100, max_steps=6000,
    rates=(1.0,), rate_unit="1/L", target=1e-3, tests_on_rest=True,
)  # fmt: skip

_SGD = Regime(
    name="sgd", loss="cross_entropy", train_examples=1437, batch_size=128, max_steps=1500,
    rates=(0.03, 0.1, 0.3), rate_unit="1", target=0.0,
)  # fmt: skip

# Claim [Chen 2023]: nodes chosen by the condition number train faster at no loss of accuracy.
# python -m experiments pl_pruning --preset digits (the command of `make run`), about 1.5 minutes.
# Expected: kappa needs less than half of dense's steps in `gd`, random and magnitude as many as it.
_DIGITS = Config(
    dataset="digits",
    network=network("mlp", hidden=(256, 256), activation="tanh"),
    regimes=(_GD, _SGD),
    track=0,  # `make run` shall be short.
    scale=f"1,797 embedded digits and an MLP with two hidden layers; {_UNKNOWN}",
)

# The same in `gd` for every way to choose, over 5 seeds, at the step 1/L and at the best multiple.
# python -m experiments pl_pruning --preset digits_all, 7 minutes. Expected: kappa 1,416 steps,
# dense 3,508, the best score 3,282; at the best rates 946, 939 and 1,141.
_TUNED_GD = replace(_GD, name="gd_tuned", rates=(1.0, 1.5, 2.0, 2.5, 3.0, 4.0))
_DIGITS_ALL = replace(
    _DIGITS,
    regimes=(_GD, _TUNED_GD),
    methods=("dense", *LEARNED, *SCORED),
    seeds=5,
    search_seeds=2,
)

# What part of the gain is scale? Random and largest nodes at kappa's widths or kappa's scale, dense
# at kappa's scale or with halved weights, a fresh narrow net, each at 1/L and at its own best rate.
# python -m experiments pl_pruning --preset digits_controls, about 6 minutes.
# Expected at 1/L: kappa 1,400 steps, controls of scale 3,400 or more; tuned, dense comes close.
_WIDTHS = ("random_tapered", "random_flared")
_SMALL = ("kappa_small", "random_small", "magnitude_small")
_CONTROLLED = (
    "dense", "kappa", "kappa_annealed", "kappa_global", "random", "magnitude",
    *(name for name in CONTROLS if name not in (*_SMALL, *_WIDTHS)),
)  # fmt: skip
_DIGITS_CONTROLS = replace(_DIGITS_ALL, methods=_CONTROLLED)

_SQUARE = Regime(
    name="square", loss="square", train_examples=10_000, batch_size=128, max_steps=1500,
    rates=(1.0, 1.5, 2.0, 2.5, 3.0), rate_unit="1/L", target=0.0, centred=True,
)  # fmt: skip

_CROSS_ENTROPY = Regime(
    name="sgd", loss="cross_entropy", train_examples=10_000, batch_size=128, max_steps=1500,
    rates=(0.01, 0.03, 0.1, 0.3), rate_unit="1", target=0.0,
)  # fmt: skip

# Claim: the same under the square loss at larger size; cross-entropy shows whatever comes out.
# python -m experiments pl_pruning --preset fashion_mnist (needs TFDS_DATA_DIR), about 5 minutes.
# Expected: in `square` kappa is the most accurate and needs a third of the others' steps.
_FASHION_MNIST = Config(
    dataset="fashion_mnist",
    network=network("mlp", hidden=(256, 256), activation="relu"),
    regimes=(_SQUARE, _CROSS_ENTROPY),
    scale="10,000 of Fashion-MNIST's 60,000 training images and an MLP with two hidden layers; "
    + _UNKNOWN,
)

# The confound in `square`, as `digits_controls`; a wider grid of rates.
# TFDS_DATA_DIR=... python -m experiments pl_pruning --preset fashion_mnist_controls, 6 minutes.
# Expected: scale alone does what kappa does. Random nodes at its scale reach its loss, dense with
# halved kernels a lower one.
_WIDER = (1.0, 2.0, 3.0, 4.0)
_FASHION_CONTROLS = replace(
    _FASHION_MNIST,
    regimes=(replace(_SQUARE, rates=_WIDER),),
    methods=_CONTROLLED,
    seeds=5,
    search_seeds=1,
    log_every=50,
    curve_examples=2000,
    track=0,
)

# `square` trained on with early stopping, at two fractions, beside dense with halved kernels.
# TFDS_DATA_DIR=... python -m experiments pl_pruning --preset fashion_mnist_square, 9 minutes.
# Expected: kappa 85.6 % in a third of dense's steps, dense 85.1, from halved kernels 86.7.
_FASHION_SQUARE = replace(
    _FASHION_CONTROLS,
    regimes=(replace(_SQUARE, rates=_WIDER, max_steps=6000, validation=5000),),
    methods=("dense", "dense_small", "kappa", "random", "magnitude", "snip"),
    keep=(0.5, 0.25),
    log_every=100,
)

# The same on all images (55,000 to train on, 5,000 to stop by).
# TFDS_DATA_DIR=... python -m experiments pl_pruning --preset fashion_mnist_square_all, 12 minutes.
# Expected: kappa 87.8 %, dense 86.1, the best other half 86.6; dense with halved kernels 89.1.
_FASHION_SQUARE_ALL = replace(
    _FASHION_SQUARE,
    regimes=(
        replace(_FASHION_SQUARE.regimes[0], rates=(2.0, 3.0, 4.0, 6.0), train_examples=55_000,
                max_steps=8000),
    ),
    log_every=200,
    scale=f"All of Fashion-MNIST, 5,000 images to stop by, MLP; {_UNKNOWN}",
)  # fmt: skip

# Does the condition number add anything to halved kernels? Wider rates, since 4/L was the best.
# TFDS_DATA_DIR=... python -m experiments pl_pruning --preset fashion_mnist_small, 4 minutes.
# Expected: no. Random, largest and kappa's nodes end at .01 to .03, all nodes at .017.
_FASHION_SMALL = replace(
    _FASHION_SQUARE,
    regimes=(replace(_FASHION_SQUARE.regimes[0], rates=(2.0, 4.0, 6.0, 8.0)),),
    methods=("dense", "kappa", "random", "magnitude", "dense_small", *_SMALL),
    keep=(0.5,),
    seeds=3,
)

# Cross-entropy at three fractions, decaying to zero: the last iterate at a constant rate is noisy.
# Networks that lost nodes train 1.4 times the steps, which still cost them less time than dense's.
# TFDS_DATA_DIR=... python -m experiments pl_pruning --preset fashion_mnist_sgd, 13 minutes.
# Expected at half of the nodes: all within .3 points of dense (86.2 %), in .4 of its time.
_COSINE = replace(_CROSS_ENTROPY, decay="cosine", max_steps=3000, validation=5000)
_FASHION_SGD = replace(
    _FASHION_CONTROLS,
    regimes=(replace(_COSINE, rates=(0.1, 0.3, 0.6), extension=1.4),),
    methods=(*_FEW, "kappa_outputs"),
    keep=(0.5, 0.25, 0.1),
    search_seeds=3,
    wide_held_out=256,
)

# Does the condition number tell good widths from bad ones? Random nodes, three ways to spread them.
# TFDS_DATA_DIR=... python -m experiments pl_pruning --preset fashion_mnist_widths, 15 minutes.
# Expected: no; the loss falls with the number of weights, and `kappa_global` keeps few of them.
_FASHION_WIDTHS = replace(
    _FASHION_SGD,
    regimes=(replace(_COSINE, rates=(0.1, 0.3)),),
    methods=("dense", "random", *_WIDTHS, "kappa_global"),
    search_seeds=1,
)

# A convolutional network with BatchNorm: kappa is the most accurate (86.3 %; dense 84.9).
# TFDS_DATA_DIR=... python -m experiments pl_pruning --preset fashion_mnist_cnn, 20 minutes or so.
_FASHION_CNN = replace(
    _FASHION_SGD,
    network=network("cnn", channels=(16, 32), hidden=(64,)),
    methods=_FEW,
    keep=(0.5, 0.25),
    search_seeds=1,
    regimes=(replace(_COSINE, max_steps=400, validation=0, rates=(0.1, 0.3), extension=1.5),),
    log_every=40,
    curve_examples=1000,
    track=2,
    all_outputs=False,
    scale="10,000 of Fashion-MNIST's 60,000 training images and a CNN with two stages; " + _UNKNOWN,
)  # fmt: skip

_CIFAR = Regime(
    name="sgd", loss="cross_entropy", train_examples=10_000, batch_size=128, max_steps=300,
    rates=(0.03, 0.1), rate_unit="1", target=0.0, optimizer="momentum", decay="cosine",
)  # fmt: skip

# TFDS_DATA_DIR=... python -m experiments pl_pruning --preset cifar10_vgg; 2 seeds: 7 minutes.
# Expected: dense 53.2 %, kappa 48.6, random 47.8, magnitude 47.3.
_CIFAR_VGG = Config(
    dataset="cifar10",
    network=network("vgg", stages=((8,), (16,), (32, 32), (64, 64), (64, 64))),
    regimes=(_CIFAR,),
    methods=DEFAULT,
    seeds=5,
    search_seeds=1,
    log_every=50,
    curve_examples=1000,
    track=3,
    all_outputs=False,
    scale="10,000 of CIFAR-10's 50,000 training images, 300 steps and an eighth of VGG-11's "
    "channels; " + _UNKNOWN,
)

# TFDS_DATA_DIR=... python -m experiments pl_pruning --preset cifar10_resnet, 15 minutes or so.
# Expected: dense is the most accurate (46.8 %); kappa 42.0, random 42.8, magnitude 43.1.
_CIFAR_RESNET = replace(
    _CIFAR_VGG,
    network=network("resnet", blocks=(1, 1, 1), widths=(8, 16, 32)),
    scale="10,000 of CIFAR-10's 50,000 training images, 300 steps and a narrow ResNet-8; "
    + _UNKNOWN,
)

_WITHIN_HEADS = ("*.query", "*.value")
_MASKED = Regime(
    name="masked", loss="masked_tokens", train_examples=15_000, batch_size=32, max_steps=2000,
    rates=(1e-3, 3e-3), rate_unit="1", target=0.0, optimizer="adamw", decay="cosine",
)  # fmt: skip

# TFDS_DATA_DIR=... python -m experiments pl_pruning --preset shakespeare_bert, 15 to 20 minutes.
# Expected: dense is the best (47.2 % of masked bytes), random 44.4, kappa 43.9.
_BERT = replace(
    _CIFAR_VGG,
    dataset="tiny_shakespeare",
    network=network("encoder", exclude=_WITHIN_HEADS, features=64, layers=2, heads=4, width=256),
    regimes=(_MASKED,),
    sequence_length=64,
    probe_size=32,
    standardise=False,
    scale="A two-layer encoder on the bytes of Tiny Shakespeare; " + _UNKNOWN,
)

# TFDS_DATA_DIR=... python -m experiments pl_pruning --preset shakespeare_switch; 2 seeds: 8
# minutes. Expected: dense is the best (35.2 % of next bytes), random 32.9, kappa 32.5.
_SWITCH = replace(
    _BERT,
    network=network(
        "switch", exclude=_WITHIN_HEADS, features=64, layers=2, heads=4, width=128, experts=4
    ),
    regimes=(replace(_MASKED, name="next", loss="next_token", max_steps=400),),
    scale="A two-layer Switch transformer on the bytes of Tiny Shakespeare; " + _UNKNOWN,
)

# A smoke test of both regimes, under a minute. Its numbers mean nothing.
_QUICK = replace(
    _DIGITS,
    network=network("mlp", hidden=(32, 32), activation="tanh"),
    regimes=(
        replace(_GD, train_examples=32, batch_size=32, max_steps=400, target=0.05),
        replace(_SGD, train_examples=256, batch_size=64, max_steps=100, rates=(0.1, 0.3),
                initial_updates=5, period=10, freeze_at=40),
    ),
    seeds=2,
    probe_size=32,
    scale="A smoke test: 256 digits, 100 steps.",
)  # fmt: skip


def _paper(config: Config, *, net=None, **changes) -> Config:
    """At the size of one GPU: all of the data, 5 seeds, three fractions, every baseline."""
    regimes = tuple(replace(regime, **changes) for regime in config.regimes)
    return replace(
        config, network=net or config.network, regimes=regimes, methods=_BASELINES, seeds=5,
        search_seeds=2, keep=(0.5, 0.25, 0.1), curve_examples=5000, log_every=200,
        scale="Sized for one GPU after the networks that the field uses; " + _UNKNOWN,
    )  # fmt: skip


_LONG = {"train_examples": 45_000, "validation": 5000, "max_steps": 64_000}
_TEXT = {"train_examples": 7_800, "max_steps": 20_000, "rates": (1e-4, 3e-4, 1e-3)}
_BASE = {"features": 768, "layers": 12, "heads": 12, "width": 3072}
_VGG16 = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
PAPER = {
    "digits": replace(_DIGITS_ALL, seeds=20, keep=(0.75, 0.5, 0.25, 0.1)),
    "fashion_mnist": _paper(_FASHION_MNIST, train_examples=55_000, validation=5000,
                            max_steps=40_000),
    "fashion_mnist_cnn": _paper(
        _FASHION_CNN, net=network("cnn", channels=(64, 128), hidden=(256,)),
        train_examples=55_000, validation=5000, max_steps=20_000,
    ),
    "cifar10_vgg": _paper(_CIFAR_VGG, net=network("vgg", stages=_VGG16), **_LONG),
    "cifar10_resnet": _paper(
        _CIFAR_RESNET, net=network("resnet", blocks=(3, 3, 3), widths=(16, 32, 64)), **_LONG
    ),
    "shakespeare_bert": replace(
        _paper(_BERT, net=network("encoder", exclude=_WITHIN_HEADS, **_BASE), **_TEXT),
        sequence_length=128,
    ),
    "shakespeare_switch": replace(
        _paper(_SWITCH, net=network("switch", exclude=_WITHIN_HEADS, experts=8, **_BASE), **_TEXT),
        sequence_length=128,
    ),
}  # fmt: skip

PRESETS = {
    "digits": _DIGITS,
    "digits_all": _DIGITS_ALL,
    "digits_controls": _DIGITS_CONTROLS,
    "fashion_mnist": _FASHION_MNIST,
    "fashion_mnist_controls": _FASHION_CONTROLS,
    "fashion_mnist_square": _FASHION_SQUARE,
    "fashion_mnist_square_all": _FASHION_SQUARE_ALL,
    "fashion_mnist_small": _FASHION_SMALL,
    "fashion_mnist_sgd": _FASHION_SGD,
    "fashion_mnist_widths": _FASHION_WIDTHS,
    "fashion_mnist_cnn": _FASHION_CNN,
    "cifar10_vgg": _CIFAR_VGG,
    "cifar10_resnet": _CIFAR_RESNET,
    "shakespeare_bert": _BERT,
    "shakespeare_switch": _SWITCH,
    "quick": _QUICK,
    **{f"{name}_paper": config for name, config in PAPER.items()},
}
