# SPDX-License-Identifier: Apache-2.0
"""Learned gates: that they lower the condition number, and what moves them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from plprune.gating import pl_gating
from plprune.nodes import find_nodes, mask
from tests.gating.cases import FIRST, GROUPS, KEY, PARAMS, SECOND, apply, recording, stepper

WIDTH, EXAMPLES = 32, 8
SHAPES = {"in": (4, WIDTH), "mid": (WIDTH, WIDTH), "out": (WIDTH, 1)}


def three_layers(params, inputs):
    hidden = jnp.tanh(jnp.tanh(inputs @ params["in"]) @ params["mid"])
    return hidden @ params["out"]


@pytest.fixture(scope="module")
def network():
    """Parameters in float64, a probe, and groups; of one output, so that no draw combines them."""
    *keys, last = jax.random.split(jax.random.key(0), 4)
    params = {
        name: jax.random.normal(key, shape, jnp.float64) / shape[0] ** 0.5
        for key, (name, shape) in zip(keys, SHAPES.items(), strict=True)
    }
    inputs = jax.random.normal(last, (EXAMPLES, 4), jnp.float64)
    return params, inputs, find_nodes(three_layers, params, inputs)


@pytest.fixture(scope="module")
def log_kappas(network):
    """``keep -> [2]``: largest over smallest eigenvalue, and over the mean of the five lowest."""
    params, inputs, groups = network

    def of(keep):
        closed = mask(params, groups, keep)
        gradients = jax.vmap(lambda x: jax.grad(lambda p: three_layers(p, x[None])[0, 0])(closed))
        rows = [g.reshape(EXAMPLES, -1) for g in jax.tree.leaves(gradients(inputs))]
        jacobian = jnp.concatenate(rows, axis=1)
        values = jnp.linalg.eigvalsh(jacobian @ jacobian.T)
        return jnp.log(values[-1] / jnp.stack([values[0], jnp.mean(values[:5])]))

    return jax.jit(jax.vmap(of))


@pytest.fixture(scope="module")
def others(network, log_kappas):
    """Of the whole network, and of twenty halves drawn at random."""
    names = network[2].prunable

    def half(key):
        keys = jax.random.split(key, len(names))
        ranks = (jax.random.permutation(k, WIDTH) for k in keys)
        return {name: r < WIDTH // 2 for name, r in zip(names, ranks, strict=True)}

    halves = jax.vmap(half)(jax.random.split(KEY, 20))
    dense = {name: jnp.ones((1, WIDTH), bool) for name in names}
    return np.concatenate([log_kappas(dense), log_kappas(halves)])


@pytest.mark.parametrize("gates_from", ["logits", "mlp"])
def test_the_half_kept_is_better_conditioned_than_random_halves_and_the_whole(
    network, log_kappas, others, gates_from
):
    params, inputs, groups = network
    tx = pl_gating(
        optax.sgd(0.0), three_layers, groups, keep_fraction=0.5, key=KEY, network=gates_from
    )
    _, state = stepper(tx)(params, tx.init(params), gradients=params, probe=inputs)
    for kept in state.keep.values():
        assert int(kept.sum()) == WIDTH // 2
    kept = np.asarray(log_kappas(jax.tree.map(lambda k: k[None], state.keep)))
    assert (kept < others).all()


def test_objectives_receive_hard_gates_that_pass_a_sigmoids_slope():
    def squares(setting, soft, hard):
        del setting, soft
        return sum(jnp.vdot(values, values) for values in hard.values())

    tx = pl_gating(
        optax.sgd(0.1), apply, GROUPS, keep_fraction=0.5, key=KEY, initial_updates=1,
        objective=squares, gate_optimizer=recording(1),
    )  # fmt: skip
    _, state = stepper(tx)(PARAMS, tx.init(PARAMS))
    for name, size in ((FIRST, 8), (SECOND, 6)):  # Of equal gates the first half is kept.
        slopes = state.network.rule.optimizer[name][0]
        np.testing.assert_allclose(slopes, 2 * (np.arange(size) < size // 2) / 4)


def test_a_gate_update_that_is_not_finite_moves_nothing_and_ends_nothing():
    def objective(setting, soft, hard):
        del hard
        value, radicand = setting.inputs
        total = jnp.vdot(soft[FIRST], jnp.arange(8, dtype=jnp.float32))
        # At radicand 0 the value is 0 and the slope 0 / 0.
        return total + jax.lax.stop_gradient(value) + jnp.sqrt(radicand * soft[SECOND][0])

    tx = pl_gating(
        optax.sgd(0.0), apply, GROUPS, keep_fraction=0.5, key=KEY, initial_updates=1, period=1,
        objective=objective, gate_optimizer=optax.sgd(0.1),
    )  # fmt: skip
    step = stepper(tx)
    params, state = step(PARAMS, tx.init(PARAMS), probe=jnp.array([0.0, 1.0], jnp.float32))
    for value, radicand in ((np.nan, 1.0), (-np.inf, 1.0), (0.0, 0.0)):
        probe = jnp.array([value, radicand], jnp.float32)
        params, after = step(params, state, probe=probe)
        for name, gates in state.gates.items():
            np.testing.assert_array_equal(after.gates[name], gates)
    _, last = step(params, after, probe=jnp.array([0.0, 1.0], jnp.float32))
    assert int(last.network.rule.count) == 3
    for name, gates in last.gates.items():
        assert np.isfinite(gates).all()
        assert np.abs(gates - state.gates[name]).max() > 1e-3
