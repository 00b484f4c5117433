"""The numbers of the alpha-beta-condition by name, and which condition holds on which example."""

from experiments.tables import Cell, Metric, Table, known_metrics, metric_tables, number

EXAMPLES = ("line", "two_wells", "shallow_well")
METRICS = {
    "smallest_alpha": Metric(
        "smallest \u03b1",
        "The smallest that works at every recorded step, with alpha at least beta + .1.",
    ),
    "smallest_beta": Metric("its tightest \u03b2", "The smallest beta that works with it."),
    "min_angle": Metric(
        "smallest cosine",
        "Of the angle between the gradient and the way from the last iterate (in the examples: "
        "from the nearest minimiser); below 0 the aiming condition fails.",
    ),
    "pl_constant": Metric(
        "PL constant", "Smallest squared gradient norm over twice the loss, with f* = 0 in runs."
    ),
    "final_loss": Metric("final loss", "Mean training loss at the last iterate.", better="lower"),
    "aiming_constant": Metric(
        "aiming constant", "Smallest <grad f, x - x_p> / f over the sampled points."
    ),
    "quasar_constant": Metric(
        "quasar-convexity constant", "Smallest <grad f, x - x_p> / (f - f*) over the points."
    ),
    "minimum": Metric("minimum", "f* of the whole sum."),
    "interpolation_gap": Metric("f* - mean f_i*", "0 under interpolation."),
}
CONDITIONS = {
    "quasar_constant": "quasar-convex",
    "aiming_constant": "aiming",
    "pl_constant": "PL",
    "smallest_alpha": "\u03b1-\u03b2",
}
RESOLVED = 1e-3  # A constant below this, over points, says that the condition fails (our choice).


def tables(record):
    """A table of the conditions where there are examples, then the usual ones."""
    usual = metric_tables(record, known_metrics(record, METRICS))
    if not all(name in record["results"] for name in EXAMPLES):
        return usual
    return [_conditions(record["results"]), *usual]


def _conditions(results):
    rows = tuple(
        (Cell(name), *(_verdict(metric, results[name][metric]) for metric in CONDITIONS))
        for name in EXAMPLES
    )
    text = (
        "Constants over random points around the minimisers. A ratio below .001 counts as failing; "
        "the last column shows the smallest alpha."
    )
    return Table("Which condition holds", ("example", *CONDITIONS.values()), rows, text)


def _verdict(metric, entry):
    mean = entry["mean"]
    if metric == "smallest_alpha":
        return Cell("fails" if mean is None else f"holds: {number(mean)}", mean)
    if mean is None:
        return Cell("\u2013")
    return Cell(f"{'holds' if mean > RESOLVED else 'fails'}: {number(mean)}", mean)
