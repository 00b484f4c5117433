# SPDX-License-Identifier: Apache-2.0
"""Settings that cannot work, named before any work."""

import math
import warnings

from plprune.matrix_sensing.problem import degrees_of_freedom
from plprune.matrix_sensing.pruning import escape_bound


class CollapseWarning(UserWarning):
    """The regulariser outweighs the data near 0: from a tiny start every column vanishes."""


def check_problem(d: int, k: int, r: int, n: int | None = None, noise: float = 0.0) -> None:
    """Raise `ValueError` where the truth cannot be held or cannot be identified.

    Args:
      d: Rows of U, at least 1.
      k: Columns of U; r <= k.
      r: Rank of the truth, 1 <= r <= d.
      n: Number of measurements, at least r d - r (r - 1) / 2, the number of unknowns; None for the
        population.
      noise: Standard deviation of a label, finite and at least 0.
    """
    if d < 1:
        raise ValueError(f"d must be at least 1, got {d}.")
    if not 1 <= r <= d:
        raise ValueError(f"r must lie in [1, d = {d}], got {r}.")
    if k < r:
        raise ValueError(f"k must be at least r = {r}, got {k}.")
    unknowns = degrees_of_freedom(d, r)
    if n is not None and n < unknowns:
        raise ValueError(
            f"n must be at least {unknowns}, the degrees of freedom of a {d} x {d} matrix of rank "
            f"{r}, got {n}: the truth is not identifiable."
        )
    if not 0 <= noise < math.inf:
        raise ValueError(f"sigma, the noise, must be finite and at least 0, got {noise}.")


def check_regulariser(strength: float, beta: float, *, gain: float, form: str = "rational") -> None:
    """Raise `ValueError` for impossible values; warn where a tiny start would collapse to 0.

    Args:
      strength: lambda, at least 0. At or above `escape_bound` it draws a `CollapseWarning`.
      beta: Smoothing, > 0.
      gain: From `escape_gain`.
      form: ``rational`` or ``convex``.
    """
    if form not in ("rational", "convex"):
        raise ValueError(f"form must be rational or convex, got {form!r}.")
    if not 0 < beta < math.inf:
        raise ValueError(f"beta must be positive and finite, got {beta}.")
    if not 0 <= strength < math.inf:
        raise ValueError(f"lambda must be at least 0 and finite, got {strength}.")
    bound = escape_bound(gain, beta=beta, form=form)
    if strength >= bound:
        warnings.warn(
            f"lambda must stay below {bound:.3g} (the escape bound at beta = {beta:g}), "
            f"got {strength:g}: from a tiny start every column will collapse to 0.",
            CollapseWarning,
            stacklevel=2,
        )
