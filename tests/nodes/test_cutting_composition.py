# SPDX-License-Identifier: Apache-2.0
"""Random functions composed from the zoo's pieces: masked equals shrunk, or refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from discovered import found, random_keep, shrunk_output
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from zoo import CASES, normal

from plprune.nodes import find_nodes, mask, resize, shrink

WIDTH = 6
ACTIVATIONS = [jnp.tanh, jax.nn.relu, jax.nn.gelu, jax.nn.sigmoid, jax.nn.softplus, jnp.cos]


def weight(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def dense(h, p, act):
    return act(h @ p["a"] + p["b"])


def residual(h, p, act):
    return h + act(h @ p["a"] + p["b"]) @ p["c"]


def gated(h, p, act):
    x, y = jnp.split(h @ jnp.concatenate([p["a"], p["c"]], 1) + p["d"], 2, -1)
    return act(x) * y


def heads(h, p, act):
    """Split into two heads, mix the heads, merge."""
    x = act(h @ p["a"]).reshape(-1, 2, WIDTH // 2)
    return jnp.einsum("bhd,bge->bhe", x, jnp.tanh(x)).reshape(-1, WIDTH) + p["b"]


def mirrored(h, p, act):
    return act(jnp.flip(h @ p["a"], -1) + p["b"])


def joined(h, p, act):
    return jnp.concatenate([h[:, : WIDTH // 2], act(h @ p["a"][:, : WIDTH // 2])], 1)


def normalised(h, p, act):
    return act(h) * jax.lax.rsqrt((h**2).mean(-1, keepdims=True) + 1e-3) * p["b"]


def scanned(h, p, act):
    return jax.lax.scan(lambda c, _: (act(c @ p["a"] + p["b"]), None), h, None, length=2)[0]


def pooled(h, p, act):
    return jnp.maximum(h @ p["a"], act(h @ p["c"]))


PIECES = [dense, residual, gated, heads, mirrored, joined, normalised, scanned, pooled]


def compose(pieces, activations):
    def apply(params, x):
        h = x @ params["in"]
        for piece, act, p in zip(pieces, activations, params["layers"], strict=True):
            h = piece(h, p, act)
        return h @ params["out"]

    return apply


def random_params(count):
    layer = {"a": (WIDTH, WIDTH), "b": (WIDTH,), "c": (WIDTH, WIDTH), "d": (2 * WIDTH,)}
    layers = [
        {name: weight(7 * k + i, *shape) / 2 for i, (name, shape) in enumerate(layer.items())}
        for k in range(count)
    ]
    return {"in": weight(100, 4, WIDTH), "layers": layers, "out": weight(101, WIDTH, 2)}


@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    st.lists(
        st.tuples(st.sampled_from(PIECES), st.sampled_from(ACTIVATIONS)), min_size=1, max_size=3
    ),
    st.sampled_from(["strict", "baked"]),
    st.integers(0, 99),
)
def test_masked_equals_shrunk_for_any_composition(layers, mode, seed):
    pieces, activations = zip(*layers, strict=True)
    apply, params, inputs = compose(pieces, activations), random_params(len(layers)), normal(3, 4)
    groups = find_nodes(apply, params, inputs, mode=mode)
    for group in groups.values():
        assert group.prunable or group.reason
    keep = random_keep(groups, seed)
    small = resize(apply, groups, keep)

    @jax.jit
    def both(params):
        masked = apply(mask(params, groups, keep), inputs)
        return masked, small(shrink(params, groups, keep), inputs)

    masked, shrunk = both(params)
    np.testing.assert_allclose(shrunk, masked, atol=1e-9 * float(jnp.abs(masked).max() + 1))


def swapped(groups, name, path):
    """The groups with the first and last node of one member exchanged."""
    group = groups[name]
    other = {0: group.size - 1, group.size - 1: 0}

    def swap(member):
        if member.path != path:
            return member
        return member._replace(index=np.array([other.get(i, i) for i in member.index.tolist()]))

    group = group._replace(members=tuple(map(swap, group.members)))
    return type(groups)(**{**vars(groups), "by_name": {**groups.by_name, name: group}})


@pytest.mark.parametrize(
    ("case", "name", "path"),
    [
        ("mlp", "0", "1.0"),
        ("lstm", "wx", "b"),
        ("cnn, flattened", "k1", "k2"),
        ("attention", "qkv", "o"),
    ],
)
def test_swapping_the_index_map_of_one_member_is_noticed(case, name, path):
    apply, params, inputs = CASES[case][:3]
    keep = {name: np.arange(found(case)[name].size) > 0}
    correct = shrunk_output(case, keep)
    small = shrink(params, swapped(found(case), name, path), keep)
    wrong = jax.jit(resize(apply, found(case), keep))(small, inputs)
    assert jnp.abs(wrong - correct).max() > 1e-3
    with pytest.raises(ValueError, match=f"nodes of {name} differ"):
        resize(apply, swapped(found(case), name, path), keep)(small, inputs)
