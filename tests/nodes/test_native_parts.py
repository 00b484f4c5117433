# SPDX-License-Identifier: Apache-2.0
"""What a native module can lose is said before, and cut without what it cannot."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from discovered import shaped
from flax import nnx
from stacks import TOKENS, Block
from zoo import fill

from plprune.functional import functional, paired
from plprune.nodes import find_nodes, native_groups, native_keep, resize, shrink, shrink_model


class Rotated(nnx.Module):
    """Attention on keys that are turned by frequencies of the head width, and a plain layer."""

    def __init__(self, rngs):
        self.query, self.key, self.value = (
            nnx.Linear(6, 4, use_bias=False, rngs=rngs) for _ in range(3)
        )
        self.up, self.down = nnx.Linear(4, 5, rngs=rngs), nnx.Linear(5, 2, rngs=rngs)

    def __call__(self, x):
        q, k = turned(self.query(x)), turned(self.key(x))
        weights = jax.nn.softmax(jnp.einsum("bth,bsh->bts", q, k))
        x = jnp.einsum("bts,bsh->bth", weights, self.value(x))
        return self.down(nnx.gelu(self.up(x))).mean(1)


def turned(x):
    width = x.shape[-1]
    angle = jnp.arange(x.shape[1])[:, None] * 100.0 ** (-jnp.arange(width // 2) * 2 / width)
    one, two = jnp.split(x, 2, -1)
    sine, cosine = jnp.sin(angle)[None], jnp.cos(angle)[None]
    return jnp.concatenate([one * cosine - two * sine, two * cosine + one * sine], -1)


def set_up(build):
    """A module with random leaves, and its groups."""
    parts = functional(shaped(build))
    model = parts.rebuild(*(fill(tree, dtype="float32") for tree in (parts.params, parts.state)))
    return model, find_nodes(paired(parts), (parts.params, parts.state), TOKENS)


def halves(groups):
    return {name: np.arange(size) >= size // 2 for name, size in groups.prunable.items()}


@pytest.fixture(scope="module")
def rotated():
    with jax.numpy_rank_promotion("allow"):
        model, groups = set_up(Rotated)
        return model, native_groups(model, groups), halves(groups)


def test_the_reason_is_known_before_anything_is_cut(rotated):
    _, groups, _ = rotated
    assert {name: bool(why) for name, why in groups.native.items()} == {
        "query": True, "value": False, "up": False,
    }  # fmt: skip
    assert "a width enters its arithmetic" in groups.native["query"]
    assert "shrink_model cannot cut alone: query; groups.native says why" in str(groups)


def test_the_error_names_the_group(rotated):
    model, groups, keep = rotated
    said = "a width enters its arithmetic; use resize, which runs for every model, or leave "
    with pytest.raises(ValueError, match=said + r"\['query'\] out of keep \(native_only=True"):
        shrink_model(model, groups, keep)


def test_one_group_at_fault_does_not_sink_the_others(rotated):
    model, groups, keep = rotated
    small = shrink_model(model, groups, keep, native_only=True)
    assert (small.query.out_features, small.value.out_features, small.up.out_features) == (4, 2, 3)
    rest = native_keep(model, groups, keep)
    assert rest.keys() == {"value", "up"}
    parts, full = functional(small), functional(model)
    expected = shrink(full.params, groups, rest)
    assert jax.tree.map(np.array_equal, parts.params, expected) == jax.tree.map(
        lambda _: True, expected
    )
    resized = resize(paired(full), groups, rest)((expected, full.state), TOKENS)
    np.testing.assert_allclose(parts.apply(parts.params, parts.state, TOKENS), resized, atol=1e-5)


def test_what_can_go_is_kept_as_it_is(rotated):
    model, groups, keep = rotated
    assert native_keep(model, groups, {"up": keep["up"]}) == {"up": keep["up"]}


def test_a_layer_that_fails_is_named_by_its_path():
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.block, self.leave = Block(rngs), nnx.Linear(6, 2, rngs=rngs)

        def __call__(self, x):
            return self.leave(self.block(x)).mean(1)

    model, groups = set_up(Net)
    name = "block.attention.value"
    expected = re.escape(f"or leave ['{name}'] out of keep")
    with pytest.raises(
        ValueError, match=f"in block.attention, which is of class MultiHeadAttention; .*{expected}"
    ):
        shrink_model(model, groups, {name: halves(groups)[name]})
