# SPDX-License-Identifier: Apache-2.0
"""Gradient descent beside the theory: eigenvalues, radii, and fewer parameters than examples."""

import numpy as np

from experiments.pl_star.config import Config
from experiments.pl_star.networks import System, examples, num_parameters, perceptron
from experiments.pl_star.tracing import ROUNDING, descent_system, descent_trace, traced
from plprune.constants import almost_pl, ball_certificate, radii


def eigenvalue(config: Config, seed: int):
    """lambda_min(K) along gradient descent for each width, and what certificates promise of it."""
    found = {}
    for width in sorted(config.widths):
        trace, _ = descent_trace(config, width, seed)
        one = _certified(trace, config.examples)
        params = descent_system(config, width, seed).params
        one |= {"loss": trace.loss, "parameters": num_parameters(params)}
        found |= {f"width_{width}/{name}": value for name, value in one.items()}
    return found


def _certified(trace, count):
    """Bounds on the ball that has just been left, with suprema as large as the run has seen."""
    start, top, bent = trace.lowest[0], trace.highest.max() ** 0.5, trace.hessian_norm.max()
    bounds = ball_certificate(
        start, top, bent, np.maximum(trace.distance, 1e-12),
        initial_loss=trace.loss[0], num_outputs=count,
    )  # fmt: skip
    slack = ROUNDING * trace.highest
    outside = trace.ratio < trace.lowest - slack
    outside |= trace.ratio > trace.highest + slack
    # A loss of rounding noise has no ratio.
    resolved = trace.loss > 1e-20 * trace.loss[0]
    return {
        "ratio_violations": int((outside & resolved).sum()),
        "bound_violations": int((trace.lowest < bounds.sharp_pl_constant - slack).sum()),
        "initial_eigenvalue": start,
        "smallest_eigenvalue": trace.lowest.min(),
        "distance": trace.distance[-1],
        # Where the sharper bound reaches zero; the other does sooner.
        "certified_distance": start**0.5 / (count**0.5 * bent),
        "lambda_min": trace.lowest,
        "lambda_max": trace.highest,
        "pl_ratio": trace.ratio,
        "bound": np.asarray(bounds.pl_constant),
        "sharp_bound": np.asarray(bounds.sharp_pl_constant),
    }


def radius(config: Config, seed: int):
    """How far gradient descent travels, beside three radii from constants along its own path."""
    width = config.widths[-1]
    trace, smoothness = descent_trace(config, width, seed)
    mu, top = trace.lowest.min(), trace.highest.max() ** 0.5
    bounds = radii(mu, smoothness, trace.loss[0], jacobian_norm=top)
    smallest = float(np.min(np.stack(bounds)))
    return {
        "radius/parameters": num_parameters(descent_system(config, width, seed).params),
        "gd/radius_violations": int((trace.length > smallest).sum()),
        "gd/path_length": trace.length[-1],
        "gd/distance": trace.distance[-1],
        "gd/path_radius": float(bounds.path),
        "gd/square_loss_radius": float(bounds.square_loss),
        "gd/smooth_radius": float(bounds.smooth),
        "gd/path_lengths": trace.length,
        "gd/distances": trace.distance,
    }


def almost(config: Config, seed: int):
    """Fewer parameters than examples: the ratio, and when the loss passes each threshold."""
    inputs, targets = examples(config.dataset, config.almost_examples, seed, pooled=True)
    apply, init = perceptron(inputs.shape[1], config.almost_width, config.parameterization)
    params = init(seed)
    system = System(apply, params, inputs, targets)
    trace, smoothness = traced(system, config.almost_steps, config.checks)
    found = {
        "almost/loss": trace.loss,
        "almost/pl_ratio": trace.ratio,
        "almost/smallest_eigenvalue": trace.lowest.max(),
        "almost/parameters": num_parameters(params),
        "almost/smoothness": smoothness,
    }
    for fraction in config.fractions:
        one = almost_pl(trace.loss, trace.ratio, smoothness, threshold=fraction * trace.loss[0])
        reached = int(one.stopping_time) >= 0
        found |= {
            f"eps_{fraction:g}/almost_pl_constant": float(one.pl_constant),
            f"eps_{fraction:g}/stopping_time": int(one.stopping_time) if reached else np.nan,
            f"eps_{fraction:g}/stopping_bound": float(one.bound) if reached else np.nan,
        }
    return found
