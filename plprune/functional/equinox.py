# SPDX-License-Identifier: Apache-2.0
"""An Equinox module as pure functions of plain nested dictionaries."""

import inspect
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from plprune.extras import optional
from plprune.functional.parts import Functional, Tree, by_path, checked, nested
from plprune.types import Buffer, Trained, Typed

Path = tuple[str, ...]


def functional_equinox(
    module: Any, *, state: Any = None, call: Callable[..., Any] = operator.call
) -> Functional:
    """Pure functions of an Equinox module, which is left as it was; they take batches.

    Equinox modules take one example. The batch axis is added by `jax.vmap`, under the name that
    the module's BatchNorm layers have, else "batch".

    Args:
      module: Any Equinox module, or its shapes (`eqx.filter_eval_shape` of a constructor). Real and
        complex arrays become `params`; other arrays, and what `state` holds, become `state`.
      state: The `eqx.nn.State` that belongs to the module, from `eqx.nn.make_with_state`.
      call: How to run it on one example: ``call(module, example)``, with the state as a third
        argument where there is one, to return (outputs, state). Where it takes a keyword `key`
        (by default: where the module does), `train` hands one over for each example.

    Returns:
      A `Functional`, its keys joined like "layers.0.weight". In `apply`, dropout is off and
      BatchNorm uses its running statistics, by `eqx.nn.inference_mode`; in `train`, both are on.
      `rebuild` gives the module in its own mode, or (module, state) where there is a state.

    Raises:
      ValueError: the module needs a state and has none; when called, for params or state of another
        structure.
      MissingExtraError: If Equinox is not installed.
    """
    eqx = optional("equinox")
    layout = _layout(eqx, module, state)
    evaluation, training = (
        _leaves(eqx, eqx.nn.inference_mode(module, value=value))[0] for value in (True, False)
    )
    axis_name = _axis_name(eqx, module)
    takes = inspect.signature(module if call is operator.call else call).parameters
    needs_key = "key" in takes and takes["key"].default is inspect.Parameter.empty

    def run(leaves, params, state, inputs, keys, key_axis=None):
        module, held = layout.merge(leaves, params, state)

        def one(example, key):
            arguments = (module, example) if held is None else (module, example, held)
            outputs = call(*arguments) if key is None else call(*arguments, key=key)
            return (outputs, {}) if held is None else outputs

        return jax.vmap(one, (0, key_axis), (0, None), axis_name=axis_name)(inputs, keys)

    def apply(params, state, inputs):
        # Dropout is off: the key decides nothing.
        key = jax.random.key(0) if needs_key else None
        return run(evaluation, params, state, inputs, key)[0]

    def train(params, state, inputs, *, key: PRNGKeyArray):
        count = len(jax.tree.leaves(inputs)[0])
        keys = jax.random.split(key, count) if "key" in takes else None
        outputs, held = run(training, params, state, inputs, keys, None if keys is None else 0)
        return outputs, layout.state_after(held, state)

    def rebuild(params, state):
        module, held = layout.merge(layout.leaves, params, state)
        return module if held is None else (module, held)

    kinds = {("0", *path): Trained for path in layout.trained}
    kinds |= {("1", *path): Buffer for path in (*layout.fixed, *layout.stored)}
    return Functional(layout.params(), layout.state(), Typed(apply, kinds), train, rebuild)


class _Layout(NamedTuple):
    """Which leaf of a module, or of its `State`, is where in the dictionaries."""

    leaves: list[Any]
    structure: Any
    trained: dict[Path, int]  # Positions among the leaves.
    fixed: dict[Path, int]
    stored: dict[Path, int]  # Positions among the leaves of the State.
    held: list[Any]
    held_structure: Any  # None without a State.

    def params(self) -> Tree:
        return nested({path: self.leaves[k] for path, k in self.trained.items()})

    def state(self) -> Tree:
        fixed = {path: self.leaves[k] for path, k in self.fixed.items()}
        return nested(fixed | {path: self.held[k] for path, k in self.stored.items()})

    def merge(self, leaves, params, state):
        """The module of these dictionaries and its State, if it has one."""
        leaves, held = list(leaves), list(self.held)
        flat = by_path(params)
        checked(flat, self.trained, "params")
        for path, leaf in flat.items():
            leaves[self.trained[path]] = leaf
        flat = by_path(state)
        checked(flat, (*self.fixed, *self.stored), "state")
        for path, leaf in flat.items():
            if path in self.fixed:
                leaves[self.fixed[path]] = leaf
            else:
                held[self.stored[path]] = leaf
        has_state = self.held_structure is not None
        kept = self.held_structure.unflatten(held) if has_state else None
        return self.structure.unflatten(leaves), kept

    def state_after(self, held, state) -> Tree:
        """The dictionary after a call that returned the State `held`."""
        after, flat = jax.tree.leaves(held), by_path(state)
        return nested(flat | {path: after[k] for path, k in self.stored.items()})


def _layout(eqx, module, state):
    paths, structure = jax.tree.flatten_with_path(module, is_leaf=_is(eqx.nn.StateIndex))
    leaves = [(_keys(path), leaf) for path, leaf in paths]
    trained = {keys: k for k, (keys, leaf) in enumerate(leaves) if _is_inexact(leaf)}
    fixed = {
        keys: k
        for k, (keys, leaf) in enumerate(leaves)
        if isinstance(leaf, jax.Array | jax.ShapeDtypeStruct) and keys not in trained
    }
    indices = {keys: leaf for keys, leaf in leaves if isinstance(leaf, eqx.nn.StateIndex)}
    if indices and state is None:
        name = ".".join(next(iter(indices)))
        raise ValueError(f"state must be given, as {name} keeps one: see eqx.nn.make_with_state.")
    held, held_structure = jax.tree.flatten(state)
    stored = _stored(indices, held_structure.unflatten(range(len(held))))
    held_structure = None if state is None else held_structure
    values = [leaf for _, leaf in leaves]
    return _Layout(values, structure, trained, fixed, stored, held, held_structure)


def _stored(indices, numbers) -> dict[Path, int]:
    """Positions among the leaves of a State, whose leaves `numbers` are; shared ones once."""
    found: dict[int, Path] = {}
    for keys, index in indices.items():
        for path, number in jax.tree.leaves_with_path(numbers.get(index)):
            found.setdefault(number, (*keys, *_keys(path)))
    return {path: number for number, path in found.items()}


def _leaves(eqx, module):
    return jax.tree.flatten(module, is_leaf=_is(eqx.nn.StateIndex))


def _is(kind):
    return lambda node: isinstance(node, kind)


def _is_inexact(leaf):
    arrays = jax.Array | jax.ShapeDtypeStruct | np.ndarray
    return isinstance(leaf, arrays) and jnp.issubdtype(leaf.dtype, jnp.inexact)


def _keys(path) -> Path:
    return tuple(jax.tree_util.keystr((step,), simple=True) for step in path)


def _axis_name(eqx, module):
    norms = jax.tree.leaves(module, is_leaf=_is(eqx.nn.BatchNorm))
    names = [norm.axis_name for norm in norms if isinstance(norm, eqx.nn.BatchNorm)]
    return names[0] if names and isinstance(names[0], str) else "batch"
