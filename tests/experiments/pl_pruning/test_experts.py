# SPDX-License-Identifier: Apache-2.0
"""Experts are ranked by what each method minimises: checked by finite differences."""

from dataclasses import replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from experiments.pl_pruning.config import PRESETS, check
from experiments.pl_pruning.gating import ranked_experts
from experiments.pl_pruning.methods import METHODS, Score
from plprune.losses import cross_entropy
from plprune.nodes import find_nodes

REGIME = replace(PRESETS["shakespeare_switch"].regimes[0], risk_weight=0.7)
KEY = jax.random.key(3)
SHAPES = {
    "router": (3, 4), "bias": (4,), "in": (4, 3, 6), "out": (4, 6, 5), "read": (5, 2),
}  # fmt: skip
EXPERT = ("bias", "in", "out")  # First axis; the router's is its second.


def apply(params, state, inputs):
    """Each example takes the expert of its largest probability."""
    del state
    logits = inputs @ params["router"] + params["bias"][None]
    chosen = jax.nn.one_hot(jnp.argmax(logits, -1), 4) * jax.nn.softmax(logits)
    hidden = jnp.tanh(jnp.einsum("bd,edf->bef", inputs, params["in"]))
    outputs = jnp.einsum("bef,efo->beo", hidden, params["out"])
    return jnp.einsum("beo,be->bo", outputs, chosen) @ params["read"]


DRAWS = np.random.default_rng(1)
PARAMS = {name: jnp.asarray(DRAWS.normal(size=shape)) for name, shape in SHAPES.items()}
INPUTS, LABELS = jnp.asarray(DRAWS.normal(size=(9, 3))), jnp.arange(9) % 2
TRAINER = SimpleNamespace(
    net=SimpleNamespace(model=SimpleNamespace(apply=apply)), loss=cross_entropy
)


@pytest.fixture(scope="module")
def dense():
    groups = find_nodes(lambda pair, x: apply(*pair, x), (PARAMS, {}), INPUTS)
    experts = tuple(name for name in groups.prunable if groups[name].kind == "expert")
    assert [groups[name].size for name in experts] == [4]
    return SimpleNamespace(groups=groups, experts=experts)


def at_factors(params, factors):
    """All that computes an expert, times its factor."""
    found = {name: jnp.einsum("e...,e->e...", params[name], factors) for name in EXPERT}
    return params | found | {"router": params["router"] * factors[None]}


def mean_loss(params, factors):
    return jnp.mean(cross_entropy(apply(at_factors(params, factors), {}, INPUTS), LABELS))


@jax.jit
def parts(factors):
    """The kernel of the combination that the key draws, the Hessian and the loss."""
    signs = jax.random.rademacher(KEY, (2,), jnp.float64)
    flat, unravel = ravel_pytree(PARAMS)

    def combined(v):
        return apply(at_factors(unravel(v), factors), {}, INPUTS) @ signs

    jacobian = jax.jacrev(combined)(flat)
    hessian = jax.hessian(lambda v: mean_loss(unravel(v), factors))(flat)
    return jacobian @ jacobian.T, hessian, mean_loss(PARAMS, factors)


def reference(method, factors):
    kernel, hessian, loss = map(np.asarray, parts(factors))
    values = np.linalg.eigvalsh(kernel)
    low, high = np.log(values[:5].mean()), np.log(values[-1])
    return {
        "kappa": high - low,
        "kappa_risk": high - low + 0.7 * loss,
        "lipschitz_mu": np.log(np.abs(np.linalg.eigvalsh(hessian)).max()) - low,
        "lambda_max_only": high,
        "trace_only": np.log(values.sum()),
        "median": high - np.log(values[4]),
    }[method]


NAMES = ("kappa", "kappa_risk", "lipschitz_mu", "lambda_max_only", "trace_only", "median")


@pytest.fixture(scope="module")
def ranked(dense):
    """What every method ranks experts by, compiled at once."""

    @jax.jit
    def ranks(pair, probe):
        rest = REGIME, TRAINER, dense, pair, probe, KEY
        return {name: ranked_experts(METHODS[name].by, *rest) for name in NAMES}

    with jax.numpy_rank_promotion("allow"):
        return ranks((PARAMS, {}), (INPUTS, LABELS))


@pytest.mark.parametrize("method", NAMES)
def test_experts_are_ranked_by_the_slope_of_the_methods_own_objective(ranked, dense, method):
    (name,) = dense.experts
    slopes = []
    for expert in range(4):
        step = 1e-5 * jnp.zeros(4).at[expert].set(1.0)
        ends = [reference(method, jnp.ones(4) + sign * step) for sign in (1, -1)]
        slopes.append((ends[0] - ends[1]) / 2e-5)
    # Twelve products leave the Hessian's norm less exact than the rest.
    rtol, atol = (2e-2, 2e-2) if method == "lipschitz_mu" else (1e-4, 1e-7)
    np.testing.assert_allclose(ranked[method][name], -np.asarray(slopes), rtol=rtol, atol=atol)


def test_no_two_objectives_rank_alike(ranked, dense):
    (name,) = dense.experts
    rows = np.stack([ranked[method][name] for method in NAMES])
    apart = np.abs(rows[:, None] - rows[None]).max(axis=-1)
    assert apart[~np.eye(len(rows), dtype=bool)].min() > 0.05


def test_examples_are_drawn_by_the_key(dense, monkeypatch):
    seen = []

    def score(apply, pair, groups, probe):
        del apply, pair
        seen.append((np.asarray(probe.inputs)[:, 0], np.asarray(probe.labels)))
        return {name: jnp.ones(size) for name, size in groups.prunable.items()}

    monkeypatch.setattr("plprune.scores.seen", score, raising=False)
    rest = Score("plprune.scores:seen"), REGIME, TRAINER, dense, (PARAMS, {})
    many = jnp.tile(jnp.arange(100.0)[:, None], 3), jnp.arange(100)
    for seed in (0, 1, 0):
        ranked_experts(*rest, many, jax.random.key(seed))
    ranked_experts(*rest, (INPUTS, LABELS), KEY)
    for inputs, labels in seen[:3]:
        np.testing.assert_array_equal(inputs, labels)
        assert len(set(labels.tolist())) == 32
    assert set(seen[0][1]) != set(seen[1][1])
    np.testing.assert_array_equal(seen[0][1], seen[2][1])
    np.testing.assert_array_equal(seen[3][0], INPUTS[:, 0])  # No more than there are.


def test_experts_are_not_chosen_while_the_network_trains():
    config = PRESETS["shakespeare_switch"]
    regime = replace(config.regimes[0], period=10, freeze_at=40)
    with pytest.raises(ValueError, match=r"period must be 0 for a network switch, .*got 10 in"):
        check(replace(config, regimes=(regime,)))
