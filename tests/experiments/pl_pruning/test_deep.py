# SPDX-License-Identifier: Apache-2.0
"""Deep perceptrons: which units can go, and what the centred one computes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments.pl_pruning.deep import DESIGNS, DeepMLP
from plprune.functional import functional
from plprune.nodes import find_nodes, mask, shrink

pytestmark = pytest.mark.usefixtures("models_broadcast")
INPUTS = jnp.asarray(np.random.default_rng(0).normal(size=(5, 3)), jnp.float32)


def deep(design):
    rngs = nnx.Rngs(0)
    return functional(DeepMLP(3, (4, 4), 2, design=design, stream=6, rngs=rngs))


@pytest.mark.parametrize("design", DESIGNS)
def test_hidden_units_of_every_design_can_go(design):
    model = deep(design)
    pair = model.params, model.state
    groups = find_nodes(lambda v, x: model.apply(*v, x), pair, INPUTS)
    hidden = {"hidden_00": 4, "hidden_01": 4}
    assert hidden.items() <= groups.prunable.items()
    keep = {name: np.asarray([True, False, True, False]) for name in hidden}
    masked = model.apply(*mask(pair, groups, keep), INPUTS)
    small = shrink(pair, groups, keep)
    assert small[0]["hidden_00"]["kernel"].shape[1] == 2
    wide = model.apply(*pair, INPUTS)
    assert float(jnp.abs(masked - wide).max()) > 1e-3


def test_the_centred_design_subtracts_the_batch_mean_and_remembers_it():
    model = deep("centred")
    outputs, state = model.train(model.params, model.state, INPUTS, key=jax.random.key(0))
    np.testing.assert_allclose(outputs.mean(0), 0, atol=1e-6)
    raw = model.apply(model.params, model.state, INPUTS)  # The running mean starts at zero.
    np.testing.assert_allclose(raw - raw.mean(0), outputs, atol=1e-6)
    np.testing.assert_allclose(state["centre"]["mean"], 0.1 * raw.mean(0), rtol=1e-4)


def test_a_residual_network_adds_its_blocks_to_the_stream():
    model = deep("residual")
    params = dict(model.params)

    def dense(name, x):
        return x @ params[name]["kernel"] + params[name]["bias"]

    x = dense("stem", INPUTS)
    for i in ("00", "01"):
        x = x + dense(f"down_{i}", jnp.tanh(dense(f"hidden_{i}", x)))
    expected = dense("output", x)
    np.testing.assert_allclose(model.apply(params, {}, INPUTS), expected, rtol=1e-5, atol=1e-6)


def test_an_unknown_design_is_refused():
    with pytest.raises(ValueError, match="design must be one of"):
        deep("dense")
