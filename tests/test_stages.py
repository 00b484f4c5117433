# SPDX-License-Identifier: Apache-2.0
"""Training that closes nodes, from a model to a smaller one in training."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen

from plprune import scores
from plprune.functional import functional_linen
from plprune.losses import cross_entropy
from plprune.nodes import mask, shrink
from plprune.stages import gated_training

pytestmark = pytest.mark.usefixtures("models_broadcast")
KEY = jax.random.key(0)
INPUTS = jax.random.normal(KEY, (12, 4), jnp.float32)
LABELS = jnp.arange(12) % 3


class Net(linen.Module):
    """Two layers with BatchNorm and dropout."""

    @linen.compact
    def __call__(self, x, train=False):
        x = linen.Dense(8, use_bias=False, name="hidden")(x)
        x = jnp.tanh(linen.BatchNorm(use_running_average=not train, name="norm")(x))
        x = linen.Dropout(0.5, deterministic=not train)(x)
        return linen.Dense(3, name="out")(x)


@pytest.fixture(scope="module")
def model():
    variables = jax.jit(Net().init)(KEY, INPUTS)
    return functional_linen(Net(), variables, evaluation={"train": False}, training={"train": True})


def optimizer():
    rate = optax.warmup_cosine_decay_schedule(0.0, 0.1, 2, 20)
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(rate))


@pytest.fixture(scope="module")
def trained(model):
    """Two gated steps: the first has rate 0, so that nothing but closing moves."""
    options = {"keep_fraction": 0.5, "key": KEY, "initial_updates": 1, "probe_size": 6}
    with jax.numpy_rank_promotion("allow"):
        training = gated_training(model, optimizer(), cross_entropy, INPUTS, **options)
        step = jax.jit(training.step)
        first, _ = step(training.train_state, (INPUTS, LABELS))
        second, info = step(first, (INPUTS, LABELS))
    return training, first, second, info


def test_nodes_are_closed_at_once_and_statistics_are_those_of_training(model, trained):
    training, first, second, info = trained
    keep = {name: np.asarray(kept) for name, kept in first.opt_state.keep.items()}
    assert {name: int(kept.sum()) for name, kept in keep.items()} == {"hidden": 4}
    jax.tree.map(
        np.testing.assert_array_equal, first.params, mask(model.params, training.groups, keep)
    )
    rows = INPUTS @ model.params["hidden"]["kernel"]
    mean = first.state["batch_stats"]["norm"]["mean"]
    np.testing.assert_allclose(mean, 0.01 * rows.mean(0), rtol=1e-4, atol=1e-6)
    assert np.isfinite(info.loss)
    assert second.step == 2


def test_what_is_left_trains_as_it_would_have_among_closed_nodes(trained):
    training, _, second, _ = trained
    stage, keep = training.finish(second)
    assert stage.train_state.params["hidden"]["kernel"].shape == (4, 4)
    assert stage.train_state.opt_state[1][0].mu["out"]["kernel"].shape == (4, 3)
    whole, info = jax.jit(training.step)(second, (INPUTS, LABELS))
    small, own = jax.jit(stage.step)(stage.train_state, (INPUTS, LABELS))
    np.testing.assert_allclose(own.loss, info.loss, rtol=1e-5)
    expected = shrink((whole.params, whole.state), training.groups, keep)
    for one, other in zip((small.params, small.state), expected, strict=True):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), one, other
        )
    assert small.step == whole.step == 3


def test_a_score_ranks_in_place_of_the_condition_number(model):
    training = gated_training(
        model, optax.sgd(0.1), cross_entropy, INPUTS, keep_fraction=0.25, key=KEY,
        score=scores.magnitude,
    )  # fmt: skip
    state, _ = jax.jit(training.step)(training.train_state, (INPUTS, LABELS))
    norms = jnp.linalg.norm(model.params["hidden"]["kernel"], axis=0)
    assert set(jnp.flatnonzero(state.opt_state.keep["hidden"]).tolist()) == set(
        jnp.argsort(-norms)[:2].tolist()
    )


def test_options_are_those_of_gating(model):
    def with_options(**options):
        gated_training(model, optax.sgd(0.1), cross_entropy, INPUTS, key=KEY, **options)

    with pytest.raises(ValueError, match="keep_fraction"):
        with_options(keep_fraction=2.0)
    with pytest.raises(ValueError, match="exclude names 'no'"):
        with_options(keep_fraction=0.5, exclude="no")
