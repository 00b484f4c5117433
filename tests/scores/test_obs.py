# SPDX-License-Identifier: Apache-2.0
"""Errors of the readers' outputs, against least squares in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plprune.nodes import find_nodes
from plprune.pruning import prune
from plprune.scores import Probe, obs

pytestmark = pytest.mark.usefixtures("models_broadcast")
DRAWS = np.random.default_rng(0)
INPUTS = jnp.asarray(DRAWS.normal(size=(40, 4)))
PARAMS = {
    "in": jnp.asarray(DRAWS.normal(size=(4, 6))),
    "out": jnp.asarray(DRAWS.normal(size=(6, 3))),
    "bias": jnp.asarray(DRAWS.normal(size=3)),
}
IMAGES = jnp.asarray(DRAWS.normal(size=(6, 4, 4, 2)))
KERNELS = {
    "k1": jnp.asarray(DRAWS.normal(size=(3, 3, 2, 4))),
    "k2": jnp.asarray(DRAWS.normal(size=(3, 2, 4, 3))),
}


def hidden(params, inputs):
    return jnp.tanh(inputs @ params["in"]) + 1


def apply(params, inputs):
    return hidden(params, inputs) @ params["out"] + params["bias"]


def unbiased(params, inputs):
    return hidden(params, inputs) @ params["out"]


def convolve(x, kernel):
    numbers = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=numbers)


def images(params, inputs):
    return convolve(jax.nn.relu(convolve(inputs, params["k1"])), params["k2"]).mean((1, 2))


def scored(function, params=PARAMS, inputs=INPUTS, **options):
    groups = find_nodes(function, params, inputs)
    (values,) = obs(function, params, groups, Probe(inputs), **options).values()
    return np.asarray(values)


def one_by_one(error, number):
    """Scores of greedy removal, from the error of a set of nodes; they grow, as nodes go."""
    gone, scores = [], np.zeros(number)
    while len(gone) < number:
        left = [k for k in range(number) if k not in gone]
        errors = {k: error([*gone, k]) for k in left}
        gone.append(min(errors, key=errors.get))
        scores[gone[-1]] = max(errors[gone[-1]], scores.max())
    return scores


def refitted(rows, weights, gone):
    """Squared error of the best weights without some rows."""
    left = np.delete(rows, gone, axis=1)
    wanted = rows @ weights
    fit = np.linalg.lstsq(left, wanted, rcond=None)[0]
    return np.sum((wanted - left @ fit) ** 2)


@pytest.mark.parametrize("function", [apply, unbiased])
def test_plain_removal_loses_what_the_nodes_added(function):
    rows, weights = np.asarray(hidden(PARAMS, INPUTS)), np.asarray(PARAMS["out"])

    def error(gone):
        return np.sum((rows[:, gone] @ weights[gone]) ** 2) / np.sum((rows @ weights) ** 2)

    np.testing.assert_allclose(scored(function), one_by_one(error, 6), rtol=1e-9)
    assert len(set(scored(function))) == 6  # Those that go later rank higher, also where they tie.


@pytest.mark.parametrize("function", [apply, unbiased])
def test_with_the_update_it_loses_what_no_weights_can_make_up_for(function):
    rows, weights = np.asarray(hidden(PARAMS, INPUTS)), np.asarray(PARAMS["out"])
    if function is apply:
        rows = rows - rows.mean(0)
    expected = one_by_one(lambda gone: refitted(rows, weights, gone), 6)
    values = scored(function, update=True, damping=1e-9)
    np.testing.assert_allclose(values, expected / np.sum((rows @ weights) ** 2), rtol=1e-5)


def test_windows_of_a_channel_go_together():
    padded = np.asarray(jax.nn.relu(convolve(IMAGES, KERNELS["k1"])))
    padded = np.pad(padded, ((0, 0), (1, 1), (0, 1), (0, 0)))
    windows = np.stack(
        [padded[:, i : i + 4, j : j + 4] for i in range(3) for j in range(2)], axis=-2
    )  # [b, h, w, 6, 4]
    weights = np.asarray(KERNELS["k2"]).reshape(6, 4, 3)
    channels = np.arange(24).reshape(6, 4)

    def error(gone):
        rows = windows.reshape(-1, 24)
        return refitted(rows, weights.reshape(24, 3), channels[:, gone].ravel())

    total = np.sum((windows.reshape(-1, 24) @ weights.reshape(24, 3)) ** 2)
    values = scored(images, KERNELS, IMAGES, update=True, damping=1e-9)
    np.testing.assert_allclose(values, one_by_one(error, 4) / total, rtol=1e-5)
    plain = scored(images, KERNELS, IMAGES)
    first = [
        np.sum(np.einsum("bhwk,ko->bhwo", windows[..., c], weights[:, c]) ** 2) for c in range(4)
    ]
    assert plain.min() == pytest.approx(min(first) / total)
    assert np.argmin(plain) == np.argmin(first)


def test_of_two_that_repeat_each_other_one_is_cheap():
    twice = PARAMS | {"in": PARAMS["in"].at[:, 5].set(PARAMS["in"][:, 0])}
    values = scored(apply, twice, update=True, damping=1e-6)
    assert sorted(values)[0] < 1e-4 < sorted(values)[1]
    assert np.argmin(values) in (0, 5)


def test_a_leaf_that_is_read_twice_counts_all_positions():
    def shared(params, inputs):
        first = jnp.tanh(inputs @ params["in"]) @ params["out"]
        return first + jnp.tanh(2 * inputs @ params["in"]) @ params["out"]

    left, right = (np.tanh(s * np.asarray(INPUTS @ PARAMS["in"])) for s in (1, 2))
    rows, weights = np.concatenate([left, right]), np.asarray(PARAMS["out"])
    own = {name: PARAMS[name] for name in ("in", "out")}
    expected = one_by_one(lambda gone: refitted(rows, weights, gone), 6)
    values = scored(shared, own, update=True, damping=1e-9)
    np.testing.assert_allclose(values, expected / np.sum((rows @ weights) ** 2), rtol=1e-5)


def test_a_matrix_on_the_left_and_heads_read_as_well():
    def heads(params, inputs):
        mixed = jnp.einsum("bi,hik->bhk", inputs, params["in"])
        return jnp.einsum("hko,bhk->bo", params["out"], jnp.tanh(mixed))

    shapes = {"in": (4, 3, 2), "out": (3, 2, 5)}
    params = {n: jnp.asarray(DRAWS.normal(size=s)) for n, s in shapes.items()}
    params["in"] = params["in"].transpose(1, 0, 2)
    groups = find_nodes(heads, params, INPUTS)
    values = obs(heads, params, groups, Probe(INPUTS), update=True, damping=1e-9)
    mixed = np.tanh(np.einsum("bi,hik->bhk", INPUTS, params["in"])).reshape(40, 6)
    weights = np.asarray(params["out"]).reshape(6, 5)
    places = np.arange(6).reshape(3, 2)
    total = np.sum((mixed @ weights) ** 2)
    assert len(values) == 2
    for name in values:
        group = groups[name]
        own = places if group.size == 3 else places.T
        expected = one_by_one(
            lambda g, own=own: refitted(mixed, weights, own[g].ravel()), group.size
        )
        last = expected.argmax()  # Nothing is left to fit with.
        kept = np.arange(group.size) != last
        np.testing.assert_allclose(values[name][kept], expected[kept] / total, rtol=1e-5)


def test_groups_that_are_read_otherwise_are_named():
    def tied(params, inputs):
        return jnp.tanh(jnp.tanh(inputs @ params["w"]) @ params["w"].T) @ params["v"]

    def looped(params, inputs):
        def body(h, _):
            return jnp.tanh(h @ params["w"] @ params["u"]), None

        return jax.lax.scan(body, inputs, length=2)[0] @ params["v"]

    params = {"w": jnp.ones((4, 5)), "v": jnp.ones((4, 2))}
    for function, own, word in (
        (tied, params, "both makes and reads"),
        (looped, params | {"u": jnp.ones((5, 4))}, "u reads it, and not by plain matrix products"),
    ):
        groups = find_nodes(function, own, INPUTS)
        (name,) = (n for n in groups.prunable)
        with pytest.raises(ValueError, match=word) as caught:
            obs(function, own, groups, Probe(INPUTS))
        assert f"exclude=('{name}',)" in str(caught.value)
        assert obs(function, own, groups, Probe(INPUTS), exclude=name) == {}


def test_what_it_cannot_rank_is_left_out_of_prune_as_well():
    def both(params, inputs):
        return apply(params, jnp.tanh(inputs @ params["w"]) @ params["w"].T)

    params = PARAMS | {"w": PARAMS["in"]}
    with pytest.raises(ValueError, match=r"exclude=\('w\.neurons',\)"):
        prune((both, params), INPUTS, keep_fraction=0.5, score="obs")
    small = prune((both, params), INPUTS, keep_fraction=0.5, score="obs", exclude="w.neurons")
    assert {name: int(kept.sum()) for name, kept in small.keep.items()} == {"in": 3}


def test_bad_options_are_refused():
    with pytest.raises(ValueError, match="damping must be above 0, got 0"):
        scored(apply, damping=0.0)
    with pytest.raises(ValueError, match="exclude names 'no'"):
        scored(apply, exclude="no")
