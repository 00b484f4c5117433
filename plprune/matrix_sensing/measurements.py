# SPDX-License-Identifier: Apache-2.0
"""Linear measurements <A_i, U U'> of a matrix, and their adjoint, as products.

Every operator is a pytree, so that its arrays are arguments of jitted functions. It offers
`num_measurements`, n, `measure(factor)`, the n numbers <A_i, U U'>, and
`pull_back(weights, factor)`, the sum over i of w_i sym(A_i) U. All are scaled such that the mean of
<A_i, D>^2 is |D|_F^2, but for the quadratic network's x x' (see `rank_one`).
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PRNGKeyArray

# Full precision: the error after fine-tuning is far below TF32's.
dot = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)


class Gaussian(NamedTuple):
    """Independent N(0, 1) entries, stored: n d^2 numbers."""

    matrices: Float[Array, "n d d"]

    @property
    def num_measurements(self) -> int:
        """Number of measurements."""
        return self.matrices.shape[0]

    def measure(self, factor: Float[Array, "d k"]) -> Float[Array, " n"]:
        """<A_i, U U'>, in n d^2 multiplications beside the product U U'."""
        return dot(self.matrices.reshape(self.num_measurements, -1), dot(factor, factor.T).ravel())

    def pull_back(
        self, weights: Float[Array, " n"], factor: Float[Array, "d k"]
    ) -> Float[Array, "d k"]:
        """Sum over i of w_i sym(A_i) U."""
        total = dot(weights, self.matrices.reshape(self.num_measurements, -1))
        return _symmetric_product(total.reshape(self.matrices.shape[1:]), factor)


class Streamed(NamedTuple):
    """Independent N(0, 1) entries, drawn again from their keys in blocks at every use.

    Memory: one block of `block` d^2 numbers. Time: n d^2 normal draws a product.
    """

    keys: Key[Array, "blocks block"]  # One per measurement.

    @property
    def num_measurements(self) -> int:
        """Number of measurements."""
        return self.keys.size

    def draw(self, keys: Key[Array, " block"], factor: Float[Array, "d k"]) -> Gaussian:
        """The measurements that belong to some of the keys, in the size and dtype of `factor`."""
        shape = (factor.shape[0], factor.shape[0])
        # Drawn in float32 whatever the dtype: float64 draws would be other measurements.
        drawn = jax.vmap(lambda key: jax.random.normal(key, shape, jnp.float32))(keys)
        return Gaussian(drawn.astype(factor.dtype))

    def measure(self, factor: Float[Array, "d k"]) -> Float[Array, " n"]:
        """<A_i, U U'>, one block after another."""
        return jax.lax.map(lambda keys: self.draw(keys, factor).measure(factor), self.keys).ravel()

    def pull_back(
        self, weights: Float[Array, " n"], factor: Float[Array, "d k"]
    ) -> Float[Array, "d k"]:
        """Sum over i of w_i sym(A_i) U, one block after another."""
        return self._add_blocks(weights, factor, lambda _, weight: weight)[0]

    def residual_and_pull_back(
        self, labels: Float[Array, " n"], factor: Float[Array, "d k"]
    ) -> tuple[Float[Array, " n"], Float[Array, "d k"]]:
        """The residual <A_i, U U'> - y_i and its pull-back, drawing each block once."""
        pulled, residual = self._add_blocks(
            labels, factor, lambda matrices, label: matrices.measure(factor) - label
        )
        return residual, pulled

    def _add_blocks(self, numbers, factor, weigh):
        def add(total, block):
            keys, part = block
            matrices = self.draw(keys, factor)
            weight = weigh(matrices, part)
            return total + matrices.pull_back(weight, factor), weight

        blocks = self.keys, numbers.reshape(self.keys.shape)
        total, weights = jax.lax.scan(add, jnp.zeros_like(factor), blocks)
        return total, weights.ravel()


class RankOne(NamedTuple):
    """A_i = a_i b_i'. 2 n d numbers, 2 n d k multiplications a product."""

    left: Float[Array, "n d"]
    right: Float[Array, "n d"]

    @property
    def num_measurements(self) -> int:
        """Number of measurements."""
        return self.left.shape[0]

    def measure(self, factor: Float[Array, "d k"]) -> Float[Array, " n"]:
        """<a_i b_i', U U'> = (U'a_i)'(U'b_i)."""
        return jnp.sum(dot(self.left, factor) * dot(self.right, factor), axis=1)

    def pull_back(
        self, weights: Float[Array, " n"], factor: Float[Array, "d k"]
    ) -> Float[Array, "d k"]:
        """Sum over i of w_i sym(a_i b_i') U."""
        forth = dot(self.left.T * weights[None], dot(self.right, factor))
        back = dot(self.right.T * weights[None], dot(self.left, factor))
        return (forth + back) / 2


class Fourier(NamedTuple):
    """n entries of the two-dimensional DCT of the matrix with its signs flipped at random.

    A subsampled orthogonal transform after random signs keeps the norms of low-rank matrices as
    Gaussian measurements do, up to logarithms [Krahmer 2011]. Memory d^2 + n; time d^2 log d a
    product beside U U'.
    """

    signs: Float[Array, "d d"]
    places: Int[Array, " n"]  # Into the d^2 entries of the transform, without repetition.

    @property
    def num_measurements(self) -> int:
        """Number of measurements."""
        return self.places.shape[0]

    def measure(self, factor: Float[Array, "d k"]) -> Float[Array, " n"]:
        """<A_i, U U'>: d times the chosen entries, so that squares average |U U'|_F^2."""
        flipped = self.signs * dot(factor, factor.T)
        return self.signs.shape[0] * _transform(flipped).ravel()[self.places]

    def pull_back(
        self, weights: Float[Array, " n"], factor: Float[Array, "d k"]
    ) -> Float[Array, "d k"]:
        """Sum over i of w_i sym(A_i) U."""
        spectrum = jnp.zeros(self.signs.size, factor.dtype).at[self.places].set(weights)
        total = self.signs * _inverse(spectrum.reshape(self.signs.shape))
        return _symmetric_product(self.signs.shape[0] * total, factor)


Measurements = Gaussian | Streamed | RankOne | Fourier


def gaussian(n: int, d: int, *, key: PRNGKeyArray) -> Gaussian:
    """Stored measurements: n matrices of size d x d with independent N(0, 1) entries."""
    return Gaussian(jax.random.normal(key, (n, d, d)))


def streamed(n: int, *, block: int, key: PRNGKeyArray) -> Streamed:
    """Measurements with independent N(0, 1) entries whose n matrices are never stored.

    Raises:
      ValueError: block does not divide n.
    """
    if block < 1 or n % block:
        raise ValueError(f"block must divide n = {n}, got {block}.")
    return Streamed(jax.random.split(key, (n // block, block)))


def rank_one(n: int, d: int, *, key: PRNGKeyArray, quadratic: bool = False) -> RankOne:
    """a_i b_i' with independent N(0, 1) entries; with `quadratic`, x_i x_i'.

    The latter measures a two-layer network with quadratic activation: <x x', U U'> is the sum over
    j of (u_j'x)^2. There E <x x', D>^2 = 2 |D|_F^2 + (tr D)^2 for symmetric D.
    """
    key_left, key_right = jax.random.split(key)
    left = jax.random.normal(key_left, (n, d))
    return RankOne(left, left if quadratic else jax.random.normal(key_right, (n, d)))


def fourier(n: int, d: int, *, key: PRNGKeyArray) -> Fourier:
    """Measurements by n random entries of a DCT after random signs.

    Raises:
      ValueError: n exceeds d^2, the number of entries there are.
    """
    if n > d * d:
        raise ValueError(f"n must be at most d^2 = {d * d}, got {n}.")
    key_signs, key_places = jax.random.split(key)
    signs = jax.random.rademacher(key_signs, (d, d), jnp.zeros(()).dtype)
    return Fourier(signs, jax.random.choice(key_places, d * d, (n,), replace=False))


def _symmetric_product(matrix, factor):
    return (dot(matrix, factor) + dot(matrix.T, factor)) / 2


def _transform(matrix):
    return jax.scipy.fft.dctn(matrix, norm="ortho")


def _inverse(matrix):
    return jax.scipy.fft.idctn(matrix, norm="ortho")
