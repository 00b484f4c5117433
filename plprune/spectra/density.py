# SPDX-License-Identifier: Apache-2.0
"""Traces and spectral densities from random probes, with standard errors."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from plprune.spectra.lanczos import VectorProduct, tridiagonal
from plprune.spectra.scaling import power_of_two, smallest_resolved, widened_product

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
    diagonal, divided by `num_probes`. Not a number where products are so small that the dtype has
    lost digits of them.

    Raises:
      ValueError: fewer than two probes, which have no standard error; a `like` that is empty or
        not of real floating-point numbers.
    """
    _check_probes(num_probes)
    dtype = like.dtype
    matvec, like = widened_product(matvec, like)

    def form(signs):
        image = matvec(signs)
        unit = power_of_two(image)
        return _or_nan(_dot(signs, image / unit) * unit, image, dtype)

    signs = jax.random.rademacher(key, (num_probes, like.size), like.dtype)
    forms = jax.vmap(form)(signs)
    unit = power_of_two(forms)
    forms = forms / unit
    error = jnp.std(forms, ddof=1) / num_probes**0.5
    return ProbeMean(jnp.mean(forms) * unit, error * unit)


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
    ``num_probes * num_steps`` products, one probe after the other. Nodes are not numbers where all
    are so small that the dtype has lost digits of the products.

    Raises:
      ValueError: fewer than two probes, `num_steps` outside [1, n], or a `like` that is empty or
        not of real floating-point numbers.

    References:
      [Ubaru 2017].
    """
    _check_probes(num_probes)
    if not 1 <= num_steps <= like.size:
        raise ValueError(f"num_steps must lie in [1, {like.size}], got {num_steps}.")

    def rule(probe_key):
        small = tridiagonal(matvec, like, key=probe_key, num_steps=num_steps)
        unit = power_of_two(small)
        nodes, vectors = jnp.linalg.eigh(small / unit)
        return SpectralMeasure(_or_nan(nodes * unit, small, like.dtype), vectors[0] ** 2)

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


def _or_nan(values, measured, dtype):
    """`values`, unless what they come from is below what `dtype` resolves but not zero."""
    largest = jnp.max(jnp.abs(measured))
    is_lost = (largest > 0) & (largest < smallest_resolved(dtype))
    return jnp.where(is_lost, jnp.nan, values)


def _check_probes(num_probes):
    if num_probes < 2:
        raise ValueError(f"num_probes must be at least 2, got {num_probes}.")
