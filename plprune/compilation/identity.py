# SPDX-License-Identifier: Apache-2.0
"""What a Python function is: its code and everything that it reads, as something to compare.

Two functions of equal identity trace to the same program: the same lambda written twice, or one
that is called again after nothing it closes over has changed.
"""

import dis
import inspect
import sys
import sysconfig
import types
import weakref
from collections.abc import Iterator
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from plprune.types import NodeGroups

Identity = Any  # Hashable; equal for functions that cannot be told apart.
_NUMPY_BYTES = 2**16  # NumPy arrays up to this size are compared by value.
_JAX_BYTES = 2**10  # Arrays of jax up to this size too, such as keys: nobody writes to them.
_CHECKERS = ("jaxtyping", "beartype")  # Their wrappers check arguments and change none.
_OBJECTS = 1000  # More are not followed.
_PLAIN = (type(None), bool, int, float, complex, str, bytes, type(...), slice)


class UnknownError(Exception):
    """Something may change what a function computes and cannot be compared."""


class _Same:
    """Equal to itself only, as an array that nobody can write to; does not keep it alive."""

    def __init__(self, thing: Any):
        self.reference, self.number = weakref.ref(thing), id(thing)

    def __hash__(self) -> int:
        return self.number

    def __eq__(self, other: object) -> bool:
        mine = self.reference()
        return isinstance(other, _Same) and mine is not None and mine is other.reference()


def identity(thing: Any) -> Identity:
    """The identity of a function, or of anything that a function may close over.

    Functions are followed into their closures, defaults and the globals that they name. Arrays of
    jax count by identity, small arrays of NumPy, containers and other values by their contents.

    Raises:
      UnknownError: an object that can change unseen: a module of the user's, whose attributes code
        may read, a large NumPy array, a traced value, one that has no hash.
    """
    found = _identity(thing, {})
    try:
        hash(found)
    except TypeError as error:  # A Flax module that holds a list says so only when it is asked.
        raise UnknownError from error
    return found


def _identity(thing, seen):
    if isinstance(thing, _PLAIN):
        return (type(thing), thing) if thing == thing else (type(thing), repr(thing))
    if id(thing) in seen:  # A function that names itself.
        return ("again", seen[id(thing)][0])
    seen[id(thing)] = len(seen), thing  # Held, so that nothing new takes its number.
    for kind, rule in _RULES.items():
        if isinstance(thing, kind):
            return rule(thing, seen)
    return _by_contents(thing, seen)


def _function(function, seen):
    if function.__globals__.get("__name__", "").partition(".")[0] in _CHECKERS:
        return _identity(inspect.unwrap(function), seen)
    cells = [_cell(cell) for cell in function.__closure__ or ()]
    parts = [*cells, function.__defaults__, function.__kwdefaults__]
    own = tuple(_identity(part, seen) for part in parts)
    read = function.__module__  # What an installed module holds stays as it is.
    if not is_installed(read):
        read = tuple(_globals(function, seen))
    return ("function", _code_key(function.__code__), own, read)


def _cell(cell):
    try:
        return cell.cell_contents
    except ValueError:  # Not assigned yet.
        return "empty"


def _globals(function, seen) -> Iterator[Any]:
    namespace = function.__globals__
    for name in _global_names(function.__code__):
        if name in namespace:
            yield name, _identity(namespace[name], seen)


@lru_cache(maxsize=4096)
def _global_names(code: types.CodeType) -> tuple[str, ...]:
    """Names that a function or one inside it looks up as globals."""
    names = {i.argval for i in dis.get_instructions(code) if i.opname == "LOAD_GLOBAL"}
    inner = [c for c in code.co_consts if isinstance(c, types.CodeType)]
    return tuple(sorted(names.union(*map(_global_names, inner))))


@lru_cache(maxsize=4096)
def _code_key(code: types.CodeType) -> tuple:
    """Code without its place in the file and the names of its local variables."""
    consts = tuple(
        _code_key(c) if isinstance(c, types.CodeType) else (type(c), repr(c))
        for c in code.co_consts
    )
    counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
    keywords = code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]
    return code.co_code, consts, code.co_names, counts, keywords, code.co_exceptiontable


def _partial(thing, seen):
    return ("partial", *(_identity(x, seen) for x in (thing.func, thing.args, thing.keywords)))


def _method(thing, seen):
    return ("method", _identity(thing.__func__, seen), _identity(thing.__self__, seen))


def _builtin(thing, seen):
    owner = thing.__self__
    if owner is None or isinstance(owner, types.ModuleType):
        return ("builtin", thing)
    return ("builtin", thing.__name__, _identity(owner, seen))


def _module(thing, seen):
    del seen
    if not is_installed(thing.__name__):
        raise UnknownError(f"attributes of the module {thing.__name__} may change")
    return ("module", thing.__name__)


def _groups(thing, seen):
    del seen
    return ("groups", _Same(thing))  # As they are hashed: tables that nobody writes to.


def _reference(thing, seen):
    return ("reference", _identity(thing(), seen))


def _class(thing, seen):
    """A class by itself; one of the user's also by what its methods read."""
    if is_installed(thing.__module__):
        return ("class", thing)
    bases = [_identity(base, seen) for base in thing.__bases__]
    methods = [_underlying(value) for value in vars(thing).values()]
    read = (_identity(m, seen) for m in methods if isinstance(m, (types.FunctionType, *_PLAIN)))
    return ("class", thing, *bases, *read)


def _underlying(attribute):
    """The function in a property, static or class method; anything else as it is."""
    if isinstance(attribute, property):
        return attribute.fget
    return getattr(attribute, "__func__", attribute)


def _array(thing, seen):
    del seen
    if not is_concrete(thing):
        raise UnknownError("a traced value")
    if thing.is_deleted() or not thing.is_fully_addressable:
        return ("array", _Same(thing))
    if jnp.issubdtype(thing.dtype, jax.dtypes.prng_key):
        return ("key", thing.dtype, _array(jax.random.key_data(thing), {}))
    if thing.nbytes > _JAX_BYTES:
        return ("array", _Same(thing))
    value = np.asarray(thing)
    return ("array", value.shape, thing.dtype, thing.weak_type, value.tobytes())


def _numpy(thing, seen):
    del seen
    if thing.nbytes > _NUMPY_BYTES or thing.dtype.hasobject:
        raise UnknownError("a NumPy array too large to compare")
    return ("numpy", thing.shape, thing.dtype.str, thing.tobytes())


def _set(thing, seen):
    return (type(thing), frozenset(_identity(x, seen) for x in thing))


def _by_contents(thing, seen):
    """Containers that jax knows by their leaves, then whatever has an equality of its own."""
    if not isinstance(thing, Iterator):  # No tree, says jax, and warns.
        leaves, structure = jax.tree.flatten(thing, is_leaf=lambda x: x is None)
    else:
        leaves, structure = [thing], None
    if not (len(leaves) == 1 and leaves[0] is thing):
        return ("tree", structure, tuple(_identity(leaf, seen) for leaf in leaves))
    kind = type(thing)
    of_kind = _identity(kind, seen)
    if kind is object or kind.__hash__ not in (None, object.__hash__):
        return ("value", of_kind, thing)
    if not hasattr(thing, "__dict__") or len(seen) > _OBJECTS:
        raise UnknownError(f"an object of type {kind.__name__} without an equality of its own")
    # As jax.jit and jax.custom_jvp leave a function, or an object with methods.
    fields = tuple((name, _identity(value, seen)) for name, value in vars(thing).items())
    return ("object", of_kind, fields)


_RULES = {
    types.FunctionType: _function,
    partial: _partial,
    types.MethodType: _method,
    types.BuiltinFunctionType: _builtin,
    types.ModuleType: _module,
    type: _class,
    jax.Array: _array,
    np.ndarray: _numpy,
    np.generic: _numpy,
    weakref.ref: _reference,
    NodeGroups: _groups,
    set: _set,
    frozenset: _set,
}


def is_concrete(array: Any) -> bool:
    """Whether an array of jax has values, not only a place in a trace."""
    try:
        return isinstance(array, jax.Array) and bool(array.devices())
    except jax.errors.ConcretizationTypeError:
        return False


@lru_cache(maxsize=4096)
def is_installed(module: str | None) -> bool:
    """Whether a module belongs to the standard library or to an installed package."""
    root = (module or "").partition(".")[0]
    if root in sys.builtin_module_names or root == __name__.partition(".")[0]:
        return True
    source = getattr(sys.modules.get(root), "__file__", None) or ""
    paths = sysconfig.get_paths()
    places = (paths["stdlib"], paths["platstdlib"], paths["purelib"], paths["platlib"])
    return bool(source) and source.startswith(tuple(places)) and root != "__main__"
