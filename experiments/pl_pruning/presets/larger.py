# SPDX-License-Identifier: Apache-2.0
"""Networks on CIFAR-10 and Tiny Shakespeare."""

from dataclasses import replace

from experiments import About
from experiments.pl_pruning.methods import DEFAULT
from experiments.pl_pruning.presets.common import UNKNOWN
from experiments.pl_pruning.settings import Config, Regime, network

_CIFAR_DATA = "cifar10 in TFDS_DATA_DIR"
_TEXT_DATA = "tiny_shakespeare in TFDS_DATA_DIR"
ABOUT = {
    "cifar10_vgg": About(
        14, _CIFAR_DATA,
        "A narrow VGG-11 for few steps.",
        "dense 53.0 %, kappa 48.3, random 47.9, magnitude 47.7.",
    ),
    "cifar10_resnet": About(
        14, _CIFAR_DATA,
        "A narrow ResNet-8 for few steps.",
        "dense is the most accurate (49.5 %); kappa 43.3, random 44.1, magnitude 44.6.",
    ),
    "shakespeare_bert": About(
        18, _TEXT_DATA,
        "Masked bytes by a two-layer encoder.",
        "dense is the best (47.2 % of masked bytes), random 44.4, kappa 43.9.",
    ),
    "shakespeare_switch": About(
        17, _TEXT_DATA,
        "Next bytes by a two-layer Switch transformer, whose experts are chosen.",
        "dense is the best (34.7 % of next bytes), kappa 32.5, random 32.6, magnitude 31.6.",
    ),
}  # fmt: skip

_CIFAR = Regime(
    name="sgd", loss="cross_entropy", train_examples=10_000, batch_size=128, max_steps=300,
    rates=(0.01, 0.03, 0.1), rate_unit="1", target=0.0, optimizer="momentum", decay="cosine",
)  # fmt: skip

CIFAR_VGG = Config(
    dataset="cifar10",
    network=network("vgg", stages=((8,), (16,), (32, 32), (64, 64), (64, 64))),
    regimes=(_CIFAR,),
    methods=DEFAULT,
    search_seeds=1,
    log_every=50,
    curve_examples=1000,
    track=3,
    all_outputs=False,
    scale="10,000 of CIFAR-10's 50,000 training images, 300 steps and an eighth of VGG-11's "
    "channels; " + UNKNOWN,
)

CIFAR_RESNET = replace(
    CIFAR_VGG,
    network=network("resnet", blocks=(1, 1, 1), widths=(8, 16, 32)),
    regimes=(replace(_CIFAR, rates=(0.1, 0.3)),),
    scale="10,000 of CIFAR-10's 50,000 training images, 300 steps and a narrow ResNet-8; "
    + UNKNOWN,
)

WITHIN_HEADS = ("*.query", "*.value")
_MASKED = Regime(
    name="masked", loss="masked_tokens", train_examples=15_000, batch_size=32, max_steps=2000,
    rates=(1e-3, 3e-3), rate_unit="1", target=0.0, optimizer="adamw", decay="cosine",
)  # fmt: skip

BERT = replace(
    CIFAR_VGG,
    dataset="tiny_shakespeare",
    network=network("encoder", exclude=WITHIN_HEADS, features=64, layers=2, heads=4, width=256),
    regimes=(_MASKED,),
    sequence_length=64,
    log_every=100,
    track=2,
    probe_size=32,
    standardise=False,
    scale="A two-layer encoder on the bytes of Tiny Shakespeare; " + UNKNOWN,
)

SWITCH = replace(
    BERT,
    network=network(
        "switch", exclude=WITHIN_HEADS, features=64, layers=2, heads=4, width=128, experts=4
    ),
    regimes=(
        replace(_MASKED, name="next", loss="next_token", max_steps=400, rates=(1e-3, 3e-3, 1e-2)),
    ),
    track=3,
    scale="A two-layer Switch transformer on the bytes of Tiny Shakespeare; " + UNKNOWN,
)
