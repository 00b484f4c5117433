"""The figures and words of a pl_pruning record, drawn from the record alone."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.figures import draw_curve, draw_points, method_style, new_figure, style, tidy
from experiments.tables import Metric

METRICS = {
    "rate": Metric(
        "learning rate",
        "The candidate with the lowest final training loss, as a mean over the seeds; the same "
        "candidates for every method. In regimes of unit 1/L it is a multiple of 1/L.",
    ),
    "masked_difference": Metric(
        "masked less shrunk",
        "Largest difference between the outputs of the masked and of the shrunk network on the "
        "whole test set, before it is trained on.",
        better="lower",
    ),
}

Curves = Mapping[str, np.ndarray]


def draw(record: Mapping[str, Any], curves: Curves) -> dict[str, Figure]:
    """One figure per regime: loss, steps to the target, condition number and accuracy."""
    with style():
        return {
            regime["name"]: _regime(record, curves, regime)
            for regime in record["config"]["regimes"]
        }


def measured(record: Mapping[str, Any]) -> list[str]:
    """What was done, one paragraph per regime."""
    config = record["config"]
    intro = (
        f"Data: {record['versions'].get('data', config['dataset'])}. Network: multilayer "
        f"perceptron with hidden layers {_joined(config['widths'])}, activation "
        f"{config['activation']}. Every method starts from the same initial weights of a seed and "
        f"keeps {config['keep']:.0%} of each hidden layer. Gates minimise the condition number of "
        f"the tangent kernel on {config['probe_size']} training examples at a time; closed nodes "
        "are removed, and the smaller network is trained on. This is our design, after the "
        "abstract of [Chen 2023]."
    )
    return [intro, *(_told(regime) for regime in config["regimes"])]


def _told(regime):
    loss = {
        "square": "half the squared distance to one-hot targets less 0.1",
        "cross_entropy": "cross-entropy",
    }[regime["loss"]]
    full = regime["batch_size"] == regime["train_examples"]
    batch = "full-batch gradient descent" if full else f"minibatches of {regime['batch_size']}"
    centred = ", of the outputs less their initial values" if regime["centred"] else ""
    chosen = "before training"
    if regime["period"]:
        chosen = (
            f"during the first {regime['freeze_at']} steps, again every {regime['period']}, the "
            "kept fraction falling from 1 along a cubic"
        )
    unit = (
        "/L, L the Hessian's norm of the net as it is trained"
        if regime["rate_unit"] == "1/L"
        else ""
    )
    target = (
        f"a training loss of {regime['target']:g}"
        if regime["target"]
        else ("dense's final training loss on the same seed")
    )
    return (
        f"Regime {regime['name']}: {loss}{centred}; {regime['train_examples']:,} training images, "
        f"{batch}, at most {regime['max_steps']:,} steps, learning rates "
        f"{_joined(regime['rates'])}{unit}; nodes are chosen {chosen}; the target is {target}. "
        + (
            "Test images: the test split and the training split's other images."
            if regime["tests_on_rest"]
            else "Test images: the test split."
        )
    )


def _joined(values):
    return ", ".join(f"{value:g}" for value in values)


def _regime(record, curves, regime):
    name = regime["name"]
    methods = {m: e for m, e in record["results"].items() if m.startswith(f"{name}/")}
    figure, ((loss, steps), (kappa, accuracy)) = new_figure(2, 2)
    _loss(loss, record, curves, regime, methods)
    draw_points(steps, methods, "steps_to_target", "steps to the target", missing="not reached")
    draw_points(kappa, methods, "kappa", "condition number on held-out examples")
    kappa.set_xscale("log")
    draw_points(accuracy, methods, "test_accuracy", "test accuracy")
    tidy(figure)
    figure.suptitle(f"Regime {name}, {record['config']['keep']:.0%} of the nodes kept")
    return figure


def _loss(axes: Axes, record, curves: Curves, regime, methods) -> None:
    start = regime["freeze_at"] if regime["period"] else 0
    for method in methods:
        curve = curves[f"{method}/train_loss"]
        steps = start + record["config"]["log_every"] * np.arange(curve.shape[1])
        label = method.rpartition("/")[2]
        draw_curve(axes, steps, curve, label=label, **method_style(method, list(methods)))
    if regime["target"]:
        axes.axhline(regime["target"], color="0.5", lw=0.8, ls=":")
    axes.set_yscale("log")
    axes.set_xlabel("gradient steps")
    axes.set_ylabel("training loss")
    axes.legend()
