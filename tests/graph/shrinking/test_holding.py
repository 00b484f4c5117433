# SPDX-License-Identifier: Apache-2.0
"""Nodes go although the function divides by their parameters, which masking then leaves alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plprune.nodes import find_nodes, gate, mask, resize, shrink

pytestmark = pytest.mark.usefixtures("models_broadcast")
DRAWS = np.random.default_rng(0)
SHAPES = {"a": (3, 6), "b": (6,), "o": (6, 2), "d": (6,), "e": (6,), "v": (3, 6)}
PARAMS = {name: jnp.asarray(0.5 + DRAWS.random(shape)) for name, shape in SHAPES.items()}
INPUTS = jnp.asarray(DRAWS.normal(size=(4, 5, 3)))


def states(factor):
    """A diagonal recurrence over 5 steps, whose inputs are scaled by a function of the leaves."""

    def apply(p, x):
        def step(h, u):
            return h * jnp.exp(-p["d"]) + u, h

        u = (x @ p["a"]) * factor(p)
        h = jax.lax.scan(step, jnp.zeros((4, 6), u.dtype), jnp.swapaxes(u, 0, 1))[0]
        return jnp.real(h) @ p["o"]

    return apply


def weighted(scaled):
    return lambda p, x: jnp.tanh(x[:, 0] @ scaled(p) + p["b"]) @ p["o"]


CASES = {  # With the leaves that stay.
    "held inputs of a state space": (states(lambda p: (jnp.exp(p["d"]) - 1) / p["d"]), {"d"}),
    "complex eigenvalues": (
        states(lambda p: (lambda z: (jnp.exp(z) - 1) / z)(jax.lax.complex(-p["d"], p["e"]))),
        {"d", "e"},
    ),
    "a logarithm": (states(lambda p: jnp.log(p["d"]) * p["e"]), {"d"}),
    "an inverse scale": (weighted(lambda p: p["a"] / p["d"]), {"d"}),
    "weights over their norm": (
        weighted(lambda p: p["b"] * p["v"] / jnp.linalg.norm(p["v"], axis=0)),
        {"v"},
    ),
    "weights over their norm, unscaled": (
        weighted(lambda p: p["v"] / jnp.linalg.norm(p["v"], axis=0)),
        {"v"},
    ),
    "features over features": (
        lambda p, x: (x[:, 0] @ p["a"] / (x[:, 1] @ p["v"] + 9)) @ p["o"],
        set(),
    ),
    "features over theirs alone": (
        lambda p, x: (x[:, 0] @ p["a"] / (x[:, 1] @ p["v"])) @ p["o"],
        {"v"},
    ),
    "two divisions": (weighted(lambda p: p["a"] / p["d"] / jnp.sqrt(p["e"])), {"d", "e"}),
}


@pytest.mark.parametrize("name", CASES)
def test_masking_spares_what_is_divided_by(name):
    apply, spared = CASES[name]
    groups = find_nodes(apply, PARAMS, INPUTS)
    ((name, size),) = groups.prunable.items()
    keep = {name: np.array([True, False, False, True, True, False])}
    masked = mask(PARAMS, groups, keep)
    assert size == 6
    assert {k for k, x in masked.items() if (x == PARAMS[k]).all() and k in used(groups)} == spared
    expected = apply(masked, INPUTS)
    assert jnp.isfinite(expected).all()
    small = resize(apply, groups, keep)(shrink(PARAMS, groups, keep), INPUTS)
    np.testing.assert_allclose(small, expected, rtol=1e-9)
    gated = gate(PARAMS, groups, {name: jnp.asarray(keep[name], float)})
    np.testing.assert_allclose(apply(gated, INPUTS), expected, rtol=1e-9)


def used(groups):
    return {member.path for group in groups.values() if group.prunable for member in group.members}


REFUSED = {
    "an inverse": lambda p, x: (x[:, 0] @ p["a"] + 1 / p["d"]).sum(1)[:, None],
    "a logarithm of features": lambda p, x: jnp.log(jnp.abs(x[:, 0] @ p["a"])).sum(1)[:, None],
    "an inverse root": lambda p, x: (x[:, 0] @ p["a"] + jax.lax.rsqrt(p["d"])) @ jnp.ones((6, 2)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_other_slice_closes_is_refused(name):
    groups = find_nodes(REFUSED[name], PARAMS, INPUTS)
    assert not groups["a"].prunable
    assert "masking it would divide by zero" in groups["a"].reason
