# SPDX-License-Identifier: Apache-2.0
"""Problems whose kernels, Hessians and constants are known in closed form."""

import jax
import jax.numpy as jnp
import numpy as np


def linear(params, inputs):
    """f(x) = W x: K[i, r, j, s] = <x_i, x_j> when r = s, else 0."""
    return inputs @ params["w"]


def linear_kernel(inputs, other, num_outputs):
    gram = np.asarray(inputs) @ np.asarray(other).T
    return gram[:, None, :, None] * np.eye(num_outputs)[None, :, None, :]


def product(params, inputs):
    """f(x) = a b x, the two-weight network: K[i, j] = (a^2 + b^2) x_i x_j, one output."""
    return params["a"] * params["b"] * inputs


def mlp(params, inputs):
    x = inputs
    for w, b in params[:-1]:
        x = jnp.tanh(x @ w + b)
    w, b = params[-1]
    return x @ w + b


def mlp_params(key, widths, dtype=jnp.float64):
    keys = jax.random.split(key, len(widths))
    return [
        (
            jax.random.normal(k, (m, n), dtype) / float(np.sqrt(m)),
            0.1 * jax.random.normal(jax.random.fold_in(k, 1), (n,), dtype),
        )
        for k, m, n in zip(keys, widths[:-1], widths[1:], strict=False)
    ]


def quadratic(params, matrix):
    """1/2 w' A w: Hessian A."""
    return params @ matrix @ params / 2


def symmetric(key, eigenvalues, dtype=jnp.float64):
    """Random symmetric matrix with the given eigenvalues."""
    n = len(eigenvalues)
    q = np.asarray(jnp.linalg.qr(jax.random.normal(key, (n, n), jnp.float64))[0])
    matrix = (q * np.asarray(eigenvalues)) @ q.T
    return jnp.asarray((matrix + matrix.T) / 2, dtype)


def nearly_missed(key, overlap, max_steps=60):
    """A matrix [120, 120] whose top vector the start of `ritz_ends` meets at overlap/sqrt(n).

    The largest eigenvalue is 1.72, and 1.7 follows, which the start sees as well as it sees others.
    """
    n = 120
    start = jax.random.normal(jax.random.fold_in(key, max_steps), (n,))
    start = start / jnp.linalg.norm(start)
    frame = jax.random.normal(key, (n, n))
    top = frame[:, 0] - (frame[:, 0] @ start) * start
    top = top / jnp.linalg.norm(top) + overlap / n**0.5 * start
    frame = jnp.linalg.qr(frame.at[:, 0].set(top))[0]
    values = jnp.append(jnp.array([1.72, 1.7]), jnp.geomspace(0.8, 1e-3, n - 2))
    return (frame * values[None]) @ frame.T


def reference_kernel(apply, params, inputs, other=None, *, forward=False):
    """Float64 contraction of whole Jacobians, the product in NumPy."""
    params = jax.tree.map(lambda p: jnp.asarray(p, jnp.float64), params)
    derivative = jax.jacfwd if forward else jax.jacrev

    @jax.jit
    def jacobians(batch):
        return apply(params, batch), derivative(lambda p: apply(p, batch))(params)

    def rows(batch):
        outputs, leaves = jacobians(batch)
        matrix = [np.asarray(j).reshape(outputs.size, -1) for j in jax.tree.leaves(leaves)]
        return np.concatenate(matrix, axis=1), (len(outputs), outputs.size // len(outputs))

    left, shape = rows(inputs)
    right, other_shape = (left, shape) if other is None else rows(other)
    return (left @ right.T).reshape(*shape, *other_shape)


def linear_problem(key, dtype, b=4, d=7):
    """Parameters and inputs of `linear` with two outputs, and the eigenvalues of its kernel."""
    inputs = jax.random.normal(key, (b, d), dtype)
    spectrum = np.linalg.svd(np.asarray(inputs, np.float64))[1] ** 2
    return {"w": jnp.zeros((d, 2), dtype)}, inputs, spectrum
