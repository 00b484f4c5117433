# SPDX-License-Identifier: Apache-2.0
"""Optimiser states after shrinking have the shapes of fresh ones, or are refused by name."""

import inspect
import warnings
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from plprune.nodes import expand, find_nodes, mask, shrink


def network(p, x):
    return jnp.tanh(x @ p["a"]["kernel"] + p["a"]["bias"]) @ p["o"]["kernel"]


@cache
def model(width):
    shapes = {"a": {"kernel": (width - 1, width), "bias": (width,)}, "o": {"kernel": (width, 3)}}
    params = jax.tree.map(jnp.zeros, shapes, is_leaf=lambda s: isinstance(s, tuple))
    groups = find_nodes(network, params, jnp.zeros((4, width - 1)))
    return params, groups, {"a": np.arange(width) % 2 == 0}


def transformations():
    """All of optax that can be called without arguments, with a rate, or around another."""
    arguments = ((), (1e-3,), (optax.adam(1e-3),), (optax.sgd(0.1, momentum=0.9),))
    for module in (optax, optax.contrib):
        for name, make in inspect.getmembers(module, inspect.isroutine):
            for given in arguments:
                try:
                    transformation = make(*given)
                except Exception:  # Other arguments; not what is tested here.
                    continue
                if isinstance(transformation, optax.GradientTransformation):
                    yield f"{module.__name__}.{name}", transformation
                    break


def attempt(function, *args):
    """What it returns, or the text of its ValueError."""
    try:
        return function(*args), ""
    except ValueError as error:
        return None, str(error)


REFUSED = {"sm3", "scale_by_sm3", "flatten", "lbfgs", "scale_by_lbfgs"}


@pytest.mark.parametrize("width", [6, 130])
def test_every_state_fits_the_small_model_or_is_refused(width):
    params, groups, keep = model(width)
    small, refused, fitting = shrink(params, groups, keep), set(), set()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        everything = list(transformations())
    for name, transformation in everything:
        try:
            state = jax.eval_shape(transformation.init, params)
            fresh = jax.eval_shape(transformation.init, small)
        except Exception:
            continue
        short = name.rpartition(".")[2]
        cut, why = attempt(jax.eval_shape, lambda tree: shrink(tree, groups, keep), state)
        if cut is None:
            assert "init(small parameters)" in why, name
            refused.add(short)
            continue
        assert jax.tree.map(jnp.shape, cut) == jax.tree.map(jnp.shape, fresh), name
        back = jax.eval_shape(lambda tree: expand(tree, groups, keep), cut)
        assert jax.tree.map(jnp.shape, back) == jax.tree.map(jnp.shape, state), name
        fitting.add(short)
    assert refused >= REFUSED
    assert len(refused) <= len(REFUSED) + 5
    assert len(fitting) > 60
    assert {"adamw", "muon", "mechanize", "schedule_free_adamw", "novograd", "prodigy"} <= fitting


def test_flattened_parts_of_the_parameters_are_recognised_by_their_number_of_entries():
    params, groups, keep = model(6)
    labels = {"a": {"kernel": "flat", "bias": "plain"}, "o": {"kernel": "flat"}}
    inner = {"flat": optax.flatten(optax.adam(0.1)), "plain": optax.adam(0.1)}
    state = optax.partition(inner, labels).init(params)
    with pytest.raises(ValueError, match=r"flat.*mu of shape \(48,\) is no parameter"):
        shrink(state, groups, keep)
    with pytest.raises(ValueError, match="is no parameter of the groups"):
        mask(state, groups, keep)


class Unknown(NamedTuple):
    """A state that nobody knows."""

    history: Any
    count: Any


@pytest.mark.parametrize(
    ("history", "derived"),
    [((6,), True), ((10, 6), True), ((36,), True), ((10,), False), ((7, 4), False), ((), False)],
)
def test_arrays_that_have_nothing_to_do_with_nodes_stay(history, derived):
    params, groups, keep = model(6)
    state = (Unknown(jnp.zeros(history), jnp.zeros((), int)), optax.adam(0.1).init(params))
    alone = Unknown(jnp.zeros(history), jnp.zeros((), int))
    if not derived:
        assert shrink(state, groups, keep)[0].history.shape == history
        assert shrink(alone, groups, keep).history.shape == history
        assert mask(alone, groups, keep).history.shape == history
        return
    for tree, name in ((state, "0.history"), (alone, "history")):
        with pytest.raises(ValueError, match=f"leaf {name} of shape .* depends on their nodes"):
            shrink(tree, groups, keep)
    assert shrink(state, groups, {"a": np.ones(6, bool)})[0].history.shape == history


def test_states_without_arrays_of_parameters_stay():
    _, groups, keep = model(6)
    states = [
        optax.EmptyState(),
        optax.chain(optax.clip(1.0), optax.sgd(optax.cosine_decay_schedule(0.1, 9))).init({}),
        optax.add_noise(0.1, 0.5, 0).init({}),
        {"key": jax.random.key(0), "raw": jax.random.PRNGKey(0), "step": 3, "name": "run"},
    ]
    for state in states:
        for function in (shrink, expand, mask):
            result = function(state, groups, keep)
            assert jax.tree.structure(result) == jax.tree.structure(state)
