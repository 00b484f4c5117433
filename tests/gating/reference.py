# SPDX-License-Identifier: Apache-2.0
"""The small network in float64 with a probe of seven, its kernel and loss computed directly."""

import jax
import jax.numpy as jnp

from plprune.gating import Setting
from plprune.losses import cross_entropy
from plprune.nodes import gate
from plprune.nodes.gated_apply import gated
from tests.gating import cases
from tests.gating.cases import FIRST, GROUPS, KEY, SECOND, apply, draw

WIDE = draw(jax.random.key(1), jnp.float64)
INPUTS = jax.random.normal(jax.random.key(2), (7, 3), jnp.float64)
LABELS = cases.LABELS[:7]
SETTING = Setting(gated(apply, GROUPS), WIDE, INPUTS, LABELS, cross_entropy, KEY)
SIGNS = jax.random.rademacher(KEY, (2,), jnp.float64)
SIZES = {FIRST: 8, SECOND: 6}


def gated_params(params, gates):
    return gate(params, GROUPS, gates)


@jax.jit
def direct_kernel(gates, signs=SIGNS[:, None]):
    """By whole per-example Jacobians of the model at gated weights."""

    def one(x):
        return jax.jacrev(lambda p: apply(gated_params(p, gates), x[None])[0] @ signs)(WIDE)

    jacobians = jax.tree.leaves(jax.vmap(one)(INPUTS))
    rows = 7 * signs.shape[1]
    flat = jnp.concatenate([j.reshape(rows, -1) for j in jacobians], axis=1)
    return flat @ flat.T


def mean_loss(params, gates):
    return jnp.mean(cross_entropy(apply(gated_params(params, gates), INPUTS), LABELS))
