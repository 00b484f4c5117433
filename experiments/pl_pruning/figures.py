# SPDX-License-Identifier: Apache-2.0
"""The figures and words of a pl_pruning record, drawn from the record alone."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.figures import style
from experiments.pl_pruning import drawing, gaps
from experiments.pl_pruning.methods import CONTROLS, KEEP_ALL, LEARNED
from experiments.tables import METRICS as SHARED
from experiments.tables import Metric

METRICS = {
    "rate": Metric(
        "learning rate",
        "The candidate with the lowest final training loss, as a mean over the seeds it is chosen "
        "on (with a target: with the fewest steps to it); the same candidates for every method. In "
        "regimes of unit 1/L it is a multiple of 1/L.",
    ),
    "masked_difference": Metric(
        "masked less shrunk",
        "Largest difference between the outputs of the masked and of the shrunk network on the "
        "whole test set, before it is trained on.",
        better="lower",
    ),
    "wide_kappa": Metric(
        "condition number, wide",
        "The same on the larger number of held-out examples that the configuration gives as "
        "wide_held_out.",
        better="lower",
    ),
    "target_seconds": Metric(
        "time to target",
        "Wall time until the logged training loss first is at or below dense's final one, gating "
        "included, compilation and evaluation apart.",
        "s",
        better="lower",
        missing="not reached",
    ),
    "test_loss": Metric("test loss", "Mean loss over the test set.", better="lower"),
    "final_test_accuracy": Metric(
        "final test accuracy", "After the last step, without early stopping.", "%", better="higher"
    ),
    "validation_accuracy": Metric(
        "validation accuracy", "The best one, where training is stopped.", "%", better="higher"
    ),
}

Curves = Mapping[str, np.ndarray]


def metrics(record: Mapping[str, Any]) -> dict[str, Metric]:
    """`METRICS`, and of which kernel the condition number and the PL constant are."""
    kernel, config = _kernel(record["config"]), record["config"]
    kappa, mu = SHARED["kappa"], SHARED["pl_constant"]
    told = {
        "kappa": kappa._replace(
            meaning=f"Largest over smallest eigenvalue of {kernel} of the shrunk network on "
            f"{config['held_out']} test examples, in float64, right after shrinking; dense at the "
            "same step."
        ),
        "pl_constant": mu._replace(
            meaning=f"Smallest eigenvalue of {kernel} divided by the number of examples."
        ),
    }
    return METRICS | told


def draw(record: Mapping[str, Any], curves: Curves) -> dict[str, Figure]:
    """Figures per regime; those that the record has no numbers for are left out."""
    config, drawn = record["config"], {}
    with style():
        for regime in config["regimes"]:
            name = regime["name"]
            drawn[name] = drawing.overview(record, curves, regime)
            drawn[f"{name} in time"] = drawing.in_time(record, curves, regime)
            if config["track"]:
                drawn[f"{name} conditioning"] = drawing.conditioning(record, curves, regime)
            if len(config["keep"]) > 1:
                drawn[f"{name} fractions"] = drawing.against_fraction(record, regime)
            if set(config["methods"]) - set(KEEP_ALL):
                drawn[f"{name} nodes"] = drawing.kept_nodes(record, curves, regime)
            figure = gaps.gap_figure([(record, curves)], regime, f"Regime {name}")
            if figure is not None:
                drawn[f"{name} gaps"] = figure
    return drawn


def pooled(runs: Sequence[tuple[Mapping[str, Any], Curves]]) -> dict[str, Figure]:
    """The gaps of records that share a regime: over widths, as of a sweep, and all the rest."""
    drawn = {}
    with style():
        for regime, alike in gaps.poolable(runs):
            name = f"{alike[0][0]['config']['dataset']}, regime {regime['name']}"
            figure = gaps.gap_figure(alike, regime, f"{name}, {len(alike)} records")
            if figure is not None:
                again = sum(other.startswith(name) for other in drawn)
                drawn[f"{name} {again + 1}" if again else name] = figure
    return drawn


def measured(record: Mapping[str, Any]) -> list[str]:
    """What was done, one paragraph per regime, and what the methods are."""
    config = record["config"]
    fractions = " or ".join(f"{keep:.0%}" for keep in config["keep"])
    intro = (
        f"Data: {record['versions'].get('data', config['dataset'])}. Network: "
        f"{_network(config['network'])}. Every method starts from the same initial weights of a "
        f"seed and keeps {fractions} of each layer's nodes. Gates minimise the condition number of "
        f"the tangent kernel on {config['probe_size']} training examples at a time; closed nodes "
        "are removed, and the smaller network is trained on. This is our design, after the "
        "abstract of [Chen 2023]."
    )
    known = LEARNED | CONTROLS
    methods = [f"{name}: {known[name]}" for name in config["methods"] if name in known]
    told = (
        f"The condition number is that of {_kernel(config)} on {config['held_out']} test examples."
    )
    if config["curve_examples"]:
        told += f" Training losses are over {config['curve_examples']:,} training examples."
    return [intro, told, "; ".join(methods) + ".", *(_told(r) for r in config["regimes"])]


def _kernel(config):
    if config["all_outputs"]:
        return "the tangent kernel of all outputs"
    return (
        "the tangent kernel of one random +-1 combination of the outputs, the same for every run,"
    )


def _network(network):
    kinds = {
        "mlp": "multilayer perceptron", "cnn": "convolutional network", "vgg": "VGG",
        "resnet": "ResNet", "encoder": "transformer encoder", "switch": "Switch transformer",
    }  # fmt: skip
    sizes = ", ".join(f"{name} {_joined(value)}" for name, value in network["sizes"])
    return f"{kinds[network['kind']]} with {sizes}"


def _told(regime):
    loss = {
        "square": "half the squared distance to one-hot targets less 0.1",
        "cross_entropy": "cross-entropy",
        "masked_tokens": "cross-entropy of masked tokens",
        "next_token": "cross-entropy of the next token",
    }[regime["loss"]]
    full = regime["batch_size"] == regime["train_examples"]
    batch = "full-batch gradient descent" if full else f"minibatches of {regime['batch_size']}"
    batch += {"sgd": "", "momentum": ", momentum 0.9", "adamw": ", AdamW"}[regime["optimizer"]]
    batch += ", cosine decay" if regime["decay"] == "cosine" else ""
    centred = ", of the outputs less their initial values" if regime["centred"] else ""
    chosen = "before training"
    if regime["period"]:
        # Records from before there was a choice have no schedule.
        how = "evenly" if regime.get("schedule") == "linear" else "along a cubic"
        chosen = (
            f"during the first {regime['freeze_at']} steps, again every {regime['period']}, the "
            f"kept fraction falling from 1 {how}"
        )
    unit = (
        "/L, L the Hessian's norm of the net as it is trained"
        if regime["rate_unit"] == "1/L"
        else ""
    )
    target = (
        f"a training loss of {regime['target']:g}"
        if regime["target"]
        else "dense's final training loss on the same seed"
    )
    if regime["extension"] > 1:
        longer = f"{regime['extension']:g} times the steps"
        target += (
            f", which a method may take {longer} to reach"
            if regime["decay"] == "constant"
            else f"; networks that lose nodes train {longer}, which are cheaper"
        )
    stopped = (
        f" Accuracy is taken where that on {regime['validation']:,} held-out training images is "
        "best."
        if regime["validation"]
        else ""
    )
    return (
        f"Regime {regime['name']}: {loss}{centred}; {regime['train_examples']:,} training "
        f"examples, {batch}, at most {regime['max_steps']:,} steps, learning rates "
        f"{_joined(regime['rates'])}{unit}; nodes are chosen {chosen}; the target is {target}. "
        + (
            "Test images: the test split and the training split's other images."
            if regime["tests_on_rest"]
            else "Tested on the test split."
        )
        + stopped
    )


def _joined(values):
    if isinstance(values, str | int | float):
        return str(values)
    return ", ".join(_joined(v) if isinstance(v, list | tuple) else f"{v:g}" for v in values)
