# SPDX-License-Identifier: Apache-2.0
"""Random parameters, state and inputs at which every part of a model shows."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from plprune.nodes.lookups import index_bounds
from plprune.types import Inputs, NodeGroups


class Draw(NamedTuple):
    """What to draw."""

    seed: int
    kind: str = "random"  # "own": the model's variables; "near": within a third of them.
    gain: float = 1.0  # Deviation of the parameters; inputs follow it from 1 to 10.
    negated: bool = False  # Parameters change sign, some inputs are zero, integer state changes.
    positive: bool = False  # Parameters and inputs are; integer inputs are 0 or 1.


# Logits that spread, thresholds that are passed; then what is linear in its weights.
GAINS = (1.0, 0.1, 10.0, 100.0, 1e-3)
OWN = Draw(seed=0, kind="own")
RANDOM = tuple(
    Draw(seed=k, gain=gain, negated=negated)
    for k, gain in enumerate(GAINS)
    for negated in (False, True)
)
# Where no others give finite outputs: logarithms, roots, poles.
MILD = (Draw(seed=7, gain=0.5, positive=True),)
NEAR = tuple(Draw(seed=8, kind="near", positive=positive) for positive in (False, True))


class Sampler:
    """Draws for a model's variables at given values, and for inputs of any shapes.

    Weights are normal with a deviation of gain / sqrt(fan-in), all other parameters with one of
    gain, and floating-point state lies between gain / 2 and 3/2 gain: nothing is zero or small as
    it may be in a model that was just initialised. Integer inputs run over the whole table that
    they are looked up in. Keys stay as they are, and so do integers and flags in the state, but for
    draws whose parameters are negated: there a count may be up to a million higher.
    """

    def __init__(self, graph: Any, groups: NodeGroups, variables: Any, wide: bool):
        """Widened draws are in float64 (complex128), the others in the types of `variables`."""
        self.leaves, self.structure = jax.tree.flatten(variables)
        self.fans = fan_ins(groups, self.leaves)
        self.state = _state_leaves(variables)
        self.bounds = index_bounds(graph)
        self.wide = wide
        self.may_loop_on = _has_while(graph)
        sizes = zip(groups.shapes, map(np.shape, self.leaves), strict=True)
        cut = (n for full, left in sizes for n, m in zip(full, left, strict=True) if n != m)
        self.reach = max(cut, default=0)  # The widest axis that shrinks.

    def variables(self, draw: Draw) -> Any:
        """Parameters and state; near the model's own where a loop might never end elsewhere."""
        if draw.kind == "random" and self.may_loop_on:
            draw = draw._replace(kind="near", negated=False)
        leaves = [self._leaf(draw, k, leaf) for k, leaf in enumerate(self.leaves)]
        return self.structure.unflatten(leaves)

    def _leaf(self, draw, k, leaf):
        rng = np.random.default_rng((draw.seed, k))
        if not jnp.issubdtype(leaf.dtype, jnp.inexact):
            return _other_number(rng, leaf) if draw.negated else leaf
        if draw.kind == "own":
            return self._array(leaf, leaf.dtype)
        if draw.kind == "near":
            own = np.asarray(leaf).astype(_widest(leaf.dtype))
            values = own * rng.uniform(2 / 3, 4 / 3, own.shape)
            return self._array(
                np.where(own == 0, 0.1 * _normal(rng, own.shape, own.dtype), values), leaf.dtype
            )
        if k in self.state:
            values = draw.gain * rng.uniform(0.5, 1.5, np.shape(leaf))
        else:
            values = draw.gain / np.sqrt(self.fans[k]) * _normal(rng, np.shape(leaf), leaf.dtype)
            values = np.abs(values) if draw.positive else -values if draw.negated else values
        return self._array(values, leaf.dtype)

    def inputs(self, shapes: Inputs, draw: Draw) -> Inputs:
        """Random inputs of given shapes and types."""
        leaves, structure = jax.tree.flatten(shapes)
        rng = np.random.default_rng(draw.seed + 100 * draw.negated)
        pairs = zip(leaves, self.bounds, strict=True)
        return structure.unflatten([self._input(rng, draw, *pair) for pair in pairs])

    def _input(self, rng, draw, leaf, bound):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.split(jax.random.key(draw.seed), leaf.shape)
        if jnp.issubdtype(leaf.dtype, jnp.inexact):
            values = np.clip(draw.gain, 1, 10) * _normal(rng, leaf.shape, leaf.dtype)
            values = np.abs(values) if draw.positive else values
            return self._array(_padded(rng, values) if draw.negated else values, leaf.dtype)
        if draw.positive or leaf.dtype == bool:
            last = 1
        else:
            bound = bound or (256 if leaf.dtype == np.uint8 else 8)
            last = min(bound - 1, int(jnp.iinfo(leaf.dtype).max))
        values = rng.integers(0, last, leaf.shape, endpoint=True)
        return jnp.asarray(_padded(rng, values) if draw.negated else values, leaf.dtype)

    def _array(self, values, dtype):
        return jnp.asarray(values, _widest(dtype) if self.wide else dtype)


def _padded(rng, values):
    """A fifth of the entries is zero, and all of the last example and the first one's last row."""
    values = np.where(rng.random(values.shape) < 0.2, 0, values)
    if values.ndim:
        values[-1:] = 0
    if values.ndim > 2:
        values[:1, -1:] = 0
    return values


def _other_number(rng, leaf):
    """A later count or another flag; keys stay."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return leaf
    if leaf.dtype == bool:
        return jnp.asarray(rng.random(leaf.shape) < 0.5)
    later = np.asarray(leaf).astype(np.int64) + (10 ** rng.uniform(0, 6, leaf.shape)).astype(int)
    return jnp.asarray(np.minimum(later, int(jnp.iinfo(leaf.dtype).max)), leaf.dtype)


def fan_ins(groups: NodeGroups, leaves: list[Any]) -> list[int]:
    """Per leaf, how many of its entries add up to one output; 1 for what is not contracted.

    The axes of a group that consumes it are summed over, and so are windows, which no group holds.
    """
    grouped, summed = set(), set()
    for group in groups.values():
        grouped |= {member[:2] for member in group.members}
        summed |= {member[:2] for member in group.consumers}
    weights = {path for path, _ in summed}

    def fan(path, shape):
        own = [n for d, n in enumerate(shape) if (path, d) in summed or (path, d) not in grouped]
        return max(1, int(np.prod(own))) if path in weights else 1

    return [fan(path, np.shape(leaf)) for path, leaf in zip(groups.paths, leaves, strict=True)]


def _has_while(graph) -> bool:
    """Whether some loop runs until a condition holds, which at other values it may never do."""
    return any(e.name == "while" or any(map(_has_while, e.subgraphs)) for e in graph.equations)


def other_shapes(shapes: Inputs, reach: int) -> Iterator[Inputs]:
    """Inputs of another batch size and, first, of another length; many models refuse some.

    The length is the second axis of the first input that has one. Whether other axes of that size
    are the same length cannot be known: both are tried. A length beyond `reach`, if that is not
    too far, comes first: a width may be where a mask or a window ends.
    """
    ranked = [leaf.shape for leaf in jax.tree.leaves(shapes) if leaf.shape]
    if not ranked:
        return
    rows, length = ranked[0][0], next((shape[1] for shape in ranked if len(shape) > 1), None)
    batch = 2 if rows != 2 else 3
    more = 3 if length is None else max(3, min(reach, max(16, length)))
    lengths = [] if length is None else [length + more, length + 3, length - 1, length // 2]
    lengths = [n for n in dict.fromkeys(lengths) if 0 < n != length]
    sizes = [*((batch, n) for n in lengths), (batch, length), *((rows, n) for n in lengths[:1])]
    seen = [shapes]
    for new_rows, new_length in sizes:
        for last in (None, 2):  # Any axis from the second on may be the length; only the second.
            change = ((rows, new_rows, 0, 1), (length, new_length, 1, last))
            other = jax.tree.map(lambda leaf, change=change: _changed(leaf, change), shapes)
            if other not in seen:
                seen.append(other)
                yield other


def _changed(leaf, changes):
    """The shape whose axes of an old size, from `first` to before `last`, have the new size."""
    sizes = list(leaf.shape)
    for old, new, first, last in changes:
        sizes[first:last] = [new if n == old else n for n in sizes[first:last]]
    return jax.ShapeDtypeStruct(tuple(sizes), leaf.dtype)


def _normal(draws, shape, dtype):
    values = draws.normal(size=shape)
    if jnp.issubdtype(dtype, jnp.complexfloating):
        values = (values + 1j * draws.normal(size=shape)) / np.sqrt(2)
    return values


def _widest(dtype):
    return np.complex128 if jnp.issubdtype(dtype, jnp.complexfloating) else np.float64


def _state_leaves(variables) -> set[int]:
    """Positions of the leaves outside the parameters of (params, state) or {"params": ..., ...}."""
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(variables)]
    if type(variables) is tuple and all(isinstance(tree, Mapping) for tree in variables):
        return {k for k, path in enumerate(paths) if path[0].idx == 1}
    if isinstance(variables, Mapping) and "params" in variables:
        return {k for k, path in enumerate(paths) if path[0].key != "params"}
    return set()
