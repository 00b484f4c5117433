# SPDX-License-Identifier: Apache-2.0
"""Scores taken part by part are those of all examples at once."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from plprune import scores
from plprune.gating import score_gating
from plprune.losses import cross_entropy
from plprune.nodes import keep_top
from plprune.scores import Probe, streamed
from tests.gating.cases import GROUPS, INPUTS, KEY, LABELS, PARAMS, apply

pytestmark = pytest.mark.usefixtures("models_broadcast")
MEANS = {
    "activation": scores.activation,
    "weighted activation": partial(scores.activation, weighted=True),
    "snip": scores.snip,
    "taylor": scores.taylor,
}
WIDE = jax.tree.map(lambda p: p.astype(jnp.float64), PARAMS)
X = INPUTS.astype(jnp.float64)


def probe(start=0, end=None):
    return Probe(X[start:end], LABELS[start:end], cross_entropy)


@pytest.mark.parametrize("name", MEANS)
def test_batches_and_microbatches_give_what_the_whole_gives(name):
    score = MEANS[name]
    whole = score(apply, WIDE, GROUPS, probe())

    batches = [probe(0, 6), probe(6)] if name != "snip" else [probe(0, 5), probe(5, 10), probe(10)]
    parted = (
        streamed(partial(score), apply, WIDE, GROUPS, iter(batches), microbatch=4),
        jax.jit(lambda p: streamed(score, apply, p, GROUPS, probe(), microbatch=5))(WIDE),
    )
    for found in parted:
        assert set(found) == set(whole)
        for group, values in whole.items():
            np.testing.assert_allclose(found[group], values, rtol=1e-12)


def test_it_is_a_score_itself():
    gating = score_gating(
        optax.sgd(0.1), apply, GROUPS, score=partial(streamed, scores.taylor, microbatch=4),
        keep_fraction=0.5, key=KEY, loss=cross_entropy,
    )  # fmt: skip
    still = jax.tree.map(jnp.zeros_like, WIDE)
    keep = gating.update(still, gating.init(WIDE), WIDE, probe=(X, LABELS))[1].keep
    for name, kept in keep_top(scores.taylor(apply, WIDE, GROUPS, probe()), GROUPS, 0.5).items():
        np.testing.assert_array_equal(keep[name], kept)


def test_options_of_a_score_are_kept():
    first, second = GROUPS.prunable
    score = partial(scores.activation, exclude=second)
    assert set(streamed(score, apply, WIDE, GROUPS, [probe()])) == {first}


def test_what_cannot_be_streamed_is_refused():
    for score, name in ((scores.grasp, "grasp"), (partial(scores.obs, update=True), "obs")):
        with pytest.raises(ValueError, match=f"score must be a mean over examples, .* got {name}"):
            streamed(score, apply, WIDE, GROUPS, probe())
    with pytest.raises(ValueError, match="probes must hold at least one Probe, got none"):
        streamed(scores.snip, apply, WIDE, GROUPS, [])
    with pytest.raises(ValueError, match="microbatch must be at least 1, got 0"):
        streamed(scores.snip, apply, WIDE, GROUPS, probe(), microbatch=0)
    with pytest.raises(ValueError, match="snip needs loss, got None"):
        streamed(scores.snip, apply, WIDE, GROUPS, [Probe(X)])
    with pytest.raises(TypeError, match=r"probe must be a Probe of plprune.scores, got ArrayImpl"):
        streamed(scores.activation, apply, WIDE, GROUPS, iter([X]))


def test_a_loop_over_microbatches_bounds_memory():
    inputs, labels = jnp.tile(X, (80, 1)), jnp.tile(LABELS, 80)

    def memory(microbatch):
        def score(params):
            given = Probe(inputs, labels, cross_entropy)
            return streamed(scores.snip, apply, params, GROUPS, given, microbatch=microbatch)

        return jax.jit(score).lower(WIDE).compile().memory_analysis().temp_size_in_bytes

    assert memory(16) < memory(None) / 2
