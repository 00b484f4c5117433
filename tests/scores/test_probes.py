# SPDX-License-Identifier: Apache-2.0
"""Probes that are no batch, labels that no loss takes, half precision and NaN, for every score."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from plprune import scores
from plprune.losses import cross_entropy, masked_cross_entropy, squared_error
from plprune.nodes import find_nodes
from plprune.scores import Probe
from plprune.scores.probes import check_probe, num_examples
from tests.gating.cases import GROUPS, INPUTS, KEY, LABELS, PARAMS, apply

NAMES = list(scores.SCORES)
OF_LOSS = ("snip", "taylor", "grasp")
OF_DATA = (*OF_LOSS, "ntk_sap", "node_lambda_max", "synflow")
HALVES = [jnp.bfloat16, jnp.float16]


def scored(name, params=PARAMS, **options):
    options = {"inputs": INPUTS, "labels": LABELS, "loss": cross_entropy, "key": KEY} | options
    return scores.SCORES[name](options.pop("apply", apply), params, GROUPS, Probe(**options))


@pytest.mark.parametrize("name", NAMES)
def test_the_keywords_of_before_are_answered_with_how_to_write_it_now(name):
    score = scores.SCORES[name]
    written = rf"write {name}\(apply, params, groups, Probe\(inputs=inputs, key=key\)\)"
    with pytest.raises(TypeError, match=written):
        score(apply, PARAMS, GROUPS, inputs=INPUTS, key=KEY)
    with pytest.raises(TypeError, match=r"got ArrayImpl: write .*Probe\(inputs\)"):
        score(apply, PARAMS, GROUPS, INPUTS)
    if name in OF_DATA:
        with pytest.raises(TypeError, match="'probe'"):
            score(apply, PARAMS, GROUPS)
    with pytest.raises(TypeError, match="unexpected keyword argument 'rate'"):
        score(apply, PARAMS, GROUPS, Probe(), rate=1)


def test_a_probe_is_an_argument_of_jit_and_vmap():
    probe = Probe(INPUTS, LABELS, cross_entropy, KEY)
    plain = scores.snip(apply, PARAMS, GROUPS, probe)
    jitted = jax.jit(lambda p, probe: scores.snip(apply, p, GROUPS, probe))(PARAMS, probe)
    both = jax.tree.map(lambda a, b: jnp.stack([a, b]), probe, replace(probe, inputs=2 * INPUTS))
    mapped = jax.vmap(lambda probe: scores.snip(apply, PARAMS, GROUPS, probe))(both)
    for name, values in plain.items():
        np.testing.assert_allclose(jitted[name], values, rtol=1e-6)
        np.testing.assert_allclose(mapped[name][0], values, rtol=1e-5)


def cast(tree, dtype):
    return jax.tree.map(lambda leaf: leaf.astype(dtype), tree)


def test_examples_are_counted_over_all_leaves():
    assert num_examples(inputs={"x": np.ones((3, 2)), "y": jnp.ones(3)}, labels=None) == 3
    assert num_examples(inputs=jax.random.split(KEY, 4)) == 4
    for trees, words in (
        (
            {"inputs": np.ones((3, 2)), "labels": np.ones(2)},
            "labels .* as many .* inputs, 3, got 2",
        ),
        ({"inputs": {"a": np.ones(3), "b": np.ones(4)}}, "inputs .* as many .* inputs, 3, got 4"),
        ({"inputs": np.ones((3, 2)), "labels": 1.0}, r"labels must have a leading axis .* \(\)"),
        ({"inputs": np.ones((0, 2))}, "inputs must hold at least one example, got none"),
        ({"inputs": None}, "inputs must hold at least one array, got None"),
    ):
        with pytest.raises(ValueError, match=words):
            num_examples(**trees)


@pytest.mark.parametrize("name", OF_DATA)
def test_every_score_of_data_refuses_what_is_no_batch(name):
    with pytest.raises(ValueError, match="inputs must hold at least one example, got none"):
        scored(name, inputs=INPUTS[:0], labels=LABELS[:0])
    if name in OF_LOSS:
        for labels in (LABELS[:5], jnp.concatenate([LABELS, LABELS])):
            with pytest.raises(ValueError, match="labels must hold as many examples as inputs, 12"):
                scored(name, labels=labels)
        with pytest.raises(ValueError, match="labels must hold as many"):
            jax.jit(lambda y: scored(name, labels=y))(LABELS[:5])


LOSSES = {
    "ours": cross_entropy,
    "masked": masked_cross_entropy,
    "optax": optax.losses.softmax_cross_entropy_with_integer_labels,
    "their own": lambda y, t: (
        -jnp.sum(
            jnp.log(y) * jax.nn.one_hot(t, 2) / jnp.where((t < 0) | (t > 1), jnp.nan, 1)[:, None],
            axis=1,
        )
    ),
}


@pytest.mark.parametrize("name", LOSSES)
def test_labels_beyond_the_classes_are_named_where_they_are_known(name):
    wrong = np.asarray(LABELS).copy()
    wrong[3] = 2

    def check(labels, params=PARAMS):
        check_probe(apply, params, Probe(INPUTS, labels, LOSSES[name]))

    with pytest.raises(ValueError, match=r"classes in \[0, 2\) .*; got 2 at example 3"):
        check(labels=wrong)
    jax.jit(lambda y: check(y))(wrong)  # Not known: the caller's.
    check(labels=LABELS)
    with pytest.raises(ValueError, match="got 2 at example 3"):
        jax.jit(lambda p: check(wrong, p))(PARAMS)


def test_labels_that_a_loss_takes_are_left_alone():
    def check(labels, loss):
        check_probe(apply, PARAMS, Probe(INPUTS, labels, loss))

    check(labels=jnp.full(12, -1), loss=masked_cross_entropy)
    check(labels=jnp.full(12, 1000), loss=lambda outputs, y: outputs[:, 0] - y)
    check(labels=jnp.eye(2)[LABELS], loss=squared_error)
    check(labels=jnp.full(12, jnp.nan), loss=lambda outputs, y: outputs[:, 0] * y)


@pytest.mark.parametrize("name", OF_LOSS)
def test_labels_that_are_not_known_make_scores_nan_where_they_are_wrong(name):
    found = jax.jit(lambda y: scored(name, labels=y))(LABELS.at[3].set(7))
    assert all(np.isnan(values).all() for values in found.values())


@pytest.mark.parametrize("name", OF_DATA)
def test_no_rectifier_hides_a_nan(name):
    def rectified(params, inputs):
        hidden = jax.nn.relu(inputs @ params["in"] + params["a"][None])
        hidden = jax.nn.relu(hidden @ params["mid"] + params["b"][None])
        return hidden @ params["out"] + params["c"][None]

    spoilt = PARAMS | {"c": PARAMS["c"].at[0].set(jnp.nan)}
    found = jax.jit(lambda p: scored(name, p, apply=rectified))(spoilt)
    assert all(np.isnan(values).all() for values in found.values())


@jax.jit
def all_of(params, inputs):
    return {name: scored(name, params, inputs=inputs) for name in NAMES}


@pytest.mark.parametrize("dtype", HALVES)
def test_scores_of_half_precision_models_are_those_in_float32(dtype):
    for scale in (300.0, 1e-4):
        params = cast(jax.tree.map(lambda p, s=scale: s * p, PARAMS), dtype)
        half = all_of(params, INPUTS.astype(dtype))
        wide = all_of(cast(params, jnp.float32), INPUTS.astype(dtype).astype(jnp.float32))
        for name, found in half.items():
            for group, values in found.items():
                assert values.dtype == wide[name][group].dtype
                np.testing.assert_allclose(values, wide[name][group], rtol=1e-6, err_msg=name)
        assert (half["magnitude"][next(iter(GROUPS.prunable))] > 0).all()


@jax.jit
def norms_of(params):
    return [scored(name, params) for name in ("magnitude", "group_lasso_norm")]


@pytest.mark.parametrize("scale", [1e25, 1e-25])
def test_norms_are_scores_at_every_scale(scale):
    params = jax.tree.map(lambda p: scale * p, PARAMS)
    for single, double in zip(norms_of(params), norms_of(cast(params, jnp.float64)), strict=True):
        for group, values in single.items():
            assert values.dtype == jnp.float32
            np.testing.assert_allclose(values, double[group], rtol=1e-6)


def test_norms_have_slope_zero_at_zero_nodes():
    zero = jax.tree.map(jnp.zeros_like, PARAMS)
    slopes = jax.jit(jax.grad(lambda p: sum(v.sum() for v in jax.tree.leaves(norms_of(p)))))(zero)
    assert all(not leaf.any() for leaf in jax.tree.leaves(slopes))


def test_a_model_that_insists_on_half_precision_is_scored_in_it():
    def stubborn(params, inputs):
        start = jnp.zeros((len(inputs), 4), jnp.bfloat16)

        def step(carry, _):
            return jnp.tanh(carry + inputs @ params["in"]), None

        return jax.lax.scan(step, start, length=2)[0] @ params["out"]

    params = {"in": jnp.ones((3, 4), jnp.bfloat16), "out": jnp.ones((4, 2), jnp.bfloat16)}
    inputs = INPUTS.astype(jnp.bfloat16)
    groups = find_nodes(lambda p, x: jnp.tanh(x @ p["in"]) @ p["out"], params, inputs)
    found = scores.snip(stubborn, params, groups, Probe(inputs, LABELS, cross_entropy))
    assert all(np.isfinite(values).all() for values in found.values())
