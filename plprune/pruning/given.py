# SPDX-License-Identifier: Apache-2.0
"""A model of any library as functions, and how it is made smaller."""

import operator
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from jaxtyping import PyTree

from plprune.costs import Costs, measure, parameter_bytes, parameters
from plprune.functional import Functional, functional_haiku, paired, stateless
from plprune.nodes import resize, shrink
from plprune.nodes.matching import match_leaves
from plprune.types import Apply, Inputs, Keep, NodeGroups


class Functions(NamedTuple):
    """A model as functions, whatever it was."""

    apply: Apply  # On the variables.
    variables: PyTree
    trained_apply: Apply  # On the parameters alone, which scores look at.
    params: PyTree

    def scored(self, groups: NodeGroups) -> tuple[Apply, PyTree]:
        """What a score looks at: all variables where weights of a node are not trained."""
        trained = match_leaves(self.params, groups).places.values()
        members = [member for name in groups.prunable for member in groups[name].members]
        frozen = {member.path for member in members} - {*trained}
        if all(map(groups.is_statistic, frozen)):
            return self.trained_apply, self.params
        return self.apply, self.variables

    def costs(self, inputs: Inputs) -> Costs:
        """Of one forward pass; running statistics are no parameters."""
        return measure(self.apply, self.variables, inputs)._replace(
            parameters=parameters(self.params), parameter_bytes=parameter_bytes(self.params)
        )


class Given(NamedTuple):
    """The model that was given, and how it is shrunk."""

    functions: Functions
    # (groups, keep) -> the smaller model, as functions too, and the entries of keep it has lost.
    shrunk: Callable[[NodeGroups, Keep], tuple[Any, Functions, Keep]]


def given(
    model: Any, call: Callable[..., Any] | None, evaluation: Mapping[str, Any] | None
) -> Given:
    """The model as functions; arguments as of `prune`.

    Raises:
      ValueError: a model of no known kind, or an option of another kind.
    """
    kind = _kind(model)
    if call is not None and kind not in ("nnx", "equinox"):
        raise ValueError("call must be None but for NNX and Equinox modules.")
    if evaluation is not None and kind not in ("linen", "haiku"):
        raise ValueError("evaluation must be None but for Linen and Haiku models.")
    if kind in ("nnx", "equinox"):
        return _module(model, call or operator.call)
    if kind == "linen":
        module, variables = model
        return _linen(module, variables, evaluation or {})
    if kind == "haiku":
        return _resized(_functions(functional_haiku(*model, evaluation=evaluation)))
    apply, params = model
    return _resized(Functions(apply, params, apply, params))


def _kind(model) -> str:
    """Which library a model is of; one that is not imported has made none."""
    pair = model if type(model) is tuple and len(model) == 2 else (None, None)
    first = model[0] if type(model) is tuple and model else None
    if _is_a(model, "flax.nnx", "Module"):
        return "nnx"
    if _is_a(model, "equinox", "Module") or (
        _is_a(pair[0], "equinox", "Module") and _is_a(pair[1], "equinox.nn", "State")
    ):
        return "equinox"
    if _is_a(pair[0], "flax.linen", "Module"):
        return "linen"
    if _is_a(first, "haiku", "Transformed", "TransformedWithState"):
        return "haiku"
    if callable(pair[0]):
        return "function"
    raise ValueError(
        "model must be an NNX or Equinox module, (module, variables) of Linen, (transformed, "
        f"params) of Haiku, or (apply, params), got a {type(model).__name__}."
    )


def _is_a(value, library, *names):
    loaded = sys.modules.get(library)
    return loaded is not None and isinstance(value, tuple(getattr(loaded, n) for n in names))


def _module(model, call) -> Given:
    from plprune.nodes.native import library_of, shrink_model
    from plprune.nodes.native_parts import shrink_native

    parts = library_of(model).parts

    def shrunk(groups, keep):
        small, closed = shrink_native(model, groups, keep, call=call)
        if keep and not closed:  # The error names them, and says why.
            shrink_model(model, groups, keep, call=call)
        return small, _functions(parts(small, call)), closed

    return Given(_functions(parts(model, call)), shrunk)


def _functions(parts: Functional) -> Functions:
    """The function and variables to find nodes on, and those that a score looks at."""
    if not parts.state:
        apply = stateless(parts)
        return Functions(apply, parts.params, apply, parts.params)

    def trained(params, inputs):
        return parts.apply(params, parts.state, inputs)

    return Functions(paired(parts), (parts.params, parts.state), trained, parts.params)


def _linen(module, variables, evaluation) -> Given:
    from plprune.functional import functional_linen

    parts = functional_linen(module, variables, evaluation=evaluation)

    def apply(variables, inputs):
        return module.apply(variables, inputs, **evaluation)

    whole = parts.rebuild(parts.params, parts.state)
    return _resized(_functions(parts)._replace(apply=apply, variables=whole))


def _resized(full: Functions) -> Given:
    """A model whose smaller form is the graph evaluated at the new sizes."""

    def shrunk(groups, keep):
        apply, variables = small = (
            resize(full.apply, groups, keep),
            shrink(full.variables, groups, keep),
        )
        params = shrink(full.params, groups, keep)
        return small, full._replace(apply=apply, variables=variables, params=params), keep

    return Given(full, shrunk)
