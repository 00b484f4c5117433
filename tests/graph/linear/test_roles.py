# SPDX-License-Identifier: Apache-2.0
"""A gate acts on a matrix that is made of several leaves exactly where all of them scale it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plprune.nodes import find_nodes, gate, unstack

pytestmark = pytest.mark.usefixtures("models_broadcast")
DRAWS = np.random.default_rng(0)
SHAPES = {"a": (4, 6), "w": (6, 5), "v": (6, 5), "s": (5,), "t": (6,), "o": (5, 2)}
PARAMS = {
    name: jnp.asarray(DRAWS.normal(size=shape) + 3 * (name == "t"))
    for name, shape in SHAPES.items()
}
INPUTS = jnp.asarray(DRAWS.normal(size=(3, 4)))
MASK = jnp.asarray(DRAWS.random((6, 5)) < 0.5)

# Two matrices [6, 5] as one that has a node's rows at 0 where both have.
JOINS = {
    "sum": lambda w, v: w + v,
    "difference": lambda w, v: w - v,
    "real and imaginary part": jax.lax.complex,
    "imaginary unit": lambda w, v: w + 1j * v,
    "one or the other": lambda w, v: jnp.where(MASK, w, v),
    "masked": lambda w, v: jnp.where(MASK, w, 0) + jnp.where(MASK, 0.0, v),
    "side by side": lambda w, v: jnp.concatenate([w, v], 1)[:, 2:7],
}
# Functions of one matrix that scale as it does, the factor being computed from parameters.
SCALES = {
    "plain": lambda w, _: w,
    "by an exponential": lambda w, p: w * jnp.exp(p["s"]),
    "by a norm": lambda w, p: w / jnp.linalg.norm(p["s"]),
    "by a leaf": lambda w, p: w * p["s"] / p["t"][:, None],
    "by a leaf with the node": lambda w, p: p["t"][:, None] * w,
    "by the inputs' leaf": lambda w, p: w * jnp.exp(p["t"])[:, None],
}


def network(join, scale, gates=None):
    """Features times a matrix of two leaves; gates multiply the features before."""

    def apply(p, x):
        h = jnp.tanh(x @ p["a"])
        h = h if gates is None else h * gates
        return jnp.real(h @ scale(join(p["w"], p["v"]), p)) @ p["o"]

    return apply


@settings(deadline=None, max_examples=20)
@given(st.sampled_from(sorted(JOINS)), st.sampled_from(sorted(SCALES)))
def test_gates_scale_all_leaves_of_a_matrix(join, scale):
    parts = JOINS[join], SCALES[scale]
    apply = network(*parts)
    groups = find_nodes(apply, PARAMS, INPUTS)
    assert {m.path for m in groups["a"].consumers} == {"w", "v"}
    gates = jnp.asarray(np.random.default_rng(1).uniform(0.2, 1.8, 6))
    expected = network(*parts, gates)(PARAMS, INPUTS)
    np.testing.assert_allclose(
        apply(gate(PARAMS, groups, {"a": gates}), INPUTS), expected, rtol=1e-9
    )


READS = {  # Ways to read the features h [b, 6] beside a product with w that no slice of w scales.
    "a leaf without the node": lambda h, p: h @ jnp.broadcast_to(p["s"], (6, 5)),
    "a sum with it": lambda h, p: h @ (p["v"] + p["s"]),
    "a function of a leaf": lambda h, p: h @ jnp.exp(p["v"]),
    "a leaf that is normalised": lambda h, p: h @ (p["v"] / jnp.linalg.norm(p["v"])),
    "chosen by the inputs": lambda h, p: h @ jnp.where(h.sum() > 0, p["v"], 2 * p["v"]),
    "carried": lambda h, p: jax.lax.scan(lambda c, x: (c * 0.5, x @ c), p["v"], h[:, None])[1][
        :, 0
    ],
}


@pytest.mark.parametrize("name", READS)
def test_no_gate_where_a_reader_does_not_scale(name):
    def apply(p, x):
        h = jnp.tanh(x @ p["a"])
        return (h @ p["w"] + READS[name](h, p)) @ p["o"]

    groups = find_nodes(apply, PARAMS, INPUTS)
    assert groups["a"].prunable
    assert not groups["a"].gateable


def test_a_learnt_first_state_leaves_gates_to_the_recurrent_matrix():
    p = {"h": jnp.ones(4), "w": PARAMS["a"][:, :4], "u": PARAMS["v"][:4, :4], "o": PARAMS["o"][:4]}

    def apply(p, x, gates=1.0):
        def step(h, x):
            return jnp.tanh((h * gates) @ p["u"] + x @ p["w"]), None

        return (jax.lax.scan(step, p["h"], x)[0] * gates) @ p["o"]

    groups = find_nodes(apply, p, INPUTS)
    name = next(n for n, g in groups.items() if g.prunable)
    gates = jnp.asarray([0.5, 1.5, 0.7, 1.2])
    actual = apply(gate(p, groups, {name: gates}), INPUTS)
    np.testing.assert_allclose(actual, apply(p, INPUTS, gates), rtol=1e-9)


def layer(x, p, k, gates):
    up, down = (jax.lax.dynamic_index_in_dim(p[n], k, keepdims=False) for n in ("up", "down"))
    return x + (jnp.tanh(x @ up) * gates) @ down


def by_a_fixed_count(p, x, gates=1.0):
    return jax.lax.fori_loop(0, 3, lambda k, x: layer(x, p, k, gates), x) @ p["o"]


def by_a_test(p, x, gates=1.0):
    def step(state):
        return state[0] + 1, layer(state[1], p, state[0], gates)

    return jax.lax.while_loop(lambda state: state[0] < 3, step, (0, x))[1] @ p["o"]


def by_a_scan_over_numbers(p, x, gates=1.0):
    def step(x, k):
        return jax.lax.cond(k == 1, lambda: x, lambda: layer(x, p, k, gates)), None

    return jax.lax.scan(step, x, jnp.arange(3))[0] @ p["o"]


@pytest.mark.parametrize("apply", [by_a_fixed_count, by_a_test, by_a_scan_over_numbers])
def test_layers_read_by_number_in_a_loop_are_stacked_ones(apply):
    shapes = {"up": (3, 4, 6), "down": (3, 6, 4), "o": (4, 2)}
    p = {name: jnp.asarray(DRAWS.normal(size=shape)) for name, shape in shapes.items()}
    groups = find_nodes(apply, p, INPUTS)
    assert groups.layers == {"up": (0,), "down": (0,)}
    assert groups.prunable == {"up": 6}
    gates = jnp.asarray([0.5, 1.5, 0.7, 1.2, 0.0, 1.1])
    actual = apply(gate(p, groups, {"up": gates}), INPUTS)
    np.testing.assert_allclose(actual, apply(p, INPUTS, gates), rtol=1e-9)
    with pytest.raises(
        ValueError, match=r"it reads those of \['down', 'up'\] by a number in a loop"
    ):
        unstack(apply, p, INPUTS)


def test_data_read_by_number_is_no_layer():
    def apply(p, x):
        return jax.lax.fori_loop(0, 4, lambda k, y: y + p["t"][k], x) @ p["a"]

    p = {"a": PARAMS["a"], "t": jnp.ones((5, 1))}
    assert find_nodes(apply, p, INPUTS).layers == {}
