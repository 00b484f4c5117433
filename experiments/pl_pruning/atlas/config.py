# SPDX-License-Identifier: Apache-2.0
"""Where pruning by the condition number pays: a map over losses, optimisers, depths and batches.

Claim [Chen 2023]: networks whose nodes are chosen by the condition number train faster.

    python -m experiments atlas --preset atlas
    python -m experiments atlas square_4 --preset atlas

Every cell trains the halves of one network that each method leaves, to one training loss, at the
best rate of a grid that widens until its best is interior, found on seeds of its own. R is the
steps of the best other half over those of kappa's. Expected: docs/papers/pl_pruning.md has the
verdicts.
"""

from dataclasses import dataclass

from experiments import About
from experiments.pl_pruning.atlas.cells import KINDS, OPTIMIZERS, PARTS, cell_named, cells_of
from experiments.pl_pruning.methods import FOR_MLP, METHODS, explained

__all__ = [
    "ABOUT", "DETAILS", "FIGURES", "METHODS", "OPTIMIZERS", "PRESETS", "RATIO", "RIVALS", "Config",
    "cell_named", "check",
]  # fmt: skip

FIGURES = PARTS
ON_ONE_DEVICE = PARTS  # Networks are small, and trained side by side.
DETAILS = f"Methods: {explained()}."
RATIO = 2**0.125  # Of neighbouring learning rates.
RIVALS = ("random", "magnitude", "snip", "synflow", "ntk_sap")  # Other halves of the same network.
_OTHERS = {*FOR_MLP} - {"fresh"}  # Of plain perceptrons alone.
CONTROLS = ("redrawn", "fresh", "random_matched", "dense_small")


@dataclass(frozen=True)
class Config:
    """How every cell is run, and which values the map's factors take."""

    scale: str
    seed: int = 0
    seeds: int = 10  # Of the verdict.
    search_seed: int = 1000  # The first of those that rates are chosen on.
    search_seeds: int = 4
    methods: tuple[str, ...] = ("dense", "kappa", "trace", *RIVALS, *CONTROLS)
    keep: float = 0.5  # Fraction of every layer's nodes to keep.
    width: int = 128  # Of each hidden layer.
    examples: int = 128  # Training images of the digits.
    fashion_examples: int = 256  # The same of Fashion-MNIST; 0: none of its cells.
    square_target: float = 1e-3  # Training loss to reach.
    cross_entropy_target: float = 1e-3
    max_steps: int = 3000
    gd_factor: float = 10.0  # Times the target, for gradient descent at 1/L, which is slow.
    gd_steps: int = 5000  # Its `max_steps`.
    probe_size: int = 64  # Examples in each gate update.
    log_every: int = 10  # Steps between evaluations; minibatches' losses are taken there.
    depths: tuple[int, ...] = (2, 4, 8, 16)
    optimizers: tuple[str, ...] = (
        "adam",
        "momentum",
        "adamw",
        "sgd",
        "lbfgs",
        "gd",
    )  # Times losses, times depths.
    around: tuple[str, ...] = ("adam", "momentum")  # Where one other factor varies.
    kinds: tuple[str, ...] = KINDS[1:]
    batches: tuple[int, ...] = (64, 32, 16)
    target_factors: tuple[float, ...] = (10.0, 0.1)  # Times the target.
    warm_ups: tuple[int, ...] = (50,)  # Steps.


ABOUT = {
    "atlas": About(
        None,
        "fashion_mnist in TFDS_DATA_DIR",
        "The product of losses, optimisers and depths, and one factor at a time around its centre; "
        "hours, part by part.",
        "the verdicts on docs/papers/pl_pruning.md.",
    ),
    "atlas_quick": About(1, claim="A smoke test: its numbers mean nothing."),
}
PRESETS = {
    "atlas": Config(
        scale="Tanh perceptrons of width 128 on 128 digits or 256 images of Fashion-MNIST; the "
        "paper's own settings are not public.",
    ),
    "atlas_quick": Config(
        scale="A smoke test: width 8, 32 digits.",
        seeds=2, search_seeds=1, methods=("dense", "kappa", "random", "random_matched"), width=8,
        examples=32, fashion_examples=0, square_target=0.2, cross_entropy_target=0.5, gd_factor=1.5,
        max_steps=100, gd_steps=100, probe_size=16, depths=(2,), optimizers=("gd", "adam"),
        around=("adam",), kinds=("centred",), batches=(), target_factors=(), warm_ups=(),
    ),
}  # fmt: skip


def check(config: Config) -> None:
    """Raise ValueError, in one line, for settings that cannot be run."""
    wrong = [name for name in config.methods if name not in METHODS or name in _OTHERS]
    if wrong:
        raise ValueError(f"methods: the map has no {wrong[0]!r}.")
    if len(set(config.methods)) < len(config.methods) or not {"dense", "kappa"} <= {
        *config.methods
    }:
        raise ValueError("methods must be named once each, dense and kappa among them.")
    if not 0 < config.keep < 1:
        raise ValueError(f"keep must lie in (0, 1), got {config.keep}.")
    for name, known in (("optimizers", OPTIMIZERS), ("around", OPTIMIZERS), ("kinds", KINDS)):
        values = getattr(config, name)
        if not {*values} <= {*known} or len({*values}) < len(values):
            raise ValueError(f"{name} must be distinct ones of {', '.join(known)}, got {values}.")
    for name in ("square_target", "cross_entropy_target", "target_factors", "gd_factor"):
        values = getattr(config, name)
        if not all(value > 0 for value in (values if isinstance(values, tuple) else (values,))):
            raise ValueError(f"{name} must be positive, got {values}.")
    _check_counts(config)


def _check_counts(config: Config) -> None:
    for name in ("search_seeds", "width", "max_steps", "gd_steps", "probe_size", "log_every"):
        if getattr(config, name) < 1:
            raise ValueError(f"{name} must be at least 1, got {getattr(config, name)}.")
    least = max(config.probe_size, *config.batches, 1)
    for name in ("examples", "fashion_examples"):
        given = getattr(config, name)
        if given < least and not (name == "fashion_examples" and given == 0):
            raise ValueError(f"{name} must be at least {least}, got {given}.")
    _check_steps(config)
    for name in ("depths", "batches", "warm_ups"):
        values = getattr(config, name)
        if any(value < 1 for value in values) or len({*values}) < len(values):
            raise ValueError(f"{name} must be distinct and at least 1, got {values}.")


def _check_steps(config: Config) -> None:
    for name in ("max_steps", "gd_steps"):
        if getattr(config, name) % config.log_every:
            raise ValueError(
                f"{name} must be a multiple of log_every, {config.log_every}, "
                f"got {getattr(config, name)}."
            )
    verdict = range(config.seed, config.seed + config.seeds)
    if set(verdict) & set(range(config.search_seed, config.search_seed + config.search_seeds)):
        raise ValueError("search_seed: rates are chosen on seeds that the verdict does not use.")
    if not any(cells_of(part, config) for part in PARTS):
        raise ValueError("these settings leave no cell of the map.")
