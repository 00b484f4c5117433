# SPDX-License-Identifier: Apache-2.0
"""The words of a record: what each number is called and means, and how it was measured."""

from experiments.report.tables import Metric

METRICS = {
    "kept_columns": Metric("kept columns", "Columns above the pruning threshold."),
    "large_column_fraction": Metric(
        "large columns", "Share of the columns with at least half of the largest norm.", "%"
    ),
    "squared_error": Metric(
        "squared error", "Squared distance to the ground truth before pruning.", better="lower"
    ),
    "squared_error_pruned": Metric(
        "pruned squared error", "The same after greedy pruning.", better="lower"
    ),
    "finetune_r2": Metric(
        "fine-tuning R\N{SUPERSCRIPT TWO}",
        "Of a line through the logarithm of the squared distance to the run's own limit, against "
        "steps.",
        better="higher",
    ),
    "kept_nodes": Metric("kept nodes", "Share of the hidden nodes that were kept.", "%"),
    "parameters": Metric("parameters", "Of the shrunk network."),
    "train_seconds": Metric(
        "training time",
        "Wall time of training, compilation apart.",
        "s",
        better="lower",
    ),
    "test_accuracy": Metric(
        "test accuracy", "Share of the test set that is classified correctly.", "%", better="higher"
    ),
    "squared_error_finetuned": Metric(
        "fine-tuned squared error",
        "Squared distance to the ground truth after pruning and fine-tuning.",
        better="lower",
    ),
    "predicted_error": Metric("\u03c3\u00b2rd/n", "The rate that theory gives, with constant 1."),
    "steps": Metric("steps", "Gradient steps of training."),
    "finetune_slope": Metric(
        "fine-tuning slope", "Fitted, of the natural logarithm of the squared distance per step."
    ),
    "finetune_predicted_slope": Metric(
        "predicted slope", "From the Hessian's smallest excited eigenvalue at the limit."
    ),
    "finetune_decades": Metric("decades", "That the fitted squared distances span."),
    "exact_fraction": Metric(
        "exactly r", "Share of the settings (lambda, beta) that end with r columns.", "%"
    ),
    "collapsed_beyond_bound": Metric(
        "collapsed beyond the bound", "Share of the settings beyond the escape bound.", "%"
    ),
    "collapsed_within_bound": Metric("collapsed within the bound", "The same within it.", "%"),
    "risk": Metric("risk", "Mean square error over all inputs, in closed form.", better="lower"),
    "risk_pruned": Metric("pruned risk", "After greedy pruning.", better="lower"),
    "risk_finetuned": Metric("fine-tuned risk", "After fine-tuning.", better="lower"),
    "nodes_above_threshold": Metric("nodes above the threshold", "Of 2 sqrt(beta).", "%"),
    "test_accuracy_pruned": Metric(
        "pruned accuracy", "Of the shrunk model, with as many nodes as group lasso left.", "%"
    ),
    "test_accuracy_finetuned": Metric("fine-tuned accuracy", "Of the same, fine-tuned.", "%"),
}


def setting(config, *, grid: bool = False, strength: bool = True) -> str:
    """The sizes that a run was made at, for a figure's title.

    Args:
      config: Of the record.
      grid: Those of the figures with many runs.
      strength: Whether lambda and beta count.
    """
    names = ("grid_d", "grid_d", "grid_r", "grid_n", "grid_sigma", "grid_lam")
    names = names if grid else ("d", "k", "r", "n", "sigma", "lam")
    d, k, r, n, sigma, lam = (config[name] for name in names)
    sizes = f"d = k = {d}" if d == k else f"d = {d}, k = {k}"
    data = f"n = {n:,}, \u03c3 = {sigma:g}" if n else "population loss"
    tail = f", \u03bb = {lam:g}, \u03b2 = {config['beta']:g}" if strength else ""
    return f"{sizes}, r = {r}, {data}{tail}"


def measured(record) -> list[str]:
    """How the numbers came about, and what they do not show."""
    config = record["config"]
    return [
        f"Matrix sensing: {setting(config)}; the truth has singular values 1, the "
        f"start has columns of norm {config['start']:g}. A column stays where its norm exceeds "
        f"2 sqrt(\u03b2) = {2 * config['beta'] ** 0.5:.3g}; after plain training, where that says "
        "nothing, the r largest stay. Training is in float32, all after it in float64.",
        "A squared error is |UU' - U*U*'|_F^2, to the noiseless truth. Pruning the plainly trained "
        "factor destroys its fit; fine-tuning finds the truth again even so, since any r columns "
        "near the truth's span are a good start. What group lasso gives is the number r, and a "
        "pruned factor that is right before any fine-tuning.",
        f"Figures with many runs: {setting(config, grid=True)}. In the figure of the "
        "error \u03bb and sqrt(\u03b2) follow n^(-3/4), as the strength below which noise holds up "
        "a column does; the quadratic network, whose gradient is 2 + r times as steep, takes "
        f"(2 + r) \u03bb. Training there takes at most {config['steps'] // 2:,} steps: in the "
        "phase diagram a small \u03bb leaves too many columns because they merge slowly, not "
        "because the optimum has more than r.",
        "Classifiers: a node's norm is that of all its weights, in and out; nodes are ranked "
        "within their layer; plain training is pruned to as many nodes per layer as group lasso "
        "left.",
    ]
