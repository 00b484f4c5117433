# SPDX-License-Identifier: Apache-2.0
"""What a module is taken apart into, and the two forms in which `find_nodes` takes it."""

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import jax
from jaxtyping import Array

from plprune.types import Apply, Inputs, Typed

Tree = dict[str, Any]  # Nested dictionaries of arrays; joined keys read "hidden_0.kernel".


class Functional(NamedTuple):
    """A module taken apart; `params` and `state` are its values when it was taken apart.

    The functions hold no parameters of their own: pass any trees of the same structure. They work
    under jit, vmap and grad.
    """

    params: Tree  # Trainable leaves.
    state: Tree  # The rest, such as BatchNorm statistics; empty for most models.
    apply: Callable[[Tree, Tree, Inputs], Array]  # Evaluation mode: examples do not interact.
    train: Callable[..., tuple[Array, Tree]]  # (params, state, inputs, *, key) -> (outputs, state)
    rebuild: Callable[[Tree, Tree], Any]  # What was taken apart, again; of Linen, the variables.


def stateless(model: Functional) -> Apply:
    """`apply(params, inputs)` of a model that has no state.

    Raises:
      ValueError: If it has state; `paired` serves such a model.
    """
    if jax.tree.leaves(model.state):
        names = ", ".join(_names(model.state))
        raise ValueError(f"model must have no state, got {names}; use paired(model).")
    kinds = {keys[1:]: kind for keys, kind in _kinds_of(model).items() if keys[0] == "0"}
    return Typed(lambda params, inputs: model.apply(params, {}, inputs), kinds)


def paired(model: Functional) -> Apply:
    """`apply((params, state), inputs)`, which treats the state as parameters.

    Of any module but Linen's, which names its collections, it knows the kind of every variable, so
    that `find_nodes` recognises running statistics whatever their names.
    """

    def apply(variables, inputs):
        return model.apply(variables[0], variables[1], inputs)

    return Typed(apply, _kinds_of(model))


def _kinds_of(model):
    return model.apply.kinds if isinstance(model.apply, Typed) else {}


def by_path(tree: Any) -> dict[tuple[str, ...], Any]:
    """Leaves of nested mappings by their keys in strings."""
    if not isinstance(tree, Mapping):
        return {(): tree}
    below = {str(key): by_path(value) for key, value in tree.items()}
    return {(key, *path): leaf for key, flat in below.items() for path, leaf in flat.items()}


def nested(flat: Mapping[tuple, Any]) -> Tree:
    """Nested dictionaries of leaves by their keys, the inverse of `by_path`."""
    tree: Tree = {}
    for path, leaf in flat.items():
        node = tree
        for key in path[:-1]:
            node = node.setdefault(key, {})
        node[path[-1]] = leaf
    return tree


def checked(flat: Mapping[tuple[str, ...], Any], known: Collection, name: str) -> None:
    """ValueError, with their names, for leaves that are missing or unknown."""
    wrong = sorted(".".join(path) for path in flat.keys() ^ set(known))
    if wrong:
        raise ValueError(f"{name} must have the leaves of the module; missing or unknown: {wrong}.")


def _names(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in leaves]
