# SPDX-License-Identifier: Apache-2.0
"""Both ends of the spectrum of a symmetric matrix seen only through products ``v -> A v``."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

VectorProduct = Callable[[Float[Array, " n"]], Float[Array, " n"]]

# Full precision: the TF32 or bfloat16 defaults of accelerators wreck orthogonality.
_dot = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
_STRIDE = 4  # Steps between convergence checks, each an eigen-solve of the small matrix.
_WHICH = {
    "both": (True, True),
    "lowest": (True, False),
    "highest": (False, True),
    "magnitude": None,
}


class RitzEnds(NamedTuple):
    """The lowest and highest Ritz pairs of one Krylov space.

    Some eigenvalue lies within `residuals` of each value; the values never lie outside the
    spectrum, up to rounding.
    """

    values: Float[Array, "2"]  # Lowest, highest.
    vectors: Float[Array, "2 n"]
    residuals: Float[Array, "2"]
    num_products: Int[Array, ""]
    converged: Bool[Array, ""]


class _Krylov(NamedTuple):
    basis: Float[Array, "m n"]
    next: Float[Array, " n"]
    alpha: Float[Array, " m"]
    beta: Float[Array, " m"]
    step: Int[Array, ""]


def ritz_ends(
    matvec: VectorProduct,
    like: Float[Array, " n"],
    *,
    key: PRNGKeyArray,
    tol: float = 1e-6,
    max_steps: int = 200,
    which: str = "both",
) -> RitzEnds:
    """The extreme eigenpairs of a symmetric ``A`` by Lanczos, stopped at a tolerance.

    Full reorthogonalisation, done twice. When the Krylov space closes a fresh random direction
    continues it, so repeated eigenvalues and multiples of the identity are handled.

    Args:
      matvec: ``v -> A v``. Symmetry is the caller's promise and is not checked.
      like: Any vector of the domain; only its shape and dtype are read.
      key: Draws the first direction and the fresh ones.
      tol: Stop once the residual of each wanted end is below tol times its own |value|, or at the
        level of rounding. The value's error is then of order tol^2 where no neighbour is near.
      max_steps: Largest Krylov space, at least 1; more than n is n. Static under jit. Memory is
        ``max_steps * n``.
      which: The end that must reach `tol`: "lowest", "highest", "both", or "magnitude", the one
        farther from zero.

    Raises:
      ValueError: `max_steps` below 1, an empty `like` or an unknown `which`.

    References:
      [Parlett 1998, ch. 13]; residuals from the last components of the small eigenvectors.
    """
    if max_steps < 1:
        raise ValueError(f"max_steps must be at least 1, got {max_steps}.")
    if like.size == 0:
        raise ValueError("like must have at least one element, got none.")
    if which not in _WHICH:
        raise ValueError(f"which must be one of {tuple(_WHICH)}, got {which!r}.")
    size = min(max_steps, like.size)

    def unfinished(carry):
        krylov, (values, _), residuals = carry
        return (krylov.step < size) & ~_have_converged(values, residuals, which, tol)

    def advance(carry):
        count = jnp.minimum(_STRIDE, size - carry[0].step)
        krylov = jax.lax.fori_loop(0, count, lambda _, k: _extend(k, matvec, key), carry[0])
        return krylov, *_small_ends(krylov)

    unknown = jnp.zeros(2, like.dtype), jnp.zeros((2, size), like.dtype)
    carry = _start(like, key, size), unknown, jnp.full(2, jnp.inf, like.dtype)
    krylov, (values, small), residuals = jax.lax.while_loop(unfinished, advance, carry)
    converged = _have_converged(values, residuals, which, tol)
    return RitzEnds(values, _dot(small, krylov.basis), residuals, krylov.step, converged)


def _have_converged(values, residuals, which, tol):
    """Whether the wanted ends have reached `tol`, or the level of rounding."""
    scale = jnp.max(jnp.abs(values))
    wanted = jnp.abs(values) == scale if which == "magnitude" else jnp.array(_WHICH[which])
    enough = jnp.maximum(tol * jnp.abs(values), 10 * jnp.finfo(values.dtype).eps * scale)
    return jnp.all((residuals <= enough) | ~wanted)


def tridiagonal(
    matvec: VectorProduct, like: Float[Array, " n"], *, key: PRNGKeyArray, num_steps: int
) -> Float[Array, "m m"]:
    """The tridiagonal matrix of `num_steps` Lanczos steps from a random direction.

    Where the Krylov space closes an off-diagonal entry is exactly zero and a fresh direction
    follows.
    """
    start = _start(like, key, num_steps)
    krylov = jax.lax.fori_loop(0, num_steps, lambda _, k: _extend(k, matvec, key), start)
    off = krylov.beta[:-1]
    return jnp.diag(krylov.alpha) + jnp.diag(off, 1) + jnp.diag(off, -1)


def _start(like, key, size):
    """A Krylov space of dimension zero, about to take its first random direction."""
    first = jax.random.normal(jax.random.fold_in(key, size), like.shape, like.dtype)
    zeros = jnp.zeros(size, like.dtype)
    basis = jnp.zeros((size, like.size), like.dtype)
    return _Krylov(basis, _normalise(first), zeros, zeros, jnp.zeros((), jnp.int32))


def _extend(krylov, matvec, key):
    """One Lanczos step: a product, orthogonalised against everything so far."""
    basis, q, alpha, beta, i = krylov
    basis = basis.at[i].set(q)
    image = matvec(q)
    rest = _project_out(basis, image)
    length = jnp.linalg.norm(rest)
    closed = length <= 100 * jnp.finfo(q.dtype).eps * jnp.linalg.norm(image)
    fresh = _normalise(jax.random.normal(jax.random.fold_in(key, i), q.shape, q.dtype))
    rest = jnp.where(closed, _project_out(basis, fresh), rest)
    alpha = alpha.at[i].set(_dot(q, image))
    beta = beta.at[i].set(jnp.where(closed, 0, length))
    return _Krylov(basis, _normalise(rest), alpha, beta, i + 1)


def _small_ends(krylov):
    """Extreme eigenpairs of the tridiagonal matrix so far, and their residuals."""
    _, _, alpha, beta, count = krylov
    size = len(alpha)
    used = jnp.arange(size, dtype=count.dtype) < count
    off = jnp.where(used[1:], beta[:-1], 0)
    # Unused entries stand above the spectrum, uncoupled, so that they mix with nothing.
    above = 2 * (jnp.max(jnp.abs(alpha)) + 2 * jnp.max(jnp.abs(beta))) + 1
    small = jnp.diag(jnp.where(used, alpha, above)) + jnp.diag(off, 1) + jnp.diag(off, -1)
    values, vectors = jnp.linalg.eigh(small)
    chosen = jnp.stack([jnp.zeros_like(count), count - 1])
    residuals = jnp.abs(beta[count - 1] * vectors[count - 1, chosen])
    return (values[chosen], vectors[:, chosen].T), residuals


def _project_out(basis, v):
    """Remove the row space of `basis` from `v`; the second pass mops up cancellation."""
    for _ in range(2):
        v = v - _dot(_dot(basis, v), basis)
    return v


def _normalise(v):
    return v / jnp.maximum(jnp.linalg.norm(v), jnp.finfo(v.dtype).tiny)
