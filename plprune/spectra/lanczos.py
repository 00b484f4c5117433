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
    ends: tuple[bool, bool] = (True, True),
) -> RitzEnds:
    """The extreme eigenpairs of a symmetric ``A`` by Lanczos, stopped at a tolerance.

    Full reorthogonalisation, done twice. When the Krylov space closes a fresh random direction
    continues it, so repeated eigenvalues and multiples of the identity are handled.

    Args:
      matvec: ``v -> A v``. Symmetry is the caller's promise and is not checked.
      like: Any vector of the domain; only its shape and dtype are read.
      key: Draws the first direction and the fresh ones.
      tol: Stop once the residuals of the wanted ends are below tol times the largest |value|.
      max_steps: Largest Krylov space, at least 1; more than n is n. Static under jit. Memory is
        ``max_steps * n``.
      ends: Whether the lowest and the highest end must reach `tol`.

    Raises:
      ValueError: `max_steps` below 1 or an empty `like`.

    References:
      [Parlett 1998, ch. 13]; residuals from the last components of the small eigenvectors.
    """
    if max_steps < 1:
        raise ValueError(f"max_steps must be at least 1, got {max_steps}.")
    if like.size == 0:
        raise ValueError("like must have at least one element, got none.")
    size = min(max_steps, like.size)
    wanted = jnp.asarray(ends)

    def unfinished(carry):
        krylov, _, residuals, scale = carry
        done = jnp.all((residuals <= tol * scale) | ~wanted)
        return (krylov.step < size) & ~(done & (krylov.step > 0))

    def advance(carry):
        krylov = jax.lax.fori_loop(0, jnp.minimum(_STRIDE, size - carry[0].step), step, carry[0])
        return krylov, *_small_ends(krylov)

    def step(_, krylov):
        return _extend(krylov, matvec, key)

    zeros = jnp.zeros(size, like.dtype)
    first = _normalise(jax.random.normal(jax.random.fold_in(key, size), like.shape, like.dtype))
    start = _Krylov(
        jnp.zeros((size, like.size), like.dtype), first, zeros, zeros, jnp.zeros((), jnp.int32)
    )
    infinite = jnp.full(2, jnp.inf, like.dtype)
    carry = start, (infinite, jnp.zeros((2, size), like.dtype)), infinite, zeros[0]
    krylov, (values, small), residuals, scale = jax.lax.while_loop(unfinished, advance, carry)
    converged = jnp.all((residuals <= tol * scale) | ~wanted)
    return RitzEnds(values, _dot(small, krylov.basis), residuals, krylov.step, converged)


def _extend(krylov, matvec, key):
    """One Lanczos step: a product, orthogonalised against everything so far."""
    basis, q, alpha, beta, i = krylov
    basis = basis.at[i].set(q)
    image = matvec(q)
    rest = _project_out(basis, image)
    length = jnp.linalg.norm(rest)
    closed = length <= 100 * jnp.finfo(q.dtype).eps * jnp.linalg.norm(image)
    fresh = jax.random.normal(jax.random.fold_in(key, i), q.shape, q.dtype)
    rest = jnp.where(closed, _project_out(basis, fresh), rest)
    alpha = alpha.at[i].set(_dot(q, image))
    beta = beta.at[i].set(jnp.where(closed, 0, length))
    return _Krylov(basis, _normalise(rest), alpha, beta, i + 1)


def _small_ends(krylov):
    """Extreme eigenpairs of the tridiagonal matrix so far, their residuals and the scale."""
    _, _, alpha, beta, count = krylov
    size = len(alpha)
    used = jnp.arange(size) < count
    off = jnp.where(jnp.arange(size - 1) < count - 1, beta[:-1], 0)
    # Unused entries stand above the spectrum, uncoupled, so that they mix with nothing.
    above = 2 * (jnp.max(jnp.abs(alpha)) + 2 * jnp.max(jnp.abs(beta))) + 1
    small = jnp.diag(jnp.where(used, alpha, above)) + jnp.diag(off, 1) + jnp.diag(off, -1)
    values, vectors = jnp.linalg.eigh(small)
    chosen = jnp.stack([jnp.zeros_like(count), count - 1])
    residuals = jnp.abs(beta[count - 1] * vectors[count - 1, chosen])
    return (values[chosen], vectors[:, chosen].T), residuals, jnp.max(jnp.abs(values[chosen]))


def _project_out(basis, v):
    """Remove the row space of `basis` from `v`; the second pass mops up cancellation."""
    for _ in range(2):
        v = v - _dot(_dot(basis, v), basis)
    return v


def _normalise(v):
    return v / jnp.maximum(jnp.linalg.norm(v), jnp.finfo(v.dtype).tiny)
