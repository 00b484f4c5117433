# SPDX-License-Identifier: Apache-2.0
"""Gates on activations are gates on parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from plprune.graph.linear.reading import readings
from plprune.graph.tracing import trace
from plprune.nodes import find_nodes, gate
from plprune.nodes.gated_apply import gated
from tests.kernels.models import MODELS, conv, images

pytestmark = pytest.mark.usefixtures("models_broadcast")
KEY = jax.random.key(0)


def sliced():
    """One weight holds both layers' readers, cut apart: no plain contraction reads it."""
    rng = np.random.default_rng(0)
    params = [jnp.asarray(rng.normal(size=s)) for s in ((3, 4), (4, 6), (3, 2), (3, 2))]

    def apply(p, x):
        hidden = jnp.tanh(x @ p[0])
        left, right = jnp.split(hidden @ p[1], 2, axis=1)
        return jnp.tanh(left) @ p[2] + right @ lax.slice_in_dim(p[3], 0, 3)

    return apply, params, images(5, 3)


def flattened():
    """Channels of an image, flattened into rows of a dense layer."""
    rng = np.random.default_rng(1)
    params = [jnp.asarray(rng.normal(size=s)) for s in ((3, 3, 2, 3), (4 * 4 * 3, 2))]

    def apply(p, x):
        return jnp.tanh(conv(x, p[0])).reshape(len(x), -1) @ p[1]

    return apply, params, images(3, 4, 4, 2)


CASES = {
    name: MODELS[name]
    for name in ("mlp", "convolutions", "normalised_residuals", "attention", "unrolled_recurrence")
}
CASES |= {"sliced": sliced, "flattened": flattened}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_equals_gated_parameters_and_their_gradient(name):
    apply, params, inputs = CASES[name]()
    groups = find_nodes(apply, params, inputs)
    names = [n for n, g in groups.items() if g.prunable and g.gateable]
    gates = {
        n: jax.random.uniform(jax.random.fold_in(KEY, i), (groups[n].size,), minval=0.2)
        for i, n in enumerate(names)
    }

    def total(outputs):
        return jnp.sum(outputs * jnp.cos(jnp.arange(outputs.size)).reshape(outputs.shape))

    functions = (gated(apply, groups), lambda p, x, g: apply(gate(p, groups, g), x))
    mine, reference = (
        jax.jit(jax.value_and_grad(lambda p, g, f=f: total(f(p, inputs, g)), argnums=(0, 1)))
        for f in functions
    )
    for one, two in zip(*map(jax.tree.leaves, (mine(params, gates), reference(params, gates))),
                        strict=True):  # fmt: skip
        np.testing.assert_allclose(one, two, rtol=1e-10, atol=1e-12)


def test_plain_layers_keep_their_parameters_and_cut_ones_do_not():
    def read(case, leaf):
        apply, params, inputs = case()
        graph = trace(apply, params, inputs)
        found = readings(graph, {leaf: frozenset({0})})
        return [(where, reading.dims) for where, reading in found.values()]

    assert read(MODELS["mlp"], 2) == [(2, {0: 1})]
    assert read(flattened, 1) == [(1, {0: 1})]
    assert read(sliced, 3) == []


def test_refuses_what_gate_refuses():
    apply, params, inputs = MODELS["mlp"]()
    groups = find_nodes(apply, params, inputs)
    model = gated(apply, groups)
    (name,) = groups.prunable
    with pytest.raises(ValueError, match="gates names"):
        model(params, inputs, {"nothing": jnp.ones(3)})
    with pytest.raises(ValueError, match="must have shape"):
        model(params, inputs, {name: jnp.ones(1)})
    refused = next(n for n in groups if not groups[n].gateable)
    with pytest.raises(ValueError, match="an axis of"):
        model(params, inputs, {refused: jnp.ones(groups[refused].size)})
