# SPDX-License-Identifier: Apache-2.0
"""Spectra: of a kernel, eigenvalue by eigenvalue, and of a Hessian, as a density."""

from math import prod
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray

from plprune.constants.resolution import of_dtypes
from plprune.operators import flat, hessian_product
from plprune.pictures.look import BLUE, GREY, VERMILION, new_figure, shown, style
from plprune.spectra import density, spectral_measure
from plprune.types import Objective, Params

_GRID = 400


def kernel_spectrum(kernel: Float[Array | np.ndarray, "..."]) -> Any:
    """The eigenvalues of a kernel in order, and the band in which rounding hides them.

    An eigenvalue below ``max(10, sqrt n) eps`` of the largest cannot be told from zero in the
    kernel's dtype: it lies in the grey band, whatever value the solver gave it.

    Args:
      kernel: [b, c, b, c] from `plprune.tangent_kernel`, or any symmetric positive semidefinite
        matrix [n, n].

    Returns:
      A matplotlib Figure; its title says how many are resolved, and the quotient of the largest
      and the smallest of those.

    Raises:
      ValueError: a kernel that is empty, not square or not finite.
      MissingExtraError: matplotlib is not installed.

    Cost: one eigen-decomposition of n x n numbers on the host, in float64.
    """
    matrix = _square(kernel)
    values = np.linalg.eigvalsh((matrix + matrix.T) / 2)[::-1]
    floor = of_dtypes([np.asarray(kernel).dtype]).rounding(len(values)) * max(values[0], 0.0)
    resolved = values[values > floor]
    with style():
        figure, ((axes,),) = new_figure()
        ranks = np.arange(1, len(values) + 1)
        axes.plot(ranks[: len(resolved)], resolved, color=BLUE, marker=".", linestyle="")
        if len(resolved) < len(values):
            hidden = np.full(len(values) - len(resolved), floor)
            axes.plot(ranks[len(resolved) :], hidden, color=GREY, marker="v", linestyle="")
        if len(resolved):
            axes.set_yscale("log")
            low = min(floor, resolved[-1]) / 3
            axes.set_ylim(low, resolved[0] * 3)
            axes.axhspan(low, floor, color=GREY, alpha=0.2, linewidth=0)
            axes.text(1, floor, "below: not resolved", va="top", color="#606060", fontsize=7)
        axes.set_xlabel("rank")
        axes.set_ylabel("eigenvalue of K")
        axes.set_title(_found(resolved, values))
    return figure


def hessian_density(
    objective: Objective,
    params: Params,
    batch: Any,
    *,
    key: PRNGKeyArray,
    num_probes: int = 4,
    num_steps: int = 40,
) -> Any:
    """The density of the Hessian's eigenvalues, by Lanczos quadrature from products alone.

    Args:
      objective: ``(params, batch) -> scalar``.
      params: Tree of arrays.
      batch: Passed to `objective`.
      key: Draws the probes.
      num_probes: At least 2; the band is one standard error over them.
      num_steps: Products of each probe; at most the number of parameters are made.

    Returns:
      A matplotlib Figure with a logarithmic density, smoothed by a hundredth of its range.

    Raises:
      ValueError: as `plprune.spectra.spectral_measure`.
      MissingExtraError: matplotlib is not installed.

    Cost: ``num_probes * num_steps`` products with the Hessian.

    References:
      [Ubaru 2017].
    """
    matvec = flat(hessian_product(objective, params, batch), params)
    vector = ravel_pytree(params)[0]
    steps = min(num_steps, vector.size)
    measure = spectral_measure(matvec, vector, key=key, num_probes=num_probes, num_steps=steps)
    nodes = np.asarray(measure.nodes, float)
    low, high = nodes.min(), nodes.max()
    width = max((high - low) / 100, np.finfo(np.float32).tiny)
    grid = np.linspace(low - 5 * width, high + 5 * width, _GRID)
    found = density(measure, jnp.asarray(grid, measure.nodes.dtype), float(width))
    value, error = np.asarray(found.value, float), np.asarray(found.standard_error, float)
    with style():
        figure, ((axes,),) = new_figure()
        least = max(value.max() * 1e-8, np.finfo(np.float32).tiny)
        axes.plot(grid, np.maximum(value, least), color=BLUE)
        band = np.maximum(value - error, least), np.maximum(value + error, least)
        axes.fill_between(grid, *band, color=BLUE, alpha=0.2, linewidth=0)
        for end in (low, high):
            axes.axvline(end, color=VERMILION, linewidth=0.8, linestyle=":")
        axes.set_yscale("log")
        axes.set_xlabel("eigenvalue of the Hessian")
        axes.set_ylabel("density")
        axes.set_title(f"eigenvalues from {shown(low)} to {shown(high)}")
    return figure


def _square(kernel):
    matrix = np.asarray(kernel, float)
    size = prod(matrix.shape[: matrix.ndim // 2])
    if not matrix.size or matrix.ndim not in (2, 4) or matrix.size != size**2:
        raise ValueError(f"kernel must be [n, n] or [b, c, b, c], got {list(matrix.shape)}.")
    if not np.isfinite(matrix).all():
        raise ValueError("kernel must be finite.")
    return matrix.reshape(size, size)


def _found(resolved, values):
    if not len(resolved):
        return f"none of {len(values):,} eigenvalues is resolved"
    told = f"{len(resolved):,} of {len(values):,} resolved"
    ratio = f"largest / smallest {shown(resolved[0] / resolved[-1])}"
    return f"{told}; {ratio}"
