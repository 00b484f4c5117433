# SPDX-License-Identifier: Apache-2.0
"""Leaves spread over four host devices, in a process of its own."""

from devices import printed_on

SCRIPT = """
import jax, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from plprune.nodes import expand, find_nodes, gate, mask, shrink

apply = lambda p, x: jax.numpy.tanh(x @ p["a"]) @ p["c"]
values = {"a": np.arange(128.0, dtype="float32").reshape(8, 16), "c": np.ones((16, 4), "float32")}
groups = find_nodes(apply, values, np.ones((2, 8), "float32"))
specs = {"a": P("data", "model"), "c": P(("model",), None)}
even = {"a": np.arange(16) % 2 == 0}
odd = {"a": np.arange(16) < 7}

def check(tree, expected, specs):
    for name, leaf in tree.items():
        np.testing.assert_array_equal(leaf, expected[name])
        assert leaf.sharding.is_equivalent_to(NamedSharding(mesh, specs[name]), leaf.ndim), leaf

for kind in (AxisType.Auto, AxisType.Explicit):
    mesh = jax.make_mesh((2, 2), ("data", "model"), axis_types=(kind, kind))
    with jax.set_mesh(mesh):
        params = {n: jax.device_put(v, NamedSharding(mesh, specs[n])) for n, v in values.items()}
        small = shrink(params, groups, even)
        check(small, shrink(values, groups, even), specs)
        back = expand(shrink(values, groups, even), groups, even)
        check(expand(small, groups, even), back, specs)
        check(mask(params, groups, odd), mask(values, groups, odd), specs)
        gates = {"a": np.arange(16.0, dtype="float32")}
        check(gate(params, groups, gates), gate(values, groups, gates), specs)
        # Seven nodes do not go evenly onto two devices: each has them all.
        check(shrink(params, groups, odd), shrink(values, groups, odd), {"a": P("data"), "c": P()})
        assert params["a"].sharding.spec == specs["a"]
print("as before")
"""


def test_leaves_stay_spread_as_they_were():
    assert printed_on(4, SCRIPT) == "as before"
