# SPDX-License-Identifier: Apache-2.0
"""Measurements along training are those of `measure`, at every n-th step and nowhere else."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import plprune
from plprune.optimizers import measured_steps, measuring

INPUTS = jax.random.normal(jax.random.key(0), (3, 5))
PARAMS = {"w": jax.random.normal(jax.random.key(1), (5, 8)), "v": jnp.ones((8, 1))}


def apply(params, inputs):
    return jnp.tanh(inputs @ params["w"]) @ params["v"]


def loss(params, batch):
    return jnp.mean(apply(params, batch) ** 2)


def trained(optimizer, num_steps, **extra):
    """Parameters at every step, and the last state."""
    params, state = PARAMS, optimizer.init(PARAMS)
    update, path = jax.jit(optimizer.update), []
    for _ in range(num_steps):
        path.append(params)
        gradients = jax.grad(loss)(params, INPUTS)
        updates, state = update(gradients, state, params, probe=INPUTS, **extra)
        params = optax.apply_updates(params, updates)
    return path, state


def test_every_third_step_is_measured_and_the_path_is_the_optimisers_own():
    path, state = trained(measuring(optax.sgd(0.1), apply, every=3, num_steps=5), 8)
    steps, measured = measured_steps(state)
    assert steps.tolist() == [0, 3]  # Step 6 is beyond the room that was asked for.
    for k, step in enumerate(steps):
        expected = plprune.measure(apply, path[step], INPUTS)
        got = jax.tree.map(lambda line, k=k: line[k], measured)
        for a, b in zip(got, expected, strict=True):
            assert a.resolved == b.resolved
            np.testing.assert_allclose(a.value, b.value, rtol=1e-4)
    plain = optax.with_extra_args_support(optax.sgd(0.1))
    expected = trained(plain, 8)[0]
    for a, b in zip(jax.tree.leaves(path[-1]), jax.tree.leaves(expected[-1]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_the_objectives_own_constant_is_measured_on_its_batch():
    options = {"objective": loss, "key": jax.random.key(2)}
    optimizer = measuring(optax.sgd(0.1), apply, every=1, num_steps=1, **options)
    _, state = trained(optimizer, 1, batch=INPUTS)
    expected = plprune.lipschitz_constant(loss, PARAMS, INPUTS, key=jax.random.key(2))
    found = measured_steps(state)[1].lipschitz_constant
    np.testing.assert_allclose(found.value, [expected.value], rtol=1e-4)


@pytest.mark.parametrize(
    ("options", "match"),
    [({"every": 0, "num_steps": 1}, "every"), ({"every": 1, "num_steps": 0}, "num_steps"),
     ({"every": 1, "num_steps": 1, "objective": loss}, "key")],
)  # fmt: skip
def test_bad_arguments_are_refused(options, match):
    with pytest.raises(ValueError, match=match):
        measuring(optax.sgd(0.1), apply, **options)


def test_an_update_needs_params():
    optimizer = measuring(optax.sgd(0.1), apply, every=1, num_steps=1)
    with pytest.raises(ValueError, match="needs params"):
        optimizer.update(PARAMS, optimizer.init(PARAMS), probe=INPUTS)
