# SPDX-License-Identifier: Apache-2.0
"""What of the library is checked while tests run: all that annotations promise, at least cost.

jaxtyping's import hook wraps every function, inner ones whenever they are made, and binds all
arguments by name at every call. That is for axes whose letters must agree; it took a third of the
time of tests that trace. A function whose annotations name no array goes to the type checker
itself, and one without annotations has nothing to check.
"""

from collections.abc import Callable
from types import FunctionType
from typing import Any, get_args

import jaxtyping

_jaxtyped = jaxtyping.jaxtyped


def check_what_is_annotated() -> None:
    """Replace the decorator that the import hook puts on functions and classes."""
    jaxtyping.jaxtyped = _cheaper


def _cheaper(*, typechecker: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def decorate(thing):
        if not isinstance(thing, FunctionType):
            return _jaxtyped(thing, typechecker=typechecker)
        annotations = thing.__annotations__.values()
        if any(map(names_arrays, annotations)):
            return _jaxtyped(thing, typechecker=typechecker)
        return typechecker(thing) if annotations else thing

    return decorate


def names_arrays(annotation: Any) -> bool:
    """Whether an annotation holds a type of jaxtyping's, or may do so for all that is known."""
    if isinstance(annotation, list | tuple):  # The arguments of a Callable.
        return any(map(names_arrays, annotation))
    if isinstance(annotation, type) and type(annotation).__module__.startswith("jaxtyping"):
        return True
    if parts := get_args(annotation):
        return any(map(names_arrays, parts))
    return not (annotation is None or annotation in (Any, ...) or isinstance(annotation, type))
