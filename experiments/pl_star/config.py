# SPDX-License-Identifier: Apache-2.0
"""PL* on real networks: where the theory of over-parameterised systems binds and where it is loose.

Claim [Liu 2022]: in wide networks with a linear output layer the Hessian norm falls as one over
the square root of the width, so the tangent kernel hardly changes and gradient descent converges
linearly to a solution near its start; the landscape is not convex around it.

    python -m experiments pl_star width --preset cpu
    python -m experiments pl_star --preset cpu

Expected: a slope of -0.5 of the Hessian norm for a linear output with weights +-1 and 0 for a
non-linear one; no step above a bound, outside of a radius or off the spectrum; log kappa of random
Jacobians 4.90 (10 x 12), 1.10 (10 x 100) and 5.72 (50 x 60).
"""

from dataclasses import dataclass

from experiments import About

FIGURES = ("surface", "width", "eigenvalue", "rate", "radius", "nonconvex", "jacobian", "almost")
ON_ONE_DEVICE = ("surface", "nonconvex")  # Two parameters, or four examples.
MODELS = ("mlp", "cnn", "resnet")
PARAMETERIZATIONS = ("ntk", "standard")
_LOSS = "Losses are sums over the n examples, each with one output; m counts parameters."


@dataclass(frozen=True)
class Config:
    """Sizes of all figures; the data are `examples` images, their targets +-1 by parity."""

    scale: str
    seed: int = 0
    seeds: int = 3
    dataset: str = "digits"  # digits, or an image set that TFDS has prepared.
    examples: int = 8  # Training examples n of the runs of gradient descent.
    parameterization: str = "ntk"  # Of gradient descent's networks: ntk or standard.
    steps: int = 400  # Of gradient descent.
    checks: int = 10  # Points along it where Hessians are measured.
    # Surfaces of a network with two parameters.
    grid: int = 61
    # Hessian norms against the width, at initialisation.
    hessian_widths: tuple[int, ...] = (64, 128, 256, 512, 1024, 2048, 4096)
    hessian_examples: int = 4
    # Gradient descent against the width; the last width is that of `rate` and `radius`.
    widths: tuple[int, ...] = (64, 512, 256)
    # Stochastic gradient descent.
    batch_sizes: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    sgd_steps: int = 300
    repeats: int = 32
    # Around a solution.
    solution_width: int = 12
    solution_examples: int = 4
    deltas: int = 7  # Distances of the residual from zero, from 1e-6 to 1.
    # Conditioning of Jacobians.
    draws: int = 1000
    parameters: tuple[int, ...] = (2, 4, 6, 8, 9, 10, 11, 12, 15, 20, 40, 100)  # For n = 10.
    aspect_draws: int = 200
    models: tuple[str, ...] = MODELS
    model_widths: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 8, 12, 24)
    model_examples: int = 76  # The MLP has 73 parameters at width 4, the CNN 79 at width 3.
    # The ResNet's parameters come in large steps, so its examples vary instead.
    resnet_channels: int = 2
    resnet_examples: tuple[int, ...] = (20, 40, 60, 80, 90, 95, 100, 110, 130, 160, 240, 400)
    # Fewer parameters than examples.
    almost_examples: int = 80
    almost_width: int = 4
    almost_steps: int = 2000
    fractions: tuple[float, ...] = (0.5, 0.3, 0.2, 0.1)  # Thresholds, in units of the first loss.


ABOUT = {
    "quick": About(1, claim="Every figure in miniature. A smoke test: its numbers mean nothing."),
    "cpu": About(
        None,
        claim="The slopes at the widths that the claim is stated for; each figure under 5 minutes.",
        expected="a slope of -0.5 of the Hessian norm for a linear output and 0 for a non-linear "
        "one; no step above a bound; log kappa of random Jacobians 4.90, 1.10 and 5.72.",
    ),
    "fashion_mnist": About(
        None,
        "fashion_mnist in TFDS_DATA_DIR",
        "The same with more seeds and examples, of clothes: hours without an accelerator.",
    ),
}
PRESETS = {
    "quick": Config(
        scale=f"A smoke test: n = 6 digits, at most 256 hidden units. {_LOSS}",
        seeds=2, examples=6, steps=200, checks=4, grid=31, hessian_widths=(32, 256),
        widths=(16, 64), batch_sizes=(1, 64), sgd_steps=100, repeats=8, deltas=4, draws=300,
        aspect_draws=50, parameters=(5, 10, 20, 100), models=("mlp",),
        model_widths=(2, 4, 8), model_examples=72, almost_steps=400, fractions=(0.5, 0.3),
    ),
    "cpu": Config(
        scale=f"n = 8 digits and up to 4096 hidden units; the paper's figures are drawings. {_LOSS}"
    ),
    "fashion_mnist": Config(
        scale=f"n = 32 images of Fashion-MNIST, up to 4096 hidden units. {_LOSS}",
        seeds=5, dataset="fashion_mnist", examples=32, hessian_examples=8, steps=3000, checks=20,
        widths=(64, 512, 1024, 256), sgd_steps=3000, repeats=64, draws=10_000, aspect_draws=1000,
    ),
}  # fmt: skip


def check(config: Config) -> None:
    """Raise ValueError, in one line, for settings that cannot be run."""
    unknown = [name for name in config.models if name not in MODELS]
    if unknown:
        raise ValueError(f"no model {unknown[0]!r}; there are {', '.join(MODELS)}.")
    if config.parameterization not in PARAMETERIZATIONS:
        raise ValueError(
            f"parameterization must be ntk or standard, got {config.parameterization!r}."
        )
    if not 2 <= config.examples <= 1000:
        raise ValueError(f"examples must lie in [2, 1000], got {config.examples}.")
    if any(n % config.checks for n in (config.steps, config.sgd_steps, config.almost_steps)):
        raise ValueError(f"checks must divide the numbers of steps, got {config.checks}.")
    if len(config.hessian_widths) < 2 or min(config.hessian_widths) < 1:
        raise ValueError(f"hessian_widths must be two at least, got {config.hessian_widths}.")
    # 18 parameters per hidden unit of a network on images of 4 x 4.
    if 18 * config.almost_width + 1 >= config.almost_examples:
        raise ValueError(
            f"almost_examples must exceed {18 * config.almost_width + 1} parameters, "
            f"got {config.almost_examples}."
        )
    if not all(0 < fraction < 1 for fraction in config.fractions):
        raise ValueError(f"fractions must lie in (0, 1), got {config.fractions}.")
