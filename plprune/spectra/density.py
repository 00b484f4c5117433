# SPDX-License-Identifier: Apache-2.0
"""Traces and spectral densities from random probes, with standard errors."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray
from matfree import stochtrace

from plprune.spectra.lanczos import VectorProduct, tridiagonal

_dot = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)


class ProbeMean(NamedTuple):
    """A mean over independent random probes."""

    value: Float[Array, "..."]
    standard_error: Float[Array, "..."]


class SpectralMeasure(NamedTuple):
    """Gauss quadrature of the eigenvalues' distribution, one rule of m nodes per probe."""

    nodes: Float[Array, "probes m"]
    weights: Float[Array, "probes m"]  # Non-negative; they sum to 1 per probe.


def trace(
    matvec: VectorProduct, like: Float[Array, " n"], *, key: PRNGKeyArray, num_probes: int
) -> ProbeMean:
    """The trace by random signs [Hutchinson 1989], one product per probe.

    Exact for a diagonal matrix; the variance is twice the sum of the squared entries off the
    diagonal, divided by `num_probes`.

    Raises:
      ValueError: fewer than two probes, which have no standard error.
    """
    _check_probes(num_probes)
    sampler = stochtrace.sampler_signs(like, num=num_probes)
    integrand = stochtrace.monte_carlo_trace()
    estimate = stochtrace.estimator_monte_carlo_mean_and_sem(integrand, sampler)
    mean, error = estimate(matvec, key)
    # The sample's spread is taken about its own mean, which hides one probe's worth of it.
    return ProbeMean(mean, error * (num_probes / (num_probes - 1)) ** 0.5)


def spectral_measure(
    matvec: VectorProduct,
    like: Float[Array, " n"],
    *,
    key: PRNGKeyArray,
    num_probes: int,
    num_steps: int,
) -> SpectralMeasure:
    """The distribution of the eigenvalues by stochastic Lanczos quadrature.

    Each probe integrates polynomials of degree below ``2 num_steps`` exactly against its own
    measure, whose mean over probes is that of the n eigenvalues. Unlike a recurrence that divides
    by its last off-diagonal entry it survives a Krylov space that closes. Costs
    ``num_probes * num_steps`` products, one probe after the other.

    Raises:
      ValueError: fewer than two probes, or `num_steps` outside [1, n].

    References:
      [Ubaru 2017].
    """
    _check_probes(num_probes)
    if not 1 <= num_steps <= like.size:
        raise ValueError(f"num_steps must lie in [1, {like.size}], got {num_steps}.")

    def rule(probe_key):
        small = tridiagonal(matvec, like, key=probe_key, num_steps=num_steps)
        nodes, vectors = jnp.linalg.eigh(small)
        return SpectralMeasure(nodes, vectors[0] ** 2)

    return jax.lax.map(rule, jax.random.split(key, num_probes))


def density(measure: SpectralMeasure, grid: Float[Array, " x"], width: float) -> ProbeMean:
    """The density of eigenvalues at `grid`, smoothed by a Gaussian of standard deviation `width`.

    It integrates to 1; multiply by n for a count of eigenvalues.

    Raises:
      ValueError: a width that is not positive.
    """
    if width <= 0:
        raise ValueError(f"width must be positive, got {width}.")
    distance = (grid[None, None] - measure.nodes[..., None]) / width
    bumps = jnp.exp(-(distance**2) / 2) / (width * (2 * jnp.pi) ** 0.5)
    per_probe = jnp.einsum("pm,pmx->px", measure.weights, bumps, precision="highest")
    error = jnp.std(per_probe, axis=0, ddof=1) / len(per_probe) ** 0.5
    return ProbeMean(jnp.mean(per_probe, axis=0), error)


def _check_probes(num_probes):
    if num_probes < 2:
        raise ValueError(f"num_probes must be at least 2, got {num_probes}.")
