# SPDX-License-Identifier: Apache-2.0
"""A Flax module, NNX or Linen, as pure functions of plain nested dictionaries."""

import operator
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen, nnx
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, PRNGKeyArray, PyTree

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
    rebuild: Callable[[Tree, Tree], Any]  # The module (NNX) or the variables (Linen) again.


def functional(
    module: nnx.Module, *, call: Callable[[nnx.Module, Inputs], Array] = operator.call
) -> Functional:
    """Pure functions of an NNX module, which is left as it was.

    Args:
      module: Any NNX module, or its shapes (`nnx.eval_shape` of a constructor). Leaves of type
        `nnx.Param` become `params`, random-number state is dropped, all else becomes `state`.
      call: How to run it; by default `module(inputs)`.

    Returns:
      A `Functional`. In `apply`, BatchNorm uses its running statistics and dropout is off; in
      `train`, both are on, dropout draws from `key`, and the new state comes back. Shared leaves
      appear once. `rebuild` gives a module in training mode, with the original random state.
      What a call adds to the module (values that it sows, a cache made at its first use) is no
      part of the state and is dropped; so are intermediates that earlier calls left behind.

    Raises:
      ValueError: When called, for params or state of another structure.
    """
    module = without_intermediates(module)
    graph, params, random, state = nnx.split(module, nnx.Param, nnx.RngState, ...)
    # The mode is a static attribute of the submodules, so each mode has its own graph.
    evaluation, training = nnx.merge(graph, params, random, state), nnx.clone(module)
    evaluation.eval()
    training.train()
    params_paths, state_paths = _paths(params), _paths(state)

    def merge(graph, params, random, state):
        params = _nested(params, params_paths, "params")
        state = _nested(state, state_paths, "state")
        return nnx.merge(graph, params, nnx.to_pure_dict(random), state)

    evaluation, training = nnx.graphdef(evaluation), nnx.graphdef(training)

    def apply(params, state, inputs):
        return call(merge(evaluation, params, random, state), inputs)

    def train(params, state, inputs, *, key: PRNGKeyArray):
        module = merge(training, params, _reseed(random, key), state)
        outputs = call(module, inputs)
        left = flatten_dict(_plain(nnx.state(module, nnx.Not(nnx.Any(nnx.Param, nnx.RngState)))))
        return outputs, unflatten_dict({path: left[path] for path in state_paths})

    def rebuild(params, state):
        return merge(training, params, random, state)

    kinds = {("0", *keys): kind for keys, kind in _kinds(params).items()}
    kinds |= {("1", *keys): kind for keys, kind in _kinds(state).items()}
    return Functional(_plain(params), _plain(state), Typed(apply, kinds), train, rebuild)


def without_intermediates(module: nnx.Module) -> nnx.Module:
    """A module without the intermediates that calls have sown; itself where it has none."""
    if not jax.tree.leaves(nnx.state(module, nnx.Intermediate)):
        return module
    module = nnx.clone(module)
    nnx.pop(module, nnx.Intermediate)
    return module


def functional_linen(
    module: linen.Module,
    variables: Mapping[str, PyTree],
    *,
    evaluation: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
) -> Functional:
    """Pure functions of a Linen module and its variables.

    Args:
      module: Any Linen module, called as `module(inputs, **keywords)`.
      variables: What `module.init` returned: the collection "params" and any others.
      evaluation: Keywords that put it in evaluation mode, such as `{"train": False}`.
      training: Keywords that put it in training mode.

    Returns:
      A `Functional` whose `state` holds every collection but "params" and the "intermediates" that
      modules sow, by name. `train` gives the key to the random stream "dropout"; `rebuild` returns
      variables for `module.apply`.

    Raises:
      ValueError: If `variables` has no collection "params".
    """
    if "params" not in variables:
        raise ValueError(f'variables must hold the collection "params", got {list(variables)}.')
    no_state = ("params", "intermediates")
    state = {name: tree for name, tree in variables.items() if name not in no_state}

    def rebuild(params, state):
        return {"params": params, **state}

    def apply(params, state, inputs):
        return module.apply(rebuild(params, state), inputs, **(evaluation or {}))

    def train(params, state, inputs, *, key: PRNGKeyArray):
        outputs, new_state = module.apply(
            rebuild(params, state),
            inputs,
            mutable=list(state),
            rngs={"dropout": key},
            **(training or {}),
        )
        return outputs, {**state, **new_state}

    return Functional(dict(variables["params"]), state, apply, train, rebuild)


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

    Of an NNX module it knows the kind of every variable, so that `find_nodes` recognises running
    statistics whatever their names.
    """

    def apply(variables, inputs):
        return model.apply(variables[0], variables[1], inputs)

    return Typed(apply, _kinds_of(model))


def _kinds_of(model):
    return model.apply.kinds if isinstance(model.apply, Typed) else {}


def _kinds(state):
    """The class of each variable, by its path in strings."""
    return {tuple(map(str, path)): type(variable) for path, variable in nnx.to_flat_state(state)}


def _paths(state):
    """The path of each leaf, with the integer keys of NNX lists, by its path in strings."""
    return {tuple(map(str, path)): path for path in flatten_dict(nnx.to_pure_dict(state))}


def _plain(state):
    """Nested dictionaries with string keys, whose leaves are arrays."""
    flat = flatten_dict(nnx.to_pure_dict(state))
    return unflatten_dict({tuple(map(str, path)): leaf for path, leaf in flat.items()})


def _nested(tree, paths, name):
    """The inverse of `_plain`; refuses a tree of another structure by the leaf's name."""
    flat = flatten_dict(_dictionaries(tree))
    wrong = sorted(".".join(path) for path in flat.keys() ^ paths.keys())
    if wrong:
        raise ValueError(f"{name} must have the leaves of the module; missing or unknown: {wrong}.")
    return unflatten_dict({paths[path]: leaf for path, leaf in flat.items()})


def _dictionaries(tree):
    """A mapping of any class, such as the state that `nnx.Optimizer` hands out, as dictionaries."""
    if isinstance(tree, nnx.State):
        tree = nnx.to_pure_dict(tree)
    if not isinstance(tree, Mapping):
        return tree
    return {str(key): _dictionaries(value) for key, value in tree.items()}


def _names(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in leaves]


def _reseed(random, key):
    """Random state with every key drawn from `key` and every counter at zero."""
    leaves, structure = jax.tree.flatten(random)
    for i, leaf in enumerate(leaves):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaves[i] = jax.random.split(jax.random.fold_in(key, i), leaf.shape)
        else:
            leaves[i] = jnp.zeros(leaf.shape, leaf.dtype)
    return jax.tree.unflatten(structure, leaves)
