# SPDX-License-Identifier: Apache-2.0
"""Objectives against kernels computed directly, and their slopes against finite differences."""

from functools import cache, partial

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from plprune.functional import functional, stateless
from plprune.gating import (
    Setting,
    log_condition_number,
    log_largest_eigenvalue,
    log_median_ratio,
    log_rank_ratio,
    log_smoothness_ratio,
    log_trace,
    log_trace_ratio,
    with_risk,
)
from plprune.gating.objectives import probe_kernel, safe_log
from plprune.models import MLP
from plprune.nodes import find_nodes
from plprune.nodes.gated_apply import gated
from plprune.spectra import dense
from tests.gating.cases import FIRST, KEY, SECOND
from tests.gating.reference import INPUTS, SETTING, SIGNS, SIZES, WIDE, direct_kernel, mean_loss

TWO = jax.random.rademacher(KEY, (2, 2), jnp.float64)
GATES = {
    name: 0.5 + jax.random.uniform(jax.random.fold_in(KEY, n), (n,), jnp.float64)
    for name, n in SIZES.items()
}


@jax.jit
def direct_hessian(gates):
    flat, unravel = jax.flatten_util.ravel_pytree(WIDE)
    return jax.hessian(lambda v: mean_loss(unravel(v), gates))(flat)


def reference(name, gates):
    signs = {"kappa of 2": TWO, "kappa of outputs": jnp.eye(2)}.get(name, SIGNS[:, None])
    values = np.linalg.eigvalsh(np.asarray(direct_kernel(gates, signs)))
    if name == "smoothness":
        top = np.abs(np.linalg.eigvalsh(np.asarray(direct_hessian(gates)))).max()
        return np.log(top) - np.log(values[:2].mean() / 7)
    return {
        "kappa": np.log(values[-1]) - np.log(values[:2].mean()),
        "kappa of 2": np.log(values[-1]) - np.log(values[:3].mean()),
        "kappa of outputs": np.log(values[-1]) - np.log(values[:3].mean()),
        "median": np.log(values[-1]) - np.log(values[3]),
        "largest": np.log(values[-1]),
        "rank 3": np.log(values[-1]) - np.log(values[-3]),
        "trace": np.log(values.sum()),
        "trace ratio": np.log(values.sum()) - np.log(values[:2].mean()),
        "risk": np.log(values[-1]) + 0.7 * float(mean_loss(WIDE, gates)),
    }[name]


OBJECTIVES = {
    "kappa": log_condition_number(2),
    "kappa of 2": log_condition_number(3, num_combinations=2, num_blocks=2),
    "kappa of outputs": log_condition_number(3, num_combinations=None),
    "median": log_median_ratio(),
    "largest": log_largest_eigenvalue(),
    "rank 3": log_rank_ratio(3),
    "trace": log_trace(),
    "trace ratio": log_trace_ratio(2),
    "risk": with_risk(log_largest_eigenvalue(), weight=0.7),
    "smoothness": log_smoothness_ratio(2, num_products=60),
}


@cache
def value_and_slope(name):
    """``(params, inputs, gates) -> (value, slope)``, compiled once per dtype."""

    def value(gates, params, inputs):
        setting = SETTING._replace(params=params, inputs=inputs)
        return OBJECTIVES[name](setting, gates, gates)

    return jax.jit(lambda params, inputs, gates: jax.value_and_grad(value)(gates, params, inputs))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_slopes_are_finite_differences_of_the_direct_computation(name):
    value, slope = value_and_slope(name)(WIDE, INPUTS, GATES)
    np.testing.assert_allclose(value, reference(name, GATES), rtol=1e-7)
    for group, index in ((FIRST, 0), (FIRST, 5), (SECOND, 2)):
        moved = [
            reference(name, GATES | {group: GATES[group].at[index].add(step)})
            for step in (1e-5, -1e-5)
        ]
        difference = (moved[0] - moved[1]) / 2e-5
        np.testing.assert_allclose(slope[group][index], difference, rtol=1e-4, atol=1e-7)


def test_the_risk_is_taken_at_hard_gates_and_the_objective_at_soft_ones():
    hard = {name: jnp.arange(n) % 2.0 for name, n in SIZES.items()}
    risk = jax.jit(jax.value_and_grad(partial(OBJECTIVES["risk"], SETTING), argnums=(0, 1)))
    value, (slope, slope_of_hard) = risk(GATES, hard)
    largest, slope_of_largest = value_and_slope("largest")(WIDE, INPUTS, GATES)
    loss, slope_of_loss = jax.jit(jax.value_and_grad(lambda g: mean_loss(WIDE, g)))(hard)
    np.testing.assert_allclose(value, largest + 0.7 * loss, rtol=1e-9)
    for name in SIZES:
        np.testing.assert_allclose(slope[name], slope_of_largest[name], rtol=1e-9)
        np.testing.assert_allclose(slope_of_hard[name], 0.7 * slope_of_loss[name], atol=1e-12)


def test_single_precision_slopes_agree_with_double():
    def single(tree):
        return jax.tree.map(lambda a: a.astype(jnp.float32) if a.dtype == jnp.float64 else a, tree)

    arguments = (WIDE, INPUTS, GATES)
    slopes = [value_and_slope("kappa")(*tree)[1] for tree in (arguments, single(arguments))]
    for name in SIZES:
        assert slopes[1][name].dtype == jnp.float32
        np.testing.assert_allclose(slopes[1][name], slopes[0][name], rtol=2e-3, atol=2e-4)


@pytest.mark.usefixtures("models_broadcast")
def test_slopes_on_a_large_kernel_come_from_krylov_spaces(monkeypatch):
    """Beyond 512 rows: values to a hundredth, slopes to an eighth of an exact solver's."""
    solved, krylov = [], dense._by_krylov
    monkeypatch.setattr(dense, "_by_krylov", lambda *a: solved.append(len(a[0])) or krylov(*a))
    model = functional(MLP(8, (40,), 10, rngs=nnx.Rngs(0)))
    apply, inputs = stateless(model), jax.random.normal(KEY, (60, 8))
    params, inputs = jax.tree.map(lambda a: a.astype(jnp.float64), (model.params, inputs))
    groups = find_nodes(apply, params, inputs[:1])
    setting = Setting(gated(apply, groups), params, inputs, None, None, KEY)
    gates = {name: 0.5 + jax.random.uniform(KEY, (40,), jnp.float64) for name in groups.prunable}

    def exact(gates):
        values = jnp.linalg.eigh(probe_kernel(setting, gates, None))[0]
        return jnp.log(values[-1]) - jnp.log(jnp.mean(values[:5]))

    objective = log_condition_number(num_combinations=None)
    value, slope = jax.value_and_grad(lambda g: objective(setting, g, g))(gates)
    expected, direct = jax.value_and_grad(exact)(gates)
    assert set(solved) == {600}
    np.testing.assert_allclose(value, expected, atol=2e-2)
    for name, exact_slope in direct.items():
        error = jnp.linalg.norm(slope[name] - exact_slope)
        assert 0 < error <= 0.13 * jnp.linalg.norm(exact_slope)


def test_kappa_of_a_two_layer_network_without_output_bias_ignores_the_gates_common_scale():
    def two_layers(p, x):
        return jnp.tanh(x @ p["in"]) @ p["out"]

    params = {"in": WIDE["in"], "out": WIDE["mid"][:, :2]}
    groups = find_nodes(two_layers, params, INPUTS)
    (name,) = groups.prunable
    setting = SETTING._replace(model=gated(two_layers, groups), params=params)
    kappa = jax.jit(lambda g: OBJECTIVES["kappa"](setting, g, g))
    once, tripled = (float(kappa({name: scale * GATES[FIRST]})) for scale in (1, 3))
    np.testing.assert_allclose(once, tripled, rtol=1e-9)


def test_dead_models_have_no_slope_and_no_nan():
    dead = jax.tree.map(jnp.zeros_like, WIDE)
    value, slope = value_and_slope("largest")(dead, INPUTS, GATES)
    assert np.isfinite(value)
    assert all(np.isfinite(s).all() for s in slope.values())


def test_safe_log_keeps_the_derivative_below_its_floor():
    value, slope = jax.value_and_grad(partial(safe_log, floor=0.5))(jnp.asarray(0.1))
    np.testing.assert_allclose([value, slope], [np.log(0.5), 2.0])
    value, slope = jax.value_and_grad(safe_log)(jnp.asarray(0.25))
    np.testing.assert_allclose([value, slope], [np.log(0.25), 4.0])


def test_objectives_of_the_loss_ask_for_it():
    bare = SETTING._replace(loss=None)
    for name, text in (("risk", "with_risk needs a loss"), ("smoothness", "log_smoothness_ratio")):
        with pytest.raises(ValueError, match=text):
            OBJECTIVES[name](bare, GATES, GATES)


def test_counts_and_weights_out_of_range_are_refused():
    with pytest.raises(ValueError, match="num_smallest must be at least 1, got 0"):
        log_condition_number(0)
    with pytest.raises(ValueError, match="num_blocks must be at least 1, got 0"):
        log_condition_number(num_blocks=0)
    with pytest.raises(ValueError, match="num_combinations must be at least 1 or None, got 0"):
        log_condition_number(num_combinations=0)
    with pytest.raises(ValueError, match="num_products must be at least 1, got 0"):
        log_smoothness_ratio(num_products=0)
    with pytest.raises(ValueError, match=r"weight must be at least 0, got -1.0"):
        with_risk(log_trace(), weight=-1.0)
    with pytest.raises(ValueError, match="rank must be at least 2, got 1"):
        log_rank_ratio(1)
    with pytest.raises(ValueError, match="rank must be at most the kernel's 7 rows, got 8"):
        log_rank_ratio(8)(SETTING, GATES, GATES)
    with pytest.raises(ValueError, match=r"num_smallest must lie in \[1, 7\], got 8"):
        jax.eval_shape(lambda g: log_condition_number(8)(SETTING, g, g), GATES)


def test_gates_of_a_differential_equation_see_the_kernel_of_its_residual():
    """u'' + u at points of a line: the same objectives on the residual in place of the model."""

    def residual(params, points):
        def at(point):
            def value(x):
                return jnp.tanh(x * params["in"] + params["shift"]) @ params["out"]

            def slope(x):
                return jax.jvp(value, (x,), (jnp.ones_like(x),))[1]

            return jax.jvp(slope, (point,), (jnp.ones_like(point),))[1] + value(point)

        return jax.vmap(at)(points[:, 0])[:, None]

    draws = jax.random.normal(KEY, (3, 6), jnp.float64)
    params = {"in": draws[0], "shift": draws[1], "out": draws[2]}
    points = jnp.linspace(-1.0, 1.0, 5)[:, None]
    groups = find_nodes(residual, params, points)
    ((name, size),) = groups.prunable.items()
    setting = Setting(gated(residual, groups), params, points, None, None, KEY)

    @jax.jit
    def jacobian_at(gates):
        flat, unravel = jax.flatten_util.ravel_pytree(params)
        scaled = lambda v: {**unravel(v), "out": unravel(v)["out"] * gates}  # noqa: E731
        return jax.jacobian(lambda v: residual(scaled(v), points)[:, 0])(flat)

    def dense_ratio(gates):
        jacobian = np.asarray(jacobian_at(gates))
        values = np.linalg.eigvalsh(jacobian @ jacobian.T)
        return np.log(values[-1] / values[-3])

    objective = log_rank_ratio(3)
    gates = 0.5 + np.arange(size) / size
    both = jax.jit(jax.value_and_grad(lambda g: objective(setting, {name: g}, {})))
    found, slopes = both(jnp.asarray(gates))
    np.testing.assert_allclose(found, dense_ratio(gates), rtol=1e-6)
    moved = gates + 1e-5 * np.eye(size)[2]
    change = (dense_ratio(moved) - dense_ratio(2 * gates - moved)) / 2e-5
    np.testing.assert_allclose(slopes[2], change, rtol=1e-4)
