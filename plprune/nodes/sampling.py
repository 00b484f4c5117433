# SPDX-License-Identifier: Apache-2.0
"""Random parameters, state and inputs at which every part of a model shows."""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from plprune.nodes.lookups import index_bounds
from plprune.types import Inputs, NodeGroups

GAINS = (1.0, 0.1, 10.0, 100.0, 1e-3)  # Logits that spread, thresholds that are passed.


class Sampler:
    """Draws for a model's variables at given values, and for inputs of any shapes.

    Weights are normal with a deviation of gain / sqrt(fan-in), all other parameters with one of
    gain, and floating-point state lies between gain / 2 and 3/2 gain: nothing is zero or small as
    it may be in a model that was just initialised. Integers, booleans and keys among the variables
    stay as they are. Integer inputs run over the whole table that they are looked up in.
    """

    def __init__(self, graph: Any, groups: NodeGroups, variables: Any, wide: bool):
        """Widened draws are in float64 (complex128), the others in the types of `variables`."""
        self.leaves, self.structure = jax.tree.flatten(variables)
        self.fans = fan_ins(groups, self.leaves)
        self.state = _state_leaves(variables)
        self.bounds = index_bounds(graph)
        self.may_loop_on = _has_while(graph)
        sizes = zip(groups.shapes, map(np.shape, self.leaves), strict=True)
        cut = (n for full, left in sizes for n, m in zip(full, left, strict=True) if n != m)
        self.reach = max(cut, default=0)  # The widest axis that shrinks.
        self.wide = wide

    def own(self) -> Any:
        """The model's own values."""
        return self._tree(lambda _, leaf: leaf)

    def variables(self, gain: float, *, seed: int, positive: bool = False) -> Any:
        """Random values, all of them positive on request."""
        draws = np.random.default_rng(seed)

        def draw(k, leaf):
            if k in self.state:
                return gain * draws.uniform(0.5, 1.5, np.shape(leaf))
            values = gain / np.sqrt(self.fans[k]) * _normal(draws, np.shape(leaf), leaf.dtype)
            return np.abs(values) if positive else values

        return self._tree(draw)

    def jittered(self, *, seed: int) -> Any:
        """The model's own values, each changed by up to a third, and none of them zero."""
        draws = np.random.default_rng(seed)

        def draw(k, leaf):
            del k
            own = np.asarray(leaf).astype(_widest(leaf.dtype))
            noise = 0.1 * _normal(draws, own.shape, own.dtype)
            return np.where(own == 0, noise, own * draws.uniform(2 / 3, 4 / 3, own.shape))

        return self._tree(draw)

    def draws(self) -> Iterator[Any]:
        """Variables of several sizes; near the model's own where a loop might never end."""
        for k, gain in enumerate(GAINS):
            yield self.jittered(seed=k) if self.may_loop_on else self.variables(gain, seed=k)

    def inputs(self, shapes: Inputs, *, seed: int, positive: bool = False) -> Inputs:
        """Random inputs of given shapes and types."""
        leaves, structure = jax.tree.flatten(shapes)
        draws = np.random.default_rng(seed)
        pairs = zip(leaves, self.bounds, strict=True)
        return structure.unflatten([self._input(draws, *pair, positive) for pair in pairs])

    def _input(self, draws, leaf, bound, positive):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.split(jax.random.key(0), leaf.shape)
        if jnp.issubdtype(leaf.dtype, jnp.inexact):
            values = _normal(draws, leaf.shape, leaf.dtype)
            return self._array(np.abs(values) if positive else values, leaf.dtype)
        if positive or leaf.dtype == bool:
            return jnp.asarray(draws.integers(0, 2, leaf.shape), leaf.dtype)
        bound = bound or (256 if leaf.dtype == np.uint8 else 8)
        last = min(bound - 1, int(jnp.iinfo(leaf.dtype).max))
        return jnp.asarray(draws.integers(0, last, leaf.shape, endpoint=True), leaf.dtype)

    def _tree(self, draw):
        def new(k, leaf):
            inexact = jnp.issubdtype(leaf.dtype, jnp.inexact)
            return self._array(draw(k, leaf), leaf.dtype) if inexact else leaf

        return self.structure.unflatten([new(k, leaf) for k, leaf in enumerate(self.leaves)])

    def _array(self, values, dtype):
        return jnp.asarray(values, _widest(dtype) if self.wide else dtype)


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
    if type(variables) is tuple:
        return {k for k, path in enumerate(paths) if path[0].idx == 1}
    if isinstance(variables, Mapping) and "params" in variables:
        return {k for k, path in enumerate(paths) if path[0].key != "params"}
    return set()
