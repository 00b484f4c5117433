# SPDX-License-Identifier: Apache-2.0
"""The matrix-sensing problem: a low-rank truth, its noisy measurements, the loss, its gradient."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from plprune.matrix_sensing.measurements import Measurements, Streamed, dot

Factor = Float[Array, "d k"]


class Population(NamedTuple):
    """Infinitely many noiseless measurements.

    The loss is a |D|_F^2 + b (tr D)^2 of D = U U' - U* U*'.
    """

    frobenius: float = 1.0  # a
    trace: float = 0.0  # b


GAUSSIAN = Population(1.0, 0.0)
QUADRATIC = Population(2.0, 1.0)  # Two-layer networks with quadratic activation, normal inputs.


class Empirical(NamedTuple):
    """Finitely many measurements and what they read on the truth, with noise."""

    measurements: Measurements
    labels: Float[Array, " n"]


class Problem(NamedTuple):
    """Recover U* U*' from data by minimising the mean square error over d x k factors U."""

    truth: Float[Array, "d r"]  # U*.
    data: Population | Empirical


def low_rank_truth(
    d: int, singular_values: Float[Array, " r"], *, key: PRNGKeyArray
) -> Float[Array, "d r"]:
    """U*: d x r with orthogonal columns in uniformly random directions and the given norms.

    Raises:
      ValueError: there are more singular values than d.
    """
    r = singular_values.shape[0]
    if not 1 <= r <= d:
        raise ValueError(f"r must lie in [1, d = {d}], got {r}.")
    directions, _ = jnp.linalg.qr(jax.random.normal(key, (d, r), singular_values.dtype))
    return directions * singular_values[None]


def observe(
    truth: Float[Array, "d r"],
    measurements: Measurements,
    *,
    noise: float = 0.0,
    key: PRNGKeyArray,
) -> Problem:
    """The problem with y_i = <A_i, U* U*'> + N(0, noise^2)."""
    exact = measurements.measure(truth)
    errors = noise * jax.random.normal(key, exact.shape, exact.dtype)
    return Problem(truth, Empirical(measurements, exact + errors))


def loss(problem: Problem, factor: Factor) -> Float[Array, ""]:
    """Mean square error of U: over the measurements, or over all there could be.

    Empirical: (1/n) sum over i of (<A_i, U U'> - y_i)^2. Population: |U U' - U* U*'|_F^2 for
    Gaussian measurements, 2 |.|_F^2 + (tr .)^2 for the quadratic network.
    """
    if isinstance(problem.data, Population):
        gap = dot(factor, factor.T) - dot(problem.truth, problem.truth.T)
        square, trace = jnp.sum(jnp.square(gap)), jnp.trace(gap)
        return problem.data.frobenius * square + problem.data.trace * jnp.square(trace)
    residual = problem.data.measurements.measure(factor) - problem.data.labels
    return jnp.mean(jnp.square(residual))


def gradient(problem: Problem, factor: Factor) -> Factor:
    """Gradient of `loss`, in closed form.

    Population: 4 (a (U U' - U* U*') + b tr(.) I) U, in 2 d k^2 multiplications: no d x d matrix.
    Empirical: (4/n) sum over i of (<A_i, U U'> - y_i) sym(A_i) U: one `measure`, one `pull_back`.
    """
    if isinstance(problem.data, Population):
        return _population_gradient(problem.truth, problem.data, factor)
    measurements, labels = problem.data
    if isinstance(measurements, Streamed):
        _, pulled = measurements.residual_and_pull_back(labels, factor)
    else:
        pulled = measurements.pull_back(measurements.measure(factor) - labels, factor)
    return 4 / measurements.num_measurements * pulled


def _population_gradient(truth, population, factor):
    gap = dot(factor, dot(factor.T, factor)) - dot(truth, dot(truth.T, factor))
    trace = jnp.sum(jnp.square(factor)) - jnp.sum(jnp.square(truth))
    return 4 * (population.frobenius * gap + population.trace * trace * factor)


def squared_error(truth: Float[Array, "d r"], factor: Factor) -> Float[Array, ""]:
    """|U U' - U* U*'|_F^2, whatever the data."""
    return jnp.sum(jnp.square(dot(factor, factor.T) - dot(truth, truth.T)))


def degrees_of_freedom(d: int, r: int) -> int:
    """Dimension r d - r (r - 1) / 2 of the d x d positive semidefinite matrices of rank r."""
    return r * d - r * (r - 1) // 2


def escape_gain(
    singular_values: Float[Array, " r"], population: Population = GAUSSIAN
) -> Float[Array, ""]:
    """A quarter of the slowest rate at which a tiny U grows along the truth under gradient flow.

    a sigma_r^2 + b |U*|_F^2, from the population gradient at U = 0; `escape_bound` takes it.
    """
    squares = jnp.square(singular_values)
    return population.frobenius * jnp.min(squares) + population.trace * jnp.sum(squares)
