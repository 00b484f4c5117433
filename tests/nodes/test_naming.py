# SPDX-License-Identifier: Apache-2.0
"""What groups are called, and which kind of nodes they hold."""

import jax
import jax.numpy as jnp
import pytest
from zoo import normal, shapes

from plprune.nodes import find_nodes
from plprune.nodes.naming import modules_of


def attention(p, x, heads):
    """Multi-head attention of merged kernels."""
    parts = (x @ p["q"], x @ p["k"], x @ p["v"])
    q, k, v = (a.reshape(*a.shape[:2], heads, -1) for a in parts)
    weights = jax.nn.softmax(jnp.einsum("bthd,bshd->bhts", q, k))
    mixed = jnp.einsum("bhts,bshd->bthd", weights, v)
    return mixed.reshape(*x.shape[:2], -1) @ p["o"]


PARAMS = shapes(q=(5, 6), k=(5, 6), v=(5, 6), o=(6, 2))


@pytest.mark.parametrize(
    ("heads", "kinds"),
    [
        (2, {"q": "head width", "v": "head width", "head": "head"}),
        (1, {"q": "head width", "v": "head width"}),
    ],
)
def test_widths_within_heads_are_a_kind_of_their_own(heads, kinds):
    groups = find_nodes(lambda p, x: attention(p, x, heads), PARAMS, normal(3, 4, 5))
    found = {groups[name].kind for name in groups.prunable}
    assert found == set(kinds.values())
    assert groups["v"].kind in ("head", "head width")
    assert len(groups.prunable) == len(kinds)


def graph_convolution(p, inputs):
    x, edges = inputs
    return jnp.einsum("bnm,bmf->bnf", edges, jnp.tanh(x @ p["w"])) @ p["o"]


def two_towers(p, inputs):
    x, y = inputs
    return jnp.einsum("bf,bf->b", jnp.tanh(x @ p["w"]), y @ p["u"])[:, None] * p["o"][:1, :1]


@pytest.mark.parametrize(
    ("function", "inputs"),
    [
        (graph_convolution, (normal(3, 4, 5), normal(3, 4, 4))),
        (two_towers, (normal(3, 5), normal(3, 5))),
    ],
)
def test_features_of_other_products_are_neurons(function, inputs):
    groups = find_nodes(function, shapes(w=(5, 6), u=(5, 6), o=(6, 2)), inputs)
    assert groups.prunable
    assert {groups[name].kind for name in groups.prunable} == {"neuron"}


def test_matrices_in_a_list_are_modules_and_pairs_are_not():
    paths = ("up.0", "up.1", "0.0", "0.1", "a.kernel", "w", "b.0")
    assert modules_of(paths, (2, 2, 2, 1, 2, 2, 2)) == ("up.0", "up.1", "0", "0", "a", "w", "b")
