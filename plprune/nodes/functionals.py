# SPDX-License-Identifier: Apache-2.0
"""A model taken apart, with fewer nodes: both of its modes, at the new sizes."""

import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from plprune.functional import Functional, paired
from plprune.nodes.cutting import expand, shrink
from plprune.nodes.resizing import resize, resized
from plprune.types import Keep, NodeGroups, Typed


def shrink_functional(model: Functional, groups: NodeGroups, keep: Keep) -> Functional:
    """The model without the closed nodes, of any kind of module, in evaluation and in training.

    `apply` and `train` are evaluated from the graphs of the model's own, as `resize` does it;
    dropout drops what it would drop of the whole model. What follows, such as `find_nodes`, a
    training step or `recalibrate`, takes the result as it takes the model.

    Args:
      model: Taken apart by `plprune.functional`, with the params and state that are to be cut.
      groups: From ``find_nodes(paired(model), (model.params, model.state), inputs)``.
      keep: Group name -> [g] booleans, concrete.

    Returns:
      A `Functional`; its `rebuild` gives the whole module, in which closed nodes are zero.

    Raises:
      ValueError: as `shrink`; groups that were not found on the pair; when `train` is called, a
        training mode in which a closed node is not one that can be pruned, or its statistics are
        computed in a way that is not followed.
    """
    variables = (model.params, model.state)
    if groups.structure != jax.tree.structure(variables):
        raise ValueError(
            "groups must be found on the pair: find_nodes(paired(model), (model.params, "
            "model.state), inputs)."
        )
    full, (params, state) = paired(model), shrink(variables, groups, keep)
    kinds = full.kinds if isinstance(full, Typed) else {}

    def training(variables, arguments):
        inputs, key = arguments
        return model.train(*variables, inputs, key=key)

    evaluated = resize(full, groups, keep)
    trained = resized(Typed(training, kinds), groups, keep, carries=True)

    def apply(params, state, inputs):
        return evaluated((params, state), inputs)

    def train(params, state, inputs, *, key: PRNGKeyArray):
        outputs, new = trained((params, state), (inputs, key))
        if jax.tree.map(jnp.shape, new) != jax.tree.map(jnp.shape, state):
            raise ValueError("model.train must change state only entry by entry, or by whole axes.")
        return outputs, new

    def rebuild(params, state):
        return model.rebuild(*expand((params, state), groups, keep))

    return Functional(params, state, Typed(apply, kinds), train, rebuild)
