# SPDX-License-Identifier: Apache-2.0
"""Experts, which a router's softmax keeps any gate on parameters from scaling."""

from collections.abc import Callable
from typing import Any

import jax

from plprune.gating import Setting
from plprune.gating.objectives import Objective
from plprune.scores import Probe
from plprune.scores.slices import NodeScores, scaled, unit_factors

_EXAMPLES = 32


def expert_scores(
    score: Callable, subject: Any, dense: Any, pair: Any, probe: Any, key: jax.Array
) -> NodeScores:
    """One number per expert, larger = keep: a function of `plprune.scores` on drawn examples."""
    inputs, labels = _drawn(probe, key)
    drawn = Probe(inputs, labels, subject.loss, key)
    found = score(_on_pairs(subject), pair, dense.groups, drawn)
    return {name: found[name] for name in dense.experts}


def expert_slopes(
    objective: Objective, subject: Any, dense: Any, pair: Any, probe: Any, key: jax.Array
) -> NodeScores:
    """One number per expert, larger = keep: minus the slope of what the other gates minimise.

    A factor on what computes an expert stands for its gate, and the slope is taken at 1.
    """
    apply, (params, state) = _on_pairs(subject), pair

    def model(params, inputs, factors):
        return apply(scaled((params, state), dense.groups, factors), inputs)

    setting = Setting(model, params, *_drawn(probe, key), subject.loss, key)
    ones = {name: unit_factors(dense.groups)[name] for name in dense.experts}
    slopes = jax.grad(lambda factors: objective(setting, factors, factors))(ones)
    return jax.tree.map(lambda slope: -slope, slopes)


def _on_pairs(subject):
    return lambda pair, inputs: subject.net.model.apply(*pair, inputs)


def _drawn(probe, key):
    """Distinct examples of the probe, or all of a smaller one."""
    size = len(probe[0])
    if size <= _EXAMPLES:
        return probe
    # Scores draw by the key itself.
    chosen = jax.random.choice(jax.random.fold_in(key, 1), size, (_EXAMPLES,), replace=False)
    return tuple(part[chosen] for part in probe)
