# SPDX-License-Identifier: Apache-2.0
"""Probes that are wrong in the ways users get them wrong: the right answer, or one line."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from plprune import scores
from plprune.gating import log_condition_number, log_smoothness_ratio, pl_gating, score_gating
from plprune.losses import cross_entropy
from plprune.nodes import find_nodes
from tests.gating.cases import (
    FIRST,
    GRADS,
    GROUPS,
    INPUTS,
    KEY,
    LABELS,
    PARAMS,
    SECOND,
    apply,
    stepper,
)

by_snip = partial(
    score_gating, apply=apply, groups=GROUPS, score=scores.snip, keep_fraction=0.5, key=KEY,
    loss=cross_entropy, probe_size=5,
)  # fmt: skip
NAN = PARAMS | {"mid": PARAMS["mid"].at[0, 0].set(jnp.nan)}


def updated(tx, probe, params=PARAMS):
    """The state after one call outside of jit."""
    return tx.update(GRADS, tx.init(params), params, probe=probe)[1]


def updated_in_jit(tx, probe, params=PARAMS):
    return stepper(tx)(params, tx.init(params), probe=probe)[1]


@pytest.mark.parametrize(
    ("probe", "words"),
    [
        ((INPUTS, LABELS[:6]), "probe's labels must hold as many .*, 12, got 6"),
        ((INPUTS[:4], LABELS[:3]), "probe's labels must hold as many .*, 4, got 3"),
        ((INPUTS, jnp.arange(24) % 2), "probe's labels must hold as many .*, 12, got 24"),
        ({"x": INPUTS, "y": LABELS}, r"a pair \(inputs, labels\) .* a loss, got a dict"),
        (INPUTS, r"a pair .*, got an array of shape \(12, 3\)"),
        (INPUTS[:2], r"a pair .*, got an array of shape \(2, 3\)"),
        ((INPUTS, LABELS, LABELS), "a pair .*, got a tuple"),
        ((INPUTS, None), "snip needs labels, got None"),
        ((INPUTS[:0], LABELS[:0]), "probe's inputs must hold at least one example, got none"),
        ((INPUTS, jnp.eye(2, dtype=int)[LABELS]), r"labels must have shape \(12,\), got \(12, 2\)"),
        ((INPUTS, LABELS.at[7].set(2)), r"classes in \[0, 2\) .* got 2 at example 7"),
        ((INPUTS, LABELS.at[7].set(-1)), r"classes in \[0, 2\) .* got -1 at example 7"),
    ],
)  # fmt: skip
def test_probes_that_are_no_batch_of_inputs_and_labels_are_named(probe, words):
    with pytest.raises(ValueError, match=words) as caught:
        updated(by_snip(optax.sgd(0.1)), probe)
    assert "\n" not in str(caught.value)


def test_a_pair_without_a_loss_is_named_where_the_model_would_read_it():
    tx = pl_gating(optax.sgd(0.1), apply, GROUPS, keep_fraction=0.5, key=KEY)
    with pytest.raises(ValueError, match="inputs alone without a loss, got a pair; pass loss="):
        updated_in_jit(tx, (INPUTS, LABELS))
    blind = score_gating(
        optax.sgd(0.1), apply, GROUPS, score=scores.magnitude, keep_fraction=0.5, key=KEY
    )
    assert int(updated_in_jit(blind, (INPUTS, LABELS)).keep[FIRST].sum()) == 4


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.float16])
def test_numpy_probes_beyond_the_probe_size_work_outside_of_jit(kind):
    inputs = np.asarray(INPUTS, kind)
    tx = by_snip(optax.sgd(0.1))
    found = updated(tx, [inputs, np.asarray(LABELS, np.int64)])
    expected = updated_in_jit(tx, (jnp.asarray(inputs, jnp.float32), LABELS))
    np.testing.assert_allclose(found.gates[FIRST], expected.gates[FIRST], rtol=1e-4)


@pytest.mark.parametrize("size", [4, 2, 1])
def test_defaults_take_probes_of_few_examples_whole(size):
    tx = pl_gating(optax.sgd(0.1), apply, GROUPS, keep_fraction=0.5, key=KEY, initial_updates=1)
    state = updated_in_jit(tx, INPUTS[:size])
    assert int(state.keep[FIRST].sum()) == 4
    assert int(state.network.skipped) == 0


def test_what_is_asked_for_is_not_cut_down_to_a_small_probe():
    for objective in (log_condition_number(5), log_smoothness_ratio(5)):
        tx = pl_gating(
            optax.sgd(0.1), apply, GROUPS, keep_fraction=0.5, key=KEY, objective=objective,
            loss=cross_entropy,
        )  # fmt: skip
        with pytest.raises(ValueError, match=r"num_smallest must lie in \[1, 4\], got 5"):
            updated_in_jit(tx, (INPUTS[:4], LABELS[:4]))


GATINGS = {
    "snip": by_snip(optax.sgd(0.1), period=1),
    "magnitude": by_snip(optax.sgd(0.1), period=1, score=scores.magnitude),
    "kappa": pl_gating(
        optax.sgd(0.1), apply, GROUPS, keep_fraction=0.5, key=KEY, initial_updates=2, period=1,
        loss=cross_entropy,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", GATINGS)
def test_parameters_that_are_nan_close_nothing(name):
    tx = GATINGS[name]
    with pytest.raises(ValueError, match=r"params must hold no NaN .* got one in leaf mid"):
        updated(tx, (INPUTS, LABELS), NAN)
    step = stepper(tx)
    _, state = step(NAN, tx.init(NAN), probe=(INPUTS, LABELS))
    assert all(kept.all() for kept in state.keep.values())
    assert int(state.network.skipped) == (2 if name == "kappa" else 1)
    # Later, what is open and closed stays as it was.
    params, state = step(PARAMS, tx.init(PARAMS), probe=(INPUTS, LABELS))
    assert int(state.network.skipped) == 0
    spoilt = params | {"c": params["c"] * jnp.nan, "mid": params["mid"] * jnp.nan}
    spoilt["in"] = params["in"] * jnp.nan
    _, after = step(spoilt, state, probe=(-INPUTS, LABELS))
    assert int(after.network.skipped) == 1
    for group in (FIRST, SECOND):
        np.testing.assert_array_equal(after.keep[group], state.keep[group])
        np.testing.assert_array_equal(after.gates[group], state.gates[group])


@pytest.mark.parametrize("name", ["snip", "kappa"])
def test_a_probe_that_is_nan_closes_nothing(name):
    tx = GATINGS[name]
    with pytest.raises(ValueError, match=r"probe's inputs must hold no NaN .* got one in it"):
        updated(tx, (INPUTS * jnp.nan, LABELS))
    state = updated_in_jit(tx, (INPUTS * jnp.nan, LABELS))
    assert all(kept.all() for kept in state.keep.values())
    assert int(state.network.skipped) > 0


def test_labels_that_are_wrong_inside_of_jit_close_nothing():
    state = updated_in_jit(by_snip(optax.sgd(0.1)), (INPUTS, LABELS + 5))
    assert all(kept.all() for kept in state.keep.values())
    assert int(state.network.skipped) == 1


def test_scores_that_are_infinite_rank_and_a_probe_that_says_nothing_is_named():
    def infinite(*_):
        return {FIRST: jnp.where(jnp.arange(8) < 4, -jnp.inf, jnp.inf), SECOND: jnp.arange(6.0)}

    tx = score_gating(optax.sgd(0.1), apply, GROUPS, score=infinite, keep_fraction=0.5, key=KEY)
    np.testing.assert_array_equal(updated_in_jit(tx, INPUTS).keep[FIRST], np.arange(8) >= 4)

    def nothing(*_):
        return {FIRST: jnp.full(8, jnp.nan), SECOND: jnp.full(6, jnp.nan)}

    tx = score_gating(optax.sgd(0.1), apply, GROUPS, score=nothing, keep_fraction=0.5, key=KEY)
    with pytest.raises(ValueError, match="probe must give gates that are numbers"):
        updated(tx, INPUTS)


def test_inputs_that_are_a_pair_of_arrays_are_inputs():
    def two(params, inputs):
        return jnp.tanh(inputs[0] @ params["in"] + inputs[1] @ params["in"]) @ params["mid"]

    inputs = (INPUTS, -INPUTS / 3)
    groups = find_nodes(two, PARAMS, inputs)
    tx = score_gating(
        optax.sgd(0.1), two, groups, score=scores.node_lambda_max, keep_fraction=0.5, key=KEY
    )
    (kept,) = updated_in_jit(tx, inputs).keep.values()
    assert int(kept.sum()) == 4


def test_half_precision_models_are_gated_in_float32():
    half = jax.tree.map(lambda p: p.astype(jnp.bfloat16), PARAMS)
    inputs = INPUTS.astype(jnp.bfloat16)
    wide = jax.tree.map(lambda p: p.astype(jnp.float32), half)
    tx = score_gating(
        optax.sgd(0.1), apply, GROUPS, score=scores.node_lambda_max, keep_fraction=0.5, key=KEY
    )
    found, expected = (
        updated_in_jit(tx, inputs, half),
        updated_in_jit(tx, inputs.astype(jnp.float32), wide),
    )
    np.testing.assert_allclose(found.gates[FIRST], expected.gates[FIRST], rtol=1e-6)
    assert found.saved["in"].dtype == jnp.bfloat16
