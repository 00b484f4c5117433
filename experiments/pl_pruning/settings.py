# SPDX-License-Identifier: Apache-2.0
"""What a run is: a data set, a network, and the regimes that it is trained in."""

from dataclasses import dataclass, replace
from typing import Any, Literal

from experiments.pl_pruning.methods import DEFAULT, KEEP_ALL, WHOLE

TEXT_LOSSES = ("masked_tokens", "next_token")


@dataclass(frozen=True)
class Network:
    """A model of the zoo; what depends on the data is filled in."""

    kind: Literal["mlp", "deep", "cnn", "vgg", "resnet", "encoder", "switch"]
    sizes: tuple[tuple[str, Any], ...] = ()  # Arguments of the model's class.
    exclude: tuple[str, ...] = ()  # Patterns of node groups that stay whole.


def network(kind: str, *, exclude: tuple[str, ...] = (), **sizes: Any) -> Network:
    """A `Network` from the arguments of its class."""
    return Network(kind, tuple(sizes.items()), exclude)


@dataclass(frozen=True)
class Regime:
    """One way to train: a loss, an optimiser's steps, and when nodes are chosen."""

    name: str
    loss: Literal["square", "cross_entropy", "masked_tokens", "next_token"]
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
    schedule: Literal["cubic", "linear"] = "cubic"  # Of the kept fraction until then.
    optimizer: Literal["sgd", "momentum", "adam", "adamw", "lbfgs"] = "sgd"
    warm_up: int = 0  # Steps in which the learning rate rises from zero.
    decay: Literal["constant", "cosine"] = "constant"  # Of the learning rate, over `max_steps`.
    # Times max_steps that a method which drops nodes may take, since its steps are cheaper: at a
    # constant rate only until it reaches dense's final loss, else on a schedule of that length.
    extension: float = 1.0
    validation: int = 0  # Training images held out; accuracy is taken where theirs is best.
    risk_weight: float = 1.0  # Of the loss in kappa_risk.
    penalty: float = 0.0  # Times log kappa of the weights, as `with_condition` adds it.

    @property
    def most_steps(self) -> int:
        """Steps of the longest run."""
        return round(self.extension * self.max_steps)


@dataclass(frozen=True)
class Config:
    """A data set, a network, and the regimes that it is trained in."""

    dataset: str
    network: Network
    regimes: tuple[Regime, ...]
    keep: tuple[float, ...] = (0.5,)  # Fractions of every layer's nodes to keep.
    own_keep: float = 0.5  # The preset's fraction; results of others are called method@fraction.
    methods: tuple[str, ...] = DEFAULT  # Which to compare; `METHODS` explains them.
    seed: int = 0
    seeds: int = 5
    search_seeds: int = 0  # Seeds that the learning rates are chosen on; 0: all.
    standardise: bool = True  # Subtract the training split's mean and divide by its deviation.
    sequence_length: int = 0  # Tokens of an example of text.
    probe_size: int = 64  # Examples in each gate update.
    log_every: int = 25  # Steps between evaluations of the training loss.
    curve_examples: int = 0  # Training examples in these; 0: all.
    track: int = 4  # Times that kappa, mu and L are measured along training.
    held_out: int = 64  # Test examples on which the kernel is measured.
    wide_held_out: int = 0  # The same for `wide_kappa`; 0: not measured.
    all_outputs: bool = True  # Of the kernel; else one random +-1 combination of them.
    scale: str = ""  # How the run compares with the paper's, for captions.


def regime_of(regime: Regime, method: str) -> Regime:
    """A regime as a method trains in it: with a decay, longer for one that drops nodes."""
    if method in KEEP_ALL or regime.decay == "constant":
        return regime
    return replace(regime, max_steps=regime.most_steps, extension=1.0)


def tracked_steps(config: Config, regime: Regime) -> list[int]:
    """Steps at which kappa, mu and L are measured: the start, then each four times the last.

    Where nodes are chosen in the first steps, the start is the end of these.
    """
    start, last = regime.freeze_at if regime.period else 0, regime.max_steps
    if config.track < 2:
        return [start][: config.track]
    powers = [last / 4**k for k in range(1, config.track - 1)]
    later = [max(1, round((p - start) / config.log_every)) for p in powers if p > start]
    logged = {start + count * config.log_every for count in later}
    return sorted({start, last, *(step for step in logged if step < last)})


def key_of(config: Config, method: str, keep: float) -> str:
    """The record's name of a method at a fraction."""
    return method if method in WHOLE or keep == config.own_keep else f"{method}@{keep:g}"
