# SPDX-License-Identifier: Apache-2.0
"""The nets of `benchmarks.problems` in JAX."""

import jax
import jax.numpy as jnp
from jax import lax


def apply(p, x):
    """The net of `benchmarks.problems`, dense or convolutional."""
    depth = len(p) // 2
    for k in range(depth):
        last = k == depth - 1
        if p[f"w{k}"].ndim == 4:
            x = lax.conv_general_dilated(
                x, p[f"w{k}"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
            x = jax.nn.relu(x + p[f"b{k}"])
            x = lax.reduce_window(x, 0.0, lax.add, (1, 2, 2, 1), (1, 2, 2, 1), "VALID") / 4
        else:
            if x.ndim == 4:
                pooled = x.shape[-1] == p[f"w{k}"].shape[0]
                x = jnp.mean(x, (1, 2)) if pooled else x.reshape(len(x), -1)
            x = x @ p[f"w{k}"] + p[f"b{k}"]
            x = x if last else jax.nn.relu(x)
    return x
