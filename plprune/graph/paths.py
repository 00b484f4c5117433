# SPDX-License-Identifier: Apache-2.0
"""Leaves of trees by their keys, whatever the classes of the containers, and printed names."""

import sys
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Keys = tuple[Hashable, ...]  # Integers as strings: an NNX list and its dictionary agree.


class Leaf(NamedTuple):
    """A leaf with where it lies; two leaves of a tree differ in their keys."""

    keys: Keys
    value: Any
    box: type | None  # Flax's outermost class around it, such as nnx.Param.


def leaves_with_keys(tree: Any, is_leaf: Callable[[Any], bool] | None = None) -> list[Leaf]:
    """The leaves of a tree, in jax's order.

    A dict, a FrozenDict, a dataclass and an `nnx.State` of the same names give the same keys:
    entries of paths count by their names alone, and Flax's boxes around an array count for nothing.
    """
    boxes, known = _boxes(), {}

    def is_box(node):
        kind = type(node)
        if kind not in known:  # Asking Flax's classes costs more than all the rest.
            known[kind] = issubclass(kind, boxes)
        return known[kind]

    def stops(node):
        return is_box(node) or (is_leaf is not None and is_leaf(node))

    return list(_leaves(tree, stops if boxes or is_leaf else None, is_box))


def _leaves(tree, stops, is_box, before: Keys = (), box=None) -> Iterator[Leaf]:
    for path, node in jax.tree_util.tree_flatten_with_path(tree, is_leaf=stops)[0]:
        keys = before + tuple(map(_key, path))
        if not is_box(node):
            yield Leaf(keys, node, box)
            continue
        inside = jax.tree_util.tree_flatten_with_path(node, is_leaf=lambda x, n=node: x is not n)[0]
        for step, value in inside:
            # A box has one content; a class with more is a container like any other.
            inner = keys if len(inside) == 1 else keys + tuple(map(_key, step))
            yield from _leaves(value, stops, is_box, inner, box or type(node))


def _boxes() -> tuple[type, ...]:
    """Flax's classes around a leaf; where Flax is not loaded, no tree holds one."""
    named = (("flax.nnx", "Variable"), ("flax.core.meta", "AxisMetadata"))
    found = (getattr(sys.modules.get(module), name, None) for module, name in named)
    return tuple(kind for kind in found if kind is not None)


def _key(entry):
    for name in ("key", "idx", "name"):
        if hasattr(entry, name):
            key = getattr(entry, name)
            return str(key) if type(key) is int else key
    return str(entry)


def leaf_shape(value: Any) -> tuple[int, ...]:
    """Shape of an array, a number or a `jax.ShapeDtypeStruct`; () of anything else."""
    shape = getattr(value, "shape", ())
    return tuple(shape) if isinstance(shape, tuple) else ()


def leaf_is(value: Any, kind: Any) -> bool:
    """Whether a leaf is an array or number of a kind of dtype, such as `jax.numpy.inexact`."""
    dtype = getattr(value, "dtype", None)
    if dtype is None:
        dtype = np.result_type(value) if isinstance(value, bool | int | float | complex) else None
    return dtype is not None and jnp.issubdtype(dtype, kind)


def leaf_paths(tree: Any) -> tuple[str, ...]:
    """Names of a tree's leaves: keys joined by dots, "" for a tree that is one leaf.

    Where two leaves would have one name, as ``{"l.w": ...}`` and ``{"l": {"w": ...}}`` have, the
    keys of both are printed in brackets.
    """
    return printed([leaf.keys for leaf in leaves_with_keys(tree)])


def printed(paths: Sequence[Keys]) -> tuple[str, ...]:
    """One name for each of several distinct paths."""
    names = [".".join(map(str, keys)) for keys in paths]
    for name in (_bracketed, _numbered):
        while twice := {n for n, count in Counter(names).items() if count > 1}:
            before = list(names)
            names = [
                name(k, keys) if n in twice else n
                for k, (n, keys) in enumerate(zip(names, paths, strict=True))
            ]
            if names == before:
                break
    return tuple(names)


def _bracketed(_, keys):
    return "".join(f"[{key!r}]" for key in keys)


def _numbered(k, keys):
    """Keys of two types may print alike."""
    return f"{_bracketed(k, keys)}#{k}"
