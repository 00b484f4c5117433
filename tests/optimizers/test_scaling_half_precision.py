# SPDX-License-Identifier: Apache-2.0
"""Every transformation in half precision and at extreme scales, against itself in a wider dtype."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from plprune.conditions import recording
from plprune.optimizers import (
    adagrad_norm_max,
    dec_sps,
    group_lasso,
    keep_above,
    ngn,
    node_norms,
    nsgd,
    sps_max,
)
from plprune.optimizers.penalties import group_penalty, penalty_factors
from tests.optimizers.test_group_lasso import GROUPS, PARAMS

HALVES = [jnp.bfloat16, jnp.float16]
NORMAL = {k: jax.random.normal(jax.random.key(i), p.shape, jnp.float32)
          for i, (k, p) in enumerate(PARAMS.items())}  # fmt: skip
STEPS = {
    "sps_max": sps_max(max_step_size=1e9),
    "capped": sps_max(max_step_size=1e-7),
    "dec_sps": dec_sps(max_step_size=1e9),
    "ngn": ngn(10.0),
    "adagrad_norm_max": adagrad_norm_max(0.1, initial=1e-3),
    "nsgd": nsgd(0.1),
}
LASSO = {
    "rational": group_lasso(GROUPS, strength=0.1, beta=1e-6),
    "convex": group_lasso(GROUPS, strength=0.1, form="convex", beta=1e-6, slices="members"),
    "proximal": group_lasso(GROUPS, strength=0.1, form="proximal", step_size=0.1),
}


def cast(tree, dtype):
    return jax.tree.map(lambda leaf: leaf.astype(dtype), tree)


def scaled(scale, dtype):
    return cast(jax.tree.map(lambda leaf: scale * leaf, NORMAL), dtype)


def two_updates(tx, gradients, params):
    @jax.jit
    def run(gradients, params):
        tx_ = optax.with_extra_args_support(tx)
        state, updates = tx_.init(params), None
        for _ in range(2):
            updates, state = tx_.update(gradients, state, params, value=jnp.float32(1.0))
        return updates, state

    return run(gradients, params)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("name", [*STEPS, *LASSO])
def test_half_precision_is_the_wide_computation_rounded_once(name, dtype):
    tx = (STEPS | LASSO)[name]
    for scale in (300.0, 1e-4):
        gradients, params = scaled(scale, dtype), scaled(scale, dtype)
        found, _ = two_updates(tx, gradients, params)
        wide, _ = two_updates(tx, cast(gradients, jnp.float32), cast(params, jnp.float32))
        for key, leaf in found.items():
            assert leaf.dtype == dtype
            rounded = wide[key].astype(dtype)
            np.testing.assert_allclose(
                leaf.astype(float), rounded.astype(float), rtol=2 * float(jnp.finfo(dtype).eps)
            )
            if name != "capped":
                assert leaf.astype(float).any()


@pytest.mark.parametrize("name", [*STEPS, *LASSO])
def test_squares_out_of_range_do_not_spoil_steps_that_are_in_range(name):
    tx = (STEPS | LASSO)[name]
    for scale in (1e25, 1e-25):
        single, double = scaled(scale, jnp.float32), cast(scaled(scale, jnp.float32), jnp.float64)
        updates, state = two_updates(tx, single, single)
        expected, expected_state = two_updates(tx, double, double)
        for key, leaf in updates.items():
            assert leaf.dtype == jnp.float32
            np.testing.assert_allclose(leaf, expected[key], rtol=2e-5)
        for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(expected_state), strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-5)


@pytest.mark.parametrize("dtype", HALVES)
def test_node_norms_in_half_precision_choose_what_the_true_norms_choose(dtype):
    for scale in (300.0, 1e-4):
        params = scaled(scale, dtype)
        found, wide = (node_norms(p, GROUPS) for p in (params, cast(params, jnp.float64)))
        for name, norms in found.items():
            assert norms.dtype == dtype
            np.testing.assert_allclose(norms, wide[name].astype(dtype), rtol=1e-2)
            middle = float(jnp.median(wide[name])) * 1.001
            np.testing.assert_array_equal(
                keep_above(params, GROUPS, threshold=middle)[name], wide[name] > middle
            )


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.float32])
def test_zero_nodes_have_zero_slopes(dtype):
    zero = cast(jax.tree.map(jnp.zeros_like, PARAMS), dtype)
    for slices in ("producers", "members"):
        total = lambda p, s=slices: sum(v.sum() for v in node_norms(p, GROUPS, slices=s).values())  # noqa: E731
        assert all(not leaf.any() for leaf in jax.tree.leaves(jax.grad(total)(zero)))
    squares = jnp.array([0.0, 4.0], dtype)
    for form, factor in (("rational", 0.5), ("convex", 0.5)):
        np.testing.assert_allclose(penalty_factors(squares, beta=0.0, form=form), [0, factor])
        slope = jax.grad(lambda s, f=form: group_penalty(s, beta=0.0, form=f))(squares)
        np.testing.assert_allclose(slope, [0, 0.25])


@pytest.mark.parametrize("name", ["sps_max", "dec_sps", "ngn", "adagrad_norm_max", "nsgd"])
def test_a_gradient_that_is_not_a_number_makes_no_step_look_fine(name):
    tx, gradient = STEPS[name], jnp.array([jnp.nan, 1.0], jnp.float32)
    updates, state = tx.update(gradient, tx.init(gradient), value=jnp.float32(1.0))
    assert jnp.isnan(updates).all()
    if hasattr(state, "step_size"):
        assert jnp.isnan(state.step_size)


def test_a_loss_is_one_number_of_any_kind():
    one = jnp.ones(2)
    for tx in (sps_max(), dec_sps(), ngn(1.0)):
        expected = tx.update(one, tx.init(one), value=jnp.ones(()))[0]
        for value in (1.0, 1, np.float32(1), np.ones((1,)), jnp.ones((), jnp.bfloat16)):
            np.testing.assert_array_equal(tx.update(one, tx.init(one), value=value)[0], expected)
        with pytest.raises(ValueError, match=r"value must be .* one number, got shape \(3,\)"):
            tx.update(one, tx.init(one), value=jnp.ones(3))


@pytest.mark.parametrize("dtype", HALVES)
def test_records_of_half_precision_runs_are_taken_in_float32(dtype):
    params = scaled(300.0, dtype)
    reference, gradients = scaled(100.0, dtype), scaled(200.0, dtype)
    tx = recording(optax.sgd(0.1), 1)
    _, state = tx.update(gradients, tx.init(params), params, value=1.2345678, reference=reference)
    p, r, g = (
        np.concatenate([np.ravel(np.asarray(leaf, np.float64)) for leaf in jax.tree.leaves(t)])
        for t in (params, reference, gradients)
    )
    way = p - r
    expected = [g @ way, 1.2345678, np.linalg.norm(g), np.linalg.norm(way)]
    found = [float(line[0]) for line in state.records]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    with pytest.raises(ValueError, match="reference must be a tree like params"):
        tx.update(gradients, tx.init(params), params, value=1.0, reference={"other": params["b1"]})
