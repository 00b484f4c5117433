# SPDX-License-Identifier: Apache-2.0
"""The nets of `benchmarks.problems` in jax, and the kernel that anyone would write first.

Only jax, old releases included, so that every environment that has it can import this.
"""

import jax
import jax.numpy as jnp
from jax import lax

_STACKED = ("norm_0", "heads", "mix", "norm_1", "up", "down")  # Of the transformer: one a layer.


def net(p, x):
    """Outputs [n, c] of the ReLU net, dense or convolutional."""
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


def transformer(p, tokens):
    """Outputs [n, c] at the last token: a scan over layers of causal attention and an MLP."""
    causal = jnp.tril(jnp.ones((tokens.shape[1], tokens.shape[1]), bool))

    def layer(x, w):
        queries, keys, values = jnp.einsum("ntd,sdhk->snhtk", _normal(x) * w["norm_0"], w["heads"])
        scores = jnp.einsum("nhtk,nhuk->nhtu", queries, keys) / queries.shape[-1] ** 0.5
        attention = jax.nn.softmax(jnp.where(causal, scores, -1e9))
        x = x + jnp.einsum("nhtu,nhuk,hkd->ntd", attention, values, w["mix"])
        hidden = jax.nn.gelu((_normal(x) * w["norm_1"]) @ w["up"])
        return x + hidden @ w["down"], None

    x = p["embedding"][tokens] + p["positions"][None]
    x, _ = lax.scan(layer, x, {name: p[name] for name in _STACKED})
    return _normal(x[:, -1]) @ p["output"]


def _normal(x):
    centred = x - x.mean(-1, keepdims=True)
    return centred * lax.rsqrt(jnp.mean(centred**2, -1, keepdims=True) + 1e-6)


def jacobian_kernel(apply, p, x):
    """The kernel [n, c, n, c] from whole Jacobians: vmap(jacrev) and one product."""
    jacobian = jax.vmap(lambda e: jax.jacrev(lambda q: apply(q, e[None])[0])(p))(x)
    leaves = [j.reshape(*j.shape[:2], -1) for j in jax.tree_util.tree_leaves(jacobian)]
    rows = jnp.concatenate(leaves, -1)
    return jnp.einsum("brp,dsp->brds", rows, rows, precision="highest")
