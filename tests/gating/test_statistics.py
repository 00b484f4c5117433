# SPDX-License-Identifier: Apache-2.0
"""What the gating network reads, against direct computations, and what it makes of it."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plprune.gating import node_statistics
from plprune.gating.networks import gating_network
from plprune.losses import cross_entropy
from tests.gating.cases import FIRST, GROUPS, KEY, SECOND, apply
from tests.gating.reference import INPUTS, SETTING, SIGNS, SIZES, WIDE, direct_kernel, mean_loss

ONES = {name: jnp.ones(n) for name, n in SIZES.items()}


@pytest.fixture(scope="module")
def tables():
    """Of a setting with a loss, and of one without."""

    def of(loss):
        setting = SETTING._replace(loss=loss)
        return jax.jit(lambda p: node_statistics(setting._replace(params=p), GROUPS, SIZES))(WIDE)

    return of(cross_entropy), of(None)


def standard(values):
    values = np.asarray(values)
    return (values - values.mean()) / values.std()


def projected_mean(params):
    return jnp.mean(apply(params, INPUTS), 0) @ SIGNS


def log_norms(tree):
    """Of what computes the first layer's nodes, and of what reads them."""
    tree = {name: np.asarray(leaf) for name, leaf in tree.items()}
    computes = 0.5 * np.log((tree["in"] ** 2).sum(0) + tree["a"] ** 2)
    return computes, 0.5 * np.log((tree["mid"] ** 2).sum(1))


def test_statistics_are_norms_of_weights_and_gradients_standardised(tables):
    with_loss, without = tables
    weights = log_norms(WIDE)
    for table, mean in ((with_loss, partial(mean_loss, gates=ONES)), (without, projected_mean)):
        expected = (*weights, *log_norms(jax.jit(jax.grad(mean))(WIDE)))
        for column, values in enumerate(expected):
            found = np.asarray(table[FIRST][:, column])
            np.testing.assert_allclose(found, standard(values), rtol=1e-4, atol=1e-4)


def test_statistics_are_slopes_of_both_ends_of_the_kernel_and_of_the_loss(tables):
    with_loss, without = tables
    ends = {
        4: lambda gates: jnp.log(jnp.linalg.eigvalsh(direct_kernel(gates))[-1]),
        5: lambda gates: jnp.log(jnp.mean(jnp.linalg.eigvalsh(direct_kernel(gates))[:5])),
        6: lambda gates: mean_loss(WIDE, gates),
    }
    for column, value in ends.items():
        slopes = jax.jit(jax.grad(value))(ONES)
        for name in SIZES:
            found = np.asarray(with_loss[name][:, column])
            np.testing.assert_allclose(found, standard(slopes[name]), rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(without[FIRST][:, 6], 0)


def test_statistics_end_with_width_and_depth(tables):
    table = tables[0]
    np.testing.assert_allclose(table[FIRST][:, 7], np.log(8) / 5, rtol=1e-6)
    np.testing.assert_allclose([table[FIRST][0, 8], table[SECOND][0, 8]], [0, 1])
    assert table[FIRST].shape == (8, 9)


def test_nodes_of_a_kind_share_the_network_whatever_their_group():
    network = gating_network("mlp", GROUPS, SIZES)
    weights = network.init(KEY)
    (kind,) = weights
    moved = {kind: jax.tree.map(lambda w: w + 0.5, weights[kind])}
    rows = jax.random.normal(KEY, (6, 9), jnp.float32)
    swapped = jnp.concatenate([rows[::-1], jnp.zeros((2, 9))])
    logits = network.logits(moved, {FIRST: swapped, SECOND: rows})
    np.testing.assert_allclose(logits[FIRST][:6], logits[SECOND][::-1], rtol=1e-5)
    assert len(set(np.asarray(logits[SECOND]).tolist())) == 6  # It tells nodes apart.
    start = network.logits(weights, {FIRST: swapped, SECOND: rows})
    np.testing.assert_array_equal(start[FIRST], 0)
