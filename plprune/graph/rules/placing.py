# SPDX-License-Identifier: Apache-2.0
"""On which devices an array lies: its entries stay what they are.

    b:f32[8,6] = sharding_constraint[sharding=NamedSharding(mesh, P('data', 'model'))] a:f32[8,6]

* label: b has the labels of a.
* fill: what is known of a holds of b.
* resize: b is spread as before, save along axes whose new size the devices do not divide evenly.
* follow: b is a.
* linear: a parameter that is spread over devices is that parameter.
"""

from collections.abc import Sequence
from math import prod
from typing import Any

from jax.sharding import NamedSharding, PartitionSpec

from plprune.graph.entries import ANYTHING, AS_IT_IS, Linear, Primitive, in_place
from plprune.graph.rules.arithmetic import follow_each, pass_each
from plprune.graph.shrinking.resizing import Resizing, with_params
from plprune.graph.tracing import Equation


def resize_spread(resizing: Resizing, equation: Equation, values: Sequence[Any]) -> list[Any]:
    """As many devices along each axis as before, or all of it on each of them."""
    name = "dst_sharding" if equation.name == "reshard" else "sharding"
    sharding = equation.params[name]
    if not isinstance(sharding, NamedSharding):
        return list(values)  # Which axes it speaks of is not known: wherever the operand lies.
    spread = fitting(sharding, resizing.shape(equation.outputs[0]))
    return with_params(equation, values, **{name: spread})


def fitting(sharding: NamedSharding, shape: Sequence[int]) -> NamedSharding:
    """The same for an array of another shape, save along axes that devices do not divide evenly."""
    sizes = dict(sharding.mesh.shape)
    spec = [
        own if n % prod(sizes[axis] for axis in _names(own)) == 0 else None
        for own, n in zip(sharding.spec, shape, strict=False)
    ]
    return NamedSharding(sharding.mesh, PartitionSpec(*spec), memory_kind=sharding.memory_kind)


def _names(own):
    """Axes of the mesh that an entry of a partition names."""
    if own is None or own is PartitionSpec.UNCONSTRAINED:
        return ()
    return own if isinstance(own, tuple) else (own,)


def _placed(resize=AS_IT_IS) -> Primitive:
    linear = Linear(moves=in_place)
    return Primitive(pass_each, pass_each, resize, follow_each, ANYTHING, linear, rounds=False)


ENTRIES = {
    "sharding_constraint": _placed(resize_spread),
    "reshard": _placed(resize_spread),
    "pvary": _placed(),
}
