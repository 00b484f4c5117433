# SPDX-License-Identifier: Apache-2.0
"""Certificates of PL* on a ball, for the SUM loss L(w) = 1/2 |F(w) - y|^2 over n outputs.

K = DF DF', L_F >= |DF| and |H_F| are those of F itself, without any mean. For a mean over b
examples divide L, mu and beta by b; radii and step counts stay the same. Everything is derived in
docs/mathematics/pl_star.md, after [Liu 2022]. Arguments are numbers or arrays that broadcast.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

Number = int | float | Float[Array | np.ndarray, "..."] | np.floating
BINDING = ("initial eigenvalue", "Hessian norm", "radius")


class Certificate(NamedTuple):
    """What is guaranteed on a ball, and what uses up the initial eigenvalue lambda0."""

    pl_constant: Float[Array, "..."]  # By the change of K; 0 where nothing is guaranteed.
    sharp_pl_constant: Float[Array, "..."]  # By that of DF: never smaller, and without L_F.
    needed: Float[Array, "..."]  # mu for which gradient descent cannot leave the ball.
    certified: Bool[Array, "..."]  # pl_constant >= needed and positive: a solution is inside.
    hessian_share: Float[Array, "..."]  # Of lambda0, that curvature may use up.
    radius_share: Float[Array, "..."]  # Of lambda0, that must be left: needed / lambda0.

    @property
    def binding(self) -> np.ndarray:
        """The inequality that costs most, an entry of `BINDING`; needs concrete values."""
        shares = np.asarray(self.hessian_share), np.asarray(self.radius_share)
        empty = np.isinf(shares[0]) & np.isinf(shares[1])
        return np.select([empty, shares[0] >= shares[1]], BINDING[:2], BINDING[2])


class Radii(NamedTuple):
    """Three bounds on how far gradient descent travels, from the sharpest on."""

    path: Float[Array, "..."]  # 2 sqrt(2 L0 / mu): bounds the length of the whole path.
    square_loss: Float[Array, "..."]  # 2 L_F |r0| / mu.
    smooth: Float[Array, "..."]  # 2 sqrt(2 beta L0) / mu.


def ball_certificate(
    smallest_eigenvalue: Number,
    jacobian_norm: Number,
    hessian_norm: Number,
    radius: Number,
    *,
    initial_loss: Number,
    num_outputs: int,
) -> Certificate:
    """The mu guaranteed on the ball B(w0, R), and whether it keeps gradient descent inside.

    lambda_min(K) >= lambda0 - 2 L_F sqrt(n) |H_F| R on the ball, and also
    >= (sqrt(lambda0) - sqrt(n) |H_F| R)^2 while that difference is positive. Gradient descent with
    eta = 1/beta stays inside if mu >= 8 L0 / R^2. With suprema that were only sampled the result is
    no proof.

    Args:
      smallest_eigenvalue: lambda0 = lambda_min(K(w0)), at least 0.
      jacobian_norm: L_F, the supremum of |DF| over the ball.
      hessian_norm: The supremum of |H_F| over the ball.
      radius: R > 0.
      initial_loss: L0 = 1/2 |F(w0) - y|^2.
      num_outputs: n, of all examples together.

    Raises:
      ValueError: `num_outputs` below 1.
    """
    _check_outputs(num_outputs)
    start, top, bend, size = map(
        jnp.asarray, (smallest_eigenvalue, jacobian_norm, hessian_norm, radius)
    )
    turned = num_outputs**0.5 * bend * size  # Bound on |DF(w) - DF(w0)|.
    # Divided and multiplied one by one: the square of a radius may over- or underflow.
    lost, needed = 2 * top * turned, 8 * (jnp.asarray(initial_loss) / size) / size
    mu = jnp.maximum(start - lost, 0)
    sharp = jnp.maximum(jnp.sqrt(start) - turned, 0) ** 2
    positive = start > 0
    safe = jnp.where(positive, start, 1)
    shares = [jnp.where(positive, part / safe, jnp.inf) for part in (lost, needed)]
    return Certificate(mu, sharp, needed, (mu >= needed) & (mu > 0), *shares)


def best_radius(
    jacobian_norm: Number, hessian_norm: Number, *, initial_loss: Number, num_outputs: int
) -> Float[Array, "..."]:
    """The radius at which `ball_certificate` has most to spare, if its suprema were constant.

    lambda0 - a R - b / R^2 with a = 2 L_F sqrt(n) |H_F| and b = 8 L0 is largest at
    R = (2 b / a)^(1/3); infinite where nothing bends.

    Raises:
      ValueError: `num_outputs` below 1.
    """
    _check_outputs(num_outputs)
    slope = 2 * num_outputs**0.5 * jnp.asarray(jacobian_norm) * jnp.asarray(hessian_norm)
    bent = slope > 0
    ratio = 16 * jnp.asarray(initial_loss) / jnp.where(bent, slope, 1)
    return jnp.where(bent, jnp.cbrt(ratio), jnp.inf)


def radii(
    pl_constant: Number, smoothness: Number, initial_loss: Number, *, jacobian_norm: Number
) -> Radii:
    """How far from w0 gradient descent with step 1/beta can be, by three bounds.

    In order wherever mu <= L_F^2 <= beta; infinite for mu = 0, unless the loss is 0 already.

    Args:
      pl_constant: mu on the ball.
      smoothness: beta, the largest |eigenvalue| of the loss's Hessian there.
      initial_loss: L0 = 1/2 |r0|^2.
      jacobian_norm: L_F.
    """
    mu, loss = jnp.asarray(pl_constant), jnp.asarray(initial_loss)
    residual = jnp.sqrt(2 * loss)
    path = 2 * _ratio(residual, jnp.sqrt(mu))
    square = 2 * _ratio(jnp.asarray(jacobian_norm) * residual, mu)
    smooth = 2 * _ratio(jnp.sqrt(jnp.asarray(smoothness)) * residual, mu)
    return Radii(path, square, smooth)


def _ratio(numerator, denominator):
    """0/0 = 0: a loss of zero needs no distance."""
    positive = denominator > 0
    value = numerator / jnp.where(positive, denominator, 1)
    return jnp.where(positive, value, jnp.where(numerator > 0, jnp.inf, 0.0))


def _check_outputs(count):
    if count < 1:
        raise ValueError(f"num_outputs must be at least 1, got {count}.")
