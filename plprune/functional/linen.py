# SPDX-License-Identifier: Apache-2.0
"""A Flax Linen module as pure functions."""

from collections.abc import Mapping
from typing import Any

from flax import linen
from jaxtyping import PRNGKeyArray, PyTree

from plprune.functional.parts import Functional


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
