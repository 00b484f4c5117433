# SPDX-License-Identifier: Apache-2.0
"""Cheap statistics of nodes, the gating network's inputs."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from plprune.gating.objectives import Setting, kernel_weights, lowest_of, probe_kernel
from plprune.losses import risk
from plprune.scores.slices import gating, node_norms, producing
from plprune.types import NodeGroups

NUM_STATISTICS = 9


def node_statistics(
    setting: Setting, groups: NodeGroups, sizes: Mapping[str, int]
) -> dict[str, Float[Array, "g s"]]:
    """Nine numbers per node, detached from any gradient.

    In order: log norms of the weights that compute the node and of those that read it; log norms of
    the probe's mean gradient in these weights (the latter is the node's activation times the
    signal that comes back to it, averaged over the examples); what its gate at 1 adds to log
    lambda_max and to the log mean of the lowest eigenvalues of the probe's kernel
    (``u' dK/dg u``); the loss's derivative in its gate, zero without a loss; all seven standardised
    within the group, so that they say how a node differs from its neighbours; then the log width
    of the group and its depth, from 0 at the first to 1 at the last. Without a loss the gradient is
    that of a random +-1 combination of the outputs. Costs two gate updates.

    Args:
      setting: The model, its parameters and a probe.
      groups: From `find_nodes`.
      sizes: Group name -> number of nodes, for the groups to gate.
    """
    ones = {name: jnp.ones(size, jnp.float32) for name, size in sizes.items()}
    gradient, loss_slopes = _slopes(setting, ones)
    columns = [*_log_norms(setting.params, groups), *_log_norms(gradient, groups)]
    columns += [*_kernel_slopes(setting, ones), loss_slopes]
    names = list(sizes)

    def table(name):
        own = [_standardised(jnp.asarray(column[name], jnp.float32)) for column in columns]
        depth = names.index(name) / max(len(names) - 1, 1)
        whole = (jnp.log(1.0 * sizes[name]) / 5, jnp.asarray(depth))
        own += [jnp.full(sizes[name], value, jnp.float32) for value in whole]
        return jax.lax.stop_gradient(jnp.stack(own, axis=1))

    return {name: table(name) for name in names}


def _log_norms(tree, groups):
    """Of the slices that compute each node, and of those that read it."""
    tiny = jnp.finfo(jnp.float32).tiny
    norms = (node_norms(tree, groups, slices) for slices in (producing, gating))
    return [{name: jnp.log(jnp.maximum(v, tiny)) for name, v in n.items()} for n in norms]


def _kernel_slopes(setting, ones):
    kernel, pull = jax.vjp(lambda gates: probe_kernel(setting, gates), ones)
    weights = kernel_weights(kernel, lowest_of(None, kernel))
    return [pull(weight)[0] for weight in weights]


def _slopes(setting, ones):
    """The mean gradient in the parameters, and the loss's in the gates."""
    with_loss = setting.loss is not None and setting.labels is not None

    def mean(params, gates):
        outputs = setting.model(params, setting.inputs, gates)
        if with_loss:
            return risk(setting.loss, outputs, setting.labels)
        signs = jax.random.rademacher(setting.key, outputs.shape[1:], outputs.dtype)
        return jnp.sum(jnp.mean(outputs, 0) * signs)

    gradient, slopes = jax.grad(mean, (0, 1))(setting.params, ones)
    return gradient, slopes if with_loss else jax.tree.map(jnp.zeros_like, slopes)


def _standardised(values):
    """Mean 0 and standard deviation 1; zeros where all are equal or any is not finite."""
    centred = values - jnp.mean(values)
    spread = jnp.std(values)
    negligible = 1e-6 * jnp.max(jnp.abs(values))
    ok = jnp.isfinite(spread) & (spread > negligible)
    return jnp.where(ok, centred / jnp.where(ok, spread, 1), 0)
