# SPDX-License-Identifier: Apache-2.0
"""Scores from the tangent kernel: a proxy of its trace, and the kernel of a node's own weights."""

from collections.abc import Callable
from functools import partial
from itertools import accumulate

import jax
import jax.numpy as jnp

from plprune.independence import check_independent
from plprune.norms import raised_for
from plprune.operators import flat_outputs
from plprune.scores.probes import Probe
from plprune.scores.running import score
from plprune.scores.slices import (
    NodeScores,
    edit_trained,
    leaves_by_path,
    per_node,
    producing,
    scaled,
    unit_factors,
)
from plprune.scores.slopes import slopes, unless_nan
from plprune.types import Apply, NodeGroups, Params

_einsum = partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
_PERTURBATION = 0.01  # Standard deviation of the published code.


@score("key", "inputs")
def ntk_sap(
    apply: Apply,
    params: Params,
    groups: NodeGroups,
    probe: Probe,
    *,
    init: Callable | None = None,
) -> NodeScores:
    """|d/dg ||f(x; g w) - f(x; g (w + 0.01 z))||^2| with z normal: NTK-SAP's score of a gate.

    The squared difference estimates the trace of the tangent kernel; x is Gaussian of the inputs'
    shape (integer inputs are used as they are) [Wang 2023]. One gradient.

    The published code draws fresh weights for every batch: hand `score_gating` the score
    ``functools.partial(ntk_sap, init=init)``, which draws them at each gate update.

    Args:
      apply: As given to `find_nodes`, like the other arguments.
      params: Its parameters.
      groups: From `find_nodes`.
      probe: A batch, and the key that draws x and z, and w if there is an `init`.
      init: ``init(key) -> params`` draws fresh weights w; without it w is `params`.

    Raises:
      ValueError: a probe without a key or an example.
    """
    key_weights, key_noise, key_inputs = jax.random.split(probe.key, 3)
    weights = params if init is None else init(key_weights)
    weights, inputs = raised_for(apply, weights, probe.inputs)
    places = {path: k for k, path in enumerate(groups.paths)}

    def perturb(path, leaf):
        dtype = complex if jnp.issubdtype(leaf.dtype, jnp.complexfloating) else float
        noise = jax.random.normal(jax.random.fold_in(key_noise, places[path]), leaf.shape, dtype)
        return leaf + (_PERTURBATION * noise).astype(leaf.dtype)

    noisy = edit_trained(weights, groups, perturb)
    drawn = _gaussian(inputs, key_inputs)

    def distance(factors):
        near, far = (apply(scaled(w, groups, factors), drawn) for w in (weights, noisy))
        return jnp.sum(jnp.square(near - far))

    return jax.tree.map(jnp.abs, slopes(distance, unit_factors(groups)))


def _gaussian(inputs, key):
    leaves, structure = jax.tree.flatten(inputs)
    for k, leaf in enumerate(leaves):
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            leaves[k] = jax.random.normal(jax.random.fold_in(key, k), leaf.shape, leaf.dtype)
    return jax.tree.unflatten(structure, leaves)


@score("key", "inputs")
def node_lambda_max(
    apply: Apply,
    params: Params,
    groups: NodeGroups,
    probe: Probe,
) -> NodeScores:
    """Largest eigenvalue of the tangent kernel of the parameters that compute the node.

    K_i = J_i J_i' [b, b] with J_i the Jacobian of one random +-1 combination of the outputs, drawn
    by the key and shared by the batch, in the node's producer slices. Modules are trained by this
    number in [Shi 2023]. Costs a gradient per example and holds b gradients and g b^2 numbers.

    Raises:
      ValueError: a probe without a key or an example, or a model that does not treat examples
        independently, as `tangent_kernel`; the probe's `independent` takes your word that it does.
    """
    check_independent(apply, params, probe.inputs, independent=probe.independent)
    params, inputs = raised_for(apply, params, probe.inputs)
    model = flat_outputs(apply)
    outputs = jax.eval_shape(model, params, inputs)
    signs = jax.random.rademacher(probe.key, outputs.shape[1:], outputs.dtype)

    def combined(p, example):
        one = jax.tree.map(lambda a: a[None], example)
        return jnp.vdot(signs, model(p, one)[0])

    gradient = jax.value_and_grad(combined, allow_int=True)
    values, jacobians = jax.vmap(gradient, in_axes=(None, 0))(params, inputs)
    leaves = leaves_by_path(params, groups, jacobians)
    kernels = [_node_kernels(leaves, groups, groups[name]) for name in groups.prunable]
    if not kernels:
        return {}
    largest = _largest(jnp.concatenate(kernels))
    ends = list(accumulate(groups.prunable.values()))
    scores = dict(zip(groups.prunable, jnp.split(largest, ends[:-1]), strict=True))
    return unless_nan(values, scores)


def _largest(kernels):
    """[g] top eigenvalues.

    In one call: batched decompositions that run side by side can block each other on a CPU, because
    each holds one of the threads that the other's parts wait for. Several host devices run theirs
    side by side in any case, and so do one after the other.
    """
    if jax.default_backend() == "cpu" and jax.local_device_count() > 1:
        return jax.lax.map(lambda kernel: jnp.linalg.eigvalsh(kernel)[-1], kernels)
    return jnp.linalg.eigvalsh(kernels)[:, -1]


def _node_kernels(leaves, groups, group):
    """[g, b, b] Gram matrices over the slices that compute the nodes."""
    kernels = 0
    for member in producing(group):
        if groups.is_statistic(member.path):
            continue
        rows = leaves[member.path]
        if jnp.issubdtype(rows.dtype, jnp.inexact):
            rows = jnp.moveaxis(rows, member.axis + 1, 0)
            rows = rows.reshape(*rows.shape[:2], -1).astype(
                jnp.promote_types(rows.dtype, jnp.float32)
            )
            if jnp.issubdtype(rows.dtype, jnp.complexfloating):
                rows = jnp.concatenate([jnp.real(rows), jnp.imag(rows)], axis=-1)
            grams = _einsum("nbr,ncr->nbc", rows, rows)
            kernels += per_node(grams, member, group.size)
    return kernels
