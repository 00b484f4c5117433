# SPDX-License-Identifier: Apache-2.0
"""The function of shrunk parameters: other inputs, transformations, derivatives, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from discovered import found, random_keep
from zoo import CASES, TOKENS, normal

from plprune.compilation.identity import identity
from plprune.nodes import find_nodes, mask, resize, shrink

MLP = CASES["mlp"]


@pytest.mark.parametrize(
    ("name", "inputs"),
    [("mlp", normal(9, 5)), ("lstm, scanned", normal(2, 7, 5)), ("transformer", TOKENS[:1])],
)
def test_other_batch_sizes_and_lengths_run(name, inputs):
    case, groups = CASES[name], found(name)
    keep = random_keep(groups)
    small, params = resize(case.apply, groups, keep), shrink(case.params, groups, keep)
    expected = jax.jit(case.apply)(mask(case.params, groups, keep), inputs)
    np.testing.assert_allclose(jax.jit(small)(params, inputs), expected, atol=1e-12)


def test_each_shape_of_the_inputs_is_traced_once():
    traces = []

    def counted(p, x):
        traces.append(x.shape)
        return MLP.apply(p, x)

    groups = find_nodes(counted, MLP.params, MLP.inputs)
    keep = random_keep(groups)
    small, params = resize(counted, groups, keep), shrink(MLP.params, groups, keep)
    traces.clear()
    for inputs in (normal(4, 5), 2 * normal(4, 5), normal(2, 5), normal(2, 5)):
        jax.eval_shape(lambda p, x: small(p, x), params, inputs)
    assert len(traces) == len(set(traces))


def test_it_vmaps_over_parameters():
    groups, keep = found("mlp"), {"0": np.arange(8) > 3}
    small, params = resize(MLP.apply, groups, keep), shrink(MLP.params, groups, keep)
    many = jax.tree.map(lambda x: jnp.stack([x, 2 * x]), params)
    out = jax.jit(jax.vmap(small, (0, None)))(many, MLP.inputs)
    np.testing.assert_allclose(out[0], jax.jit(small)(params, MLP.inputs), atol=1e-12)


@jax.custom_vjp
def binarised(x):
    return jnp.sign(x)


binarised.defvjp(lambda x: (jnp.sign(x), x), lambda x, g: (g * (jnp.abs(x) < 1),))


@pytest.mark.parametrize("activation", [jax.nn.relu, jax.nn.softplus, jax.nn.hard_swish, binarised])
def test_custom_derivatives_survive(activation):
    def apply(p, x):
        return activation(x @ p["a"]) @ p["b"]

    params = {"a": normal(5, 6), "b": normal(6, 2)}
    inputs = normal(4, 5).at[0].set(0)  # relu'(0) = 0, against 1/2 for the maximum.
    groups = find_nodes(apply, params, inputs)
    keep = {"a": np.arange(6) % 2 == 0}

    def slope(function, p):
        return jax.jit(jax.grad(lambda p: (function(p, inputs) ** 2).sum()))(p)

    expected = shrink(slope(apply, mask(params, groups, keep)), groups, keep)
    actual = slope(resize(apply, groups, keep), shrink(params, groups, keep))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-10), actual, expected)


def test_second_derivatives_run():
    groups, keep = found("mlp"), {"0": np.arange(8) > 3}
    small, params = resize(MLP.apply, groups, keep), shrink(MLP.params, groups, keep)

    def gradient(p):
        return jax.grad(lambda p: small(p, MLP.inputs).sum())(p)

    _, product = jax.jit(lambda p: jax.jvp(gradient, (p,), (p,)))(params)
    assert all(jnp.isfinite(x).all() for x in jax.tree.leaves(product))


def test_a_function_stays_what_it_is_when_it_is_called():
    """Else what was compiled for it would be forgotten."""
    groups, keep = found("mlp"), {"0": np.arange(8) > 3}
    small, params = resize(MLP.apply, groups, keep), shrink(MLP.params, groups, keep)
    before = identity(small)
    for count in (2, 3):
        small(params, normal(count, 5))
        assert identity(small) == before


def test_full_parameters_are_refused():
    small = resize(MLP.apply, found("mlp"), {"0": np.arange(8) > 3})
    with pytest.raises(ValueError, match=r"params: 0.0 must have shape \(5, 4\), got \(5, 8\)"):
        small(MLP.params, MLP.inputs)
    with pytest.raises(ValueError, match="params must have the structure"):
        small(MLP.params[:2], MLP.inputs)


def test_a_function_with_other_groups_is_refused():
    def other(p, x):
        return jnp.sort(x @ p[0][0]) @ p[1][0] @ p[2][0]

    groups, keep = found("mlp"), {"0": np.arange(8) > 3}
    with pytest.raises(ValueError, match="nodes of 0 differ at inputs"):
        resize(other, groups, keep)(shrink(MLP.params, groups, keep), MLP.inputs)


def test_fewer_experts_than_a_router_picks_are_refused():
    case, groups = CASES["top two experts"], found("top two experts")
    keep = {"router": np.array([True, False, False, False])}
    with pytest.raises(ValueError, match=r"must leave at least 2 nodes for top_k at .*zoo.py"):
        resize(case.apply, groups, keep)(shrink(case.params, groups, keep), case.inputs)
