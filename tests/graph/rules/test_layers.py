# SPDX-License-Identifier: Apache-2.0
"""Rules read every parameter of their primitive, or refuse: masked == shrunk, kernel == J J'."""

from collections import defaultdict
from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plprune.graph.entries import ANYTHING, HARMLESS, REFUSED
from plprune.graph.linear.taps import factoring
from plprune.graph.primitives import PRIMITIVES
from plprune.graph.rules.scalars import SCALARS
from plprune.graph.shrinking.labels import Labels
from plprune.graph.tracing import all_equations, trace
from plprune.kernels import tangent_kernel
from plprune.nodes import find_nodes, mask, resize, shrink
from tests.graph.rules.layers import LAYERS

pytestmark = pytest.mark.usefixtures("models_broadcast")
INPUTS = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4)))
SHRINKING = {  # Primitive -> the parameters that its rules read.
    name: "" if entry.reads is ANYTHING else entry.reads
    for name, entry in PRIMITIVES.items()
    if entry.label is not REFUSED
}


def model(name):
    """A dense layer before and after the one under test, with random parameters."""
    layer = LAYERS[name]
    width = (2, 4, 3) if layer.on_image else (6,)

    def hidden(p, x):
        own = {key: p[key] for key in layer.shapes}
        return layer.apply(jnp.tanh(jnp.tensordot(x, p["in"], 1)), **own)

    shapes = {"in": (4, *width), **layer.shapes}
    draws = np.random.default_rng(1)
    params = {key: jnp.asarray(draws.normal(size=shape)) for key, shape in shapes.items()}
    after = jax.eval_shape(hidden, params, INPUTS).shape[1:]
    params["out"] = jnp.asarray(draws.normal(size=(*after, 2)))
    return lambda p, x: jnp.tensordot(hidden(p, x), p["out"], len(after)), params


@cache
def traced(name):
    with jax.numpy_rank_promotion("allow"):
        return trace(*model(name), INPUTS)


def random_keep(groups):
    draws = np.random.default_rng(2)
    keep = {}
    for name, size in groups.prunable.items():  # One of many closed, one of few left.
        chosen = np.arange(size) == draws.integers(size)
        keep[name] = ~chosen if size > 3 else chosen
    return keep


def brute_force(apply, params):
    loops = "while" in {e.name for e in trace(apply, params, INPUTS).equations}
    derivative = jax.jacfwd if loops else jax.jacrev
    jacobians = jax.tree.leaves(derivative(lambda p: apply(p, INPUTS))(params))
    matrix = jnp.concatenate([j.reshape(6, -1) for j in jacobians], axis=1)
    return jnp.reshape(matrix @ matrix.T, (3, 2, 3, 2))


@pytest.mark.parametrize("name", LAYERS)
def test_masked_equals_shrunk_and_the_kernel_is_that_of_whole_jacobians(name):
    apply, params = model(name)
    groups = find_nodes(apply, params, INPUTS, mode="baked")
    keep = random_keep(groups)

    @jax.jit  # One program: compiling takes most of the time.
    def both(full, masked, small):
        kernels = ()
        if LAYERS[name].is_smooth and not LAYERS[name].mixes:
            # Not all of them are proven to keep examples apart, and values are not at hand here.
            kernel = tangent_kernel(apply, full, INPUTS, method="layerwise", independent=True)
            kernels = kernel, brute_force(apply, full)
        outputs = apply(masked, INPUTS), resize(apply, groups, keep)(small, INPUTS)
        return [outputs, *([kernels] if kernels else [])]

    for actual, expected in both(params, mask(params, groups, keep), shrink(params, groups, keep)):
        np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-11 * np.abs(expected).max())


def test_layers_have_every_primitive_with_a_rule():
    have = {e.name for name in LAYERS for e in all_equations(traced(name))}
    same = {"device_put", "name", "copy", "reshard", "pvary"}  # Only where a value lies.
    assert set(SHRINKING) <= have | set(SCALARS) | same


def test_every_parameter_is_known_and_tried_with_several_values():
    seen = defaultdict(set)
    for equation in (e for name in LAYERS for e in all_equations(traced(name))):
        assert equation.name not in SHRINKING or PRIMITIVES.unread(equation) is None
        for key in equation.params:
            seen[equation.name, key].add(str(equation.params[key]))
    pairs = {(name, key) for name, reads in SHRINKING.items() for key in reads.split()}
    assert not {pair for pair in pairs if len(seen[pair]) < 2}
    assert not {key for _, key in pairs} & HARMLESS


READING = {name for name, reads in SHRINKING.items() if reads}


@pytest.mark.parametrize("primitive", sorted({*READING, "tanh", "select_n"} - {"iota"}))
def test_a_parameter_that_no_rule_reads_is_refused(primitive):
    graph = next(g for g in map(traced, LAYERS) if primitive in {e.name for e in g.equations})
    (first, *_) = (e for e in graph.equations if e.name == primitive)
    novel = first._replace(params={**first.params, "novel": 1})
    changed = replace(graph, equations=tuple(novel if e is first else e for e in graph.equations))
    labels = Labels(changed, len(graph.paths[0]), PRIMITIVES)
    assert PRIMITIVES.unread(novel) == "novel"
    arrays = [v for v in (*novel.inputs, *novel.outputs) if graph.shape(v)]
    assert not any(labels.atoms.members(axis) for v in arrays for axis in labels[v])
    shapes = [graph.shape(v) for v in (*novel.inputs, *novel.outputs)]
    assert factoring(novel, len(novel.inputs) - 1, shapes) is None


def test_a_parameter_that_is_absent_is_not_asked_for():
    graph = traced("dot")
    (dot, *_) = (e for e in graph.equations if e.name == "dot_general")
    assert PRIMITIVES.unread(dot._replace(params={**dot.params, "novel": None})) is None
