# SPDX-License-Identifier: Apache-2.0
"""Experts, which a router's softmax keeps any gate on parameters from scaling."""

from typing import Any

import jax
import jax.numpy as jnp

from experiments.pl_pruning.methods import LEARNED
from plprune import scores
from plprune.kernels import projected_kernel
from plprune.scores.slices import NodeScores, scaled, unit_factors
from plprune.spectra import extreme_eigenvalues

_EXAMPLES, _LOWEST = 32, 5


def expert_scores(method: str, subject: Any, dense: Any, params, state, probe, key) -> NodeScores:
    """One number per expert, larger = keep: the method's own score, or the slope of log kappa.

    A factor on what computes an expert stands for its gate. Learned methods keep the experts with
    the lowest slope of the log condition number in that factor, at 1.
    """
    inputs, labels = (part[:_EXAMPLES] for part in probe)

    def apply(pair, inputs):
        return subject.net.model.apply(pair[0], pair[1], inputs)

    pair = params, state
    if method not in LEARNED:
        score = getattr(scores, method)
        found = score(
            apply, pair, dense.groups, inputs=inputs, labels=labels, loss=subject.loss, key=key
        )
        return {name: found[name] for name in dense.experts}
    outputs = jax.eval_shape(apply, pair, inputs)
    signs = jax.random.rademacher(key, (outputs.size // len(inputs),), outputs.dtype)

    def log_kappa(factors):
        def model(params, inputs):
            return apply(scaled((params, state), dense.groups, factors), inputs)

        low, high = extreme_eigenvalues(projected_kernel(model, params, inputs, signs), _LOWEST)
        return jnp.log(high) - jnp.log(jnp.mean(low))

    ones = {name: unit_factors(dense.groups)[name] for name in dense.experts}
    return jax.tree.map(jnp.negative, jax.grad(log_kappa)(ones))
