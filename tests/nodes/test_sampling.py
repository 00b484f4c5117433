# SPDX-License-Identifier: Apache-2.0
"""Random variables, tokens and shapes at which every part of a model shows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from zoo import conv, normal

from plprune.graph.tracing import trace
from plprune.nodes import find_nodes
from plprune.nodes.lookups import index_bounds
from plprune.nodes.sampling import NEAR, OWN, RANDOM, Draw, Sampler, fan_ins, other_shapes

ROWS = {"table": normal(9, 3), "few": normal(4, 3), "w": normal(3, 3)}
LOOKUPS = {
    "indexing": (lambda p, x: p["table"][x], 9),
    "take": (lambda p, x: jnp.take(p["table"], x, axis=0), 9),
    "clipped": (lambda p, x: jnp.take(p["table"], x, axis=0, mode="clip"), 9),
    "two tables": (lambda p, x: p["table"][x] + p["few"][x.T].swapaxes(0, 1), 4),
    "another axis": (lambda p, x: p["table"].T[:, x.reshape(-1)], 9),
    "inside jit": (jax.jit(lambda p, x: p["table"][x]), 9),
    "mapped": (lambda p, x: jax.vmap(lambda row: p["table"][row])(x), 9),
    "one by one": (lambda p, x: jax.vmap(jax.vmap(lambda i: p["table"][i]))(x), 9),
    "in a scan": (lambda p, x: jax.lax.scan(lambda c, i: (c, p["table"][i]), 0, x)[1], 9),
    "one-hot": (lambda p, x: jax.nn.one_hot(x, 9) @ p["table"], 9),
    "one-hot and a table": (lambda p, x: jax.nn.one_hot(x, 9) @ p["table"] + p["few"][x], 4),
    "numbers": (lambda p, x: x[..., None] * p["w"][0], None),
}


@pytest.mark.parametrize("name", LOOKUPS)
def test_integers_are_bounded_by_the_table_that_they_index(name):
    apply, bound = LOOKUPS[name]
    tokens = jnp.zeros((2, 2), int)
    graph = trace(apply, ROWS, tokens)
    assert index_bounds(graph) == [bound]
    groups = find_nodes(apply, ROWS, tokens)
    shape = jax.ShapeDtypeStruct((40, 40), jnp.int32)
    drawn = np.unique(Sampler(graph, groups, ROWS, True).inputs(shape, RANDOM[0]))
    assert drawn.tolist() == list(range(bound or 8))


def test_inputs_have_their_own_types_and_bounds():
    inputs = {"a": jnp.zeros((9, 9), int), "b": jnp.zeros((9, 9), jnp.uint8)}
    inputs |= {"c": jnp.zeros((9, 9), bool), "d": jax.random.key(0), "e": normal(9, 9)}

    def apply(params, x):
        total = params["table"][x["a"]].sum(-1) * x["b"] * x["c"] * x["e"].real
        return total + jax.random.normal(x["d"])

    graph = trace(apply, ROWS, inputs)
    assert index_bounds(graph)[:3] == [9, None, None]
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), inputs)
    drawn = Sampler(graph, find_nodes(apply, ROWS, inputs), ROWS, True).inputs(shapes, RANDOM[0])
    assert jax.tree.map(lambda x: x.dtype, drawn) == jax.tree.map(lambda x: x.dtype, inputs)
    assert drawn["b"].max() > 200
    assert 0 < drawn["c"].mean() < 1


def model(p, x):
    params, state = p
    y = conv(x, params["k"]) * state["var"] + params["b"]
    return jnp.einsum("bhwi,ij->bj", jnp.tanh(y), params["o"]) * (state["n"] + 1)


VARIABLES = (
    {"k": jnp.zeros((3, 3, 2, 64)), "b": jnp.zeros(64), "o": jnp.zeros((64, 32))},
    {"var": jnp.zeros(64), "n": jnp.array(7), "seed": jax.random.key(3)},
)


def test_weights_are_scaled_by_what_is_added_up():
    images = normal(1, 3, 3, 2)
    groups = find_nodes(model, VARIABLES, images)
    fans = dict(zip(groups.paths, fan_ins(groups, jax.tree.leaves(VARIABLES)), strict=True))
    assert fans == {"0.b": 1, "0.k": 18, "0.o": 64, "1.n": 1, "1.seed": 1, "1.var": 1}
    sampler = Sampler(trace(model, VARIABLES, images), groups, VARIABLES, True)
    params, state = sampler.variables(Draw(seed=0, gain=10.0))
    for leaf, deviation in ((params["k"], 10 / 18**0.5), (params["o"], 10 / 8), (params["b"], 10)):
        assert jnp.std(leaf) == pytest.approx(deviation, rel=0.3)
    assert 5 < state["var"].min() < state["var"].max() < 15
    assert (state["n"], state["seed"]) == (7, jax.random.key(3))
    near, _ = sampler.variables(NEAR[0])
    assert all(jnp.all(leaf != 0) for leaf in jax.tree.leaves(near))
    other, later = sampler.variables(Draw(seed=0, gain=10.0, negated=True))
    assert jnp.all(other["k"] == -params["k"])
    assert jnp.all(later["var"] == state["var"])
    assert later["n"] > 7
    assert later["seed"] == state["seed"]
    assert jax.tree.all(jax.tree.map(jnp.array_equal, sampler.variables(OWN), VARIABLES))


def test_variables_stay_near_the_models_own_where_a_loop_might_not_end():
    def apply(p, x):
        return jax.lax.while_loop(lambda h: h.sum() < 9, lambda h: h + p["w"] ** 2, x)

    params = {"w": jnp.full(3, 2.0)}
    graph, groups = trace(apply, params, jnp.ones(3)), find_nodes(apply, params, jnp.ones(3))
    for draw in RANDOM:
        drawn = Sampler(graph, groups, params, True).variables(draw)["w"]
        assert 1.3 < drawn.min() < drawn.max() < 2.7


def test_padding_zeroes_some_inputs():
    images = normal(4, 3, 3, 2)
    groups = find_nodes(model, VARIABLES, images)
    sampler = Sampler(trace(model, VARIABLES, images), groups, VARIABLES, True)
    for draw in RANDOM:
        zero = sampler.inputs(images, draw) == 0
        assert zero[-1].all() == zero[0, -1].all() == zero[0].any() == draw.negated
        assert not zero[0].all()


def test_stacked_layers_do_not_count_as_fan_in():
    def apply(p, x):
        return jax.lax.scan(lambda h, w: (jnp.tanh(h @ w), None), x, p["w"])[0]

    params = {"w": jnp.zeros((5, 7, 7))}
    groups = find_nodes(apply, params, normal(2, 7))
    assert fan_ins(groups, jax.tree.leaves(params)) == [7]


def test_a_narrow_draw_keeps_the_types():
    params = {"table": jnp.zeros((9, 3), jnp.bfloat16), "w": jnp.zeros(3, jnp.complex64)}

    def apply(p, x):
        return p["table"][x].astype(jnp.float32) * jnp.abs(p["w"])

    tokens = jnp.zeros(2, int)
    graph, groups = trace(apply, params, tokens), find_nodes(apply, params, tokens)
    types = [
        [leaf.dtype for leaf in jax.tree.leaves(draws.variables(RANDOM[0]))]
        for draws in (Sampler(graph, groups, params, wide) for wide in (False, True))
    ]
    assert types == [[jnp.bfloat16, jnp.complex64], [jnp.float64, jnp.complex128]]


def sizes(shapes, reach=0):
    return [[leaf.shape for leaf in jax.tree.leaves(s)] for s in other_shapes(shapes, reach)]


def struct(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def test_other_batch_sizes_and_lengths_are_proposed():
    assert sizes(struct(4, 6)) == [[(2, 9)], [(2, 5)], [(2, 3)], [(2, 6)], [(4, 9)]]
    assert sizes(struct(2, 1))[0] == [(3, 4)]
    assert sizes(struct(5)) == [[(2,)]]
    assert sizes(struct()) == []
    assert sizes(struct(4, 6), reach=9)[0] == [(2, 15)]
    assert sizes(struct(4, 6), reach=999)[0] == [(2, 22)]
    both = sizes((struct(4, 6, 6), struct(4, 6), struct(3)))
    assert both[0] == [(2, 9, 9), (2, 9), (3,)]
    assert both[1] == [(2, 9, 6), (2, 9), (3,)]
