# SPDX-License-Identifier: Apache-2.0
"""A function that Haiku has transformed, as pure functions of its parameters and state."""

import inspect
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import PRNGKeyArray, PyTree

from plprune.extras import optional
from plprune.functional.parts import Functional, Tree, by_path
from plprune.types import Buffer, Trained, Typed

_MOVING_AVERAGE = {"average", "counter", "hidden"}  # Leaves of hk.ExponentialMovingAverage.


def functional_haiku(
    transformed: Any,
    params: Mapping[str, PyTree],
    state: Mapping[str, PyTree] | None = None,
    *,
    evaluation: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
) -> Functional:
    """Pure functions of a transformed Haiku function, its parameters and its state.

    Args:
      transformed: From `hk.transform` or `hk.transform_with_state`, with its argument `rng` or
        `hk.without_apply_rng`; called on one argument, the inputs.
      params: What `transformed.init` returned.
      state: The state that it returned beside them, where there is one.
      evaluation: Keywords that put it in evaluation mode, such as `{"is_training": False}`.
      training: Keywords that put it in training mode.

    Returns:
      A `Functional`. `apply` hands over no random key, `train` its own; `rebuild` returns the
      params, or (params, state) where there is a state. In `apply` the moving averages of
      BatchNorm read all their leaves, at no cost, so that shrinking cuts also those that training
      alone reads.

    Raises:
      ValueError: `transformed` is from neither transformation; or a state is missing, or there is
        none to take.
      MissingExtraError: If Haiku is not installed.
    """
    haiku = optional("haiku")
    has_state = isinstance(transformed, haiku.TransformedWithState)
    if not has_state and not isinstance(transformed, haiku.Transformed):
        kind = type(transformed).__name__
        raise ValueError(f"transformed must come from hk.transform(_with_state), got a {kind}.")
    if has_state != (state is not None):
        asked = "be given, as hk.transform_with_state was used" if has_state else "be None"
        raise ValueError(f"state must {asked}, got {type(state).__name__}.")
    arguments = list(inspect.signature(transformed.apply).parameters)
    takes_key = arguments[1 + has_state : 2 + has_state] == ["rng"]

    def run(params, state, key, inputs, keywords):
        variables = (params, state) if has_state else (params,)
        keys = (key,) if takes_key else ()
        outputs = transformed.apply(*variables, *keys, inputs, **(keywords or {}))
        return outputs if has_state else (outputs, {})

    def apply(params, state, inputs):
        return run(params, _read_whole(state), None, inputs, evaluation)[0]

    def train(params, state, inputs, *, key: PRNGKeyArray):
        outputs, state = run(params, state, key, inputs, training)
        return outputs, _dictionaries(state)

    def rebuild(params, state):
        return (params, state) if has_state else params

    params, held = _dictionaries(params), _dictionaries(state or {})
    kinds = {("0", *path): Trained for path in by_path(params)}
    kinds |= {("1", *path): Buffer for path in by_path(held)}
    return Functional(params, held, Typed(apply, kinds), train, rebuild)


def _dictionaries(tree: Any) -> Any:
    """Haiku's mappings, of whichever class, as dictionaries."""
    if not isinstance(tree, Mapping):
        return tree
    return {key: _dictionaries(value) for key, value in tree.items()}


def _read_whole(state: Tree) -> Tree:
    """Averages that are a choice between all leaves of their shape, and always the same one.

    A leaf that the function doesn't read belongs to no node. The compiler drops the choice.
    """

    def chosen(leaves):
        if not isinstance(leaves, Mapping) or leaves.keys() != _MOVING_AVERAGE:
            return leaves
        average = jnp.where(True, leaves["average"], leaves["hidden"])
        return {**leaves, "average": average}

    return {name: chosen(leaves) for name, leaves in state.items()}
