# SPDX-License-Identifier: Apache-2.0
"""Running statistics: by the kind of variable where a tree tells it, by name elsewhere."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from zoo import normal

from plprune.functional import functional, paired, stateless
from plprune.nodes import find_nodes, mask, resize, shrink, shrink_model
from plprune.scores import magnitude

X = normal(4, 3)
KEEP = np.array([1, 0, 1, 1, 0, 1], bool)


class Scaled(nnx.Module):
    """Statistics and parameters with names that say the opposite."""

    def __init__(self):
        self.ema = nnx.BatchStat(jnp.full(6, 2.0))
        self.shift = nnx.Variable(jnp.full(6, 3.0))
        self.mean = nnx.Param(jnp.full(6, 4.0))
        self.var = nnx.Param(jnp.full(6, 5.0))

    def __call__(self, x):
        return (x / self.ema[...] + self.shift[...]) * self.var[...] + self.mean[...]


class Net(nnx.Module):
    def __init__(self, rngs):
        self.first = nnx.Linear(3, 6, rngs=rngs)
        self.norm = Scaled()
        self.last = nnx.Linear(6, 2, rngs=rngs)

    def __call__(self, x):
        return self.last(jnp.tanh(self.norm(self.first(x))))


@pytest.fixture(scope="module")
def model():
    return Net(nnx.Rngs(0))


def expected_norms(model):
    columns = jnp.sum(model.first.kernel[...] ** 2, axis=0)
    return jnp.sqrt(columns + model.first.bias[...] ** 2 + 4.0**2 + 5.0**2)


def check(groups, apply, tree, values, model):
    (name,) = groups.prunable
    masked = mask(tree, groups, {name: KEEP})
    for part, value in (("ema", 2.0), ("shift", 3.0)):
        np.testing.assert_array_equal(values(masked)[part], np.full(6, value))
    for part, value in (("mean", 4.0), ("var", 5.0)):
        np.testing.assert_array_equal(values(masked)[part], np.where(KEEP, value, 0))
    norms = magnitude(apply, tree, groups)[name]
    np.testing.assert_allclose(norms, expected_norms(model), rtol=1e-5)
    small = resize(apply, groups, {name: KEEP})(shrink(tree, groups, {name: KEEP}), X)
    np.testing.assert_allclose(small, apply(masked, X), atol=1e-6)


def test_kinds_of_an_nnx_state_decide_not_names(model):
    graph, state = nnx.split(model)

    def apply(tree, x):
        return nnx.merge(graph, tree)(x)

    groups = find_nodes(apply, state, X)
    assert groups.paths[2] == "last.bias"
    assert groups.held == {"norm.ema", "norm.shift"}
    check(groups, apply, state, lambda t: nnx.to_pure_dict(t)["norm"], model)
    assert shrink_model(model, groups, {"first": KEEP}).last.kernel.shape == (4, 2)


def test_variables_of_one_kind_are_recognised_alone(model):
    graph, state = nnx.split(model)
    groups = find_nodes(lambda tree, x: nnx.merge(graph, tree)(x), state, X)
    for kind in (nnx.Param, nnx.BatchStat):
        part = shrink(nnx.state(model, kind), groups, {"first": KEEP})
        sizes = jax.tree.map(jnp.shape, nnx.to_pure_dict(part))["norm"]
        assert set(sizes.values()) == {(4,)}
    with pytest.raises(ValueError, match=r"leaf first\.bias is missing"):
        shrink(nnx.state(model, nnx.PathContains("last")), groups, {"first": KEEP})


def test_functional_models_know_kinds_too(model):
    parts = functional(model)
    groups = find_nodes(paired(parts), (parts.params, parts.state), X)
    assert groups.held == {"1.norm.ema", "1.norm.shift"}
    tree = (parts.params, parts.state)
    check(groups, paired(parts), tree, lambda t: {**t[0]["norm"], **t[1]["norm"]}, model)
    norm = nnx.Sequential(nnx.Linear(3, 3, rngs=nnx.Rngs(0)))
    assert find_nodes(stateless(functional(norm)), functional(norm).params, X).held == frozenset()


def test_frozen_weights_are_masked_like_others():
    class Frozen(nnx.Module):
        def __init__(self):
            self.kernel = nnx.Variable(normal(3, 6))
            self.out = nnx.Variable(normal(6, 2))

        def __call__(self, x):
            return jax.nn.softplus(x @ self.kernel[...]) @ self.out[...]

    graph, state = nnx.split(Frozen())
    groups = find_nodes(lambda tree, x: nnx.merge(graph, tree)(x), state, X)
    assert groups.prunable == {"kernel": 6}
    assert not mask(state, groups, {"kernel": KEEP})["kernel"][...][:, ~KEEP].any()


def variables(params, state):
    """As Linen has them, and as dm-haiku has them."""
    linen = {"params": params, "batch_stats": state}
    average = {"average": state["norm"]["ema"], "hidden": jnp.zeros(6), "counter": jnp.zeros(())}
    haiku = (params, {"norm/~/mean_ema": average})
    return linen, haiku


def test_collections_and_moving_averages_are_statistics():
    params = {"w": normal(3, 6), "norm": {"mean": jnp.ones(6)}, "o": normal(6, 2)}
    linen, haiku = variables(params, {"norm": {"ema": jnp.full(6, 2.0)}})

    def apply(p, ema, x):
        return jnp.tanh(x @ p["w"] / ema + p["norm"]["mean"]) @ p["o"]

    def of_linen(v, x):
        return apply(v["params"], v["batch_stats"]["norm"]["ema"], x)

    def of_haiku(v, x):
        return apply(v[0], v[1]["norm/~/mean_ema"]["average"], x)

    groups = find_nodes(of_linen, linen, X)
    assert groups.prunable == {"w": 6}
    assert groups.held == {"batch_stats.norm.ema"}
    groups = find_nodes(of_haiku, haiku, X)
    assert groups.prunable == {"w": 6}
    assert "1.norm/~/mean_ema.average" in groups.held
    assert not any(path.startswith("0.w") for path in groups.held)


def test_names_decide_in_plain_trees_but_not_of_weights():
    params = {"mean": normal(3, 6), "norm": {"mean": normal(6)}, "o": normal(6, 2)}

    def apply(p, x):
        return jnp.tanh(x @ p["mean"] - p["norm"]["mean"]) @ p["o"]

    assert find_nodes(apply, params, X).held == {"norm.mean"}
    assert find_nodes(apply, params, X, statistics=()).held == frozenset()
    assert find_nodes(apply, params, X, statistics=("o",)).held == {"o"}
