# SPDX-License-Identifier: Apache-2.0
"""Programs that plain calls compile once.

A function marked by `compile_once` is under jit, vmap and grad the plain function. Called with
arrays at hand it runs a compiled program, which is kept: the next call finds it by what the model's
function reads and by shapes, or, where the function is new, by the program that it lowers to.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import wraps
from hashlib import sha256
from inspect import signature
from threading import RLock
from typing import Any, NamedTuple, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from plprune.compilation.identity import UnknownError, identity, is_concrete

_MOST = 256  # Programs kept; the one that waited longest goes first.
Function = TypeVar("Function", bound=Callable[..., Any])


class _Kept:
    """A mapping that forgets what was not asked for."""

    def __init__(self, most: int):
        self.most, self.entries, self.lock = most, OrderedDict(), RLock()

    def get(self, key):
        with self.lock:
            if key in self.entries:
                self.entries.move_to_end(key)
                return self.entries[key]
        return None

    def put(self, key, value):
        with self.lock:
            self.entries[key] = value
            while len(self.entries) > self.most:
                self.entries.popitem(last=False)
        return value


_BY_FUNCTION = _Kept(4 * _MOST)
_BY_PROGRAM = _Kept(_MOST)
_FACTS = _Kept(4 * _MOST)


def forget_compiled() -> None:
    """Drop every program that plain calls have compiled, and with them their memory."""
    for kept in (_BY_FUNCTION, _BY_PROGRAM, _FACTS):
        with kept.lock:
            kept.entries.clear()


def compile_once(
    *arrays: str, run: Callable[..., Any] | None = None
) -> Callable[[Function], Function]:
    """Let plain calls of a function run as compiled programs that are kept.

    Args:
      *arrays: Names of the arguments that are trees of arrays. All others are static: functions,
        numbers, strings, node groups.
      run: ``(function, static, dynamic) -> result`` in place of `run_once`.
    """
    return lambda function: cast(Function, _marked(arrays, run or run_once, function))


def _marked(arrays, run, function):
    order = signature(function)

    @wraps(function)
    def plain(*args, **kwargs):
        given = dict(order.bind(*args, **kwargs).arguments)
        dynamic = {name: given.pop(name) for name in arrays if name in given}
        if not are_concrete(dynamic):
            return function(*args, **kwargs)
        return run(function, given, dynamic)

    return plain


def run_once(function: Callable, static: Mapping[str, Any], dynamic: Mapping[str, Any]) -> Any:
    """``function(**static, **dynamic)`` as a compiled program, from memory where it is known.

    Args:
      function: Traceable with `dynamic` as arrays.
      static: Keywords that are compiled in.
      dynamic: Keywords that are trees of concrete arrays or numbers.
    """
    shapes = _signature(dynamic)
    try:
        key = (function, identity(dict(static)), shapes)
    except UnknownError:
        key = None
    program = None if key is None else _BY_FUNCTION.get(key)
    if program is None:
        program = _compiled(function, static, dynamic, shapes)
        if program is None:
            return function(**static, **dynamic)
        if key is not None:
            _BY_FUNCTION.put(key, program)
    return program(dynamic)


def recall(function: Callable, static: Mapping[str, Any], dynamic: Mapping[str, Any]) -> Any:
    """``function(**static, **dynamic)``, or what it returned for such arguments before.

    For facts that shapes and dtypes decide and values do not.
    """
    try:
        key = (function, identity(dict(static)), _signature(dynamic))
    except UnknownError:
        return function(**static, **dynamic)
    found = _FACTS.get(key)
    return _FACTS.put(key, function(**static, **dynamic)) if found is None else found


def _compiled(function, static, dynamic, shapes):
    """The program, compiled unless an equal one was; None where it reads traced values."""
    traced = jax.jit(lambda given: function(**static, **given)).trace(dict(dynamic))
    if len(traced.jaxpr.in_avals) > len(jax.tree.leaves(dict(dynamic))):
        return None  # What else comes in are traced values that a function closes over.
    constants = list(_constants(traced.jaxpr))
    lowered = traced.lower()
    key = (shapes, _digest(lowered.as_text(), constants))
    return _BY_PROGRAM.get(key) or _BY_PROGRAM.put(key, lowered.compile())


def _constants(jaxpr):
    """Arrays that a program holds, those of its parts included."""
    yield from jaxpr.consts
    yield from _inner_constants(jaxpr.jaxpr)


def _inner_constants(jaxpr):
    for equation in jaxpr.eqns:
        for value in jax.tree.leaves(list(equation.params.values()), is_leaf=_is_jaxpr):
            if isinstance(value, core.ClosedJaxpr):
                yield from _constants(value)
            elif isinstance(value, core.Jaxpr):
                yield from _inner_constants(value)


def _is_jaxpr(value):
    return isinstance(value, core.ClosedJaxpr | core.Jaxpr)


def _digest(text, constants):
    digest = sha256(text.encode())
    for constant in constants:
        if jnp.issubdtype(jnp.result_type(constant), jax.dtypes.prng_key):
            constant = jax.random.key_data(constant)
        array = np.asarray(constant)
        digest.update(repr((array.shape, array.dtype)).encode())
        digest.update(array.tobytes())
    return digest.digest()


def are_concrete(tree: Any) -> bool:
    """Whether all leaves are arrays or numbers with values."""
    numbers = (np.ndarray, np.generic, bool, int, float, complex)
    return all(isinstance(x, numbers) or is_concrete(x) for x in jax.tree.leaves(tree))


class _Leaf(NamedTuple):
    shape: tuple[int, ...]
    dtype: Any
    weak_type: bool
    sharding: Any


def _signature(dynamic):
    """All that decides which program runs, values and static arguments apart."""
    leaves, structure = jax.tree.flatten(dict(dynamic))
    settings = tuple(getattr(jax.config, name, None) for name in jax.config.values)
    return structure, tuple(map(_leaf, leaves)), settings, jax.sharding.get_abstract_mesh()


def _leaf(leaf):
    if isinstance(leaf, jax.Array):
        place = leaf.sharding if is_concrete(leaf) and leaf.committed else None
        return _Leaf(leaf.shape, leaf.dtype, getattr(leaf, "weak_type", False), place)
    if isinstance(leaf, np.ndarray | np.generic):
        return _Leaf(leaf.shape, leaf.dtype, False, None)
    return _Leaf((), type(leaf), True, None)
