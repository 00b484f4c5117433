# SPDX-License-Identifier: Apache-2.0
"""Lookups and sums at positions: what is read of them beyond that masked equals shrunk."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from plprune.graph.linear.taps import factoring
from plprune.graph.tracing import trace
from plprune.nodes import find_nodes

TABLE = {"e": jnp.ones((7, 6)), "o": jnp.ones((6, 2))}
NUMBERS = jnp.arange(5)


def filled(p, x):
    """Both numbers of a row are looked up, and rows beyond the end are not there."""
    numbers = lax.GatherDimensionNumbers((1, 2), (), (0, 1))
    starts = jnp.stack([x, 0 * x], 1)
    rows = lax.gather(p["e"], starts, numbers, (1, 6), mode="fill", fill_value=0.0)
    return rows[:, 0] @ p["o"]


ROWS = {
    "a batch": lambda p, x: jnp.tanh(p["e"][x]) @ p["o"],
    "one by one": lambda p, x: jax.vmap(lambda i: jnp.tanh(p["e"][i]) @ p["o"])(x),
    "filled": filled,
}


@pytest.mark.parametrize("name", ROWS)
def test_the_width_of_a_table_is_free_however_its_rows_are_looked_up(name):
    groups = find_nodes(ROWS[name], TABLE, NUMBERS)
    assert groups.prunable == {"e.neurons": 6}
    assert groups["e"].reason.endswith("looks up positions of it")
    assert not groups.dependence


@pytest.mark.parametrize("name", ROWS)
def test_rows_of_a_table_are_outer_products(name):
    graph = trace(ROWS[name], TABLE, NUMBERS)
    (gather,) = (e for e in graph.equations if e.name == "gather")
    shapes = [graph.shape(v) for v in (*gather.inputs, *gather.outputs)]
    found = factoring(gather, 0, shapes)
    assert found.is_lookup
    assert found.sizes == (1, 5, 7, 6)
    indices = jnp.zeros(shapes[1], int).at[:, 0].set(jnp.array([0, 3, 9, 6, -1]))
    assert found.operand(indices).tolist() == [[0, 3, 6, 6, 0]]
    rows = found.cotangent(jnp.ones(shapes[2]), indices)
    inside = [1, 1, 0, 1, 0] if name == "filled" else [1] * 5
    np.testing.assert_array_equal(rows[0, :, 0], inside)


LAYER = {"w": jnp.ones((3, 6)), "o": jnp.ones((6, 2))}
GRAPHS = jnp.ones((4, 5, 3)), jnp.zeros((4, 8), int), jnp.ones((4, 8), int)


def messages(combine):
    def one(p, x, senders, receivers):
        sent = jax.nn.relu(x[senders] @ p["w"])
        return jnp.tanh(combine(sent, receivers, 5)).mean(0) @ p["o"]

    return lambda p, graphs: jax.vmap(partial(one, p))(*graphs)


def put(sent, receivers, count):
    return jnp.zeros((count, 6)).at[receivers].set(sent)


def multiplied(sent, receivers, count):
    return jnp.ones((count, 6)).at[receivers].multiply(sent)


@pytest.mark.parametrize("combine", [jax.ops.segment_sum, put])
def test_features_of_messages_that_are_added_up_are_nodes(combine):
    groups = find_nodes(messages(combine), LAYER, GRAPHS)
    assert groups.prunable == {"w": 6}
    assert groups["w"].gateable
    assert not groups.dependence


def shifted(sent, receivers, count):
    return jax.ops.segment_sum(jnp.cos(sent), receivers, count)


ZEROS = jax.ops.segment_sum, put


@pytest.mark.parametrize("combine", [*ZEROS, shifted, jax.ops.segment_max, multiplied])
def test_only_what_stays_zero_can_be_summed_over(combine):
    def one(p, x, senders, receivers):
        return combine(jax.nn.relu(x[senders] @ p["w"]), receivers, 5).sum(-1)

    def apply(p, graphs):
        return jax.vmap(partial(one, p))(*graphs)

    groups = find_nodes(apply, {"w": LAYER["w"]}, GRAPHS, mode="baked")
    if combine in ZEROS:
        assert groups.prunable == {"w": 6}
    else:
        assert "the entries of a closed node are not zero there" in groups["w"].reason


def test_an_axis_that_is_written_at_positions_is_refused():
    def apply(p, x):
        return jnp.tanh(x @ p["w"]).at[:, x[0, 0].astype(int)].add(1.0) @ p["o"]

    reason = find_nodes(apply, LAYER, jnp.ones((5, 3)))["w"].reason
    assert reason.startswith("scatter-add at ")
    assert reason.endswith(" writes at positions of it")
