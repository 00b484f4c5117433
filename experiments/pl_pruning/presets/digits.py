# SPDX-License-Identifier: Apache-2.0
"""Perceptrons on the digits of scikit-learn."""

from dataclasses import replace

from experiments import About
from experiments.pl_pruning.methods import ANYWHERE, LEARNED
from experiments.pl_pruning.presets.common import CONTROLLED, UNKNOWN
from experiments.pl_pruning.settings import Config, Regime, network

ABOUT = {
    "digits": About(
        1.5,
        claim="Nodes chosen by the condition number train faster at no loss of accuracy "
        "[Chen 2023].",
        expected="kappa needs less than half of dense's steps in gd, random and magnitude as many "
        "as it.",
    ),
    "digits_all": About(
        7,
        claim="The same in gd for every way to choose, at the step 1/L and at the best multiple.",
        expected="kappa 1,416 steps, dense 3,508, the best score 3,282; at the best rates 946, 939 "
        "and 1,141.",
    ),
    "digits_controls": About(
        4,
        claim="What part of the gain is scale?",
        expected="at 1/L kappa 1,400 steps, controls of scale 3,400 or more; tuned, dense comes "
        "close.",
    ),
    "digits_fractions": About(
        15,
        claim="Accuracy and steps against the fraction that is kept, for every score.",
        expected="at every fraction kappa needs the fewest steps in gd; accuracies are level.",
    ),
    "quick": About(1, claim="A smoke test of both regimes. Its numbers mean nothing."),
}

_GD = Regime(
    name="gd", loss="square", train_examples=100, batch_size=100, max_steps=6000,
    rates=(1.0,), rate_unit="1/L", target=1e-3, tests_on_rest=True,
)  # fmt: skip

_SGD = Regime(
    name="sgd", loss="cross_entropy", train_examples=1437, batch_size=128, max_steps=1500,
    rates=(0.03, 0.1, 0.3), rate_unit="1", target=0.0,
)  # fmt: skip

# The command of `make run`.
DIGITS = Config(
    dataset="digits",
    network=network("mlp", hidden=(256, 256), activation="tanh"),
    regimes=(_GD, _SGD),
    track=0,  # `make run` shall be short.
    scale=f"1,797 embedded digits and an MLP with two hidden layers; {UNKNOWN}",
)

_TUNED_GD = replace(_GD, name="gd_tuned", rates=(1.0, 2.0, 3.0, 4.0, 6.0, 8.0))
DIGITS_ALL = replace(
    DIGITS,
    regimes=(_GD, _TUNED_GD),
    methods=("dense", *LEARNED, *ANYWHERE),
    search_seeds=2,
)

# Random and largest nodes at kappa's widths or kappa's scale, dense at kappa's scale or with halved
# weights, a fresh narrow net, each at 1/L and at its own best rate.
DIGITS_CONTROLS = replace(DIGITS_ALL, methods=CONTROLLED)

DIGITS_FRACTIONS = replace(
    DIGITS,
    methods=("dense", "kappa", "kappa_risk", *ANYWHERE),
    keep=(0.75, 0.5, 0.25, 0.1),
    search_seeds=1,
    track=4,
)

QUICK = replace(
    DIGITS,
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
