# SPDX-License-Identifier: Apache-2.0
"""The words of a record: what each number is called and means, and how it was measured."""

from experiments.report.tables import Metric

_PATH = "Along gradient descent."
METRICS = {
    "hessian_norm_slope": Metric(
        "slope of the Hessian norm", "Of its logarithm against that of the width."
    ),
    "rate_violations": Metric("rate violations", "Steps at which the bound failed."),
    "radius_violations": Metric("radius violations", "Steps outside of the ball."),
    "random_jacobian_log_kappa": Metric("log kappa", "Mean over random Gaussian Jacobians."),
    "parameters": Metric("parameters", "Of the network."),
    "smallest_loss": Metric("smallest loss", "Reached by gradient descent from a grid of starts."),
    "flat_directions": Metric(
        "flat directions", "Vanishing Hessian eigenvalues where the smallest loss was reached."
    ),
    "kernel_change_slope": Metric(
        "slope of the kernel's change", "Of log |K - K0|/|K0| after training against log width."
    ),
    "ratio_violations": Metric(
        "ratio violations", "Steps at which the PL ratio left [lambda_min(K), lambda_max(K)]."
    ),
    "bound_violations": Metric(
        "bound violations", "Steps at which lambda_min(K) fell below its sharper lower bound."
    ),
    "constant_violations": Metric(
        "constant violations", "Checks at which mu, beta or lambda was worse than assumed."
    ),
    "initial_eigenvalue": Metric("initial eigenvalue", "lambda_min(K) at the start."),
    "smallest_eigenvalue": Metric("smallest eigenvalue", f"lambda_min(K). {_PATH}"),
    "certified_distance": Metric(
        "certified distance",
        "Where the sharper bound reaches 0, with |H_F| as large as at the checks: not a proof.",
    ),
    "distance": Metric("distance", "From the start, at the end of gradient descent."),
    "path_length": Metric("path length", "Of gradient descent."),
    "path_radius": Metric("path radius", "2 sqrt(2 L0 / mu)."),
    "square_loss_radius": Metric("square-loss radius", "2 L_F |r0| / mu."),
    "smooth_radius": Metric("smooth radius", "2 sqrt(2 beta L0) / mu."),
    "pl_constant": Metric("PL constant", f"Smallest lambda_min(K) of the sum loss. {_PATH}"),
    "smoothness": Metric("smoothness", f"beta: largest |Hessian eigenvalue| seen. {_PATH}"),
    "step_size": Metric("step size", "On the sum of a batch's gradients."),
    "hessian_rank": Metric("Hessian rank", "Of one output's Hessian at the solution."),
    "rank_needed": Metric("rank needed", "2 n + 1: the loss cannot be convex from there on."),
    "solution_loss": Metric("solution loss", "After Gauss-Newton steps in float64."),
    "negative_eigenvalue": Metric(
        "negative eigenvalue", "The smallest of the loss's Hessian where one residual is +-1e-6."
    ),
    "negative_share": Metric("negative share", "Of the distances with one below zero.", "%"),
    "log_kappa_bound": Metric("bound", "2 log(m/(m-n+1)) + 5."),
    "peak_ratio": Metric(
        "peak at", "Parameters per output at which log kappa is largest; theory says 1."
    ),
    "independent_parameters": Metric(
        "independent parameters",
        "Rank of DF on many examples: rescalings that change no output are not counted.",
    ),
    "almost_pl_constant": Metric(
        "PL constant above the threshold", "Smallest PL ratio until the loss passes it."
    ),
    "stopping_time": Metric(
        "stopping time", "First step with a loss below the threshold.", missing="not reached"
    ),
    "stopping_bound": Metric(
        "its bound", "From that PL constant and beta.", missing="not reached"
    ),
}  # fmt: skip


def measured(record) -> list[str]:
    """How the numbers came about: sizes, normalisation, and what is proof and what is a sample."""
    config = record["config"]
    seeds = len(record["seeds"])
    return [
        f"Data: {config['dataset']}; images less their mean, each of norm sqrt(d); targets +1 for "
        f"even and -1 for odd labels. {seeds} seeds draw the images and the weights.",
        f"Gradient descent runs on n = {config['examples']} examples with one output each. The "
        "loss is the sum 1/2 |F(w) - y|^2 and K = DF DF' is not normalised: divide both by n for "
        "means over examples.",
        "Constants 'along the path' are extremes over the steps (eigenvalues of K) or over "
        f"{config['checks']} evenly spaced steps (Hessians). The suprema over a ball that a "
        "certificate asks for are larger, so the lower bounds drawn are optimistic; even so they "
        "are loose at these widths and reach 0 long before gradient descent stops.",
        "Stochastic gradient descent takes its constants from gradient descent, made worse by a "
        "tenth, and checks them on the paths of four of its runs; its mean loss is over "
        f"{config['repeats']} runs, "
        "and it violates the bound where it lies above it by more than three standard errors.",
    ]
