"""Prune a network by its condition number and compare with the usual scores [Chen 2023]."""

from dataclasses import dataclass, field, replace
from typing import Literal

METHODS = ("dense", "kappa", "random", "magnitude")


@dataclass(frozen=True)
class Regime:
    """One way to train: a loss, an optimiser's steps, and when nodes are chosen."""

    name: str
    loss: Literal["square", "cross_entropy"]
    train_examples: int  # Taken from the training split by a seeded permutation.
    batch_size: int  # As large as `train_examples`: full-batch gradient descent.
    max_steps: int
    rates: tuple[float, ...]  # The same candidates for every method; its best one by training loss.
    rate_unit: Literal["1/L", "1"]  # 1/L: over the Hessian's norm of the net as it is trained.
    target: float  # Training loss to reach; 0: dense's final one.
    tests_on_rest: bool = False  # Test on the training split's other images too: less noise.
    centred: bool = False  # Train the change of the outputs from their initial values.
    initial_updates: int = 20  # Gate updates before the first step.
    period: int = 0  # Steps between later ones; 0: gate once, before training.
    freeze_at: int = 0  # First step without gate updates.


@dataclass(frozen=True)
class Config:
    """A data set, a multilayer perceptron, and the regimes that it is trained in."""

    dataset: str
    widths: tuple[int, ...]
    activation: str
    regimes: tuple[Regime, ...]
    keep: float = field(default=0.5, metadata={"flag": "Fraction of every layer's nodes to keep."})
    methods: tuple[str, ...] = field(
        default=METHODS, metadata={"flag": f"Which of {', '.join(METHODS)} to compare."}
    )
    seed: int = 0
    seeds: int = 3
    standardise: bool = True  # Subtract the training split's mean and divide by its deviation.
    probe_size: int = 64  # Examples in each gate update.
    log_every: int = 25  # Steps between evaluations of the training loss.
    scale: str = ""  # How the run compares with the paper's, for captions.


_GD = Regime(
    name="gd",
    loss="square",
    train_examples=100,
    batch_size=100,
    max_steps=6000,
    rates=(1.0,),
    rate_unit="1/L",
    target=1e-3,
    tests_on_rest=True,
)

_SGD = Regime(
    name="sgd",
    loss="cross_entropy",
    train_examples=1437,
    batch_size=128,
    max_steps=1500,
    rates=(0.03, 0.1, 0.3),
    rate_unit="1",
    target=0.0,
)

# Claim [Chen 2023]: nodes chosen by the condition number train faster at no loss of accuracy.
# python -m experiments pl_pruning --preset digits (the command of `make run`), about 1.5 minutes.
# Expected: kappa needs less than half of dense's steps in `gd`, random and magnitude as many as it.
_DIGITS = Config(
    dataset="digits",
    widths=(256, 256),
    activation="tanh",
    regimes=(_GD, _SGD),
    scale="1,797 embedded digits and an MLP with two hidden layers; the paper's own settings are "
    "not public.",
)

# Claim: the same under the square loss at larger size; cross-entropy shows whatever comes out.
# python -m experiments pl_pruning --preset fashion_mnist (needs TFDS_DATA_DIR), about 5 minutes.
# Expected: in `square` kappa is the most accurate and needs a third of the others' steps.
_FASHION_MNIST = Config(
    dataset="fashion_mnist",
    widths=(256, 256),
    activation="relu",
    regimes=(
        Regime(
            name="square",
            loss="square",
            train_examples=10_000,
            batch_size=128,
            max_steps=1500,
            rates=(1.0, 1.5, 2.0, 2.5, 3.0),
            rate_unit="1/L",
            target=0.0,
            centred=True,
        ),
        Regime(
            name="sgd",
            loss="cross_entropy",
            train_examples=10_000,
            batch_size=128,
            max_steps=1500,
            rates=(0.01, 0.03, 0.1, 0.3),
            rate_unit="1",
            target=0.0,
        ),
    ),
    scale="10,000 of Fashion-MNIST's 60,000 training images and an MLP with two hidden layers; the "
    "paper's own settings are not public.",
)

# A smoke test of both regimes, under a minute. Its numbers mean nothing.
_QUICK = replace(
    _DIGITS,
    widths=(32, 32),
    regimes=(
        replace(_GD, train_examples=32, batch_size=32, max_steps=400, target=0.05),
        replace(_SGD, train_examples=256, batch_size=64, max_steps=100, rates=(0.1, 0.3),
                initial_updates=5, period=10, freeze_at=40),
    ),
    seeds=2,
    probe_size=32,
    scale="A smoke test: 256 digits, 100 steps.",
)  # fmt: skip

PRESETS = {"digits": _DIGITS, "fashion_mnist": _FASHION_MNIST, "quick": _QUICK}


def check(config: Config) -> None:
    """Raise ValueError, in one line, for settings that cannot be run."""
    unknown = [name for name in config.methods if name not in METHODS]
    if unknown:
        raise ValueError(f"no method {unknown[0]!r}; there are {', '.join(METHODS)}.")
    if len(set(config.methods)) < len(config.methods) or not config.methods:
        raise ValueError(f"methods must be named once each, got {', '.join(config.methods)!r}.")
    if not 0 < config.keep <= 1:
        raise ValueError(f"keep must lie in (0, 1], got {config.keep}.")
    for regime in config.regimes:
        if config.probe_size > regime.train_examples:
            raise ValueError(
                f"probe_size must be at most the {regime.train_examples} training examples of "
                f"regime {regime.name}, got {config.probe_size}."
            )
        if regime.batch_size > regime.train_examples:
            raise ValueError(
                f"batch_size must be at most the {regime.train_examples} training examples of "
                f"regime {regime.name}, got {regime.batch_size}."
            )
        if regime.target == 0 and "dense" not in config.methods:
            raise ValueError(
                f"methods must include dense, whose loss is regime {regime.name}'s target."
            )
