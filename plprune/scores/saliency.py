# SPDX-License-Identifier: Apache-2.0
"""Scores from first and second derivatives of the loss, or of a sum of outputs, in the gates."""

import jax
import jax.numpy as jnp
import optax

from plprune.independence import check_independent
from plprune.losses import risk
from plprune.norms import raised_for
from plprune.scores.probes import Probe
from plprune.scores.running import score
from plprune.scores.slices import (
    NodeScores,
    edit_trained,
    leaves_by_path,
    scaled,
    unit_factors,
)
from plprune.scores.slopes import slopes, unless_nan
from plprune.types import Apply, NodeGroups, Params

_EXAMPLES = 16  # Differentiated at once: per-example gradients are as large as the parameters.


def _absolute(means):
    return jax.tree.map(jnp.abs, means)


@score("loss", "labels", finish=_absolute)
def snip(
    apply: Apply,
    params: Params,
    groups: NodeGroups,
    probe: Probe,
) -> NodeScores:
    """|dL/dg| of each node's gate g at 1, with L the mean loss: SNIP's sensitivity of a node.

    The gate of a group that cannot be gated scales what computes the node. One gradient
    [Lee 2019].

    Raises:
      ValueError: a probe without a loss or labels, or one that `check_probe` refuses.
    """
    params, inputs = raised_for(apply, params, probe.inputs)

    def objective(factors):
        return risk(probe.loss, apply(scaled(params, groups, factors), inputs), probe.labels)

    return slopes(objective, unit_factors(groups))


@score("loss", "labels", finish=_absolute, microbatch=_EXAMPLES)
def taylor(
    apply: Apply,
    params: Params,
    groups: NodeGroups,
    probe: Probe,
) -> NodeScores:
    """Mean over the examples of |dL_i/dg|, L_i the loss of example i: first-order Taylor.

    Unlike in `snip`, examples that disagree do not cancel [Molchanov 2017]. One gradient per
    example.

    Raises:
      ValueError: a probe without a loss or labels, one that `check_probe` refuses, or a model that
        does not treat examples independently, as `tangent_kernel`; the probe's `independent` takes
        your word that it does.
    """
    check_independent(apply, params, probe.inputs, independent=probe.independent)
    params, inputs = raised_for(apply, params, probe.inputs)

    def sensitivity(example):
        def objective(factors):
            one = jax.tree.map(lambda a: a[None], example)
            return risk(probe.loss, apply(scaled(params, groups, factors), one[0]), one[1])

        return slopes(objective, unit_factors(groups))

    each = jax.vmap(sensitivity)((inputs, probe.labels))
    return jax.tree.map(lambda values: jnp.mean(jnp.abs(values), axis=0), each)


@score("loss", "labels")
def grasp(
    apply: Apply,
    params: Params,
    groups: NodeGroups,
    probe: Probe,
) -> NodeScores:
    """Sum of w * (H gradient) over the weights that gate the node: what it adds to gradient flow.

    It is half the derivative of ||dL/dw||^2 in the gate at 1. Removing a node with a negative score
    increases the norm of the gradient, so these go first [Wang 2020]. Without the published
    temperature on the logits, which the loss may include. Two gradients.

    Raises:
      ValueError: a probe without a loss or labels, or one that `check_probe` refuses.
    """
    params, inputs = raised_for(apply, params, probe.inputs)

    def objective(p):
        return risk(probe.loss, apply(p, inputs), probe.labels)

    def half_flow(factors):
        at = scaled(params, groups, factors)
        value, gradient = jax.value_and_grad(objective, allow_int=True)(at)
        trained = [
            leaf
            for path, leaf in leaves_by_path(gradient, groups).items()
            if jnp.issubdtype(leaf.dtype, jnp.inexact) and not groups.is_statistic(path)
        ]
        return optax.tree.norm(trained, squared=True) / 2, value

    gradient, value = jax.grad(half_flow, has_aux=True)(unit_factors(groups))
    return unless_nan(value, gradient)


@score("inputs")
def synflow(
    apply: Apply,
    params: Params,
    groups: NodeGroups,
    probe: Probe,
) -> NodeScores:
    """dR/dg with R the summed outputs of the model at |params| on one input of ones.

    The synaptic flow through the node [Tanaka 2020]; running statistics keep their signs. No data:
    of the inputs only shapes and dtypes count. One gradient of one example.

    Raises:
      ValueError: a probe without an example.
    """
    params, inputs = raised_for(apply, params, probe.inputs)
    ones = jax.tree.map(lambda a: jnp.ones_like(a[:1]), inputs)
    positive = edit_trained(params, groups, lambda _, leaf: jnp.abs(leaf).astype(leaf.dtype))

    def flow(factors):
        return jnp.sum(apply(scaled(positive, groups, factors), ones))

    return slopes(flow, unit_factors(groups))
