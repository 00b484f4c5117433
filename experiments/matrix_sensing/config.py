# SPDX-License-Identifier: Apache-2.0
"""Greedy pruning with group lasso: matrix sensing, and two image classifiers.

Claim [Rajaraman 2023]: over-parametrised training with a group lasso on the columns leaves exactly
r of them above a threshold, pruning the others is harmless and fine-tuning converges linearly;
plain training leaves many columns near the largest, and greedy pruning destroys the fit.

    python -m experiments matrix_sensing columns --preset paper
    python -m experiments matrix_sensing --preset small

Expected: 4 columns with the regulariser on every seed; about 35 % of the columns at or above half
of the largest norm without it.
"""

from dataclasses import dataclass

from experiments import About

FIGURES = ("columns", "start", "finetuning", "error", "phase", "quadratic", "network")
ON_ONE_DEVICE = FIGURES  # One factor U, or many tiny ones: nothing to spread.
OPERATORS = ("gaussian", "streamed", "rank_one", "fourier")
STORED_LIMIT = 2**31  # Bytes of stored measurements.


@dataclass(frozen=True)
class Config:
    """One setting. lam, beta, the thresholds and every step size are our choice."""

    scale: str
    seed: int = 0
    seeds: int = 10
    d: int = 500  # Rows of U.
    k: int = 500  # Columns of U.
    r: int = 4  # Rank of the truth, whose singular values are all 1.
    n: int = 0  # Measurements; 0 is the population, without noise.
    sigma: float = 0.0  # Standard deviation of the noise on a measurement.
    lam: float = 0.02  # Weight of the regulariser.
    beta: float = 1e-3  # Smoothing of the regulariser; the threshold is 2 sqrt(beta).
    form: str = "rational"  # Regulariser: rational or convex.
    operator: str = "gaussian"  # Measurements: gaussian, streamed, rank_one or fourier.
    start: float = 1e-3  # Norm of a column at the start.
    step_size: float = 0.1
    steps: int = 10_000  # At most; training stops at a gradient of norm `tol`.
    plain_steps: int = 600  # Plain training: it has fitted long before.
    finetune_steps: int = 200
    tol: float = 1e-6
    # The figures with many runs (error, phase, quadratic, and start and fine-tuning in part).
    grid_d: int = 20
    grid_r: int = 2
    grid_n: int = 1500
    grid_sigma: float = 0.5
    grid_lam: float = 0.045  # Above `spurious_bound`, below the escape bound.
    sizes: tuple[int, ...] = (150, 300, 600, 1500, 3000, 6000)
    cells: int = 16  # Values of lambda, and of beta.
    starts: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 0.03, 0.1, 0.2, 0.5)
    # The classifiers: data set, then hidden widths.
    datasets: tuple[str, ...] = ("digits", "fashion_mnist")
    widths: tuple[int, ...] = (64, 64)
    network_steps: int = 2500  # Of Adam; fine-tuning takes a fifth of it.
    network_lam: float = 5e-3
    network_beta: float = 1e-4
    examples: int = 10_000  # At most, of the training set.
    fractions: int = 10  # Pruned sizes between one node per layer and all.


ABOUT = {
    "quick": About(1, claim="Figure 1's claim in miniature. A smoke test."),
    "small": About(
        None, "fashion_mnist in TFDS_DATA_DIR for the figure network",
        "Recovery from noisy measurements at 1/25 of the paper's size.",
        "squared error after fine-tuning at most 1.2 sigma^2 r d / n = .0080 on average; 2 "
        "columns.",
    ),
    "paper": About(
        None, "fashion_mnist in TFDS_DATA_DIR for the figure network",
        "The paper's size, on the population loss.",
        "4 columns, fine-tuned error < 1e-10, about 35 % large columns without the regulariser.",
    ),
    "paper_empirical": About(
        None, "fashion_mnist in TFDS_DATA_DIR for the figure network",
        "The same from 20,000 noisy measurements.",
        "error near sigma^2 r d / n = .001.",
    ),
}  # fmt: skip
PRESETS = {
    "quick": Config(
        scale="A smoke test: 1/25 of the paper's size; grids at d = k = 12.",
        seeds=2, d=20, k=20, r=2, plain_steps=300, steps=3000, grid_d=12, cells=6,
        sizes=(300, 1200),
        starts=(1e-3, 0.1, 0.5), finetune_steps=100, datasets=("digits",),
        widths=(32, 32), network_steps=1200, network_lam=1e-2, fractions=4,
    ),
    "small": Config(
        scale="d = k = 20 (the paper shows 500), from noisy measurements.",
        d=20, k=20, r=2, n=1500, sigma=0.5, lam=0.045,
    ),
    "paper": Config(scale="The paper's size, on the population loss; the grids at d = k = 20."),
    "paper_empirical": Config(
        scale="The paper's size, from 20,000 measurements by a subsampled cosine transform.",
        seeds=3, n=20_000, sigma=0.1, operator="fourier",
    ),
}  # fmt: skip


def check(config: Config) -> None:
    """Raise ValueError for settings that cannot work.

    A lambda at or beyond the escape bound is one: from a small start every column collapses. The
    figure `phase` shows what happens there.
    """
    import warnings

    from plprune import matrix_sensing

    matrix_sensing.check_problem(config.d, config.k, config.r, config.n or None, noise=config.sigma)
    if config.sigma > 0 and config.n == 0:
        raise ValueError("sigma needs measurements: n must be positive, got 0 (the population).")
    if config.operator not in OPERATORS:
        raise ValueError(f"operator must be one of {', '.join(OPERATORS)}, got {config.operator}.")
    _check_size(config)
    if not 0 < config.start <= 1:
        raise ValueError(f"start must lie in (0, 1], got {config.start}.")
    with warnings.catch_warnings():
        warnings.simplefilter("error", matrix_sensing.CollapseWarning)
        try:
            matrix_sensing.check_regulariser(config.lam, config.beta, gain=1.0, form=config.form)
        except matrix_sensing.CollapseWarning as collapse:
            raise ValueError(str(collapse)) from None


def _check_size(config):
    stored = 4 * config.n * config.d**2
    if config.operator == "gaussian" and stored > STORED_LIMIT:
        raise ValueError(
            f"operator gaussian would store {stored / 2**30:.1f} GiB of measurements (at most "
            f"{STORED_LIMIT / 2**30:.0f}): choose streamed, rank_one or fourier, or a smaller n."
        )
    if config.operator == "fourier" and config.n > config.d**2:
        raise ValueError(f"n must be at most d^2 = {config.d**2} for fourier, got {config.n}.")
