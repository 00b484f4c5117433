# SPDX-License-Identifier: Apache-2.0
"""Both modes of a model at smaller sizes, against the masked model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from plprune.functional import Functional, functional, paired
from plprune.nodes import find_nodes, mask, shrink
from plprune.nodes.functionals import shrink_functional

KEY = jax.random.key(0)
INPUTS = jax.random.normal(KEY, (6, 4, 4, 2))


class Net(nnx.Module):
    """A convolution and a dense layer, with BatchNorm and dropout."""

    def __init__(self, rngs):
        self.conv = nnx.Conv(2, 5, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(5, rngs=rngs)
        self.hidden = nnx.Linear(80, 6, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.out = nnx.Linear(6, 3, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.norm(self.conv(x)))
        return self.out(self.drop(jnp.tanh(self.hidden(x.reshape(len(x), -1)))))


def moved(model, key=KEY):
    """With statistics and scales that are not those of the start."""
    leaves, structure = jax.tree.flatten((model.params, model.state))
    keys = jax.random.split(key, len(leaves))
    drawn = [x + 0.3 * jax.random.uniform(k, x.shape) for k, x in zip(keys, leaves, strict=True)]
    params, state = jax.tree.unflatten(structure, drawn)
    return model._replace(params=params, state=state)


MODEL = moved(functional(Net(nnx.Rngs(0))))
KEEP = {"conv": np.array([1, 0, 1, 1, 0], bool), "hidden": np.array([0, 1, 1, 0, 1, 1], bool)}


@pytest.fixture(scope="module")
def groups():
    with jax.numpy_rank_promotion("allow"):
        return find_nodes(paired(MODEL), (MODEL.params, MODEL.state), INPUTS)


@pytest.fixture(scope="module")
def small(groups):
    return shrink_functional(MODEL, groups, KEEP)


def test_both_modes_are_those_of_the_masked_model(groups, small):
    params, state = mask((MODEL.params, MODEL.state), groups, KEEP)

    @jax.jit
    def both(params, state, own, own_state):
        return (
            (MODEL.apply(params, state, INPUTS), MODEL.train(params, state, INPUTS, key=KEY)),
            (small.apply(own, own_state, INPUTS), small.train(own, own_state, INPUTS, key=KEY)),
        )

    (whole, trained), (cut, cut_trained) = both(params, state, small.params, small.state)
    np.testing.assert_allclose(cut, whole, atol=1e-6)
    np.testing.assert_allclose(cut_trained[0], trained[0], atol=1e-6)
    expected = shrink((params, trained[1]), groups, KEEP)[1]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), cut_trained[1], expected)
    assert small.params["conv"]["kernel"].shape == (3, 3, 2, 3)
    assert not jnp.allclose(trained[0], whole)  # Dropout was on.


def test_it_can_be_shrunk_again(small):
    groups = find_nodes(paired(small), (small.params, small.state), INPUTS[:2])
    assert dict(groups.prunable) == {"conv": 3, "hidden": 4}
    assert groups.is_statistic("1.norm.mean")
    once_more = shrink_functional(small, groups, {"hidden": [True, False, True, True]})
    assert once_more.apply(once_more.params, once_more.state, INPUTS[:2]).shape == (2, 3)


def test_the_whole_module_comes_back_with_closed_nodes_zero(small):
    module = small.rebuild(small.params, small.state)
    module.eval()
    outputs = small.apply(small.params, small.state, INPUTS)
    np.testing.assert_allclose(module(INPUTS), outputs, atol=1e-6)
    assert not jnp.any(module.conv.kernel[..., 1])


def test_groups_of_the_parameters_alone_are_refused(groups):
    del groups
    alone = find_nodes(lambda p, x: MODEL.apply(p, MODEL.state, x), MODEL.params, INPUTS)
    with pytest.raises(ValueError, match="groups must be found on the pair"):
        shrink_functional(MODEL, alone, {})


def test_a_training_mode_with_other_nodes_is_refused(groups):
    def train(params, state, inputs, *, key):
        outputs, state = MODEL.train(params, state, inputs, key=key)
        return outputs + jnp.sort(params["hidden"]["bias"])[0], state

    other = shrink_functional(MODEL._replace(train=train), groups, KEEP)
    with pytest.raises(ValueError, match="nodes of hidden differ"):
        other.train(other.params, other.state, INPUTS, key=KEY)


def test_state_that_training_writes_and_does_not_read_shrinks_with_what_it_is_made_of():
    """As Haiku's averages, which are corrected for their start: only evaluation reads them."""

    def apply(params, state, inputs):
        mean = state["average"] + state["hidden"]
        return (inputs @ params["in"] - mean[None]) @ params["out"]

    def train(params, state, inputs, *, key):
        del key
        rows = inputs @ params["in"]
        hidden = 0.9 * state["hidden"] + 0.1 * rows.mean(0)
        outputs = (rows - rows.mean(0)[None]) @ params["out"]
        return outputs, {"average": 2 * hidden, "hidden": hidden}

    params = {"in": jnp.ones((3, 4)), "out": jnp.ones((4, 2))}
    state = {"average": jnp.arange(4.0), "hidden": jnp.arange(4.0)}
    model = Functional(params, state, apply, train, lambda *_: None)
    rows = INPUTS[:, 0, :3, 0]
    groups = find_nodes(paired(model), (params, state), rows)
    small = shrink_functional(model, groups, {"in": [True, False, True, True]})
    _, new = small.train(small.params, small.state, rows, key=KEY)
    _, whole = train(params, state, rows, key=KEY)
    np.testing.assert_allclose(new["average"], whole["average"][np.array([0, 2, 3])])
