# SPDX-License-Identifier: Apache-2.0
"""What a cell trains: the networks that the methods leave of a seed's network."""

from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

import jax

from experiments.pl_pruning.atlas.cells import Cell
from experiments.pl_pruning.atlas.config import Config
from experiments.pl_pruning.choosing import choose
from experiments.pl_pruning.data import Splits, load_splits
from experiments.pl_pruning.problem import Problem, Small, problem_of, small_of
from experiments.pl_pruning.settings import Config as Setting
from experiments.pl_pruning.settings import Network, Regime, network
from plprune.data import minibatches

_STREAM = "stem"  # The group of residual networks that stays whole: all blocks share it.


class Start(NamedTuple):
    """A method on a seed, before training."""

    problem: Problem
    small: Small
    gating_seconds: float
    gating_flops: float


def setting_of(config: Config, cell: Cell) -> tuple[Setting, Regime]:
    """The cell as a preset of `experiments.pl_pruning` would give it."""
    digits = cell.dataset == "digits"
    size = config.examples if digits else config.fashion_examples
    fixed = cell.optimizer == "gd"
    regime = Regime(
        name=cell.name, loss=cell.loss, train_examples=size, batch_size=cell.batch or size,
        max_steps=config.gd_steps if fixed else config.max_steps, rates=(1.0,),
        rate_unit="1/L" if fixed else "1", target=cell.target, tests_on_rest=digits,
        optimizer="sgd" if cell.optimizer == "gd" else cell.optimizer, warm_up=cell.warm_up,
        penalty=cell.penalty,
    )  # fmt: skip
    setting = Setting(
        dataset=cell.dataset, network=_network(config, cell), regimes=(regime,),
        keep=(config.keep,), own_keep=config.keep, methods=config.methods,
        probe_size=config.probe_size,
    )  # fmt: skip
    return setting, regime


def start_of(config: Config, cell: Cell, method: str, seed: int) -> Start:
    """The network of a method, chosen once for all cells that differ in training alone."""
    setting, regime = setting_of(config, cell)
    alike = replace(
        regime, name="", batch_size=regime.train_examples, max_steps=1, rate_unit="1", target=1.0,
        optimizer="sgd", warm_up=0, penalty=0.0,
    )  # fmt: skip
    return _start(replace(setting, regimes=(alike,), methods=()), alike, method, seed)


def indices_of(regime: Regime, problem: Problem) -> jax.Array:
    """Examples of each step of a cell."""
    size = len(problem.data.inputs)
    return minibatches(size, regime.batch_size, regime.max_steps, key=problem.batch_key)


def _network(config: Config, cell: Cell) -> Network:
    sizes: dict[str, Any] = {"hidden": (config.width,) * cell.depth, "activation": "tanh"}
    if cell.kind == "none":
        return network("mlp", **sizes)
    exclude = (_STREAM,) if cell.kind in ("residual", "layernorm") else ()
    return network("deep", exclude=exclude, design=cell.kind, **sizes)


@lru_cache(maxsize=256)
def _start(setting: Setting, regime: Regime, method: str, seed: int) -> Start:
    problem = _problem(setting, regime, seed)
    (keep,) = setting.keep
    choice = choose(setting, regime, method, keep, 0.0, problem)
    small = small_of(setting, regime, choice, problem)
    return Start(problem, small, choice.gating_seconds, choice.gating_flops)


@lru_cache(maxsize=32)
def _problem(setting: Setting, regime: Regime, seed: int) -> Problem:
    return jax.block_until_ready(problem_of(setting, regime, _splits(setting), seed))


@lru_cache(maxsize=2)
def _splits(setting: Setting) -> Splits:
    return load_splits(setting)
