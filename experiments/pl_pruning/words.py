# SPDX-License-Identifier: Apache-2.0
"""The words of a record: what each number is called and means, and how it was measured."""

from collections.abc import Mapping
from typing import Any

from experiments.pl_pruning.methods import METHODS
from experiments.report.tables import Metric

METRICS = {
    "lipschitz_constant": Metric(
        "Lipschitz constant",
        "Largest absolute eigenvalue of the Hessian of the objective.",
        better="lower",
    ),
    "steps_to_target": Metric(
        "steps to target",
        "Gradient steps from the shared initial weights, those before pruning included, until the "
        "training loss reaches its target.",
        better="lower",
        missing="not reached",
    ),
    "test_accuracy": Metric(
        "test accuracy", "Share of the test set classified correctly.", "%", better="higher"
    ),
    "train_loss": Metric("training loss", "Mean loss over the training set.", better="lower"),
    "train_seconds": Metric(
        "training time",
        "Wall time of all of training, gating included, compilation apart.",
        "s",
        better="lower",
    ),
    "gating_seconds": Metric(
        "gating time", "The part of the training time that chose the nodes.", "s", better="lower"
    ),
    "step_seconds": Metric(
        "step time", "Wall time of one training step of the final model.", "s", better="lower"
    ),
    "kept_nodes": Metric("kept nodes", "Share of the prunable nodes that were kept.", "%"),
    "parameters": Metric("parameters", "Parameters of the final, shrunk model."),
    "flops": Metric("FLOPs", "Of one forward pass of one example through the final model."),
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

OPTIMIZERS = {
    "sgd": "", "momentum": ", momentum 0.9", "adam": ", Adam", "adamw": ", AdamW",
    "lbfgs": ", L-BFGS",
}  # fmt: skip


def metrics(record: Mapping[str, Any]) -> dict[str, Metric]:
    """`METRICS`, and of which kernel the condition number and the PL constant are."""
    kernel, config = _kernel(record["config"]), record["config"]
    return METRICS | {
        "kappa": Metric(
            "condition number",
            f"Largest over smallest eigenvalue of {kernel} of the shrunk network on "
            f"{config['held_out']} test examples, in float64, right after shrinking; dense at the "
            "same step.",
            better="lower",
        ),
        "pl_constant": Metric(
            "PL constant",
            f"Smallest eigenvalue of {kernel} divided by the number of examples.",
            better="higher",
        ),
    }


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
    known = [METHODS[name] for name in config["methods"] if name in METHODS]
    told = (
        f"The condition number is that of {_kernel(config)} on {config['held_out']} test examples."
    )
    if config["curve_examples"]:
        told += f" Training losses are over {config['curve_examples']:,} training examples."
    methods = "; ".join(f"{method.name}: {method.words}" for method in known)
    return [intro, told, f"{methods}.", *(_told(regime) for regime in config["regimes"])]


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
    return f"{kinds.get(network['kind'], network['kind'])} with {sizes}"


def _told(regime):
    loss = {
        "square": "half the squared distance to one-hot targets less 0.1",
        "cross_entropy": "cross-entropy",
        "masked_tokens": "cross-entropy of masked tokens",
        "next_token": "cross-entropy of the next token",
    }[regime["loss"]]
    full = regime["batch_size"] == regime["train_examples"]
    batch = "full-batch gradient descent" if full else f"minibatches of {regime['batch_size']}"
    batch += OPTIMIZERS[regime["optimizer"]]
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
