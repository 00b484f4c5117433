# SPDX-License-Identifier: Apache-2.0
"""A Flax NNX module as pure functions of plain nested dictionaries."""

import operator
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, PRNGKeyArray

from plprune.functional.parts import Functional, by_path, checked, nested
from plprune.types import Inputs, Typed


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
        left = nnx.state(module, nnx.Not(nnx.Any(nnx.Param, nnx.RngState)))
        left = by_path(nnx.to_pure_dict(left))
        return outputs, nested({path: left[path] for path in state_paths})

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


def _kinds(state):
    """The class of each variable, by its path in strings."""
    return {tuple(map(str, path)): type(variable) for path, variable in nnx.to_flat_state(state)}


def _paths(state):
    """The path of each leaf, with the integer keys of NNX lists, by its path in strings."""
    return {tuple(map(str, path)): path for path, _ in nnx.to_flat_state(state)}


def _plain(state):
    """Nested dictionaries with string keys, whose leaves are arrays."""
    return nested(by_path(nnx.to_pure_dict(state)))


def _nested(tree, paths, name):
    """The inverse of `_plain`; refuses a tree of another structure by the leaf's name."""
    flat = by_path(_dictionaries(tree))
    checked(flat, paths, name)
    return nested({paths[path]: leaf for path, leaf in flat.items()})


def _dictionaries(tree):
    """A mapping of any class, such as the state that `nnx.Optimizer` hands out, as dictionaries."""
    if isinstance(tree, nnx.State):
        tree = nnx.to_pure_dict(tree)
    if not isinstance(tree, Mapping):
        return tree
    return {str(key): _dictionaries(value) for key, value in tree.items()}


def _reseed(random, key):
    """Random state with every key drawn from `key` and every counter at zero."""
    leaves, structure = jax.tree.flatten(random)
    for i, leaf in enumerate(leaves):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaves[i] = jax.random.split(jax.random.fold_in(key, i), leaf.shape)
        else:
            leaves[i] = jnp.zeros(leaf.shape, leaf.dtype)
    return jax.tree.unflatten(structure, leaves)
