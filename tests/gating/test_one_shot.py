# SPDX-License-Identifier: Apache-2.0
"""The gates of `pl_gating` as a score."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from plprune.gating import kappa, pl_gating
from plprune.scores import Probe
from tests.gating.cases import FIRST, GROUPS, INPUTS, KEY, PARAMS, SECOND, apply

pytestmark = pytest.mark.usefixtures("models_broadcast")


def test_it_is_the_gates_of_the_first_call():
    values = kappa(apply, PARAMS, GROUPS, Probe(INPUTS, key=KEY), num_updates=3)
    gating = pl_gating(optax.sgd(1.0), apply, GROUPS, keep_fraction=0.5, key=KEY, initial_updates=3)
    still = jax.tree.map(jnp.zeros_like, PARAMS)
    _, state = gating.update(still, gating.init(PARAMS), PARAMS, probe=INPUTS)
    for name in GROUPS.prunable:
        np.testing.assert_allclose(values[name], state.gates[name], rtol=1e-5)
    assert set(values) == {FIRST, SECOND}
    assert float(jnp.ptp(values[FIRST])) > 1e-3


def test_groups_left_out_have_no_score():
    probe = Probe(INPUTS, key=KEY)
    assert set(kappa(apply, PARAMS, GROUPS, probe, num_updates=1, exclude=SECOND)) == {FIRST}


def test_it_needs_a_key_and_a_batch():
    with pytest.raises(ValueError, match="kappa needs key, got None"):
        kappa(apply, PARAMS, GROUPS, Probe(INPUTS))
    with pytest.raises(ValueError, match="kappa needs inputs, got None"):
        kappa(apply, PARAMS, GROUPS, Probe(key=KEY))
