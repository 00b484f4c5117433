# SPDX-License-Identifier: Apache-2.0
"""Sums whose width is written into the function are refused, all others are not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plprune.nodes import find_nodes, mask, shrink

pytestmark = pytest.mark.usefixtures("models_broadcast")
DRAWS = np.random.default_rng(0)
PARAMS = {
    name: jnp.asarray(DRAWS.normal(size=shape))
    for name, shape in {"a": (4, 7), "v": (7, 6), "g": (6,), "o": (6, 2), "q": (4, 7)}.items()
}
INPUTS = jnp.asarray(DRAWS.normal(size=(5, 4)))
N = 7  # The width of what is summed over.


def weights(scaled):
    """A layer whose matrix is a function of v, normalised over its inputs."""
    return lambda p, x: jnp.tanh(jnp.tanh(x @ p["a"]) @ scaled(p["v"], p["g"])) @ p["o"]


def features(summed):
    """A number per example from features [b, 7], times weights."""
    return lambda p, x: summed(jnp.tanh(x @ p["a"]), x @ p["q"])[:, None] * (p["g"] @ p["o"])


def cosine(h, q):
    h, q = (a / jnp.sqrt((a * a).sum(-1, keepdims=True) + 1e-12) for a in (h, q))
    return (h * q).sum(-1)


def stepped(h, _):
    return jax.lax.scan(lambda c, row: (c, jnp.abs(row).sum() / N), 0.0, h)[1]


FREE = {
    "weight norm": weights(lambda v, g: g * v / jnp.sqrt((v**2).sum(0) + 1e-12)),
    "weight norm by linalg": weights(lambda v, g: g * v / jnp.linalg.norm(v, axis=0)),
    "largest norm": weights(lambda v, g: g * v / jnp.maximum((v**2).sum(0) ** 0.5, 0.1)),
    "cosine": features(cosine),
    "cosine, mapped": features(jax.vmap(cosine)),
    "sum": features(lambda h, _: h.sum(-1)),
    "leaky ReLU after": features(lambda h, _: jax.nn.leaky_relu(h.sum(-1), 1 / N)),
    "leaky ReLU before": features(lambda h, _: jnp.maximum(h, h * (1 / N)).sum(-1)),
    "norm with a temperature": features(lambda h, _: 10.0 * jnp.linalg.norm(h + 0.0, axis=-1)),
}
WRITTEN = {
    "mean": features(lambda h, _: h.mean(-1)),
    "mean inside jit": features(lambda h, _: jax.jit(jnp.mean, static_argnums=1)(h, -1)),
    "times the inverse": features(lambda h, _: h.sum(-1) * (1 / N)),
    "divided before": features(lambda h, _: (h / N).sum(-1)),
    "in two steps": features(lambda h, _: h.reshape(5, N, 1).sum(2).sum(1) / jnp.full(5, N)),
    "in bfloat16": features(lambda h, _: h.astype(jnp.bfloat16).sum(-1) * (1 / N)),
    "from an integer": features(lambda h, _: h.sum(-1) / jnp.asarray(np.int32(N)).astype(float)),
    "root of the mean square": features(lambda h, _: jnp.sqrt((h * h).mean(-1))),
    "norm times a root": features(lambda h, _: jnp.linalg.norm(h, axis=-1) * N**0.5),
    "root of a number": features(lambda h, _: h.sum(-1) / jnp.sqrt(jnp.float32(N))),
    "one less": features(lambda h, _: (h * h).sum(-1) / (N - 1)),
    "leaky mean": features(lambda h, _: jax.nn.leaky_relu(h.sum(-1) / N, 0.2)),
    "mean as a slope": features(lambda h, _: jnp.maximum(h, h * h.mean(-1)[:, None]).sum(-1)),
    "after relu": features(lambda h, _: jax.nn.relu(h.sum(-1)) / N),
    "in a scan": features(stepped),
    "weights standardised": weights(lambda v, g: g * v / jnp.sqrt((v**2).mean(0))),
}


@pytest.mark.parametrize("name", FREE)
def test_sums_without_a_width_shrink_natively(name):
    groups = find_nodes(FREE[name], PARAMS, INPUTS)
    keep = {group: np.arange(n) % 3 > 0 for group, n in groups.prunable.items()}
    assert groups.prunable["a"] == N
    masked = FREE[name](mask(PARAMS, groups, keep), INPUTS)
    np.testing.assert_allclose(FREE[name](shrink(PARAMS, groups, keep), INPUTS), masked, rtol=1e-9)


@pytest.mark.parametrize("name", WRITTEN)
def test_sums_with_a_width_are_refused(name):
    groups = find_nodes(WRITTEN[name], PARAMS, INPUTS)
    assert "a" not in groups.prunable
    assert "whose width is written into the function" in groups["a"].reason
    assert find_nodes(WRITTEN[name], PARAMS, INPUTS, mode="baked").prunable["a"] == N
