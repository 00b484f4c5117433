# SPDX-License-Identifier: Apache-2.0
"""Prune a network by its condition number and compare with the usual scores [Chen 2023]."""

from experiments.pl_pruning.methods import CONTROLS, FOR_MLP, METHODS, explained
from experiments.pl_pruning.presets import ABOUT, PRESETS
from experiments.pl_pruning.settings import TEXT_LOSSES, Config, Network, Regime

__all__ = [
    "ABOUT",
    "DEFAULT",
    "DETAILS",
    "METHODS",
    "PRESETS",
    "Config",
    "Network",
    "Regime",
    "check",
]

DEFAULT = "digits"  # A few minutes, no download, and numbers that mean something.
DETAILS = f"Methods: {explained()}."  # Of the help.


def check(config: Config) -> None:
    """Raise ValueError, in one line, for settings that cannot be run."""
    unknown = [name for name in config.methods if name not in METHODS]
    if unknown:
        raise ValueError(f"no method {unknown[0]!r}; there are {', '.join(METHODS)}.")
    if len(set(config.methods)) < len(config.methods) or not config.methods:
        raise ValueError(f"methods must be named once each, got {', '.join(config.methods)!r}.")
    for keep in config.keep:
        if not 0 < keep <= 1:
            raise ValueError(f"keep must lie in (0, 1], got {keep}.")
    if len(set(config.keep)) < len(config.keep) or not config.keep:
        raise ValueError(f"keep must name each fraction once, got {config.keep}.")
    own = [name for name in config.methods if name in FOR_MLP]
    if own and config.network.kind != "mlp":
        raise ValueError(f"methods: {own[0]} is for multilayer perceptrons only.")
    for regime in config.regimes:
        _check_regime(config, regime)


def _check_regime(config: Config, regime: Regime) -> None:
    known = f"the {regime.train_examples} training examples of regime {regime.name}"
    for name, size in (("probe_size", config.probe_size), ("batch_size", regime.batch_size)):
        if size > regime.train_examples:
            raise ValueError(f"{name} must be at most {known}, got {size}.")
    if regime.target == 0 and "dense" not in config.methods:
        raise ValueError(
            f"methods must include dense, whose loss is regime {regime.name}'s target."
        )
    if not regime.rates:
        raise ValueError(f"rates of regime {regime.name} must be one at least, got none.")
    _check_training(config, regime)


def _check_training(config: Config, regime: Regime) -> None:
    if regime.extension < 1:
        raise ValueError(f"extension must be at least 1, got {regime.extension}.")
    if regime.extension > 1 and regime.target:
        raise ValueError("extension needs dense's final loss as the target.")
    if regime.centred and (regime.loss != "square" or config.network.kind != "mlp"):
        raise ValueError("centred is for multilayer perceptrons under the square loss.")
    if (regime.loss in TEXT_LOSSES) != (config.network.kind in ("encoder", "switch")):
        raise ValueError(f"loss {regime.loss} does not fit a network {config.network.kind}.")
    if regime.period and config.network.kind == "switch":
        raise ValueError(
            "period must be 0 for a network switch, whose experts are chosen before training, "
            f"got {regime.period} in regime {regime.name}."
        )
    if regime.period and set(config.methods) & set(CONTROLS):
        raise ValueError(f"methods: regime {regime.name} chooses while it trains; no controls.")
