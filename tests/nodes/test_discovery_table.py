# SPDX-License-Identifier: Apache-2.0
"""The printed table of groups: short for people, whole on demand."""

import jax
import jax.numpy as jnp
import pytest
from stacks import STACKS
from zoo import normal, shapes

from plprune.nodes import find_nodes


@pytest.mark.parametrize("name", ["nnx", "linen", "haiku", "groups"])
def test_it_fits_a_hundred_columns_and_says_in_a_line_that_layers_are_stacked(name):
    groups = find_nodes(*STACKS[name]())
    lines = str(groups).splitlines()
    assert max(map(len, lines)) <= 100
    (stacked,) = (line for line in lines if line.startswith("layers are stacked: a node"))
    assert f"closes in all {5 if name == 'groups' else 3} of them at once" in stacked
    assert not any("steps along it" in line for line in lines)


def unused(p, x):
    return jnp.tanh(x @ p["a"]) @ p["b"]


PARAMS = shapes(a=(5, 6), b=(6, 2), mean=(6,), var=(6,))


def test_what_the_function_does_not_use_is_counted_and_shown_on_demand():
    groups = find_nodes(unused, PARAMS, normal(4, 5))
    *rows, last = str(groups).splitlines()
    assert last == ("not shown: 2 axes that the function does not use; table(width=None) shows all")
    assert [row.split()[0] for row in rows] == ["group", "a.inputs", "a", "b"]
    whole = groups.table(width=None)
    assert "the function does not use mean" in whole
    assert "the function does not use var" in whole
    assert "not shown" not in whole


def test_many_members_end_in_how_many_more_and_long_reasons_go_below():
    names = [f"layer_{k}" for k in range(12)]

    def residual(p, x):
        x = x @ p["enter"]
        for name in names:
            x = x + jnp.tanh(x @ p[name])
        return jax.nn.softmax(x) @ p["leave"]

    params = shapes(enter=(5, 6), leave=(6, 2), **{name: (6, 6) for name in names})
    groups = find_nodes(residual, params, normal(4, 5))
    lines = str(groups).splitlines()
    row = next(k for k, line in enumerate(lines) if line.startswith("enter "))
    assert lines[row].endswith("enter[1], layer_0[0], layer_0[1] and 23 more")
    assert lines[row + 1].startswith("    reduce_max at test_discovery_table.py:")
    assert max(map(len, lines)) <= 100
    assert f"{names[-1]}[1]" in groups.table(width=None)


def test_long_paths_are_cut_on_the_left_where_they_repeat_the_name():
    lines = str(find_nodes(*STACKS["linen"]())).splitlines()
    row = next(line for line in lines if line.startswith("blocks.attention "))
    assert row.endswith("yes    yes   ...attention.key.bias[1] and 6 more")


def test_layers_are_known_by_leaf_and_axis():
    assert find_nodes(*STACKS["scan"]()).layers == {"bias": (0,), "down": (0,), "up": (0,)}
    assert find_nodes(*STACKS["groups"]()).layers == {"layers.down": (0,), "layers.up": (0,)}
    last = find_nodes(*STACKS["nnx, last axis"]()).layers
    assert last["0.blocks.up.kernel"] == (2,)
