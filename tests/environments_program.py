# SPDX-License-Identifier: Apache-2.0
"""Measure, gate, train and shrink a small network: what `test_environments` runs in processes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import plprune
from plprune.functional import functional, stateless
from plprune.losses import cross_entropy
from plprune.models import MLP

model = functional(MLP(6, (8,), 3, activation="tanh", rngs=nnx.Rngs(0)))
apply, params = stateless(model), model.params
inputs = jax.random.normal(jax.random.key(1), (4, 6), jnp.float32)
labels = jnp.arange(4, dtype=jnp.int32) % 3

mu = plprune.pl_constant(apply, params, inputs)
kappa = plprune.condition_number(apply, params, inputs)
groups = plprune.find_nodes(apply, params, inputs)
options = {"keep_fraction": 0.5, "key": jax.random.key(2)}
gatings = (
    (plprune.pl_gating(optax.adam(1e-3), apply, groups, **options, initial_updates=2), inputs),
    (
        plprune.score_gating(
            plprune.sps_max(), apply, groups, **options, score=plprune.scores.snip,
            loss=cross_entropy,
        ),
        (inputs, labels),
    ),
)  # fmt: skip
for gating, probe in gatings:

    def step(params, state, gating=gating, probe=probe):
        value, gradients = jax.value_and_grad(lambda p: jnp.mean(apply(p, inputs) ** 2))(params)
        updates, state = gating.update(gradients, state, params, probe=probe, value=value)
        return optax.apply_updates(params, updates), state

    trained, state = jax.jit(step)(params, gating.init(params))
    (kept,) = state.keep.values()
    small = plprune.shrink(trained, groups, state.keep)
    outputs = plprune.resize(apply, groups, state.keep)(small, inputs)
    np.testing.assert_allclose(outputs, apply(trained, inputs), rtol=1e-4, atol=1e-6)
    if int(kept.sum()) != 4 or small["output"]["kernel"].shape != (4, 3):
        raise ValueError(f"half of the 8 nodes must be kept, got {kept}.")
if not (bool(mu.resolved) and bool(kappa.resolved)):
    raise ValueError(f"both must be resolved, got {mu} and {kappa}.")
# Wrong types that the type checker of the other tests would see first.
for wrong, words in (
    (lambda: plprune.pl_gating(optax.sgd(1.0), apply, groups, **options, period=1.5), "integer"),
    (lambda: plprune.pl_gating(optax.sgd(1.0), apply, groups, **options, freeze_at=np.nan), "int"),
    (lambda: plprune.keep_top({}, groups, 2.0), "keep_fraction must lie in"),
    (lambda: cross_entropy(apply(params, inputs), labels.astype(jnp.float32)), "integer classes"),
):
    try:
        wrong()
    except ValueError as error:
        if words not in str(error):
            raise
    else:
        raise ValueError(f"a ValueError that says {words!r} was expected.")
print(len(jax.devices()), __debug__)  # noqa: T201
