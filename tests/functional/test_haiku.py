# SPDX-License-Identifier: Apache-2.0
"""What is Haiku's own: transformations with and without state and random keys."""

import chex
import haiku as hk
import jax
import numpy as np
import pytest

from plprune.functional import functional_haiku, paired, stateless
from plprune.nodes import find_nodes, shrink

pytestmark = pytest.mark.usefixtures("models_broadcast")
INPUTS = np.linspace(-1, 2, 24, dtype=np.float32).reshape(6, 4)


def mlp(x):
    return hk.nets.MLP((8, 3))(x)


def normalised(x, is_training, width=8):
    x = hk.BatchNorm(True, True, 0.5)(hk.Linear(width)(x), is_training)
    return hk.Linear(3)(x)


@pytest.mark.parametrize("wrap", [lambda net: net, hk.without_apply_rng], ids=["rng", "without"])
@pytest.mark.parametrize("transform", [hk.transform, hk.transform_with_state])
def test_every_transformation_is_called_as_it_wants(wrap, transform):
    net = wrap(transform(mlp))
    variables = net.init(jax.random.key(0), INPUTS)
    variables = variables if transform is hk.transform_with_state else (variables,)
    model = functional_haiku(net, *variables)
    keys = () if wrap is hk.without_apply_rng else (None,)
    expected = net.apply(*variables, *keys, INPUTS)
    expected = expected[0] if len(variables) == 2 else expected
    chex.assert_trees_all_close(stateless(model)(model.params, INPUTS), expected)
    again = model.rebuild(model.params, model.state)
    chex.assert_trees_all_equal(again, variables if len(variables) == 2 else variables[0])


def test_moving_averages_are_statistics_and_are_cut_with_all_that_training_reads(key):
    net = hk.transform_with_state(normalised)
    modes = {"evaluation": {"is_training": False}, "training": {"is_training": True}}
    model = functional_haiku(net, *net.init(key, INPUTS, is_training=True), **modes)
    variables = (model.params, model.state)
    groups = find_nodes(paired(model), variables, INPUTS)
    assert groups.prunable == {"linear": 8}
    held = {path for path in groups.paths if groups.is_statistic(path)}
    assert {path.rpartition(".")[2] for path in held} >= {"average", "hidden"}
    small = shrink(variables, groups, {"linear": np.arange(8) < 5})

    shapes = jax.eval_shape(lambda: net.init(key, INPUTS, is_training=True, width=5))
    chex.assert_trees_all_equal_shapes(small, shapes)


def test_what_does_not_fit_is_refused(key):
    net = hk.transform_with_state(normalised)
    params, state = net.init(key, INPUTS, is_training=True)
    with pytest.raises(ValueError, match=r"state must be given, as hk.transform_with_state"):
        functional_haiku(net, params)
    with pytest.raises(ValueError, match=r"state must be None, got dict"):
        functional_haiku(hk.transform(mlp), params, dict(state))
    with pytest.raises(ValueError, match=r"must come from hk.transform\(_with_state\), got a tup"):
        functional_haiku((net.init, net.apply), params, state)
