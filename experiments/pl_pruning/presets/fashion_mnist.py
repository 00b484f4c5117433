# SPDX-License-Identifier: Apache-2.0
"""Perceptrons and convolutional networks on Fashion-MNIST."""

from dataclasses import replace

from experiments import About
from experiments.pl_pruning.methods import ANYWHERE
from experiments.pl_pruning.presets.common import CONTROLLED, SMALL, UNKNOWN, WIDTHS
from experiments.pl_pruning.settings import Config, Regime, network

_DATA = "fashion_mnist in TFDS_DATA_DIR"
ABOUT = {
    "fashion_mnist": About(
        9, _DATA,
        "digits' claim at larger size under the square loss; cross-entropy shows whatever comes "
        "out.",
        "in square kappa is the most accurate and needs a third of the others' steps.",
    ),
    "fashion_mnist_controls": About(
        6, _DATA,
        "The confound of scale in square, as digits_controls; a wider grid of rates.",
        "scale alone does what kappa does: random nodes at its scale reach its loss, dense with "
        "halved kernels a lower one.",
    ),
    "fashion_mnist_square": About(
        18, _DATA,
        "square with early stopping, at two fractions, beside dense with halved kernels.",
        "kappa's half 85.5 % in a third of dense's steps, dense 85.0, the best score 85.1.",
    ),
    "fashion_mnist_square_all": About(
        20, _DATA,
        "The same on all images (55,000 to train on, 5,000 to stop by).",
        "kappa 87.8 %, dense 86.1, the best other half 86.6; dense with halved kernels 89.1.",
    ),
    "fashion_mnist_small": About(
        7, _DATA,
        "Does the condition number add anything to halved kernels?",
        "little: kappa's half ends at a loss of .012, all nodes and other halves at .016.",
    ),
    "fashion_mnist_sgd": About(
        17, _DATA,
        "Cross-entropy at three fractions, decaying to zero, with more steps for fewer nodes.",
        "at half of the nodes all within .3 points of dense (86.2 %; 86.1 with --seeds 10), in .4 "
        "of its time; kappa_outputs in .5, with half of dense's condition number.",
    ),
    "fashion_mnist_online": About(
        15, _DATA,
        "Nodes closed while the dense network trains, and reopened, until they are frozen.",
    ),
    "fashion_mnist_sgd_all": About(
        15, _DATA,
        "fashion_mnist_sgd on all images; narrow networks then learn as much as they can hold.",
        "kappa and dense at 89.3 %, all other halves within .3 points of them.",
    ),
    "fashion_mnist_widths": About(
        15, _DATA,
        "Does the condition number tell good widths from bad ones? Random nodes, spread in three "
        "ways.",
        "no; the loss falls with the number of weights, and kappa_global keeps few of them.",
    ),
    "fashion_mnist_cnn": About(
        17, _DATA,
        "A convolutional network with BatchNorm; half an hour with --keep 0.5,0.25,0.1.",
        "kappa is the most accurate (86.3 %; dense 84.9), until dense starts from halved kernels "
        "(dense_small, 86.2).",
    ),
}  # fmt: skip

_FEW = ("dense", "kappa", "kappa_risk", "random", "magnitude", "snip")

_SQUARE = Regime(
    name="square", loss="square", train_examples=10_000, batch_size=128, max_steps=1500,
    rates=(1.0, 1.5, 2.0, 2.5, 3.0), rate_unit="1/L", target=0.0, centred=True,
)  # fmt: skip

_CROSS_ENTROPY = Regime(
    name="sgd", loss="cross_entropy", train_examples=10_000, batch_size=128, max_steps=1500,
    rates=(0.01, 0.03, 0.1, 0.3), rate_unit="1", target=0.0,
)  # fmt: skip

FASHION_MNIST = Config(
    dataset="fashion_mnist",
    network=network("mlp", hidden=(256, 256), activation="relu"),
    regimes=(_SQUARE, _CROSS_ENTROPY),
    scale="10,000 of Fashion-MNIST's 60,000 training images and an MLP with two hidden layers; "
    + UNKNOWN,
)

FASHION_CONTROLS = replace(
    FASHION_MNIST,
    regimes=(replace(_SQUARE, rates=(1.0, 2.0, 3.0, 4.0)),),
    methods=CONTROLLED,
    search_seeds=1,
    log_every=50,
    curve_examples=2000,
    track=0,
)

FASHION_SQUARE = replace(
    FASHION_CONTROLS,
    regimes=(replace(_SQUARE, rates=(2.0, 3.0, 4.0, 6.0), max_steps=6000, validation=5000),),
    methods=("dense", "dense_small", "kappa", "kappa_outputs", *ANYWHERE),
    keep=(0.5, 0.25),
    log_every=100,
)

_ALL_IMAGES = f"All of Fashion-MNIST, 5,000 images to stop by, MLP; {UNKNOWN}"

FASHION_SQUARE_ALL = replace(
    FASHION_SQUARE,
    regimes=(replace(FASHION_SQUARE.regimes[0], train_examples=55_000, max_steps=8000),),
    methods=("dense", "dense_small", "kappa", *ANYWHERE),
    log_every=200,
    scale=_ALL_IMAGES,
)

# Smaller rates: kappa's best is 1/L.
FASHION_SMALL = replace(
    FASHION_SQUARE,
    regimes=(replace(FASHION_SQUARE.regimes[0], rates=(0.5, 1.0, 2.0, 4.0, 6.0)),),
    methods=("dense", "dense_small", *SMALL),
    keep=(0.5,),
)

# Cross-entropy at three fractions, decaying to zero: the last iterate at a constant rate is noisy.
# Networks that lost nodes train 1.4 times the steps, which still cost them less time than dense's.
_COSINE = replace(_CROSS_ENTROPY, decay="cosine", max_steps=3000, validation=5000)
FASHION_SGD = replace(
    FASHION_CONTROLS,
    regimes=(replace(_COSINE, rates=(0.1, 0.3, 0.6), extension=1.4),),
    methods=(*_FEW, "kappa_outputs"),
    keep=(0.5, 0.25, 0.1),
    search_seeds=3,
    track=3,
    wide_held_out=256,
)

# Nodes closed while the dense network trains: gates move every 25 steps, the kept fraction falls
# along a cubic over the first 500, and closed nodes may reopen until then.
FASHION_ONLINE = replace(
    FASHION_SGD,
    regimes=(replace(FASHION_SGD.regimes[0], period=25, freeze_at=500),),
    methods=(*_FEW, "kappa_hard_concrete", "taylor"),
    search_seeds=1,
    wide_held_out=0,
)

FASHION_SGD_ALL = replace(
    FASHION_SGD,
    regimes=(replace(FASHION_SGD.regimes[0], train_examples=55_000, max_steps=8000),),
    search_seeds=1,
    log_every=200,
    track=0,
    scale=_ALL_IMAGES,
)

FASHION_WIDTHS = replace(
    FASHION_SGD,
    regimes=(replace(_COSINE, rates=(0.1, 0.3)),),
    methods=("dense", "random", *WIDTHS, "kappa_global"),
    search_seeds=1,
    track=0,
)

FASHION_CNN = replace(
    FASHION_SGD,
    network=network("cnn", channels=(16, 32), hidden=(64,)),
    methods=_FEW,
    keep=(0.5,),
    search_seeds=1,
    regimes=(replace(_COSINE, max_steps=400, validation=0, rates=(0.1, 0.3), extension=1.5),),
    log_every=40,
    curve_examples=1000,
    track=3,
    all_outputs=False,
    scale="10,000 of Fashion-MNIST's 60,000 training images and a CNN with two stages; " + UNKNOWN,
)  # fmt: skip
