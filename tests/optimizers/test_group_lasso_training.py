# SPDX-License-Identifier: Apache-2.0
"""Group lasso on groups that `find_nodes` found: training, pruning, shrinking, going on."""

import chex
import jax
import jax.numpy as jnp
import optax
import pytest

from plprune.nodes import find_nodes, mask, resize, shrink
from plprune.optimizers import group_lasso, keep_above, node_norms

pytestmark = pytest.mark.usefixtures("models_broadcast")
INPUTS = jax.random.normal(jax.random.key(0), (32, 3))
TARGETS = jnp.maximum(INPUTS @ jnp.array([1.0, -1.0, 0.5]), 0)[:, None]  # One neuron suffices.


def apply(params, inputs):
    hidden = jax.nn.relu(inputs @ params["in"]["w"] + params["in"]["b"])
    return hidden @ params["out"]["w"]


def initial():
    key_in, key_out = jax.random.split(jax.random.key(1))
    return {
        "in": {"w": jax.random.normal(key_in, (3, 12)), "b": jnp.zeros(12)},
        "out": {"w": 0.3 * jax.random.normal(key_out, (12, 1))},
    }


def train(apply, tx, params, state, num_steps):
    def objective(params):
        return jnp.mean(jnp.square(apply(params, INPUTS) - TARGETS))

    def step(carry, _):
        params, state = carry
        updates, state = tx.update(jax.grad(objective)(params), state, params)
        return (optax.apply_updates(params, updates), state), None

    return jax.jit(lambda c: jax.lax.scan(step, c, length=num_steps)[0])((params, state))


FORMS = {
    "rational": (
        lambda groups: optax.chain(
            group_lasso(groups, strength=0.02, beta=1e-4, slices="members"),
            optax.adam(optax.cosine_decay_schedule(0.02, 1500)),
        ),
        {"threshold": 0.02, "slices": "members"},
    ),
    "proximal": (
        lambda groups: optax.chain(
            optax.sgd(0.05), group_lasso(groups, strength=0.05, form="proximal", step_size=0.05)
        ),
        {"threshold": 0.0},
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_trained_nodes_split_in_two_and_pruning_changes_nothing(form):
    groups = find_nodes(apply, initial(), INPUTS)
    make, rule = FORMS[form]
    tx = make(groups)
    params, state = train(apply, tx, initial(), tx.init(initial()), 1500)
    keep = keep_above(params, groups, **rule)
    assert keep.keys() == {"in"}
    assert 1 <= keep["in"].sum() <= 6
    small, small_state = shrink(params, groups, keep), shrink(state, groups, keep)
    small_apply = resize(apply, groups, keep)
    pruned = apply(mask(params, groups, keep), INPUTS)
    chex.assert_trees_all_close(small_apply(small, INPUTS), pruned, rtol=1e-9, atol=1e-12)
    chex.assert_trees_all_close(pruned, apply(params, INPUTS), atol=5e-3)
    # Training goes on with the shrunk state, the regulariser of the new groups included.
    again = make(find_nodes(small_apply, small, INPUTS))
    train(small_apply, again, small, small_state, 2)


def test_plain_training_keeps_every_node():
    groups = find_nodes(apply, initial(), INPUTS)
    tx = optax.adam(optax.cosine_decay_schedule(0.02, 1500))
    params, _ = train(apply, tx, initial(), tx.init(initial()), 1500)
    assert keep_above(params, groups, threshold=0.02, slices="members")["in"].all()


def test_groups_of_a_stateful_model_serve_its_params_alone_and_skip_statistics():
    def stateful(variables, inputs):
        params, state = variables
        hidden = inputs @ params["in"]["w"] + params["in"]["b"]
        return jax.nn.relu(hidden - state["norm"]["mean"]) @ params["out"]["w"]

    pair = initial(), {"norm": {"mean": jnp.full(12, 100.0)}}
    groups = find_nodes(stateful, pair, INPUTS)
    plain = node_norms(initial(), find_nodes(apply, initial(), INPUTS), slices="members")
    for tree in (pair, pair[0]):
        chex.assert_trees_all_close(node_norms(tree, groups, slices="members"), plain)
    tx = group_lasso(groups, strength=1.0, slices="members")
    zeros = jax.tree.map(jnp.zeros_like, pair)
    updates, _ = tx.update(zeros, tx.init(pair), pair)
    assert (updates[1]["norm"]["mean"] == 0).all()
    alone, _ = tx.update(zeros[0], tx.init(pair[0]), pair[0])
    chex.assert_trees_all_close(updates[0], alone)
