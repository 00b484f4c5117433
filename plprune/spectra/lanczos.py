# SPDX-License-Identifier: Apache-2.0
"""Both ends of the spectrum of a symmetric matrix seen only through products ``v -> A v``."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from plprune.spectra.margins import outer_margins
from plprune.spectra.scaling import power_of_two, widened_product

VectorProduct = Callable[[Float[Array, " n"]], Float[Array, " n"]]

# Full precision: the TF32 or bfloat16 defaults of accelerators wreck orthogonality.
_dot = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
_ABOVE = 32.0  # Entries of a scaled tridiagonal matrix are below 8, its eigenvalues below 24.
_STRIDE = 4  # Steps between convergence checks, each an eigen-solve of the small matrix.
_WHICH = {
    "both": (True, True),
    "lowest": (True, False),
    "highest": (False, True),
    "magnitude": None,
}


class RitzEnds(NamedTuple):
    """The lowest and highest Ritz pairs of one Krylov space.

    Some eigenvalue lies within `residuals` of each value, which does not say that none lies beyond
    it: in a cluster, or where the iteration was cut short, one may. The values never lie outside
    the spectrum, and with a probability of at least 99.9 % over the key for each end no eigenvalue
    lies farther outside of them than `margins`, whatever the spectrum is. All up to rounding.
    """

    values: Float[Array, "2"]  # Lowest, highest.
    vectors: Float[Array, "2 n"]
    residuals: Float[Array, "2"]
    num_products: Int[Array, ""]
    converged: Bool[Array, ""]
    margins: Float[Array, "2"]  # Below the lowest, above the highest.


class _Krylov(NamedTuple):
    basis: Float[Array, "m n"]
    rest: Float[Array, " n"]  # What was left of the last image.
    alpha: Float[Array, " m"]
    lengths: Float[Array, " m"]  # Of what was left of each image.
    closed: Bool[Array, " m"]  # Where that was rounding, and a fresh direction followed.
    step: Int[Array, ""]

    @property
    def beta(self):
        return jnp.where(self.closed, 0, self.lengths)


class _Small(NamedTuple):
    """What the tridiagonal matrix says, in units of a power of two."""

    values: Float[Array, "2"]
    vectors: Float[Array, "2 m"]
    residuals: Float[Array, "2"]
    margins: Float[Array, "2"]
    unit: Float[Array, ""]
    converged: Bool[Array, ""]


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
    continues it, so repeated eigenvalues and multiples of the identity are handled. Every image is
    scaled by a power of two, so ``2^k A`` has the same vectors and 2^k times the numbers, bit for
    bit, as long as no product over- or underflows; then nothing is finite, or the numbers are below
    what the dtype resolves.

    Args:
      matvec: ``v -> A v``. Symmetry is the caller's promise and is not checked.
      like: Any vector of the domain; only its shape and dtype are read. Products see vectors of
        that dtype; all else happens in at least float32.
      key: Draws the first direction and the fresh ones.
      tol: Stop once the residual of each wanted end is below tol times its own |value| and its
        margin below half of that, or at the level of rounding, with a margin below a tenth of
        |value| or of that level too. The value's error is then of order tol^2 where no neighbour
        is near.
      max_steps: Largest Krylov space, at least 1; more than n is n. Static under jit. Memory is
        ``max_steps * n``.
      which: The end that must reach `tol`: "lowest", "highest", "both", or "magnitude", the one
        farther from zero.

    Raises:
      ValueError: `max_steps` below 1, a `like` that is empty or not of real floating-point
        numbers, or an unknown `which`.

    References:
      [Parlett 1998, ch. 13]; residuals from the last components of the small eigenvectors.
    """
    if max_steps < 1:
        raise ValueError(f"max_steps must be at least 1, got {max_steps}.")
    if which not in _WHICH:
        raise ValueError(f"which must be one of {tuple(_WHICH)}, got {which!r}.")
    matvec, like = widened_product(matvec, like)
    size = min(max_steps, like.size)

    def unfinished(carry):
        krylov, small = carry
        # Without numbers there is nothing to wait for.
        return (krylov.step < size) & ~small.converged & ~jnp.any(jnp.isnan(small.values))

    def advance(carry):
        count = jnp.minimum(_STRIDE, size - carry[0].step)
        krylov = jax.lax.fori_loop(0, count, lambda _, k: _extend(k, matvec, key), carry[0])
        return krylov, _small_ends(krylov, which, tol)

    two = jnp.zeros(2, like.dtype)
    nothing = _Small(two, jnp.zeros((2, size), like.dtype), two, two, two[0], jnp.zeros((), bool))
    carry = _start(like, size), nothing
    krylov, small = jax.lax.while_loop(unfinished, advance, carry)
    unit = small.unit
    return RitzEnds(
        small.values * unit,
        _dot(small.vectors, krylov.basis),
        small.residuals * unit,
        krylov.step,
        small.converged,
        small.margins * unit,
    )


def tridiagonal(
    matvec: VectorProduct, like: Float[Array, " n"], *, key: PRNGKeyArray, num_steps: int
) -> Float[Array, "m m"]:
    """The tridiagonal matrix of `num_steps` Lanczos steps from a random direction.

    Where the Krylov space closes an off-diagonal entry is exactly zero and a fresh direction
    follows.
    """
    matvec, like = widened_product(matvec, like)
    start = _start(like, num_steps)
    krylov = jax.lax.fori_loop(0, num_steps, lambda _, k: _extend(k, matvec, key), start)
    return _tridiagonal(krylov.alpha, krylov.beta[:-1])


def _start(like, size):
    """A Krylov space of dimension zero."""
    zeros = jnp.zeros(size, like.dtype)
    basis = jnp.zeros((size, like.size), like.dtype)
    none = jnp.zeros(size, bool)
    return _Krylov(basis, jnp.zeros_like(like), zeros, zeros, none, jnp.zeros((), jnp.int32))


def _extend(krylov, matvec, key):
    """One Lanczos step: a product, orthogonalised against everything so far."""
    q = _direction(krylov, key)
    _, _, alpha, lengths, closed, i = krylov
    basis = krylov.basis.at[i].set(q)
    image = matvec(q)
    # Each image by itself: the first ones may lack the one direction that makes others large.
    unit = power_of_two(image)
    image = image / unit
    rest = _project_out(basis, image)
    length = jnp.linalg.norm(rest)
    is_closed = length <= 100 * jnp.finfo(q.dtype).eps * jnp.linalg.norm(image)
    return _Krylov(
        basis,
        rest,
        alpha.at[i].set(_dot(q, image) * unit),
        lengths.at[i].set(length * unit),
        closed.at[i].set(is_closed),
        i + 1,
    )


def _direction(krylov, key):
    """The next one: what was left of the last image or, where that was rounding, a random one.

    Drawn in one place, since random numbers take longer to compile than all the rest of a step.
    """
    size, n = krylov.basis.shape
    i = krylov.step
    last = jnp.where(i == 0, size, i - 1)

    def fresh():
        drawn = jax.random.normal(jax.random.fold_in(key, last), (n,), krylov.rest.dtype)
        return _project_out(krylov.basis, drawn)

    is_fresh = (i == 0) | krylov.closed[i - 1]
    return _normalise(jax.lax.cond(is_fresh, fresh, lambda: krylov.rest))


def _small_ends(krylov, which, tol):
    """Extreme eigenpairs of the tridiagonal matrix so far, and what is known of their errors."""
    count, size = krylov.step, len(krylov.alpha)
    unit = power_of_two(krylov.alpha, krylov.lengths)
    alpha, lengths, beta = (a / unit for a in (krylov.alpha, krylov.lengths, krylov.beta))
    used = jnp.arange(size, dtype=count.dtype) < count
    off = jnp.where(used[1:], beta[:-1], 0)
    # Unused entries stand above the spectrum, uncoupled, so that they mix with nothing.
    values, vectors = jnp.linalg.eigh(_tridiagonal(jnp.where(used, alpha, _ABOVE), off))
    chosen = jnp.stack([jnp.zeros_like(count), count - 1])
    values, vectors = values[chosen], vectors[:, chosen].T
    residuals = jnp.abs(beta[count - 1] * vectors[:, count - 1])
    dimension = krylov.basis.shape[1]
    margins = outer_margins(alpha, lengths, krylov.closed, count, values, dimension)
    converged = _have_converged(values, residuals, margins, which, tol)
    return _Small(values, vectors, residuals, margins, unit, converged)


def _have_converged(values, residuals, margins, which, tol):
    """Whether the wanted ends have reached `tol`, or the level of rounding, and not by chance."""
    sizes = jnp.abs(values)
    scale = jnp.max(sizes)
    rounding = 10 * jnp.finfo(values.dtype).eps * scale
    # A small residual at another eigenvalue than the last one has a large margin. Beyond the level
    # of rounding steps no longer shrink residuals, but margins still.
    room = jnp.where(residuals > rounding, sizes / 2, sizes / 10)
    is_known = margins <= jnp.maximum(room, 10 * rounding)
    enough = is_known & (residuals <= jnp.maximum(tol * sizes, rounding))
    if which != "magnitude":
        return jnp.all(enough | ~jnp.array(_WHICH[which]))
    reach = jnp.max(jnp.array([-1, 1], values.dtype) * values + margins)
    return jnp.all(enough | (sizes < scale)) & (reach <= 1.5 * scale)


def _tridiagonal(alpha, off):
    return jnp.diag(alpha) + jnp.diag(off, 1) + jnp.diag(off, -1)


def _project_out(basis, v):
    """Remove the row space of `basis` from `v`; the second pass mops up cancellation."""
    for _ in range(2):
        v = v - _dot(_dot(basis, v), basis)
    return v


def _normalise(v):
    return v / jnp.maximum(jnp.linalg.norm(v), jnp.finfo(v.dtype).tiny)
