# SPDX-License-Identifier: Apache-2.0
"""States own what they hold: donating them leaves the caller's arrays and the next run alone."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from plprune import scores
from plprune.conditions import recording
from plprune.gating import pl_gating, score_gating
from plprune.optimizers import adagrad_norm_max, dec_sps, group_lasso, ngn, nsgd, sps_max
from plprune.training import start
from tests.gating.cases import GROUPS, INPUTS, PARAMS, apply

KEY = jax.random.key(3)
NUMBERS = {name: jnp.asarray(x, jnp.float32) for name, x in (("one", 1.0), ("tenth", 0.1))}
ONE, TENTH = NUMBERS.values()
DEFAULT = jnp.asarray(1.0)  # In the default float type, which states are kept in.
GATING = {"keep_fraction": 0.5, "key": KEY, "period": 1}
TRANSFORMATIONS = {
    "sps_max": lambda: sps_max(c=ONE, max_step_size=DEFAULT, lower_bound=0 * ONE),
    "dec_sps": lambda: dec_sps(c=ONE, max_step_size=DEFAULT),
    "ngn": lambda: ngn(DEFAULT),
    "adagrad_norm_max": lambda: adagrad_norm_max(TENTH, initial=DEFAULT),
    "nsgd": lambda: nsgd(TENTH, momentum=TENTH),
    "group_lasso": lambda: group_lasso(GROUPS, strength=TENTH, beta=TENTH),
    "proximal": lambda: group_lasso(GROUPS, strength=TENTH, form="proximal", step_size=TENTH),
    "recording": lambda: recording(optax.sgd(0.1), 3),
    "score_gating": lambda: score_gating(
        optax.adam(0.1), apply, GROUPS, score=scores.magnitude, **GATING
    ),
    "pl_gating": lambda: pl_gating(
        optax.adam(0.1), apply, GROUPS, network="mlp", initial_updates=1, **GATING
    ),
}


def buffers(tree):
    """Where the arrays of a tree lie."""
    leaves = jax.tree.leaves(tree)
    raw = [jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x
           for x in leaves]  # fmt: skip
    return [x.unsafe_buffer_pointer() for x in raw]


@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_states_share_no_buffer_with_the_caller_or_each_other(name):
    tx = TRANSFORMATIONS[name]()
    callers = buffers((PARAMS, KEY, NUMBERS, DEFAULT))
    first, second = tx.init(PARAMS), tx.init(PARAMS)
    own = buffers(first) + buffers(second)
    assert not set(own) & set(callers)
    assert len(set(own)) == len(own)


@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_runs_that_donate_everything_can_be_started_again(name):
    tx = optax.with_extra_args_support(TRANSFORMATIONS[name]())
    reference = jax.tree.map(jnp.zeros_like, PARAMS)

    def step(params, state):
        gradients = jax.tree.map(jnp.ones_like, params)
        extra = {"probe": INPUTS} if "gating" in name else {"value": DEFAULT}
        if name == "recording":
            extra["reference"] = reference
        updates, state = tx.update(gradients, state, params, **extra)
        return optax.apply_updates(params, updates), state

    donating = jax.jit(step, donate_argnums=(0, 1))
    ends = []
    for _ in range(2):
        params = jax.tree.map(jnp.copy, PARAMS)
        state = tx.init(params)
        for _ in range(2):
            params, state = donating(params, state)
        ends.append(params)
    jax.tree.map(np.testing.assert_array_equal, *ends)
    for array in (*NUMBERS.values(), DEFAULT, jax.random.key_data(KEY)):
        assert np.isfinite(np.asarray(array)).all()


def test_a_training_state_can_be_donated_with_its_key():
    state = start(jax.tree.map(jnp.copy, PARAMS), {}, optax.sgd(0.1), key=KEY)
    jax.jit(lambda s: s._replace(step=s.step + 1), donate_argnums=0)(state)
    assert np.asarray(jax.random.key_data(KEY)).size
