# SPDX-License-Identifier: Apache-2.0
"""The words of a record of the map: what each number means, and every cell's verdict."""

from collections.abc import Mapping
from typing import Any

from experiments.pl_pruning.atlas.config import METHODS, RIVALS
from experiments.pl_pruning.atlas.trends import (
    FLOPS,
    SECONDS,
    STEPS,
    best_other,
    by_cell,
    counted,
    gap,
    most_steps,
    ratio,
)
from experiments.report.tables import Cell, Metric, Table, known_metrics, metric_tables, number

METRICS = {
    STEPS: Metric(
        "steps to target",
        "Steps until the training loss is at the cell's target: of full batches counted one by "
        "one, of minibatches at every evaluation over all training examples.",
        better="lower",
        missing="not reached",
    ),
    FLOPS: Metric(
        "FLOPs to target",
        "Three forward passes over a batch a step, and those of choosing the nodes, eigen-solvers "
        "apart.",
        better="lower",
        missing="not reached",
    ),
    SECONDS: Metric(
        "time to target",
        "Steps times the time of one, measured apart, and the time of choosing the nodes.",
        "s",
        better="lower",
        missing="not reached",
    ),
    "gating_seconds": Metric(
        "gating time", "Wall time of choosing the nodes, compilation apart.", "s", better="lower"
    ),
    "test_accuracy": Metric(
        "test accuracy",
        "After `equal_steps` steps, in which dense reached the target on the search's seeds.",
        "%",
        better="higher",
    ),
    "accuracy_at_flops": Metric(
        "accuracy at equal FLOPs",
        "After as many FLOPs as a half spends in `equal_steps` steps.",
        "%",
        better="higher",
    ),
    "rate": Metric(
        "learning rate",
        "The fewest steps in the mean over the search's seeds, on a grid of ratio 1.09 that widens "
        "until its best is interior; a quarter lower where a run diverges just above. Of gradient "
        "descent, in units of 1/L.",
    ),
    "interior": Metric("interior", "1 where both neighbours of the best rate were tried."),
    "step_seconds": Metric("step time", "Of one run alone, the shortest of some.", "s"),
    "step_flops": Metric("FLOPs of a step", "Three forward passes over the batch."),
    "equal_steps": Metric("equal steps", "Those after which accuracies are compared."),
}
_COLUMNS = (
    "cell", "best other half", "R, steps", "R, FLOPs", "R, time", "accuracy (points)",
    "dense, steps", "dense, FLOPs", "accuracy at its FLOPs (points)", "trace, steps",
)  # fmt: skip


def tables(record: Mapping[str, Any]) -> list[Table]:
    """The verdicts, then every cell's numbers."""
    rows = tuple(
        _row(record, name, methods) for name, methods in by_cell(record["results"]).items()
    )
    verdicts = Table(
        "Verdicts", _COLUMNS, rows,
        "Costs over kappa's, geometric means over the seeds with one standard error; what the "
        "interval of 95 % does not resolve is in brackets. Accuracies: kappa's less the other's.",
    )  # fmt: skip
    metrics = known_metrics(record, METRICS)
    return [*([verdicts] if rows else []), *metric_tables(record, metrics)]


def findings(record: Mapping[str, Any]) -> dict[str, str]:
    """What each figure shows."""
    cells, config = by_cell(record["results"]), record["config"]
    others = [best_other(m, most_steps(config, c)) for c, m in cells.items()]
    dense = [ratio(m, most_steps(config, c), "dense", FLOPS) for c, m in cells.items()]
    return {
        "other halves": f"Kappa's half against the best other one: {counted(others)}.",
        "dense": f"Kappa's half against all nodes, in FLOPs: {counted(dense)}.",
    }


def measured(record: Mapping[str, Any]) -> list[str]:
    """How every cell is run, and what the methods are."""
    config = record["config"]
    last = config["search_seed"] + config["search_seeds"] - 1
    intro = (
        f"Every method keeps {config['keep']:.0%} of each layer's nodes of the same initial tanh "
        f"network of width {config['width']} and trains it to the cell's training loss (of "
        "gradient descent at 1/L ten times as much). Rates are chosen on seeds "
        f"{config['search_seed']} to {last} alone. Residual networks have one stream, which stays; "
        "layernorm is residual with normalised blocks; centred subtracts the batch's mean from the "
        "outputs. L-BFGS takes no line search. Since every layer keeps the same fraction, random "
        "is kappa's mask shuffled within its layers."
    )
    methods = "; ".join(f"{m}: {METHODS[m].words}" for m in config["methods"] if m in METHODS)
    best = (
        f"Other halves are those of {', '.join(RIVALS)}. The best is the fastest of those that the "
        "seeds resolve as faster than kappa's, or else the one whose interval reaches lowest."
    )
    return [intro, best, f"{methods}."]


def _row(record, name, methods) -> tuple[Cell, ...]:
    most = most_steps(record["config"], name)
    best = best_other(methods, most)
    return (
        Cell(name),
        Cell(best.rival if best else ""),
        *(_told(best_other(methods, most, m)) for m in (STEPS, FLOPS, SECONDS)),
        _points(gap(methods, RIVALS, "test_accuracy")),
        _told(ratio(methods, most, "dense")),
        _told(ratio(methods, most, "dense", FLOPS)),
        _points(gap(methods, ("dense",), "accuracy_at_flops")),
        _told(ratio(methods, most, "trace")),
    )  # fmt: skip


def _told(found) -> Cell:
    return Cell("") if found is None else Cell(found.text, None if found.fault else found.value)


def _points(found) -> Cell:
    return Cell("") if found is None else Cell(number(100 * found[0], 100 * found[1]), found[0])
