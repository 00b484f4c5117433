# SPDX-License-Identifier: Apache-2.0
"""The words of a record: numbers by name, which condition holds where, and the trends."""

from experiments.alpha_beta.trends import figure_of, trends
from experiments.report.tables import Cell, Metric, Table, known_metrics, metric_tables, number

EXAMPLES = {
    "line": "a line of minimisers",
    "two_wells": "two minimisers and a saddle",
    "shallow_well": "a local minimum",
    "near_wells": "two minimisers and a saddle",
    "shared_line": "4 functions in R\u2074, a hyperplane of minimisers",
    "wells": "3 functions in R\u00b3, several minimisers",
    "factorization": "a matrix factorised, with noise",
    "relu_logistic": "a two-layer ReLU network",
}
METRICS = {
    "parameters": Metric("parameters", "Of the model."),
    "smallest_alpha": Metric(
        "smallest \u03b1",
        "The smallest that works at every recorded step, with alpha at least beta + .1.",
    ),
    "smallest_beta": Metric("its tightest \u03b2", "The smallest beta that works with it."),
    "beta_at_2": Metric(
        "\u03b2 for \u03b1 = 2",
        "The smallest beta that works with alpha = 2; 0 where every minibatch's loss is a "
        "quadratic that is least at the last iterate.",
        missing="none works",
    ),
    "noise_factor": Metric(
        "smallest \u03b2/(\u03b1-\u03b2)",
        "Over all pairs that work: twice this, times the noise, is the error that the bound of "
        "gradient descent leaves.",
    ),
    "min_angle": Metric(
        "smallest cosine",
        "Of the angle between the gradient and the way from the last iterate (in the examples: "
        "from the nearest minimiser); below 0 the aiming condition fails.",
    ),
    "early_angle": Metric(
        "early cosine", "Mean of the cosine over the first twentieth of the steps."
    ),
    "negative_share": Metric(
        "early negative angles",
        "Share of the steps in the first quarter whose angle is negative.",
        "%",
    ),
    "pl_constant": Metric(
        "PL constant", "Smallest squared gradient norm over twice the loss, with f* = 0 in runs."
    ),
    "final_loss": Metric(
        "final loss",
        "Mean over the run's minibatches of the training loss at the last iterate.",
        better="lower",
    ),
    "aiming_constant": Metric(
        "aiming constant", "Smallest <grad f, x - x_p> / f over the sampled points."
    ),
    "quasar_constant": Metric(
        "quasar-convexity constant", "Smallest <grad f, x - x_p> / (f - f*) over the points."
    ),
    "minimum": Metric("minimum", "f* of the whole sum."),
    "interpolation_gap": Metric("f* - mean f_i*", "0 under interpolation."),
    "plateau_gradient": Metric(
        "plateau's gradient",
        "Smallest norm of the whole gradient while the whole loss lies in (.45, .65).",
        missing="no plateau",
    ),
    "plateau_share": Metric(
        "its share", "The same over the largest norm of the run.", missing="no plateau"
    ),
}
CONDITIONS = {
    "quasar_constant": "quasar-convex",
    "aiming_constant": "aiming",
    "pl_constant": "PL",
    "smallest_alpha": "\u03b1-\u03b2",
}
RESOLVED = 1e-3  # A constant below this, over points, says that the condition fails (our choice).


def measured(record) -> list[str]:
    """What was measured, and every trend in a sentence."""
    how = (
        "Each run is made twice from its seed. The second time records, at every step, the "
        "gradient's product with the way from the first run's last iterate and the loss of the "
        "minibatch there and here, in training mode with that minibatch's own statistics; f* of a "
        "minibatch is taken to be 0."
    )
    return [how, *(trend.sentence() for trend in trends(record).values())]


def findings(record) -> dict[str, str]:
    """What each figure shows, by its name: the sentences on its trends."""
    found: dict[str, str] = {}
    for name, trend in trends(record).items():
        found[figure_of(name)] = f"{found.get(figure_of(name), '')} {trend.sentence()}".strip()
    return found


def tables(record):
    """A table of the conditions and one of the trends where there are any, then the usual ones."""
    found = metric_tables(record, known_metrics(record, METRICS))
    told = trends(record)
    if told:
        found.insert(0, _trends(told.values()))
    if all(name in record["results"] for name in EXAMPLES):
        found.insert(0, _conditions(record["results"]))
    return found


def _trends(told):
    rows = tuple(
        (
            Cell(trend.subject),
            Cell(trend.expected),
            Cell(trend.verdict),
            Cell(", ".join(f"{error:+.1f}" for error in trend.errors)),
            Cell(trend.found),
        )
        for trend in told
    )
    text = (
        "Differences that the paper has positive, in standard errors of them: shown where every "
        "one exceeds 2, not shown where one is below -2 or is smaller than .01 itself."
    )
    columns = ("setting", "the paper", "verdict", "differences", "here")
    return Table("Trends", columns, rows, text)


def _conditions(results):
    rows = tuple(
        (
            Cell(name),
            Cell(what),
            *(_verdict(metric, results[name][metric]) for metric in CONDITIONS),
        )
        for name, what in EXAMPLES.items()
    )
    text = (
        "Constants over random points around the minimisers. A ratio below .001 counts as failing; "
        "the last column shows the smallest alpha."
    )
    return Table("Which condition holds", ("example", "what", *CONDITIONS.values()), rows, text)


def _verdict(metric, entry):
    mean = entry["mean"]
    if metric == "smallest_alpha":
        return Cell("fails" if mean is None else f"holds: {number(mean)}", mean)
    if mean is None:
        return Cell("\u2013")
    return Cell(f"{'holds' if mean > RESOLVED else 'fails'}: {number(mean)}", mean)
